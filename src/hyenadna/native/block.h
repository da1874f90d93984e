// One block of order 2, channel-last, in cache-sized chunks of positions and groups of 16 channels.
//
// Letters: B sequences, L positions, D channels, I inner width, K taps, F filter width; rows are
// positions of all sequences. A group's three projected channel runs x0, x1, v lie side by side: 48
// columns. The affine part of a norm is folded into the matrix that follows it.
#pragma once

#include "fft.h"
#include "gemm.h"
#include "pool.h"

#include <algorithm>

constexpr long RUNS = 3 * LANES; // x0, x1, v of a group
constexpr long MOST_TAPS = 16;
constexpr long CHUNK = 96;          // rows of a chunk: a multiple of all tile heights
constexpr long SLABS = 16;          // partial sums of weight gradients: fixed, so that the result
constexpr long SLAB_ROWS = 512;     // does not depend on the number of threads
constexpr long SHARED_CELLS = 1L << 17; // from here on all threads work on one transform
constexpr double SERIAL_FLOPS = 2e7;    // less is done before another thread has woken up

// Sizes of a call; `from` and `count` choose a block of channels.
struct Shape {
  int64_t B, L, D, I, K, F, from, count;
  double eps;
  int64_t threads;
  long rows() const { return B * L; }
  long groups() const { return count / LANES; }
};

// Pointers to the weights as torch keeps them: see model/engine/weights.py.
template <class T> struct Weights {
  const T *norm1_w, *norm1_b, *in_w, *in_b, *short_w, *short_b, *last_w, *skip, *out_w, *out_b,
      *norm2_w, *norm2_b, *fc1_w, *fc1_b, *fc2_w, *fc2_b;
};

inline long divide_up(long a, long b) { return (a + b - 1) / b; }
inline int useful_threads(long threads, double flops) {
  return flops < SERIAL_FLOPS ? 1 : (int)threads;
}
// Rows of a chunk so that all threads have some.
inline long chunk_rows(long rows, int threads) {
  const long share = divide_up(divide_up(rows, threads), 24) * 24;
  return std::max<long>(24, std::min(CHUNK, share));
}

// out = (x - mean) / sqrt(var + eps); returns 1 / sqrt(var + eps).
template <class T> INLINE T normalise(const T *x, long d, T eps, T *out) {
  Vec<T> sum{}, square{};
  for (long j = 0; j < d; j += LANES) sum += load(x + j);
  const T mean = sum_lanes<T>(sum) / T(d);
  for (long j = 0; j < d; j += LANES) {
    const Vec<T> c = load(x + j) - mean;
    square += c * c;
  }
  const T rstd = T(1) / std::sqrt(sum_lanes<T>(square) / T(d) + eps);
  for (long j = 0; j < d; j += LANES) store(out + j, (load(x + j) - mean) * rstd);
  return rstd;
}

// Adds to grad the gradient of x, given that of its normalised row n.
template <class T> INLINE void normalise_back(const T *n, T rstd, const T *grad_n, long d, T *grad) {
  Vec<T> sum{}, dot{};
  for (long j = 0; j < d; j += LANES) {
    const Vec<T> g = load(grad_n + j);
    sum += g;
    dot += g * load(n + j);
  }
  const T mean = sum_lanes<T>(sum) / T(d), along = sum_lanes<T>(dot) / T(d);
  for (long j = 0; j < d; j += LANES)
    store(grad + j,
          load(grad + j) + (load(grad_n + j) - mean - load(n + j) * along) * rstd);
}

template <class T> INLINE void add_rows(const T *x, long row, long rows, long width, T *sum) {
  for (long j = 0; j < width; j += LANES) {
    Vec<T> s{};
    for (long r = 0; r < rows; r++) s += load(x + r * row + j);
    store(sum + j, load(sum + j) + s);
  }
}

