// Locally greedy coordinate descent for convolutional sparse coding, and conjugate gradients on a support.
//
// For one image: min over z of 1/2 ||D z - x||^2 + lambda ||z||_1 with D z = sum_k f_k (*) z_k, circular, a filter's
// origin at its first pixel. Two steps alternate:
//
//   scan     b = D^T r at every pixel, r = x - D z: where max_k |b_k| > lambda the pixel's best atom joins the working set
//   descend  passes over the working set, z_j <- soft(z_j |f_j|^2 + <f_j, r>, lambda) / |f_j|^2, keeping r up to date
//
// Only r is kept (never D^T r, as large as all the codes, nor the atoms' correlations), so that all a step touches stays
// in cache at any image size. A scan also gives max |D^T r| and with it a dual feasible point: the duality gap is known.
//
// The image is cut into bands of at least S - 1 rows; bands of equal parity share no pixel, so that threads may take them
// in any order and the numbers are the same for any number of threads.
//
// The body is compiled once for each instruction set (this file includes itself) and chosen at run time. It is plain
// C++17 with the vector extensions of GCC and Clang.
#ifndef QUASINAT_BODY

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace {

struct Shape {
  int64_t batch, channels, height, width, filters, size;
};

struct Options {
  double sparsity, tolerance, inner;  // lambda; duality gap / objective; inner steps' end / largest violation
  int64_t max_steps, passes, threads;
};

// Memory that starts at a cache line: a vector that crosses one costs two loads.
template <class T> struct CacheAligned {
  typedef T value_type;
  CacheAligned() = default;
  template <class U> CacheAligned(const CacheAligned<U> &) {}
  T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), std::align_val_t(64))); }
  void deallocate(T *memory, size_t) { ::operator delete(memory, std::align_val_t(64)); }
  template <class U> bool operator==(const CacheAligned<U> &) const { return true; }
  template <class U> bool operator!=(const CacheAligned<U> &) const { return false; }
};

// One image's codes as sorted (place, value) pairs; place = (k H + y) W + x.
template <class Real> struct Codes {
  std::vector<int64_t> places;
  std::vector<Real> values;
};

// Where codes come from or a support is given: `offsets` has batch + 1 entries.
template <class Real> struct Sparse {
  const int64_t *offsets, *places;
  const Real *values;
};

template <class Real> struct Report {
  Real *reconstruction;
  double *objective, *gap, *violation;
  int64_t *steps, *result, *count, *visits;
};

enum { CONVERGED = 0, MAX_STEPS_REACHED = 1, NOT_FINITE = 2 };

// Threads that work on one image meet here. They spin briefly and then yield: the phases last microseconds.
class Team {
 public:
  explicit Team(int size) : size(size) {}
  void wait() {
    if (size == 1) return;
    const int64_t mine = turn.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived.store(0, std::memory_order_relaxed);
      turn.store(mine + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn.load(std::memory_order_acquire) == mine; ++spins)
      if (spins > 2000) std::this_thread::yield();
  }
  const int size;

 private:
  std::atomic<int64_t> turn{0};
  std::atomic<int> arrived{0};
};

}  // namespace

#define QUASINAT_BODY

#define LEVEL baseline
#define LEVEL_BYTES 16
#define LEVEL_PIXELS 4
#define LEVEL_VECTORS 2
#include "coordinate_descent.cpp"
#undef LEVEL
#undef LEVEL_BYTES
#undef LEVEL_PIXELS
#undef LEVEL_VECTORS

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LEVEL avx2
#define LEVEL_BYTES 32
#define LEVEL_PIXELS 6
#define LEVEL_VECTORS 2
#include "coordinate_descent.cpp"
#undef LEVEL
#undef LEVEL_BYTES
#undef LEVEL_PIXELS
#undef LEVEL_VECTORS
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define LEVEL avx512
#define LEVEL_BYTES 64
#define LEVEL_PIXELS 4
#define LEVEL_VECTORS 4
#include "coordinate_descent.cpp"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

