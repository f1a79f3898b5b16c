// Total-variation minimisation of the values kept of an image, what `total_variation.py` does step by step with tensors:
//
//   p <- (p + sigma grad z) / max(1, |p + sigma grad z|)
//   z <- (z + tau (w div (2 p - last p) + m x)) / (1 + tau m)
//
// from a start on grids of half the size each, whose pixels are sums over 2 x 2. A step is one sweep over the rows: the
// multiplier of a row needs its own z and that of the row below, neither of which has moved yet; then the row's z moves.
//
// Images are shared among threads and each is worked on alone: the numbers are the same for any number of threads.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <numeric>
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

// A row: the multiplier from its last value, z and the row of z below (null for the last row). The loop runs over whole
// rows, whose length is more often one of whole vectors than one less is; nothing flows over the frame on the right.
template <class Real>
INLINE void project(Real *RESTRICT right, Real *RESTRICT down, const Real *RESTRICT z, const Real *RESTRICT below,
                    int64_t width, Real sigma) {
  if (below) {
    const int64_t last = width - 1;
    const Real corner = down[last] + sigma * (below[last] - z[last]);
    for (int64_t x = 0; x < width; ++x) {
      const Real r = right[x] + sigma * (z[x + 1] - z[x]), d = down[x] + sigma * (below[x] - z[x]);
      const Real square = r * r + d * d, shrink = Real(1) / std::sqrt(square > 1 ? square : Real(1));
      right[x] = r * shrink;
      down[x] = d * shrink;
    }
    right[last] = 0;
    down[last] = std::min(std::max(corner, Real(-1)), Real(1));
  } else {
    for (int64_t x = 0; x < width - 1; ++x) {
      const Real r = right[x] + sigma * (z[x + 1] - z[x]);
      right[x] = std::min(std::max(r, Real(-1)), Real(1));
    }
  }
}

// div p at x of a row; at the end of the row above it `right` is 0.
template <class Real> INLINE Real diverge(const Real *right, const Real *down, const Real *above, int64_t x) {
  return right[x] + down[x] - right[x - 1] - above[x];
}

// z of a row, from div p as it is and as it was; column by column, the square of what it moved is added to `squares`.
template <class Real>
INLINE void move(Real *RESTRICT z, Real *RESTRICT flow, const Real *RESTRICT right, const Real *RESTRICT down,
                 const Real *RESTRICT above, const Real *RESTRICT share, const Real *RESTRICT pull, int64_t width,
                 Real twice_reach, Real *RESTRICT squares) {
  for (int64_t x = 0; x < width; ++x) {
    const Real fresh = diverge(right, down, above, x);
    const Real next = pull[x] + share[x] * (z[x] + twice_reach * (fresh - Real(0.5) * flow[x]));
    if (squares) squares[x] += (next - z[x]) * (next - z[x]);
    z[x] = next;
    flow[x] = fresh;
  }
}

// One plane on one grid: the mask m, m x, z, p, and div p as it was in the last step. Above the first row of p is one of
// zeros; all else is written before it is read.
template <class Real> struct Plane {
  int64_t height = 0, width = 0;
  const Real *kept = nullptr;
  std::unique_ptr<Real[]> mask, data, share, pull, z, rights, downs, flow, row, squares;
  Real *right = nullptr, *down = nullptr;

  void resize(int64_t tall, int64_t wide) {
    height = tall, width = wide;
    for (auto *values : {&data, &share, &pull, &z, &flow}) values->reset(new Real[tall * wide]);
    for (auto *values : {&rights, &downs}) {
      values->reset(new Real[(tall + 1) * wide]);
      std::fill_n(values->get(), wide, Real(0));
    }
    right = rights.get() + wide, down = downs.get() + wide;
    for (auto *values : {&row, &squares}) values->reset(new Real[wide]);
  }
};

template <class Real> INLINE void load(Plane<Real> &plane, Real tau) {
  const int64_t count = plane.height * plane.width;
  const Real *RESTRICT kept = plane.kept, *RESTRICT data = plane.data.get();
  Real *RESTRICT share = plane.share.get(), *RESTRICT pull = plane.pull.get();
  for (int64_t i = 0; i < count; ++i) {
    share[i] = Real(1) / (1 + tau * kept[i]);
    pull[i] = tau * data[i] * share[i];
  }
}