// Matrix `w` (width, depth) as torch keeps it, times a norm's weight, packed; and its bias with the
// norm's bias folded in.
template <class T> struct Folded {
  std::vector<T> matrix, bias;
  Packed<T> packed;
  Folded(const T *w, const T *b, const T *norm_w, const T *norm_b, long width, long depth)
      : matrix(width * depth), bias(width), packed{matrix.data(), depth, width} {
    std::vector<T> scaled;
    if (norm_w) {
      scaled.resize(width * depth);
      for (long i = 0; i < width; i++) {
        T sum = b[i];
        for (long j = 0; j < depth; j++) {
          scaled[i * depth + j] = w[i * depth + j] * norm_w[j];
          sum += w[i * depth + j] * norm_b[j];
        }
        bias[i] = sum;
      }
    } else {
      std::copy(b, b + width, bias.begin());
    }
    pack(norm_w ? scaled.data() : w, 1, depth, depth, width, matrix.data());
  }
};

// The same matrix for the backward pass: (width, depth) with rows as they are.
template <class T>
std::vector<T> packed_back(const T *w, const T *norm_w, long width, long depth) {
  std::vector<T> scaled, out(width * depth);
  if (norm_w) {
    scaled.resize(width * depth);
    for (long i = 0; i < width; i++)
      for (long j = 0; j < depth; j++) scaled[i * depth + j] = w[i * depth + j] * norm_w[j];
  }
  pack(norm_w ? scaled.data() : w, depth, 1, width, depth, out.data());
  return out;
}

// Projection and short filter of a block of channels, one group after the other.
template <class T> class Projection {
public:
  long groups, d, taps;
  std::vector<T> matrix;     // per group (D, 48) packed
  std::vector<T> back;       // per group (48, D) packed
  std::vector<T> bias;       // per group 48
  std::vector<T> short_taps; // per group (K + 1, 48): taps, then the bias

  Projection(const Shape &s, const Weights<T> &w, bool backward)
      : groups(s.groups()), d(s.D), taps(s.K), matrix(groups * RUNS * d),
        back(backward ? groups * RUNS * d : 0), bias(groups * RUNS),
        short_taps(groups * (taps + 1) * RUNS) {
    std::vector<T> rows(RUNS * d);
    for (long g = 0; g < groups; g++) {
      for (long c = 0; c < RUNS; c++) {
        const long source = (c / LANES) * d + s.from + g * LANES + c % LANES;
        T sum = w.in_b[source];
        for (long j = 0; j < d; j++) {
          rows[c * d + j] = w.in_w[source * d + j] * w.norm1_w[j];
          sum += w.in_w[source * d + j] * w.norm1_b[j];
        }
        bias[g * RUNS + c] = sum;
        for (long k = 0; k < taps; k++)
          short_taps[(g * (taps + 1) + k) * RUNS + c] = w.short_w[source * taps + k];
        short_taps[(g * (taps + 1) + taps) * RUNS + c] = w.short_b[source];
      }
      pack(rows.data(), 1, d, d, RUNS, matrix.data() + g * RUNS * d);
      if (backward) pack(rows.data(), d, 1, RUNS, d, back.data() + g * RUNS * d);
    }
  }

  // p (rows, 48) = n (rows, D) times the group's matrix, plus bias.
  void project(long g, long rows, const T *n, long n_row, T *p) const {
    const Packed<T> m{matrix.data() + g * RUNS * d, d, RUNS};
    multiply(rows, n, n_row, m, p, RUNS);
    for (int run = 0; run < 3; run++) {
      const Vec<T> b = load(bias.data() + g * RUNS + run * LANES);
      for (long r = 0; r < rows; r++) {
        T *at = p + r * RUNS + run * LANES;
        store(at, load(at) + b);
      }
    }
  }

  // The short filter's output at a row of p: x0, x1, v. `before` rows of p precede it.
  INLINE void filtered(long g, const T *p, long before, Vec<T> *out) const {
    const T *w = short_taps.data() + g * (taps + 1) * RUNS;
    const long back_to = std::min(before, taps - 1);
#pragma GCC unroll 3
    for (int run = 0; run < 3; run++) out[run] = load(w + taps * RUNS + run * LANES);
    for (long back = 0; back <= back_to; back++)
#pragma GCC unroll 3
      for (int run = 0; run < 3; run++)
        out[run] += load(w + (taps - 1 - back) * RUNS + run * LANES) *
                    load(p - back * RUNS + run * LANES);
  }
};

// --- spectrum of the filters ---------------------------------------------------------------------

