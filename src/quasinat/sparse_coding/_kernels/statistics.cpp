// Sufficient statistics of sparse codes z and images x, for the dictionary step:
//
//   correlations[k][j][d] = sum over pixels n of z_k[n + d] z_j[n]    |d| < S on both axes, circular
//   cross[k][c][m]        = sum over pixels n of x_c[n + m] z_k[n]    m in S x S, circular
//
// The entries of an image are sorted by pixel, so that those within reach of an entry are one run in each row: the work is
// one multiplication for each pair of neighbouring entries. Lags with d_y < 0 follow by corr[k][j][d] = corr[j][k][-d].
//
// A few images at a time, so that they stay in cache, go through two phases: each image is laid out; then each filter k
// adds its part of both tables. Threads share the images of the first phase and the filters of the second, so that no two
// write to one place and each sum has one order: the numbers are the same for any number of threads. Sums are double,
// except over a filter's patches in a few images.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

struct Shape {
  int64_t batch, channels, height, width, filters, size;
};

constexpr int64_t PIXELS_AT_A_TIME = 64 * 32 * 32;

// Calls work(i) for 0 <= i < count on several threads; what one throws is thrown once all have ended.
template <class Work> void share(int64_t count, int64_t threads, Work work) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  auto loop = [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < count;) work(i);
    } catch (...) {
      std::lock_guard<std::mutex> hold(guard);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  threads = std::max<int64_t>(1, std::min(threads, count));
  others.reserve(threads);
  try {
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(loop);
  } catch (const std::system_error &) {  // no more threads to be had: those there are do the work
  }
  loop();
  for (std::thread &other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

// Zeroed memory, of which pages that are never touched cost nothing.
struct Zeros {
  explicit Zeros(size_t count) : memory(static_cast<double *>(std::calloc(std::max<size_t>(count, 1), sizeof(double)))) {
    if (!memory) throw std::bad_alloc();
  }
  ~Zeros() { std::free(memory); }
  Zeros(const Zeros &) = delete;
  double *memory;
};

// One image and its codes, laid out for both sums. Each row of codes has its last S - 1 pixels again before its first and
// its first S - 1 again after its last; the image, channels last, has its first rows and columns again at its end.
template <class Real> struct Scene {
  struct Entry {
    int y, x;
    Real value;
  };
  struct Neighbour {
    int where;  // k S (2S-1) - u, u its column in the widened row: its share of a place in a table
    Real value;
  };

  void load(const Shape &shape, const Real *image, const int64_t *places, const Real *of, int64_t count) {
    const int64_t S = shape.size, H = shape.height, W = shape.width, wide = W + 2 * (S - 1), block = S * (2 * S - 1);
    entries.resize(count);
    firsts.assign(shape.filters + 1, 0);
    starts.assign(H * wide + 2, 0);
    const auto each_copy = [&](const Entry &entry, auto visit) {  // u: column of the widened row
      for (int64_t u = (entry.x + S - 1) % W; u < wide; u += W) visit(entry.y * wide + u, u);
    };
    for (int64_t i = 0; i < count; ++i) {
      const int64_t pixel = places[i] % (H * W);
      entries[i] = {int(pixel / W), int(pixel % W), of[i]};
      ++firsts[places[i] / (H * W) + 1];
      each_copy(entries[i], [&](int64_t at, int64_t) { ++starts[at + 2]; });
    }
    for (size_t k = 1; k < firsts.size(); ++k) firsts[k] += firsts[k - 1];
    for (size_t at = 1; at < starts.size(); ++at) starts[at] += starts[at - 1];
    neighbours.resize(starts.back());
    for (int64_t k = 0; k < shape.filters; ++k)
      for (int64_t i = firsts[k]; i < firsts[k + 1]; ++i)
        each_copy(entries[i], [&](int64_t at, int64_t u) {  // moves starts[at + 1] from the run's start to its end
          neighbours[starts[at + 1]++] = {int(k * block - u), entries[i].value};
        });

    const int64_t C = shape.channels, down = H + S - 1, across = W + S - 1;
    pixels.resize(down * across * C);
    energy = 0;
    for (int64_t c = 0; c < C; ++c)
      for (int64_t y = 0; y < down; ++y) {
        const Real *row = image + (c * H + y % H) * W;
        Real *to = &pixels[y * across * C + c];
        for (int64_t x = 0; x < W; ++x) to[x * C] = row[x];
        for (int64_t x = W; x < across; ++x) to[x * C] = to[(x - W) * C];
        if (y < H)
          for (int64_t x = 0; x < W; ++x) energy += double(row[x]) * row[x];
      }
  }

  // Adds z_k[n + d] z_j[n] of one k, all j and the lags with d_y > 0, or d_y = 0 and d_x >= 0, to `table`, K S 2S-1.
  void correlate(const Shape &shape, int64_t k, double *table) const {
    const int64_t S = shape.size, lags = 2 * S - 1, wide = shape.width + 2 * (S - 1);
    for (int64_t i = firsts[k]; i < firsts[k + 1]; ++i) {
      const Entry &entry = entries[i];
      const double value = entry.value;
      int64_t row = entry.y;
      for (int64_t dy = 0; dy < S; ++dy) {
        const int *run = &starts[row * wide + entry.x];
        const int64_t origin = dy * lags + entry.x + lags - 1;
        for (int64_t n = run[0], end = run[dy ? lags : S]; n < end; ++n)
          table[origin + neighbours[n].where] += value * neighbours[n].value;
        row = (row ? row : shape.height) - 1;
      }
    }
  }

  // Adds x_c[n + m] z_k[n] of one k to `table`, S S C.
  void cross(const Shape &shape, int64_t k, Real *__restrict table) const {
    const int64_t C = shape.channels, S = shape.size, line = S * C, stride = (shape.width + S - 1) * C;
    for (int64_t i = firsts[k]; i < firsts[k + 1]; ++i) {
      const Real *patch = &pixels[entries[i].y * stride + entries[i].x * C];
      const Real value = entries[i].value;
      for (int64_t y = 0; y < S; ++y)
        for (int64_t n = 0; n < line; ++n) table[y * line + n] += value * patch[y * stride + n];
    }
  }

  double energy;

 private:
  std::vector<Entry> entries;  // by filter: those of k are firsts[k] .. firsts[k + 1]
  std::vector<int> firsts, starts;  // by widened pixel: those at p are starts[p] .. starts[p + 1]
  std::vector<Neighbour> neighbours;
  std::vector<Real> pixels;
};

template <class Real>
int statistics(const Shape *shape, const Real *images, const int64_t *offsets, const int64_t *places, const Real *values,
               int64_t threads, Real *correlations, Real *cross, double *energy) try {
  const int64_t K = shape->filters, S = shape->size, C = shape->channels, lags = 2 * S - 1, block = S * lags;
  const int64_t pixels = shape->height * shape->width, most = std::max<int64_t>(1, PIXELS_AT_A_TIME / pixels);
  Zeros pairs(K * K * block), patches(K * S * S * C);
  std::vector<Scene<Real>> scenes(std::min(shape->batch, most));
  *energy = 0;
  for (int64_t start = 0; start < shape->batch; start += most) {
    const int64_t count = std::min(most, shape->batch - start);
    share(count, threads, [&](int64_t i) {
      const int64_t from = offsets[start + i], to = offsets[start + i + 1];
      scenes[i].load(*shape, images + (start + i) * C * pixels, places + from, values + from, to - from);
    });
    for (int64_t i = 0; i < count; ++i) *energy += scenes[i].energy;
    share(K, threads, [&](int64_t k) {
      for (int64_t i = 0; i < count; ++i) scenes[i].correlate(*shape, k, pairs.memory + k * K * block);
      std::vector<Real> sums(S * S * C);
      for (int64_t i = 0; i < count; ++i) scenes[i].cross(*shape, k, sums.data());
      for (int64_t n = 0; n < S * S * C; ++n) patches.memory[k * S * S * C + n] += sums[n];
    });
  }
  share(K, threads, [&](int64_t k) {
    for (int64_t j = 0; j < K; ++j) {  // the centre of the lags is the half table's element S - 1
      const double *ours = pairs.memory + (k * K + j) * block + S - 1, *theirs = pairs.memory + (j * K + k) * block + S - 1;
      Real *centre = correlations + (k * K + j) * lags * lags + lags * (S - 1) + S - 1;
      for (int64_t n = 0; n <= lags * (S - 1) + S - 1; ++n) centre[n] = Real(ours[n]);
      for (int64_t n = 1; n <= lags * (S - 1) + S - 1; ++n) centre[-n] = Real(theirs[n]);
    }
    for (int64_t n = 0; n < S * S; ++n)
      for (int64_t c = 0; c < C; ++c) cross[(k * C + c) * S * S + n] = Real(patches.memory[(k * S * S + n) * C + c]);
  });
  return 0;
} catch (const std::exception &) {  // out of memory: nothing may cross into the caller's language
  return 1;
}

}  // namespace

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// The tables of a batch: correlations K K 2S-1 2S-1, cross K C S S, and the energy, the sum of x^2. Image i has the entries
// offsets[i] .. offsets[i + 1], place = (k H + y) W + x, ascending. Returns 1 if memory ran out.
EXPORT int quasinat_statistics_f32(const Shape *shape, const float *images, const int64_t *offsets, const int64_t *places,
                                   const float *values, int64_t threads, float *correlations, float *cross,
                                   double *energy) {
  return statistics(shape, images, offsets, places, values, threads, correlations, cross, energy);
}
EXPORT int quasinat_statistics_f64(const Shape *shape, const double *images, const int64_t *offsets,
                                   const int64_t *places, const double *values, int64_t threads, double *correlations,
                                   double *cross, double *energy) {
  return statistics(shape, images, offsets, places, values, threads, correlations, cross, energy);
}