// `steps` steps; the sum of the squares of what the last one moved, if it is asked for. Each step follows the one before
// it a row behind, so that a plane is read from memory once for all of them.
template <class Real> INLINE double run(Plane<Real> &plane, int64_t steps, Real sigma, Real twice_reach, bool asked) {
  const int64_t width = plane.width, height = plane.height;
  Real *squares = plane.squares.get();
  std::fill_n(squares, width, Real(0));
  for (int64_t wave = 0; wave < height + steps - 1; ++wave)
    for (int64_t step = std::max<int64_t>(0, wave - height + 1); step < std::min(steps, wave + 1); ++step) {
      const int64_t y = wave - step;
      Real *z = &plane.z[y * width], *right = &plane.right[y * width], *down = &plane.down[y * width];
      const Real *share = &plane.share[y * width], *pull = &plane.pull[y * width];
      project(right, down, z, y + 1 < height ? z + width : nullptr, width, sigma);
      move(z, &plane.flow[y * width], right, down, down - width, share, pull, width, twice_reach,
           asked && step + 1 == steps ? squares : nullptr);
    }
  return std::accumulate(squares, squares + width, 0.0);
}

// Sums over squares of 2 x 2; those that stick out of the frame have zeros in them.
template <class Real>
INLINE void halve(const Real *RESTRICT fine, int64_t height, int64_t width, Real *RESTRICT coarse, int64_t wide) {
  for (int64_t y = 0; y < height; ++y) {
    const Real *row = fine + y * width;
    Real *to = coarse + y / 2 * wide;
    if (y % 2 == 0) std::fill_n(to, wide, Real(0));
    for (int64_t x = 0; x < width / 2; ++x) to[x] += row[2 * x] + row[2 * x + 1];
    if (width % 2) to[width / 2] += row[width - 1];
  }
}

template <class Real> INLINE void widen(Real *RESTRICT out, const Real *RESTRICT from, int64_t width) {
  for (int64_t x = 0; x < width / 2; ++x) out[2 * x] = out[2 * x + 1] = from[x];
  if (width % 2) out[width - 1] = from[width / 2];
}

// z goes to squares of 2 x 2, within `weight` of the data; p is linear across its edges.
template <class Real> INLINE void refine(const Plane<Real> &coarse, Plane<Real> &fine, Real weight) {
  const int64_t width = fine.width, wide = coarse.width;
  for (int64_t y = 0; y < fine.height; ++y) {
    const int64_t i = y * width, j = y / 2 * wide;
    Real *RESTRICT z = &fine.z[i], *RESTRICT right = &fine.right[i], *RESTRICT half = fine.row.get();
    const Real *data = &fine.data[i], *kept = &fine.kept[i], *from = &coarse.right[j], *down = &coarse.down[j];
    widen(z, &coarse.z[j], width);
    for (int64_t x = 0; x < width; ++x) {
      const Real low = (data[x] - weight) / kept[x], high = (data[x] + weight) / kept[x];
      z[x] = std::min(std::max(z[x], low), high);  // kept 0: no bounds
    }
    half[0] = from[0] / 2;
    for (int64_t x = 1; x < wide; ++x) half[x] = (from[x] + from[x - 1]) / 2;
    for (int64_t x = 0; x < width / 2; ++x) {
      right[2 * x] = half[x];
      right[2 * x + 1] = from[x];
    }
    if (width % 2) right[width - 1] = half[width / 2];
    if (y % 2 == 0)
      for (int64_t x = 0; x < wide; ++x) half[x] = (down[x] + (y ? down[x - wide] : Real(0))) / 2;
    widen(&fine.down[i], y % 2 ? down : half, width);
  }
}