// out (groups, N, 2, 16): transform of the filters, divided by N.
template <class T>
void make_spectrum(const Shape &s, const T *hidden, const T *last_w, const T *skip, const T *t,
                   const T *rates, double shift, T *out) {
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, F = s.F;
  auto fill = [&](long g, const T *matrix, long from, long to) {
    const long first = s.from + g * LANES;
    const Vec<T> rate = load(rates + first), one = splat(T(1) / T(n));
    T *z = out + g * n * CELL<T>;
    scratch().reserve((CHUNK * LANES + 64) * sizeof(T));
    T *k = scratch().take<T>(CHUNK * LANES);
    for (long at = from; at < to; at += CHUNK) {
      const long rows = std::min(CHUNK, to - at);
      multiply(rows, hidden + at * F, F, Packed<T>{matrix, F, LANES}, k, (long)LANES);
      for (long r = 0; r < rows; r++) {
        const long lag = at + r;
        Vec<T> value =
            load(k + r * LANES) * (exp_lanes<T>(rate * splat(-t[lag])) + splat(T(shift)));
        if (lag == 0) value += load(skip + first);
        put(z + lag * CELL<T>, fft->twisted(value * one, lag));
      }
    }
  };
  std::vector<T> matrices(s.count * F);
  for (long g = 0; g < s.groups(); g++)
    pack(last_w + (s.from + g * LANES) * F, 1, F, F, (long)LANES, matrices.data() + g * LANES * F);
  const bool shared = n >= SHARED_CELLS;
  auto zero_rest = [&](long g) {
    T *z = out + g * n * CELL<T>;
    std::fill(z + s.L * CELL<T>, z + n * CELL<T>, T(0));
  };
  if (!shared) {
    const int threads = useful_threads(s.threads, (double)s.count * s.L * (2 * F + 60));
    pool().run(s.groups(), threads, [&](long g) {
      fill(g, matrices.data() + g * LANES * F, 0, s.L);
      zero_rest(g);
      T *z[1] = {out + g * n * CELL<T>};
      fft->template run<true, false, 1>(z, 1, [](long, long) {});
    });
    return;
  }
  for (long g = 0; g < s.groups(); g++) {
    const long parts = divide_up(s.L, 64 * CHUNK);
    pool().run(parts, s.threads, [&](long i) {
      fill(g, matrices.data() + g * LANES * F, i * 64 * CHUNK,
           std::min(s.L, (i + 1) * 64 * CHUNK));
    });
    zero_rest(g);
    T *z[1] = {out + g * n * CELL<T>};
    fft->template run<true, false, 1>(z, s.threads, [](long, long) {});
  }
}

// --- mixer, forward ------------------------------------------------------------------------------

// Fills gated (B, groups, L, 16) with v x1, and the block's columns of y (B, L, D) with x0.
template <class T>
void project_and_gate(const Shape &s, const Weights<T> &w, const T *h, T *gated, T *y) {
  const Projection<T> projection(s, w, false);
  const int threads = useful_threads(s.threads, 2.0 * s.rows() * s.D * RUNS * projection.groups);
  const long halo = s.K - 1;
  const long step = std::max<long>(1, std::max(chunk_rows(s.L, s.B < threads ? threads : 1), 2 * halo) - halo);
  const long chunks = divide_up(s.L, step);
  const long n_row = s.D + LANES, G = projection.groups;
  pool().run(s.B * chunks, threads, [&](long task) {
    const long b = task / chunks, from = task % chunks * step, to = std::min(s.L, from + step);
    const long before = std::min(from, halo), rows = to - from + before;
    scratch().reserve((rows * (n_row + RUNS) + 256) * sizeof(T));
    T *n = scratch().take<T>(rows * n_row), *p = scratch().take<T>(rows * RUNS);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (b * s.L + from - before + r) * s.D, s.D, (T)s.eps, n + r * n_row);
    for (long g = 0; g < G; g++) {
      projection.project(g, rows, n, n_row, p);
      T *out = gated + ((b * G + g) * s.L + from) * LANES;
      T *gate = y + (b * s.L + from) * s.D + s.from + g * LANES;
      for (long r = before; r < rows; r++) {
        Vec<T> x[3];
        projection.filtered(g, p + r * RUNS, r, x);
        store(out + (r - before) * LANES, x[1] * x[2]);
        store(gate + (r - before) * s.D, x[0]);
      }
    }
  });
}