int level_of_this_machine() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

std::atomic<int> level{level_of_this_machine()};

template <class Real>
void *solve(const Shape *shape, const Real *images, const Real *filters, const Options *options,
            const Sparse<Real> *start, const Report<Real> *report) try {
#if defined(__x86_64__)
  if (level == 2) return avx512::solve_batch(*shape, images, filters, *options, *start, *report);
  if (level == 1) return avx2::solve_batch(*shape, images, filters, *options, *start, *report);
#endif
  return baseline::solve_batch(*shape, images, filters, *options, *start, *report);
} catch (const std::exception &) {  // out of memory: nothing may cross into the caller's language
  return nullptr;
}

template <class Real> void take(void *handle, int64_t *places, Real *values) {
  std::unique_ptr<std::vector<Codes<Real>>> all(static_cast<std::vector<Codes<Real>> *>(handle));
  for (const Codes<Real> &codes : *all) {
    places = std::copy(codes.places.begin(), codes.places.end(), places);
    values = std::copy(codes.values.begin(), codes.values.end(), values);
  }
}

template <class Real>
int span(const Shape *shape, const Real *images, const Real *filters, const Options *options,
         const Sparse<Real> *support, Real *projected, Real *coefficients, int64_t *steps) try {
#if defined(__x86_64__)
  if (level == 2)
    return avx512::span_batch(*shape, images, filters, *options, *support, projected, coefficients, steps);
  if (level == 1) return avx2::span_batch(*shape, images, filters, *options, *support, projected, coefficients, steps);
#endif
  return baseline::span_batch(*shape, images, filters, *options, *support, projected, coefficients, steps);
} catch (const std::exception &) {
  return 1;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// 0 baseline, 1 AVX2, 2 AVX-512; a level that this machine lacks is refused.
EXPORT int quasinat_level() { return level; }
EXPORT int quasinat_set_level(int wanted) {
  if (wanted >= 0 && wanted <= level_of_this_machine()) level = wanted;
  return level;
}

// Solves a batch. Returns a handle of the codes, to be given to `take` once, or null if memory ran out.
EXPORT void *quasinat_solve_f32(const Shape *shape, const float *images, const float *filters, const Options *options,
                                const Sparse<float> *start, const Report<float> *report) {
  return solve(shape, images, filters, options, start, report);
}
EXPORT void *quasinat_solve_f64(const Shape *shape, const double *images, const double *filters, const Options *options,
                                const Sparse<double> *start, const Report<double> *report) {
  return solve(shape, images, filters, options, start, report);
}

// Copies the codes of all images, one after the other, and frees the handle.
EXPORT void quasinat_take_f32(void *handle, int64_t *places, float *values) { take(handle, places, values); }
EXPORT void quasinat_take_f64(void *handle, int64_t *places, double *values) { take(handle, places, values); }

// Orthogonal projection of images on the span of a support's atoms, and its coefficients; 1 if memory ran out.
EXPORT int quasinat_span_f32(const Shape *shape, const float *images, const float *filters, const Options *options,
                             const Sparse<float> *support, float *projected, float *coefficients, int64_t *steps) {
  return span(shape, images, filters, options, support, projected, coefficients, steps);
}
EXPORT int quasinat_span_f64(const Shape *shape, const double *images, const double *filters, const Options *options,
                             const Sparse<double> *support, double *projected, double *coefficients, int64_t *steps) {
  return span(shape, images, filters, options, support, projected, coefficients, steps);
}

#else  // QUASINAT_BODY: everything below stands once in the namespace of each level.

namespace {
namespace LEVEL {

template <class Real, int BYTES> struct VectorOf {
  typedef Real type __attribute__((vector_size(BYTES), aligned(sizeof(Real)), may_alias));
};

// The filters in two orders: rows of an atom for the descent, all atoms' values of a tap for the scan.
template <class Real> struct Bank {
  static constexpr int LANES = LEVEL_BYTES / sizeof(Real), ROW = 32 / sizeof(Real);
  int channels, filters, size, row, rows_stride, padded;
  std::vector<Real, CacheAligned<Real>> atoms, taps;
  std::vector<Real> energy;

  Bank(const Shape &shape, const Real *source)
      : channels(shape.channels), filters(shape.filters), size(shape.size), row(size * channels),
        rows_stride((row + ROW - 1) / ROW * ROW), padded((filters + LANES - 1) / LANES * LANES),
        atoms(size_t(filters) * size * rows_stride), taps(size_t(size) * row * padded), energy(filters) {
    for (int k = 0; k < filters; ++k)
      for (int c = 0; c < channels; ++c)
        for (int y = 0; y < size; ++y)
          for (int x = 0; x < size; ++x) {
            const Real f = *source++;
            atoms[(size_t(k) * size + y) * rows_stride + x * channels + c] = f;
            taps[(size_t(y) * row + x * channels + c) * padded + k] = f;
            energy[k] += f * f;
          }
  }
  const Real *atom(int k) const { return &atoms[size_t(k) * size * rows_stride]; }
};

// An image, channels last, with what lies behind its edges. Atoms are read from pixels up to S - 1 rows below and right
// of the image, where its first rows and columns stand again; further margins take what is written past those.
template <class Real> struct Canvas {
  int height, width, channels, margin;
  int64_t stride;
  std::vector<Real> pixels;

  explicit Canvas(const Shape &shape)
      : height(shape.height), width(shape.width), channels(shape.channels), margin(shape.size - 1),
        stride((width + 3 * margin + LEVEL_PIXELS) * channels + 64), pixels(size_t(height + 3 * margin + 1) * stride) {}
  ALWAYS_INLINE Real *at(int y, int x) { return &pixels[(y + margin) * stride + int64_t(x + margin) * channels]; }
  void clear() { std::fill(pixels.begin(), pixels.end(), Real(0)); }
  void load(const Real *image) {
    clear();
    for (int c = 0; c < channels; ++c)
      for (int y = 0; y < height + margin; ++y)
        for (int x = 0; x < width + margin; ++x)
          at(y, x)[c] = image[(int64_t(c) * height + y % height) * width + x % width];
  }
  double dot(Canvas &other, int first, int last) {
    double sum = 0;
    for (int y = first; y < last; ++y) {
      const Real *a = at(y, 0), *b = other.at(y, 0);
      Real line = 0;
      for (int x = 0; x < width * channels; ++x) line += a[x] * b[x];
      sum += line;
    }
    return sum;
  }
};

template <class Real> struct Entry {
  int y, x, k;
  bool inside;  // touches no pixel that stands twice
  Real value;
};

// <f, r> of one atom; ROWS vectors a row, or any number of them for 0.
template <class Real, int ROWS> ALWAYS_INLINE Real inner(const Bank<Real> &bank, const Real *atom, const Real *r, int64_t stride) {
  typedef typename VectorOf<Real, 32>::type Row;
  constexpr int WIDE = ROWS ? ROWS : 1;
  const int vectors = ROWS ? ROWS : bank.rows_stride / Bank<Real>::ROW;
  Row sum[WIDE] = {};
  for (int y = 0; y < bank.size; ++y, atom += bank.rows_stride, r += stride)
    for (int v = 0; v < vectors; ++v)
      sum[v % WIDE] += *reinterpret_cast<const Row *>(atom + v * Bank<Real>::ROW) *
                       *reinterpret_cast<const Row *>(r + v * Bank<Real>::ROW);
  for (int v = 1; v < WIDE; ++v) sum[0] += sum[v];
  Real total = 0;
  for (int i = 0; i < Bank<Real>::ROW; ++i) total += sum[0][i];
  return total;
}

// r += step f.
template <class Real, int ROWS> ALWAYS_INLINE void add(const Bank<Real> &bank, const Real *atom, Real *r, int64_t stride, Real step) {
  typedef typename VectorOf<Real, 32>::type Row;
  const int vectors = ROWS ? ROWS : bank.rows_stride / Bank<Real>::ROW;
  const Row steps = Row{} + step;
  for (int y = 0; y < bank.size; ++y, atom += bank.rows_stride, r += stride)
    for (int v = 0; v < vectors; ++v)
      *reinterpret_cast<Row *>(r + v * Bank<Real>::ROW) += steps * *reinterpret_cast<const Row *>(atom + v * Bank<Real>::ROW);
}

// r += step f wherever the atom's pixels stand.
template <class Real, int ROWS> ALWAYS_INLINE void place(const Bank<Real> &bank, Canvas<Real> &canvas, const Entry<Real> &entry, Real step) {
  const Real *atom = bank.atom(entry.k);
  add<Real, ROWS>(bank, atom, canvas.at(entry.y, entry.x), canvas.stride, step);
  if (entry.inside) return;
  int rows[3] = {entry.y}, columns[3] = {entry.x}, down = 1, across = 1;
  if (entry.y < canvas.margin) rows[down++] = entry.y + canvas.height;
  if (entry.y > canvas.height - bank.size) rows[down++] = entry.y - canvas.height;
  if (entry.x < canvas.margin) columns[across++] = entry.x + canvas.width;
  if (entry.x > canvas.width - bank.size) columns[across++] = entry.x - canvas.width;
  for (int i = 0; i < down; ++i)
    for (int j = (i == 0); j < across; ++j)
      add<Real, ROWS>(bank, atom, canvas.at(rows[i], columns[j]), canvas.stride, step);
}

template <class Real> Entry<Real> entry_at(const Shape &shape, int64_t place, Real value) {
  const int x = place % shape.width, y = place / shape.width % shape.height, k = place / (shape.width * shape.height);
  const int edge = shape.size - 1;
  const bool inside = y >= edge && y <= shape.height - shape.size && x >= edge && x <= shape.width - shape.size;
  return {y, x, k, inside, value};
}

template <class Real> int64_t place_of(const Shape &shape, const Entry<Real> &entry) {
  return (int64_t(entry.k) * shape.height + entry.y) * shape.width + entry.x;
}

// The largest |<f_k, r>| over k and which k it is, at LEVEL_PIXELS neighbouring pixels: a small matrix product.
template <class Real, int V> ALWAYS_INLINE void strongest(const Bank<Real> &bank, const Real *r, int64_t stride, int first, Real *best, int *which) {
  typedef typename VectorOf<Real, LEVEL_BYTES>::type Vector;
  constexpr int P = LEVEL_PIXELS, LANES = Bank<Real>::LANES;
  Vector sum[P][V] = {};
  const Real *tap = &bank.taps[first];
  for (int y = 0; y < bank.size; ++y, r += stride)
    for (int t = 0; t < bank.row; ++t, tap += bank.padded) {
      Vector f[V];
      for (int v = 0; v < V; ++v) f[v] = *reinterpret_cast<const Vector *>(tap + v * LANES);
      for (int p = 0; p < P; ++p) {
        const Vector value = Vector{} + r[t + p * bank.channels];
        for (int v = 0; v < V; ++v) sum[p][v] += f[v] * value;
      }
    }
  for (int p = 0; p < P; ++p) {
    Vector top = Vector{};
    for (int v = 0; v < V; ++v) {
      sum[p][v] = sum[p][v] < 0 ? -sum[p][v] : sum[p][v];
      top = sum[p][v] > top ? sum[p][v] : top;
    }
    Real largest = top[0];
    for (int i = 1; i < LANES; ++i) largest = top[i] > largest ? top[i] : largest;
    if (!(largest > best[p])) continue;
    best[p] = largest;
    for (int v = V - 1; v >= 0; --v)
      for (int i = LANES - 1; i >= 0; --i)
        if (sum[p][v][i] == largest) which[p] = first + v * LANES + i;
  }
}

template <class Real> struct Band {
  int first, last;
  std::vector<Entry<Real>> entries;
  double energy, explained, l1, violation, step;
  int64_t visits;  // of entries, by the descent
  Real peak;
  bool finite;
};

// One image being solved by the threads of a team; each runs `run` and they part the bands among them.
template <class Real, int ROWS> class Solver {
 public:
  Solver(const Shape &shape, const Bank<Real> &bank, const Options &options, int threads)
      : team(threads), shape(shape), bank(bank), options(options), lambda(options.sparsity), x(shape), r(shape),
        newest(shape.height * shape.width) {
    // As many bands as may be, an even number of at least max(8, S - 1) rows each; or one.
    const int rows = shape.height, least = std::max<int>(8, shape.size - 1), count = rows / least / 2 * 2;
    bands.resize(std::max(count, 1));
    for (size_t b = 0; b < bands.size(); ++b) {
      bands[b].first = rows * b / bands.size();
      bands[b].last = rows * (b + 1) / bands.size();
    }
  }

  // Before `run`: the image and the codes to start from.
  void load(const Real *image, const Sparse<Real> &start, int64_t index) {
    x.load(image);
    r.pixels = x.pixels;
    for (Band<Real> &band : bands) band.entries.clear(), band.visits = 0;
    if (!start.offsets) return;
    for (int64_t i = start.offsets[index]; i < start.offsets[index + 1]; ++i) {
      const Entry<Real> entry = entry_at(shape, start.places[i], start.values[i]);
      if (entry.value == 0) continue;
      band_of(entry.y).entries.push_back(entry);
      place<Real, ROWS>(bank, r, entry, -entry.value);
    }
  }

  void run(int thread) {
    for (int64_t step = 0;; ++step) {
      for (size_t b = thread; b < bands.size(); b += team.size) scan(bands[b]);
      team.wait();
      const Summary now = summary();  // every thread works it out alike
      if (thread == 0) last = now, steps = step;
      if (!now.finite || now.gap <= options.tolerance * now.objective || step == options.max_steps) break;
      const double enough = options.inner * (now.peak - lambda);
      for (int64_t pass = 0; pass < options.passes; ++pass) {
        for (size_t parity = 0; parity < 2; ++parity) {
          for (size_t b = parity + 2 * thread; b < bands.size(); b += 2 * team.size) descend(bands[b]);
          team.wait();
        }
        double largest = 0;
        for (const Band<Real> &band : bands) largest = std::max(largest, band.step);
        team.wait();  // all have read `step` before the next pass writes it
        if (!(largest > enough)) break;
      }
    }
  }

  // After `run`: the answer.
  Codes<Real> answer(const Report<Real> &report, int64_t index) {
    std::vector<std::pair<int64_t, Real>> found;
    for (const Band<Real> &band : bands)
      for (const Entry<Real> &entry : band.entries)
        if (entry.value != 0) found.emplace_back(place_of(shape, entry), entry.value);
    std::sort(found.begin(), found.end());
    Codes<Real> codes;
    for (const auto &[place, value] : found) codes.places.push_back(place), codes.values.push_back(value);
    Real *out = report.reconstruction + index * shape.channels * shape.height * shape.width;
    for (int64_t c = 0; c < shape.channels; ++c)
      for (int64_t y = 0; y < shape.height; ++y)
        for (int64_t i = 0; i < shape.width; ++i) *out++ = x.at(y, i)[c] - r.at(y, i)[c];
    report.objective[index] = last.objective;
    report.gap[index] = last.gap;
    report.violation[index] = last.violation / lambda;
    report.steps[index] = steps;
    report.visits[index] = 0;
    for (const Band<Real> &band : bands) report.visits[index] += band.visits;
    report.count[index] = codes.places.size();
    report.result[index] = !last.finite                                           ? NOT_FINITE
                           : last.gap <= options.tolerance * last.objective ? CONVERGED
                                                                            : MAX_STEPS_REACHED;
    return codes;
  }

  Team team;

 private:
  struct Summary {
    double objective, gap, peak, violation;
    bool finite;
  };

  Band<Real> &band_of(int y) {
    size_t b = size_t(y) * bands.size() / shape.height;
    while (y >= bands[b].last) ++b;
    while (y < bands[b].first) --b;
    return bands[b];
  }

  // Which atoms violate |D^T r| <= lambda most, pixel by pixel; what the duality gap needs; the codes' own violations.
  void scan(Band<Real> &band) {
    constexpr int P = LEVEL_PIXELS, V = LEVEL_VECTORS, LANES = Bank<Real>::LANES;
    std::fill(&newest[band.first * shape.width], &newest[0] + band.last * shape.width, -1);
    std::vector<Entry<Real>> &entries = band.entries;
    entries.erase(std::remove_if(entries.begin(), entries.end(), [](const Entry<Real> &e) { return e.value == 0; }),
                  entries.end());
    std::vector<int> before(entries.size());
    band.violation = band.l1 = band.explained = 0;
    for (size_t e = 0; e < entries.size(); ++e) {
      const Entry<Real> &entry = entries[e];
      int &newest_here = newest[entry.y * shape.width + entry.x];
      before[e] = newest_here;
      newest_here = e;
      const Real b = inner<Real, ROWS>(bank, bank.atom(entry.k), r.at(entry.y, entry.x), r.stride);
      band.violation = std::max(band.violation, double(std::abs(b - (entry.value > 0 ? lambda : -lambda))));
      band.l1 += std::abs(entry.value);
      band.explained += double(b) * entry.value;
    }
    band.peak = 0;
    for (int y = band.first; y < band.last; ++y)
      for (int first = 0; first < shape.width; first += P) {
        Real best[P] = {};
        int which[P] = {};
        int k = 0;
        for (; k + V * LANES <= bank.padded; k += V * LANES) strongest<Real, V>(bank, r.at(y, first), r.stride, k, best, which);
        for (; k < bank.padded; k += LANES) strongest<Real, 1>(bank, r.at(y, first), r.stride, k, best, which);
        for (int p = 0; p < std::min<int>(P, shape.width - first); ++p) {
          band.peak = std::max(band.peak, best[p]);
          if (!(best[p] > lambda)) continue;
          int e = newest[y * shape.width + first + p];
          while (e >= 0 && entries[e].k != which[p]) e = before[e];
          if (e < 0) entries.push_back(entry_at(shape, (int64_t(which[p]) * shape.height + y) * shape.width + first + p, Real(0)));
        }
      }
    band.energy = r.dot(r, band.first, band.last);
    band.finite = std::isfinite(band.energy) && std::isfinite(band.l1) && std::isfinite(band.violation);
  }

  // s r is dual feasible for |s| <= lambda / max |D^T r|; its gap, 1/2 (1 - s)^2 |r|^2 + sum (lambda |z| - s z D^T r), is
  // written with terms that are not negative, so that nothing is lost to a difference of large numbers.
  Summary summary() const {
    double energy = 0, explained = 0, l1 = 0, peak = 0, violation = 0;
    bool finite = true;
    for (const Band<Real> &band : bands) {
      energy += band.energy, explained += band.explained, l1 += band.l1;
      peak = std::max(peak, double(band.peak)), violation = std::max(violation, band.violation);
      finite = finite && band.finite;
    }
    const double objective = energy / 2 + lambda * l1;
    const double limit = peak > lambda ? lambda / peak : 1, best = energy > 0 ? 1 + explained / energy : 1;
    const double s = std::max(-limit, std::min(limit, best));
    const double gap = (1 - s) * (1 - s) * energy / 2 + std::max(lambda * l1 - s * explained, 0.0);
    return {objective, gap, peak, std::max(violation, peak - lambda), finite};
  }

  // One pass over a band's working set.
  void descend(Band<Real> &band) {
    double largest = 0;
    band.visits += band.entries.size();
    for (Entry<Real> &entry : band.entries) {
      const Real energy = bank.energy[entry.k];
      const Real b = entry.value * energy + inner<Real, ROWS>(bank, bank.atom(entry.k), r.at(entry.y, entry.x), r.stride);
      const Real value = (b > lambda ? b - lambda : b < -lambda ? b + lambda : 0) / energy, change = value - entry.value;
      if (change == 0) continue;
      largest = std::max(largest, double(std::abs(change) * energy));
      entry.value = value;
      place<Real, ROWS>(bank, r, entry, -change);
    }
    band.step = largest;
  }

  const Shape &shape;
  const Bank<Real> &bank;
  const Options &options;
  const Real lambda;
  Canvas<Real> x, r;
  std::vector<int> newest;  // at each pixel the newest of its entries, -1 for none
  std::vector<Band<Real>> bands;
  Summary last{};
  int64_t steps = 0;
};

// Calls work(index, slot) for every image, `threads` at a time; what one throws is thrown once all have ended.
template <class Work> void for_each_image(int64_t batch, int threads, Work work) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  auto loop = [&](int slot) {
    try {
      for (int64_t index; (index = next.fetch_add(1)) < batch;) work(index, slot);
    } catch (...) {
      std::lock_guard<std::mutex> hold(guard);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int slot = 1; slot < threads; ++slot) others.emplace_back(loop, slot);
  loop(0);
  for (std::thread &other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

template <class Real, int ROWS>
void *solve_with(const Shape &shape, const Real *images, const Real *filters, const Options &options,
                 const Sparse<Real> &start, const Report<Real> &report) {
  const Bank<Real> bank(shape, filters);
  auto codes = std::make_unique<std::vector<Codes<Real>>>(shape.batch);
  const int64_t pixels = shape.channels * shape.height * shape.width;
  const int threads = std::max<int64_t>(1, options.threads);
  const bool apart = shape.batch >= threads;  // an image for each thread; else all threads on one image after the other
  const int teams = apart ? threads : 1, each = apart ? 1 : threads;
  std::vector<std::unique_ptr<Solver<Real, ROWS>>> solvers;
  for (int t = 0; t < teams; ++t) solvers.push_back(std::make_unique<Solver<Real, ROWS>>(shape, bank, options, each));
  for_each_image(shape.batch, teams, [&](int64_t index, int slot) {
    Solver<Real, ROWS> &solver = *solvers[slot];
    solver.load(images + index * pixels, start, index);
    std::vector<std::thread> others;
    for (int t = 1; t < each; ++t) others.emplace_back([&solver, t] { solver.run(t); });
    solver.run(0);
    for (std::thread &other : others) other.join();
    (*codes)[index] = solver.answer(report, index);
  });
  return codes.release();
}

template <class Real>
void *solve_batch(const Shape &shape, const Real *images, const Real *filters, const Options &options,
                  const Sparse<Real> &start, const Report<Real> &report) {
  const int64_t vectors = (shape.size * shape.channels * int64_t(sizeof(Real)) + 31) / 32;
  switch (vectors) {
    case 1: return solve_with<Real, 1>(shape, images, filters, options, start, report);
    case 2: return solve_with<Real, 2>(shape, images, filters, options, start, report);
    case 3: return solve_with<Real, 3>(shape, images, filters, options, start, report);
    default: return solve_with<Real, 0>(shape, images, filters, options, start, report);
  }
}

// min over w of |D_S w - g|^2 by conjugate gradients on the normal equations (CGLS), S the support.
template <class Real, int ROWS>
int64_t span_one(const Shape &shape, const Bank<Real> &bank, const Options &options, Canvas<Real> &g, Canvas<Real> &q,
                 const int64_t *places, int64_t count, Real *coefficients) {
  std::vector<Entry<Real>> direction;
  std::vector<Real> s(count);
  const auto correlate = [&] {
    double norm = 0;
    for (int64_t i = 0; i < count; ++i) {
      s[i] = inner<Real, ROWS>(bank, bank.atom(direction[i].k), g.at(direction[i].y, direction[i].x), g.stride);
      norm += double(s[i]) * s[i];
    }
    return norm;
  };
  for (int64_t i = 0; i < count; ++i) direction.push_back(entry_at(shape, places[i], Real(0))), coefficients[i] = 0;
  double norm = correlate();
  const double enough = options.tolerance * options.tolerance * norm;
  for (int64_t i = 0; i < count; ++i) direction[i].value = s[i];
  int64_t step = 0;
  for (; step < options.max_steps && norm > enough; ++step) {
    q.clear();
    for (const Entry<Real> &entry : direction) place<Real, ROWS>(bank, q, entry, entry.value);
    const double length = q.dot(q, 0, shape.height);
    if (!(length > 0)) break;
    const Real alpha = norm / length;
    for (int64_t i = 0; i < count; ++i) coefficients[i] += alpha * direction[i].value;
    for (size_t i = 0; i < g.pixels.size(); ++i) g.pixels[i] -= alpha * q.pixels[i];
    const double before = norm;
    norm = correlate();
    for (int64_t i = 0; i < count; ++i) direction[i].value = s[i] + Real(norm / before) * direction[i].value;
  }
  return step;
}

template <class Real, int ROWS>
int span_with(const Shape &shape, const Real *images, const Real *filters, const Options &options,
              const Sparse<Real> &support, Real *projected, Real *coefficients, int64_t *steps) {
  const Bank<Real> bank(shape, filters);
  const int64_t pixels = shape.channels * shape.height * shape.width;
  const int threads = std::max<int64_t>(1, std::min(options.threads, shape.batch));
  std::vector<Canvas<Real>> residuals(threads, Canvas<Real>(shape)), products = residuals;
  for_each_image(shape.batch, threads, [&](int64_t index, int slot) {
    Canvas<Real> &g = residuals[slot];
    const Real *image = images + index * pixels;
    Real *out = projected + index * pixels;
    g.load(image);
    const int64_t first = support.offsets[index], count = support.offsets[index + 1] - first;
    steps[index] = span_one<Real, ROWS>(shape, bank, options, g, products[slot], support.places + first, count, coefficients + first);
    for (int64_t c = 0; c < shape.channels; ++c)
      for (int64_t y = 0; y < shape.height; ++y)
        for (int64_t i = 0; i < shape.width; ++i) *out++ = *image++ - g.at(y, i)[c];
  });
  return 0;
}

template <class Real>
int span_batch(const Shape &shape, const Real *images, const Real *filters, const Options &options,
               const Sparse<Real> &support, Real *projected, Real *coefficients, int64_t *steps) {
  const int64_t vectors = (shape.size * shape.channels * int64_t(sizeof(Real)) + 31) / 32;
  switch (vectors) {
    case 1: return span_with<Real, 1>(shape, images, filters, options, support, projected, coefficients, steps);
    case 2: return span_with<Real, 2>(shape, images, filters, options, support, projected, coefficients, steps);
    case 3: return span_with<Real, 3>(shape, images, filters, options, support, projected, coefficients, steps);
    default: return span_with<Real, 0>(shape, images, filters, options, support, projected, coefficients, steps);
  }
}

}  // namespace LEVEL
}  // namespace

#endif
