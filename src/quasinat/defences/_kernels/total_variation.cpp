// Total-variation minimisation of the values kept of an image, what `total_variation.py` does step by step with tensors:
//
//   p <- (p + sigma grad z) / max(1, |p + sigma grad z|)
//   z <- (z + tau (w div (2 p - last p) + m x)) / (1 + tau m)
//
// from a start on grids of half the size each, whose pixels are sums over 2 x 2. A step is one sweep over the rows: the
// multiplier of a row needs its own z and that of the row below, neither of which has moved yet; then the row's z moves.
// A plane's numbers stay in cache for as many steps as are made between two looks at the image's change.
//
// Images are shared among threads and each is worked on alone: the numbers are the same for any number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__GNUC__) && defined(__x86_64__) && defined(__linux__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#define INLINE inline __attribute__((always_inline))
#else  // the compiler makes one form
#define FOR_EACH_PROCESSOR
#define INLINE inline
#endif
#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#define RESTRICT __restrict
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#define RESTRICT __restrict__
#endif

namespace {

struct Options {  // reach is tau w, the same on every grid
  double weight, reach, tolerance;
  int64_t steps, coarse_steps, check, least_side, threads;
};

// A row: the multiplier from its last value, z and the row of z below (null for the last row).
template <class Real>
INLINE void project(Real *RESTRICT right, Real *RESTRICT down, const Real *RESTRICT z, const Real *RESTRICT below,
                    int64_t width, Real sigma) {
  if (below)
    for (int64_t x = 0; x < width - 1; ++x) {
      const Real r = right[x] + sigma * (z[x + 1] - z[x]), d = down[x] + sigma * (below[x] - z[x]);
      const Real square = r * r + d * d, shrink = Real(1) / std::sqrt(square > 1 ? square : Real(1));
      right[x] = r * shrink;
      down[x] = d * shrink;
    }
  else
    for (int64_t x = 0; x < width - 1; ++x) {
      const Real r = right[x] + sigma * (z[x + 1] - z[x]);
      right[x] = std::min(std::max(r, Real(-1)), Real(1));
    }
  if (below) {
    const Real d = down[width - 1] + sigma * (below[width - 1] - z[width - 1]);
    down[width - 1] = std::min(std::max(d, Real(-1)), Real(1));
  }
}

// div p of a row, `above` the row of `down` above it (null for the first).
template <class Real>
INLINE void diverge(Real *RESTRICT out, const Real *RESTRICT right, const Real *RESTRICT down,
                    const Real *RESTRICT above, int64_t width) {
  out[0] = right[0] + down[0];
  for (int64_t x = 1; x < width; ++x) out[x] = right[x] + down[x] - right[x - 1];
  if (above)
    for (int64_t x = 0; x < width; ++x) out[x] -= above[x];
}

// One plane on one grid: the mask m, m x, z, p, and div p as it was in the last step.
template <class Real> struct Plane {
  int64_t height = 0, width = 0;
  std::vector<Real> kept, data, share, pull, z, right, down, flow, row;

  void resize(int64_t tall, int64_t wide) {
    height = tall, width = wide;
    for (auto *values : {&kept, &data, &share, &pull, &z, &right, &down, &flow}) values->resize(tall * wide);
    row.resize(wide);
  }
};

template <class Real> INLINE void load(Plane<Real> &plane, Real tau) {
  const int64_t count = plane.height * plane.width;
  const Real *RESTRICT kept = plane.kept.data(), *RESTRICT data = plane.data.data();
  Real *RESTRICT share = plane.share.data(), *RESTRICT pull = plane.pull.data();
  for (int64_t i = 0; i < count; ++i) {
    share[i] = Real(1) / (1 + tau * kept[i]);
    pull[i] = tau * data[i] * share[i];
  }
}

// `steps` steps; the sum of the squares of what the last one moved.
template <class Real> INLINE double run(Plane<Real> &plane, int64_t steps, Real sigma, Real twice_reach) {
  const int64_t width = plane.width, height = plane.height;
  double moved = 0;
  for (int64_t step = 1; step <= steps; ++step)
    for (int64_t y = 0; y < height; ++y) {
      Real *z = &plane.z[y * width], *right = &plane.right[y * width], *down = &plane.down[y * width];
      Real *RESTRICT flow = &plane.flow[y * width], *RESTRICT fresh = plane.row.data();
      const Real *share = &plane.share[y * width], *pull = &plane.pull[y * width];
      project(right, down, z, y + 1 < height ? z + width : nullptr, width, sigma);
      diverge(fresh, right, down, y ? down - width : nullptr, width);
      if (step < steps) {
        for (int64_t x = 0; x < width; ++x) {
          z[x] = pull[x] + share[x] * (z[x] + twice_reach * (fresh[x] - Real(0.5) * flow[x]));
          flow[x] = fresh[x];
        }
        continue;
      }
      for (int64_t x = 0; x < width; ++x) {
        const Real next = pull[x] + share[x] * (z[x] + twice_reach * (fresh[x] - Real(0.5) * flow[x]));
        flow[x] = fresh[x];
        fresh[x] = next - z[x];
        z[x] = next;
      }
      for (int64_t x = 0; x < width; ++x) moved += double(fresh[x]) * fresh[x];
    }
  return moved;
}

FOR_EACH_PROCESSOR double run_f(Plane<float> &plane, int64_t steps, float sigma, float twice_reach) {
  return run(plane, steps, sigma, twice_reach);
}
FOR_EACH_PROCESSOR double run_d(Plane<double> &plane, int64_t steps, double sigma, double twice_reach) {
  return run(plane, steps, sigma, twice_reach);
}
FOR_EACH_PROCESSOR void load_f(Plane<float> &plane, float tau) { load(plane, tau); }
FOR_EACH_PROCESSOR void load_d(Plane<double> &plane, double tau) { load(plane, tau); }
double run_for(Plane<float> &plane, int64_t steps, float sigma, float reach) { return run_f(plane, steps, sigma, reach); }
double run_for(Plane<double> &plane, int64_t steps, double sigma, double reach) {
  return run_d(plane, steps, sigma, reach);
}
void load_for(Plane<float> &plane, float tau) { load_f(plane, tau); }
void load_for(Plane<double> &plane, double tau) { load_d(plane, tau); }

template <class Real> void halve(const std::vector<Real> &fine, Plane<Real> const &of, std::vector<Real> &coarse, int64_t wide) {
  const int64_t H = of.height, W = of.width;
  std::fill(coarse.begin(), coarse.end(), Real(0));
  for (int64_t y = 0; y < H; ++y) {
    const Real *row = &fine[y * W];
    Real *to = &coarse[y / 2 * wide];
    for (int64_t x = 0; x + 1 < W; x += 2) to[x / 2] += row[x] + row[x + 1];
    if (W % 2) to[W / 2] += row[W - 1];
  }
}

// z goes to squares of 2 x 2, within `weight` of the data; p is linear across its edges.
template <class Real> void refine(const Plane<Real> &coarse, Plane<Real> &fine, Real weight) {
  const int64_t H = fine.height, W = fine.width, wide = coarse.width;
  for (int64_t y = 0; y < H; ++y)
    for (int64_t x = 0; x < W; ++x) {
      const int64_t i = y * W + x, j = y / 2 * wide + x / 2;
      const Real low = (fine.data[i] - weight) / fine.kept[i], high = (fine.data[i] + weight) / fine.kept[i];
      fine.z[i] = std::min(std::max(coarse.z[j], low), high);  // kept 0: no bounds
      fine.right[i] = x % 2 ? coarse.right[j] : (coarse.right[j] + (x ? coarse.right[j - 1] : Real(0))) / 2;
      fine.down[i] = y % 2 ? coarse.down[j] : (coarse.down[j] + (y > 1 ? coarse.down[j - wide] : Real(0))) / 2;
    }
}

// The grids of an image, the finest first, each with a plane for every channel.
template <class Real> struct Pyramid {
  std::vector<std::vector<Plane<Real>>> levels;

  Pyramid(int64_t channels, int64_t height, int64_t width, int64_t least) {
    for (bool more = true; more; height = (height + 1) / 2, width = (width + 1) / 2) {
      levels.emplace_back(channels);
      for (Plane<Real> &plane : levels.back()) plane.resize(height, width);
      more = std::min((height + 1) / 2, (width + 1) / 2) >= least;
    }
  }

  void start(std::vector<Plane<Real>> &planes) {
    for (Plane<Real> &plane : planes) {
      const int64_t H = plane.height, W = plane.width;
      for (int64_t y = 0; y < H; ++y) plane.right[y * W + W - 1] = 0;
      std::fill_n(&plane.down[(H - 1) * W], W, Real(0));
      for (int64_t y = 0; y < H; ++y)
        diverge(&plane.flow[y * W], &plane.right[y * W], &plane.down[y * W], y ? &plane.down[(y - 1) * W] : nullptr, W);
    }
  }

  void minimise(std::vector<Plane<Real>> &planes, int64_t steps, const Options &options) {
    const Real sigma = Real(1 / (8 * options.reach)), twice = Real(2 * options.reach);
    const double count = double(planes.size()) * planes[0].height * planes[0].width;
    start(planes);
    for (int64_t done = 0; done < steps;) {
      const int64_t some = std::min(options.check, steps - done);
      double moved = 0;
      for (Plane<Real> &plane : planes) moved += run_for(plane, some, sigma, twice);
      done += some;
      if (some == options.check && std::sqrt(moved / count) <= options.tolerance) return;
    }
  }

  void solve(const Real *images, const Real *kept, Real *out, const Options &options) {
    const int64_t channels = levels[0].size(), size = levels[0][0].height * levels[0][0].width;
    for (size_t level = 0; level < levels.size(); ++level)
      for (int64_t c = 0; c < channels; ++c) {
        Plane<Real> &plane = levels[level][c];
        if (level == 0) {
          std::copy_n(kept + c * size, size, plane.kept.begin());
          for (int64_t i = 0; i < size; ++i) plane.data[i] = images[c * size + i] * plane.kept[i];
        } else {
          const Plane<Real> &finer = levels[level - 1][c];
          halve(finer.data, finer, plane.data, plane.width);
          halve(finer.kept, finer, plane.kept, plane.width);
        }
        load_for(plane, Real(options.reach / std::ldexp(options.weight, int(level))));
      }
    for (Plane<Real> &plane : levels.back()) {
      Real sum = 0, weights = 0;
      for (Real value : plane.data) sum += value;
      for (Real value : plane.kept) weights += value;
      std::fill(plane.z.begin(), plane.z.end(), sum / std::max(weights, Real(1e-6)));
      std::fill(plane.right.begin(), plane.right.end(), Real(0));
      std::fill(plane.down.begin(), plane.down.end(), Real(0));
    }
    for (size_t level = levels.size(); level-- > 0;) {
      if (level + 1 < levels.size())
        for (int64_t c = 0; c < channels; ++c)
          refine(levels[level + 1][c], levels[level][c], Real(std::ldexp(options.weight, int(level))));
      minimise(levels[level], level ? std::min(options.steps, options.coarse_steps) : options.steps, options);
    }
    for (int64_t c = 0; c < channels; ++c) std::copy_n(levels[0][c].z.begin(), size, out + c * size);
  }
};

template <class Real>
int inpainted(const int64_t *shape, const Real *images, const Real *kept, Real *out, const Options *options) try {
  const int64_t batch = shape[0], size = shape[1] * shape[2] * shape[3];
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  auto loop = [&] {
    try {
      Pyramid<Real> pyramid(shape[1], shape[2], shape[3], options->least_side);
      for (int64_t i; (i = next.fetch_add(1)) < batch;) pyramid.solve(images + i * size, kept + i * size, out + i * size, *options);
    } catch (const std::exception &) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  const int64_t threads = std::max<int64_t>(1, std::min(options->threads, batch));
  others.reserve(threads);
  try {
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(loop);
  } catch (const std::system_error &) {  // no more threads to be had: those there are do the work
  }
  loop();
  for (std::thread &other : others) other.join();
  return failed;
} catch (const std::exception &) {  // out of memory: nothing may cross into the caller's language
  return 1;
}

}  // namespace

// The minimiser for images and masks `B C H W`; returns 1 if memory ran out.
EXPORT int quasinat_total_variation_f32(const int64_t *shape, const float *images, const float *kept, float *out,
                                        const Options *options) {
  return inpainted(shape, images, kept, out, options);
}
EXPORT int quasinat_total_variation_f64(const int64_t *shape, const double *images, const double *kept, double *out,
                                        const Options *options) {
  return inpainted(shape, images, kept, out, options);
}