// The block's columns of y: times the long convolution of `gated`.
template <class T> void convolve(const Shape &s, const T *gated, const T *spectrum, T *y) {
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, G = s.groups();
  auto one = [&](long b, long g, T *z, int threads) {
    const T *in = gated + (b * G + g) * s.L * LANES;
    T *out = y + b * s.L * s.D + s.from + g * LANES;
    const T *k = spectrum + g * n * CELL<T>;
    const long parts = threads > 1 ? 8 * threads : 1;
    pool().run(parts, threads, [&](long i) {
      const Range range = piece(n, parts, i);
      for (long t = range.start; t < range.stop; t++)
        put(z + t * CELL<T>, t < s.L ? fft->twisted(load(in + t * LANES), t) : Complex<T>{});
    });
    T *arrays[1] = {z};
    fft->template run<true, true, 1>(arrays, threads, [&](long offset, long cells) {
      for (long c = offset; c < offset + cells; c++)
        put(z + c * CELL<T>, get(z + c * CELL<T>) * get(k + c * CELL<T>));
    });
    pool().run(parts, threads, [&](long i) {
      const Range range = piece(s.L, parts, i);
      for (long t = range.start; t < range.stop; t++)
        store(out + t * s.D, load(out + t * s.D) * fft->untwisted(z + t * CELL<T>, t));
    });
  };
  if (n >= SHARED_CELLS) {
    call_scratch().reserve((n * CELL<T> + 256) * sizeof(T));
    T *memory = call_scratch().take<T>(n * CELL<T>);
    for (long b = 0; b < s.B; b++)
      for (long g = 0; g < G; g++) one(b, g, memory, (int)s.threads);
    return;
  }
  const int threads = useful_threads(s.threads, 100.0 * n * LANES * s.B * G);
  pool().run(G * s.B, threads, [&](long task) {
    scratch().reserve((n * CELL<T> + 256) * sizeof(T));
    one(task % s.B, task / s.B, scratch().take<T>(n * CELL<T>), 1);
  });
}

// --- rest of the block, forward ------------------------------------------------------------------

// out = a + fc2(gelu(fc1(norm2(a)))), a = h + out_proj(y). `out` may be h or y.
template <class T>
void finish(const Shape &s, const Weights<T> &w, const T *h, const T *y, T *out) {
  const long D = s.D, I = s.I;
  const Folded<T> project(w.out_w, w.out_b, nullptr, nullptr, D, D);
  const Folded<T> fc1(w.fc1_w, w.fc1_b, w.norm2_w, w.norm2_b, I, D);
  const Folded<T> fc2(w.fc2_w, w.fc2_b, nullptr, nullptr, D, I);
  const int threads = useful_threads(s.threads, 2.0 * s.rows() * (D * D + 2 * D * I));
  const long step = chunk_rows(s.rows(), threads), d_row = D + LANES, i_row = I + LANES;
  pool().run(divide_up(s.rows(), step), threads, [&](long task) {
    const long from = task * step, rows = std::min(step, s.rows() - from);
    scratch().reserve((step * (2 * d_row + i_row) + 256) * sizeof(T));
    T *a = scratch().take<T>(step * d_row), *n = scratch().take<T>(step * d_row);
    T *u = scratch().take<T>(step * i_row);
    multiply(rows, y + from * D, D, project.packed, a, d_row);
    for (long r = 0; r < rows; r++) {
      for (long j = 0; j < D; j += LANES)
        store(a + r * d_row + j, load(a + r * d_row + j) + load(project.bias.data() + j) +
                                     load(h + (from + r) * D + j));
      normalise<T>(a + r * d_row, D, (T)s.eps, n + r * d_row);
    }
    multiply(rows, n, d_row, fc1.packed, u, i_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < I; j += LANES)
        store(u + r * i_row + j, gelu<T>(load(u + r * i_row + j) + load(fc1.bias.data() + j)));
    multiply(rows, u, i_row, fc2.packed, n, d_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < D; j += LANES)
        store(out + (from + r) * D + j, load(a + r * d_row + j) + load(n + r * d_row + j) +
                                            load(fc2.bias.data() + j));
  });
}

