// What the parts of a block share: sizes, weights, norms, linear layers, sums over rows.
//
// Letters: B sequences, L positions, D channels, I inner width, K taps, F filter width; rows are
// positions of all sequences. Arrays of positions are channel-last. Work is done in chunks of rows
// that stay in cache. The affine part of a norm is folded into the matrix that follows it.
#pragma once

#include "gemm.h"
#include "pool.h"

#include <algorithm>

constexpr long MOST_TAPS = 16;
constexpr long CHUNK = 96;          // rows of a chunk: a multiple of all tile heights
constexpr long SLABS = 16;          // partial sums of weight gradients: fixed, so that the result
constexpr long SLAB_ROWS = 512;     // does not depend on the number of threads
constexpr long SLAB_NUMBERS = 1L << 24; // of all slabs together, unless two need more
constexpr double SERIAL_FLOPS = 2e7; // less is done before another thread has woken up

// Sizes of a call; `from` and `count` choose a block of channels.
struct Shape {
  int64_t B, L, D, I, K, F, from, count;
  double eps;
  int64_t threads, bf16; // bf16: matrix products in bf16, sums in float
  long rows() const { return B * L; }
  long groups() const { return count / LANES; }
};

// Pointers to the weights of a block, or to the sums of their gradients, in the order of
// model/engine/weights.py and as torch keeps them. P: `const T *` or `T *`.
template <class P> struct Tensors {
  P norm1_w, norm1_b, in_w, in_b, short_w, short_b, last_w, skip, out_w, out_b, norm2_w, norm2_b,
      fc1_w, fc1_b, fc2_w, fc2_b;
};
template <class T> using Weights = Tensors<const T *>;
template <class T> using Sums = Tensors<T *>;

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

// w (width, depth) with column j times norm_w[j]; w itself where there is no norm before it.
template <class T> const T *folded(const T *w, const T *norm_w, long width, long depth) {
  if (!norm_w) return w;
  T *out = arena().take<T>(width * depth);
  for (long i = 0; i < width; i++)
    for (long j = 0; j < depth; j++) out[i * depth + j] = w[i * depth + j] * norm_w[j];
  return out;
}

template <class T> T dot(const T *a, const T *b, long d) {
  Vec<T> sum{};
  for (long j = 0; j < d; j += LANES) sum += load(a + j) * load(b + j);
  return sum_lanes<T>(sum);
}

// A linear layer x -> x W^T + b as torch keeps it, W (width, depth), with the norm before it folded
// in; packed for the forward pass and, if asked for, for the backward pass.
template <class T> struct Linear {
  T *bias;
  Packed<T> forward, backward;
  Linear(const T *w, const T *b, const T *norm_w, const T *norm_b, long width, long depth,
         bool with_backward, bool bf16)
      : bias(arena().take<T>(width)) {
    const T *source = folded(w, norm_w, width, depth);
    for (long i = 0; i < width; i++)
      bias[i] = b[i] + (norm_w ? dot(w + i * depth, norm_b, depth) : T(0));
    forward = pack(source, 1, depth, depth, width, bf16);
    if (with_backward) backward = pack(source, depth, 1, width, depth, bf16);
  }
};

// Runs work(sum, from, rows) over all rows in chunks, each slab of them summing into memory of its
// own (`numbers`, a multiple of LANES); returns the sums, added in a fixed order. They are void at
// the next such call.
template <class T, class Work>
const T *in_slabs(long all_rows, long numbers, long threads, const Work &work) {
  const long most = std::clamp<long>(SLAB_NUMBERS / numbers, 2, SLABS);
  const long slabs = std::clamp<long>(all_rows / SLAB_ROWS, 1, most);
  const long chunks = divide_up(all_rows, CHUNK);
  call_scratch().reserve((slabs * numbers + 256) * sizeof(T));
  T *base = call_scratch().take<T>(slabs * numbers);
  pool().run(slabs, (int)threads, [&](long slab) {
    const Range range = piece(chunks, slabs, slab);
    std::fill_n(base + slab * numbers, numbers, T(0));
    for (long c = range.start; c < range.stop; c++)
      work(base + slab * numbers, c * CHUNK, std::min(CHUNK, all_rows - c * CHUNK));
  });
  const long parts = numbers / LANES;
  pool().run(64, useful_threads(threads, (double)slabs * numbers), [&](long i) {
    const Range range = piece(parts, 64, i);
    for (long j = range.start * LANES; j < range.stop * LANES; j += LANES) {
      Vec<T> sum{};
      for (long slab = 0; slab < slabs; slab++) sum += load(base + slab * numbers + j);
      store(base + j, sum);
    }
  });
  return base;
}

template <class T> void add_numbers(long count, const T *x, T *sum) {
  for (long i = 0; i < count; i++) sum[i] += x[i];
}

// Gradients of a weight and of the norm before it from that of their product: with x = n g + b,
// W x = (W diag(g)) n + W b, and `matrix` (width, depth) is the gradient of W diag(g).
template <class T>
void unfold(long width, long depth, const T *matrix, const T *bias, const T *w, const T *norm_w,
            const T *norm_b, T *sum_w, T *sum_norm_w, T *sum_norm_b) {
  for (long i = 0; i < width; i++)
    for (long j = 0; j < depth; j++) {
      const T m = matrix[i * depth + j], v = w[i * depth + j];
      sum_w[i * depth + j] += m * norm_w[j] + bias[i] * norm_b[j];
      sum_norm_w[j] += m * v;
      sum_norm_b[j] += bias[i] * v;
    }
}