// The grids of an image, the finest first, each with a plane for every channel.
template <class Real> struct Pyramid {
  std::vector<std::vector<Plane<Real>>> levels;

  Pyramid(int64_t channels, int64_t height, int64_t width, int64_t least) {
    for (bool more = true; more; height = (height + 1) / 2, width = (width + 1) / 2) {
      levels.emplace_back(channels);
      for (Plane<Real> &plane : levels.back()) {
        plane.resize(height, width);
        if (levels.size() > 1) plane.mask.reset(new Real[height * width]);  // the finest has the caller's
      }
      more = std::min((height + 1) / 2, (width + 1) / 2) >= least;
    }
  }

  INLINE void start(std::vector<Plane<Real>> &planes) {
    for (Plane<Real> &plane : planes) {
      const int64_t H = plane.height, W = plane.width;
      for (int64_t y = 0; y < H; ++y) plane.right[y * W + W - 1] = 0;
      std::fill_n(&plane.down[(H - 1) * W], W, Real(0));
      Real *RESTRICT flow = plane.flow.get();
      for (int64_t i = 0; i < H * W; ++i) flow[i] = diverge(plane.right, plane.down, plane.down - W, i);
    }
  }

  INLINE void minimise(std::vector<Plane<Real>> &planes, int64_t steps, const Options &options) {
    const Real sigma = Real(1 / (8 * options.reach)), twice = Real(2 * options.reach);
    const double count = double(planes.size()) * planes[0].height * planes[0].width;
    start(planes);
    for (int64_t done = 0; done < steps;) {
      const int64_t some = std::min(options.check, steps - done);
      double moved = 0;
      for (Plane<Real> &plane : planes) moved += run(plane, some, sigma, twice, some == options.check);
      done += some;
      if (some == options.check && std::sqrt(moved / count) <= options.tolerance) return;
    }
  }

  INLINE void solve(const Real *images, const Real *kept, Real *out, const Options &options) {
    const int64_t channels = levels[0].size(), size = levels[0][0].height * levels[0][0].width;
    for (size_t level = 0; level < levels.size(); ++level)
      for (int64_t c = 0; c < channels; ++c) {
        Plane<Real> &plane = levels[level][c];
        if (level == 0) {
          plane.kept = kept + c * size;
          for (int64_t i = 0; i < size; ++i) plane.data[i] = images[c * size + i] * plane.kept[i];
        } else {
          const Plane<Real> &finer = levels[level - 1][c];
          halve(finer.data.get(), finer.height, finer.width, plane.data.get(), plane.width);
          plane.kept = plane.mask.get();
          halve(finer.kept, finer.height, finer.width, plane.mask.get(), plane.width);
        }
        load(plane, Real(options.reach / std::ldexp(options.weight, int(level))));
      }
    for (Plane<Real> &plane : levels.back()) {
      Real sum = 0, weights = 0;
      const int64_t count = plane.height * plane.width;
      for (int64_t i = 0; i < count; ++i) sum += plane.data[i], weights += plane.kept[i];
      std::fill_n(plane.z.get(), count, sum / std::max(weights, Real(1e-6)));
      std::fill_n(plane.right, count, Real(0));
      std::fill_n(plane.down, count, Real(0));
    }
    for (size_t level = levels.size(); level-- > 0;) {
      if (level + 1 < levels.size())
        for (int64_t c = 0; c < channels; ++c)
          refine(levels[level + 1][c], levels[level][c], Real(std::ldexp(options.weight, int(level))));
      minimise(levels[level], level ? std::min(options.steps, options.coarse_steps) : options.steps, options);
    }
    for (int64_t c = 0; c < channels; ++c) std::copy_n(levels[0][c].z.get(), size, out + c * size);
  }
};

FOR_EACH_PROCESSOR void solve(Pyramid<float> &pyramid, const float *image, const float *kept, float *out,
                              const Options &options) {
  pyramid.solve(image, kept, out, options);
}
FOR_EACH_PROCESSOR void solve(Pyramid<double> &pyramid, const double *image, const double *kept, double *out,
                              const Options &options) {
  pyramid.solve(image, kept, out, options);
}

// Pyramids of a size for as many threads. A caller's last ones, unless they are large, are kept for its next call: to get
// so much memory from the system takes as long as several steps.
constexpr int64_t KEPT = int64_t(1) << 20;  // values of images
template <class Real>
std::vector<Pyramid<Real>> &at_hand(size_t threads, int64_t channels, int64_t height, int64_t width, int64_t least) {
  static thread_local std::vector<Pyramid<Real>> pyramids;
  static thread_local std::array<int64_t, 4> made_for;
  const std::array<int64_t, 4> wanted{channels, height, width, least};
  if (made_for != wanted) pyramids.clear();
  made_for = wanted;
  while (pyramids.size() < threads) pyramids.emplace_back(channels, height, width, least);
  return pyramids;
}

template <class Real>
int inpainted(const int64_t *shape, const Real *images, const Real *kept, Real *out, const Options *options) try {
  const int64_t batch = shape[0], size = shape[1] * shape[2] * shape[3];
  const int64_t threads = std::max<int64_t>(1, std::min(options->threads, batch));
  std::vector<Pyramid<Real>> &pyramids = at_hand<Real>(threads, shape[1], shape[2], shape[3], options->least_side);
  std::atomic<int64_t> next{0};
  auto loop = [&](int64_t t) {
    for (int64_t i; (i = next.fetch_add(1)) < batch;)
      solve(pyramids[t], images + i * size, kept + i * size, out + i * size, *options);
  };
  std::vector<std::thread> others;
  others.reserve(threads);
  try {
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(loop, t);
  } catch (const std::system_error &) {  // no more threads to be had: those there are do the work
  }
  loop(0);
  for (std::thread &other : others) other.join();
  if (threads * size > KEPT) pyramids.clear();
  return 0;
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