// --- backward ------------------------------------------------------------------------------------

// Runs work(slab, from, rows) over all rows in chunks; each slab sums into memory of its own, and
// total(numbers) receives the sums in a fixed order.
template <class T, class Work>
void in_slabs(const Shape &s, long numbers, T *total, const Work &work) {
  const long slabs = std::clamp<long>(s.rows() / SLAB_ROWS, 1, SLABS);
  const long chunks = divide_up(s.rows(), CHUNK);
  call_scratch().reserve((slabs * numbers + 256) * sizeof(T));
  T *base = call_scratch().take<T>(slabs * numbers);
  pool().run(slabs, (int)s.threads, [&](long slab) {
    const Range range = piece(chunks, slabs, slab);
    std::fill_n(base + slab * numbers, numbers, T(0));
    for (long c = range.start; c < range.stop; c++)
      work(base + slab * numbers, c * CHUNK, std::min(CHUNK, s.rows() - c * CHUNK));
  });
  const long parts = numbers / LANES;
  pool().run(64, useful_threads(s.threads, (double)slabs * numbers), [&](long i) {
    const Range range = piece(parts, 64, i);
    for (long j = range.start * LANES; j < range.stop * LANES; j += LANES) {
      Vec<T> sum{};
      for (long slab = 0; slab < slabs; slab++) sum += load(base + slab * numbers + j);
      store(total + j, sum);
    }
  });
}

// Numbers that finish_backward writes: out_w (D, D), fc1_w (I, D), fc2_w (D, I), out_b, fc1_b, fc2_b;
// fc1_w with respect to the matrix that norm2's weight is folded into.
inline long finish_sums(const Shape &s) {
  return s.D * s.D + 2 * s.I * s.D + 2 * s.D + s.I;
}

template <class T>
void finish_backward(const Shape &s, const Weights<T> &w, const T *h, T *y, T *grad, T *sums) {
  const long D = s.D, I = s.I, d_row = D + LANES, i_row = I + LANES;
  const Folded<T> project(w.out_w, w.out_b, nullptr, nullptr, D, D);
  const Folded<T> fc1(w.fc1_w, w.fc1_b, w.norm2_w, w.norm2_b, I, D);
  const std::vector<T> project_back = packed_back(w.out_w, (const T *)nullptr, D, D);
  const std::vector<T> fc1_back = packed_back(w.fc1_w, w.norm2_w, I, D);
  const std::vector<T> fc2_back = packed_back(w.fc2_w, (const T *)nullptr, D, I);
  in_slabs<T>(s, finish_sums(s), sums, [&](T *sum, long from, long rows) {
    T *out_w = sum, *fc1_w = out_w + D * D, *fc2_w = fc1_w + I * D;
    T *out_b = fc2_w + D * I, *fc1_b = out_b + D, *fc2_b = fc1_b + I;
    scratch().reserve((CHUNK * (3 * d_row + 2 * i_row + 1) + 512) * sizeof(T));
    T *n = scratch().take<T>(CHUNK * d_row), *back = scratch().take<T>(CHUNK * d_row);
    T *da = scratch().take<T>(CHUNK * d_row), *rstd = scratch().take<T>(CHUNK);
    T *u = scratch().take<T>(CHUNK * i_row), *du = scratch().take<T>(CHUNK * i_row);
    T *y_at = y + from * D, *grad_at = grad + from * D;
    const T *h_at = h + from * D;
    // The forward pass again, up to the inner layer.
    multiply(rows, y_at, D, project.packed, n, d_row);
    for (long r = 0; r < rows; r++) {
      for (long j = 0; j < D; j += LANES)
        store(n + r * d_row + j, load(n + r * d_row + j) + load(project.bias.data() + j) +
                                     load(h_at + r * D + j));
      rstd[r] = normalise<T>(n + r * d_row, D, (T)s.eps, n + r * d_row);
    }
    multiply(rows, n, d_row, fc1.packed, u, i_row);
    // MLP
    add_rows(grad_at, D, rows, D, fc2_b);
    multiply(rows, grad_at, D, Packed<T>{fc2_back.data(), D, I}, du, i_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < I; j += LANES) {
        const Vec<T> x = load(u + r * i_row + j) + load(fc1.bias.data() + j);
        const Vec<T> gate = gelu_gate<T>(x);
        store(du + r * i_row + j, load(du + r * i_row + j) * gelu_slope<T>(x, gate));
        store(u + r * i_row + j, x * gate);
      }
    add_outer(rows, grad_at, D, D, u, i_row, I, fc2_w, I);
    add_outer(rows, du, i_row, I, n, d_row, D, fc1_w, D);
    add_rows(du, i_row, rows, I, fc1_b);
    multiply(rows, du, i_row, Packed<T>{fc1_back.data(), I, D}, back, d_row);
    for (long r = 0; r < rows; r++) {
      T *at = da + r * d_row;
      for (long j = 0; j < D; j += LANES) store(at + j, load(grad_at + r * D + j));
      normalise_back<T>(n + r * d_row, rstd[r], back + r * d_row, D, at);
    }
    // Output projection
    add_outer(rows, da, d_row, D, y_at, D, D, out_w, D);
    add_rows(da, d_row, rows, D, out_b);
    multiply(rows, da, d_row, Packed<T>{project_back.data(), D, D}, y_at, D);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < D; j += LANES) store(grad_at + r * D + j, load(da + r * d_row + j));
  });
}

// Backward pass of gates, long convolution and short filter for one group of 16 channels and one
// sequence. p (L, 48): projection in, its gradient out. `spectrum_sum` gathers the spectrum of the
// filter's gradient. With threads > 1 they share the work.
template <class T> class MixerBackward {
  const Shape &s_;
  const Projection<T> &projection_;
  const Fft<T> &fft_;
  int threads_;
  static constexpr long RANGES = 32; // when shared: fixed, so that sums do not depend on threads

public:
  MixerBackward(const Shape &s, const Projection<T> &projection, const Fft<T> &fft, int threads)
      : s_(s), projection_(projection), fft_(fft), threads_(threads) {}

  // short_sum (K + 1, 48): gradients of taps and bias, added to.
  void run(long g, T *p, const T *grad_y, const T *spectrum, T *spectrum_sum, T *first, T *second,
           double *short_sum) const {
    const long L = s_.L, n = fft_.n, K = s_.K, halo = K - 1;
    const long ranges = threads_ > 1 ? std::min(RANGES, std::max<long>(1, L / (4 * K))) : 1;
    auto each = [&](auto work) { pool().run(ranges, threads_, work); };
    each([&](long i) { // both factors, twisted
      const Range range = piece(n, ranges, i);
      for (long t = range.start; t < range.stop; t++) {
        if (t >= L) {
          put(first + t * CELL<T>, Complex<T>{});
          put(second + t * CELL<T>, Complex<T>{});
          continue;
        }
        Vec<T> x[3];
        projection_.filtered(g, p + t * RUNS, t, x);
        put(first + t * CELL<T>, fft_.twisted(x[1] * x[2], t));
        put(second + t * CELL<T>, fft_.twisted(load(grad_y + t * s_.D) * x[0], t));
      }
    });
    T *arrays[2] = {first, second};
    fft_.template run<true, true, 2>(arrays, threads_, [&](long offset, long cells) {
      for (long c = offset * CELL<T>; c < (offset + cells) * CELL<T>; c += CELL<T>) {
        const Complex<T> k = get(spectrum + c), u = get(first + c), v = get(second + c);
        put(first + c, u * k);
        put(second + c, conj_times(k, v));
        put(spectrum_sum + c, get(spectrum_sum + c) + conj_times(u, v));
      }
    });
    // Gradients of the short filter's outputs overwrite p from the end, since row t needs the rows
    // before it; each range keeps the rows before its start first.
    std::vector<T> before(ranges * halo * RUNS), after(ranges * halo * RUNS);
    for (long i = 0; i < ranges; i++) {
      const long start = piece(L, ranges, i).start;
      for (long r = 0; r < halo; r++)
        if (start - halo + r >= 0)
          std::copy_n(p + (start - halo + r) * RUNS, RUNS, &before[(i * halo + r) * RUNS]);
    }
    std::vector<double> sums(ranges * (K + 1) * RUNS);
    each([&](long i) {
      slopes(g, p, grad_y, first, second, piece(L, ranges, i), &before[i * halo * RUNS],
             &sums[i * (K + 1) * RUNS]);
    });
    for (long i = 0; i < ranges; i++)
      for (long j = 0; j < (K + 1) * RUNS; j++) short_sum[j] += sums[i * (K + 1) * RUNS + j];
    // The adjoint of the short filter runs forward in place; each range keeps the rows after its end.
    for (long i = 0; i < ranges; i++) {
      const long stop = piece(L, ranges, i).stop;
      for (long r = 0; r < halo; r++)
        if (stop + r < L) std::copy_n(p + (stop + r) * RUNS, RUNS, &after[(i * halo + r) * RUNS]);
    }
    each([&](long i) { adjoint(g, p, piece(L, ranges, i), &after[i * halo * RUNS]); });
  }

private:
  void slopes(long g, T *p, const T *grad_y, const T *first, const T *second, Range range,
              const T *before, double *sums) const {
    const long K = s_.K, halo = K - 1;
    const T *w = projection_.short_taps.data() + g * (K + 1) * RUNS;
    constexpr long BLOCK = 512; // rows that are summed in T before they go into double
    for (long stop = range.stop; stop > range.start;) {
      const long start = std::max(range.start, stop - BLOCK);
      Vec<T> sum[(MOST_TAPS + 1) * 3] = {};
      for (long t = stop - 1; t >= start; t--) {
        const T *row[MOST_TAPS]; // row[back] = p[t - back]
        const long back_to = std::min(t, halo);
        for (long back = 0; back <= back_to; back++)
          row[back] = t - back >= range.start ? p + (t - back) * RUNS
                                              : before + (halo + t - back - range.start) * RUNS;
        Vec<T> x[3];
        for (int run = 0; run < 3; run++) {
          x[run] = load(w + K * RUNS + run * LANES);
          for (long back = 0; back <= back_to; back++)
            x[run] += load(w + (K - 1 - back) * RUNS + run * LANES) * load(row[back] + run * LANES);
        }
        const Vec<T> mixed = fft_.untwisted(first + t * CELL<T>, t);
        const Vec<T> grad_gated = fft_.untwisted(second + t * CELL<T>, t);
        const Vec<T> slope[3] = {load(grad_y + t * s_.D) * mixed, grad_gated * x[2],
                                 grad_gated * x[1]};
        for (int run = 0; run < 3; run++) {
          for (long back = 0; back <= back_to; back++)
            sum[(K - 1 - back) * 3 + run] += slope[run] * load(row[back] + run * LANES);
          sum[K * 3 + run] += slope[run];
        }
        for (int run = 0; run < 3; run++) store(p + t * RUNS + run * LANES, slope[run]);
      }
      for (long j = 0; j < (K + 1) * 3; j++)
        for (int lane = 0; lane < LANES; lane++) sums[j * LANES + lane] += (double)sum[j][lane];
      stop = start;
    }
  }

  void adjoint(long g, T *p, Range range, const T *after) const {
    const long K = s_.K;
    const T *w = projection_.short_taps.data() + g * (K + 1) * RUNS;
    for (long t = range.start; t < range.stop; t++) {
      Vec<T> x[3] = {};
      const long ahead_to = std::min(K - 1, s_.L - 1 - t);
      for (long ahead = 0; ahead <= ahead_to; ahead++) {
        const T *row = t + ahead < range.stop ? p + (t + ahead) * RUNS
                                              : after + (t + ahead - range.stop) * RUNS;
        for (int run = 0; run < 3; run++)
          x[run] += load(w + (K - 1 - ahead) * RUNS + run * LANES) * load(row + run * LANES);
      }
      for (int run = 0; run < 3; run++) store(p + t * RUNS + run * LANES, x[run]);
    }
  }
};

// Numbers that mix_backward writes into sums: per group in_w (48, D) with respect to the folded
// matrix, then per group in_b (48).
inline long mix_sums(const Shape &s) { return s.groups() * RUNS * (s.D + 1); }

// Backward pass of the mixer for a block of channels. projected: work space (B, groups, L, 48);
// grad_k (L, count): gradient of the filters; grad_n (B, L, D): added to; short_sums: per group
// (K + 1, 48).
template <class T>
void mix_backward(const Shape &s, const Weights<T> &w, const T *h, const T *spectrum,
                  const T *grad_y, T *projected, T *grad_k, T *grad_n, T *sums,
                  double *short_sums) {
  const Projection<T> projection(s, w, true);
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, G = s.groups(), D = s.D, d_row = D + LANES, L = s.L;
  const long chunks = divide_up(L, CHUNK);
  pool().run(s.B * chunks, (int)s.threads, [&](long task) {
    const long b = task / chunks, from = task % chunks * CHUNK, rows = std::min(CHUNK, L - from);
    scratch().reserve((CHUNK * d_row + 256) * sizeof(T));
    T *normal = scratch().take<T>(CHUNK * d_row);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (b * L + from + r) * D, D, (T)s.eps, normal + r * d_row);
    for (long g = 0; g < G; g++)
      projection.project(g, rows, normal, d_row, projected + ((b * G + g) * L + from) * RUNS);
  });
  auto group = [&](long g, T *memory, int threads) {
    T *first = memory, *second = first + n * CELL<T>, *spectrum_sum = second + n * CELL<T>;
    std::fill_n(spectrum_sum, n * CELL<T>, T(0));
    const MixerBackward<T> backward(s, projection, *fft, threads);
    for (long b = 0; b < s.B; b++)
      backward.run(g, projected + (b * G + g) * L * RUNS,
                   grad_y + b * L * D + s.from + g * LANES, spectrum + g * n * CELL<T>,
                   spectrum_sum, first, second, short_sums + g * (s.K + 1) * RUNS);
    T *arrays[1] = {spectrum_sum};
    fft->template run<false, true, 1>(arrays, threads, [](long, long) {});
    const Vec<T> one = splat(T(1) / T(n));
    for (long t = 0; t < L; t++)
      store(grad_k + t * s.count + g * LANES,
            fft->untwisted(spectrum_sum + t * CELL<T>, t) * one);
  };
  if (n >= SHARED_CELLS) {
    call_scratch().reserve((3 * n * CELL<T> + 256) * sizeof(T));
    T *memory = call_scratch().take<T>(3 * n * CELL<T>);
    for (long g = 0; g < G; g++) group(g, memory, (int)s.threads);
  } else {
    pool().run(G, (int)s.threads, [&](long g) {
      scratch().reserve((3 * n * CELL<T> + 256) * sizeof(T));
      group(g, scratch().take<T>(3 * n * CELL<T>), 1);
    });
  }
  in_slabs<T>(s, mix_sums(s), sums, [&](T *sum, long from, long rows) {
    scratch().reserve((CHUNK * d_row + 256) * sizeof(T));
    T *normal = scratch().take<T>(CHUNK * d_row);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (from + r) * D, D, (T)s.eps, normal + r * d_row);
    for (long done = 0; done < rows;) { // a chunk may cross from one sequence into the next
      const long b = (from + done) / L, t = (from + done) % L;
      const long here = std::min(rows - done, L - t);
      for (long g = 0; g < G; g++) {
        const T *p = projected + ((b * G + g) * L + t) * RUNS;
        multiply(here, p, RUNS, Packed<T>{projection.back.data() + g * RUNS * D, RUNS, D},
                 grad_n + (from + done) * D, D, true);
        add_outer(here, p, RUNS, RUNS, normal + done * d_row, d_row, D, sum + g * RUNS * D, D);
        add_rows(p, RUNS, here, RUNS, sum + G * RUNS * D + g * RUNS);
      }
      done += here;
    }
  });
}

// Adds to grad the gradient of h along its norm, grad_n being that of the normalised rows.
template <class T> void norm_backward(const Shape &s, const T *h, const T *grad_n, T *grad) {
  const long D = s.D;
  const int threads = useful_threads(s.threads, 20.0 * s.rows() * D);
  pool().run(divide_up(s.rows(), CHUNK), threads, [&](long task) {
    scratch().reserve((D + 256) * sizeof(T));
    T *n = scratch().take<T>(D);
    for (long r = task * CHUNK; r < std::min(s.rows(), (task + 1) * CHUNK); r++) {
      const T rstd = normalise<T>(h + r * D, D, (T)s.eps, n);
      normalise_back<T>(n, rstd, grad_n + r * D, D, grad + r * D);
    }
  });
}
