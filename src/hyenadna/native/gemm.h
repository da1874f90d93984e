// Matrix products of chunks that fit into a core's cache, at the speed of its multiply-adds.
//
// The inner loop keeps a tile of C in registers. A is read element by element through two strides,
// so it may be transposed; rows of B are read as vectors.
#pragma once

#include "pool.h"
#include "simd.h"

#include <vector>
#if defined(__AVX512BF16__)
#include <immintrin.h>
constexpr bool HAS_BF16 = true;
#else
constexpr bool HAS_BF16 = false;
#endif

// Vectors of a panel of B, and rows of a tile for so many vectors: 24 accumulators of 32 registers.
template <class T> struct Tile;
template <class T> constexpr bool ONE_REGISTER = REGISTER<T> == LANES; // a vector type of the compiler
#if defined(__AVX512F__)
template <> struct Tile<float> {
  static constexpr int vectors = 4;
  static constexpr int rows(int nv) { return nv == 4 ? 6 : nv == 3 ? 8 : 12; }
};
template <> struct Tile<double> { // a vector is two registers
  static constexpr int vectors = 2;
  static constexpr int rows(int nv) { return nv == 2 ? 6 : 12; }
};
#else // A panel is one vector, done in strips of so many registers.
template <class T> struct Tile {
  static constexpr int vectors = 1;
  static constexpr int strip = REGISTERS == 32 ? 4 : 2;
  // 12 accumulators of 16 registers; 16 of 32, since with 24 of them GCC 12 spills two for NEON.
  static constexpr int rows(int) { return REGISTERS == 32 ? 4 : 6; }
};
#endif

// R rows, NV times N columns.
template <class T, int R, int NV, int N>
INLINE void tile(long depth, const T *a, long a_row, long a_col, const T *b, long b_row, T *c,
                 long c_row, bool add) {
  typedef typename Lanes<T, N>::V V;
  V acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) acc[i][j] = add ? load<T, N>(c + i * c_row + j * N) : V{};
  for (long k = 0; k < depth; k++) {
    V bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) bv[j] = load<T, N>(b + k * b_row + j * N);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const V av = splat<T, N>(a[i * a_row + k * a_col]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) acc[i][j] += av * bv[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) store<T, N>(c + i * c_row + j * N, acc[i][j]);
}

// One panel of C, NV times N columns: all its rows.
template <class T, int NV, int N = LANES>
void panel(long rows, long depth, const T *a, long a_row, long a_col, const T *b, long b_row, T *c,
           long c_row, bool add) {
  constexpr int R = Tile<T>::rows(NV);
  long r = 0;
  for (; r + R <= rows; r += R)
    tile<T, R, NV, N>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r + 4 <= rows; r += 4)
    tile<T, 4, NV, N>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r < rows; r++)
    tile<T, 1, NV, N>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
}

template <class T>
void any_panel(int vectors, long rows, long depth, const T *a, long a_row, long a_col, const T *b,
               long b_row, T *c, long c_row, bool add) {
  if constexpr (!ONE_REGISTER<T>) {
    constexpr int N = REGISTER<T>, NV = Tile<T>::strip;
    for (long j = 0; j < LANES; j += NV * N)
      panel<T, NV, N>(rows, depth, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  } else {
    constexpr int most = Tile<T>::vectors;
    if (vectors == 1) panel<T, 1>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
    if constexpr (most > 1)
      if (vectors == 2) panel<T, 2>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
    if constexpr (most > 2) {
      if (vectors == 3) panel<T, 3>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
      if (vectors == 4) panel<T, 4>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
    }
  }
}

template <class T> constexpr long PANEL = Tile<T>::vectors * LANES;

template <class T> INLINE int panel_vectors(long width, long at) {
  const long left = (width - at) / LANES;
  return left < Tile<T>::vectors ? (int)left : Tile<T>::vectors;
}

// bf16: two neighbours along the depth share 32 bits, as the processor's dot product wants them;
// sums stay float.
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));

INLINE u32x16 rounded_half(const float *p) { // to nearest, ties to even
  const u32x16 bits = *(const u32x16 *)p;
  const auto nan = (bits & 0x7fffffff) > 0x7f800000; // rounding up could make it a number
  return nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
// Pairs along a row: (rows, depth) -> (rows, depth / 2).
inline void pair_columns(long rows, const float *a, long a_row, long depth, uint32_t *out) {
  for (long r = 0; r < rows; r++) {
    uint16_t *to = (uint16_t *)(out + r * (depth / 2));
    for (long k = 0; k < depth; k += LANES) {
      const u32x16 half = rounded_half(a + r * a_row + k);
      typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));
      *(u16x16 *)(to + k) = __builtin_convertvector(half, u16x16);
    }
  }
}

// Pairs of rows: (rows, width) -> (rows / 2 rounded up, width).
inline void pair_rows(long rows, const float *a, long a_row, long width, uint32_t *out) {
  for (long r = 0; r < rows; r += 2)
    for (long j = 0; j < width; j += LANES) {
      u32x16 pair = rounded_half(a + r * a_row + j);
      if (r + 1 < rows) pair |= rounded_half(a + (r + 1) * a_row + j) << 16;
      *(u32x16 *)(out + r / 2 * width + j) = pair;
    }
}

template <int R, int NV>
INLINE void half_tile(long pairs, const uint32_t *a, long a_row, long a_col, const uint32_t *b,
                      long b_row, float *c, long c_row, bool add) {
#if defined(__AVX512BF16__)
  __m512 acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++)
      acc[i][j] = add ? _mm512_loadu_ps(c + i * c_row + j * LANES) : _mm512_setzero_ps();
  for (long k = 0; k < pairs; k++) {
    __m512i bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) bv[j] = _mm512_loadu_si512(b + k * b_row + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const __m512i av = _mm512_set1_epi32((int)a[i * a_row + k * a_col]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++)
        acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)av, (__m512bh)bv[j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) _mm512_storeu_ps(c + i * c_row + j * LANES, acc[i][j]);
#endif
}

template <int NV>
void half_panel(long rows, long pairs, const uint32_t *a, long a_row, long a_col,
                const uint32_t *b, long b_row, float *c, long c_row, bool add) {
  constexpr int R = Tile<float>::rows(NV);
  long r = 0;
  for (; r + R <= rows; r += R)
    half_tile<R, NV>(pairs, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r + 4 <= rows; r += 4)
    half_tile<4, NV>(pairs, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r < rows; r++)
    half_tile<1, NV>(pairs, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
}

inline void any_half_panel(int vectors, long rows, long pairs, const uint32_t *a, long a_row,
                           long a_col, const uint32_t *b, long b_row, float *c, long c_row,
                           bool add) {
  if (vectors == 1) half_panel<1>(rows, pairs, a, a_row, a_col, b, b_row, c, c_row, add);
  if (vectors == 2) half_panel<2>(rows, pairs, a, a_row, a_col, b, b_row, c, c_row, add);
  if (vectors == 3) half_panel<3>(rows, pairs, a, a_row, a_col, b, b_row, c, c_row, add);
  if (vectors == 4) half_panel<4>(rows, pairs, a, a_row, a_col, b, b_row, c, c_row, add);
}

// Room of this thread for operands in bf16: U is uint32_t for pairs of them, float for rounded ones.
template <class U> U *half_room(int which, long count) {
  static thread_local std::vector<U> room[2];
  if ((long)room[which].size() < count) room[which].resize(count);
  return room[which].data();
}

// Without a dot product for bf16: the nearest bf16, ties to even, kept as float, for products in
// float. That takes as long as float; torch's bf16 is many times slower there.
inline void round_rows(long rows, const float *a, long a_row, long width, float *out) {
  for (long r = 0; r < rows; r++)
    for (long j = 0; j < width; j++) {
      uint32_t bits;
      std::memcpy(&bits, a + r * a_row + j, sizeof bits);
      const bool nan = (bits & 0x7fffffff) > 0x7f800000;
      bits = (nan ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
      std::memcpy(out + r * width + j, &bits, sizeof bits);
    }
}

// A matrix (depth, width) stored panel by panel, so that the inner loop reads it in one line. bf16:
// rounded, and where the processor multiplies them, in `halves` instead of `data`.
template <class T> struct Packed {
  const T *data;
  long depth, width; // multiples of LANES
  bool bf16 = false;
  const uint32_t *halves = nullptr;
};

// The matrix with element (k, j) = source[k * row + j * col], packed into the arena. One of row and
// col is 1. Blocks of 16 x 16; the last one along the depth may be cut off.
template <class T>
Packed<T> pack(const T *source, long row, long col, long depth, long width, bool bf16) {
  const bool paired = bf16 && HAS_BF16;
  T *data = paired ? nullptr : arena().take<T>(depth * width);
  uint32_t *halves = paired ? arena().take<uint32_t>(depth / 2 * width) : nullptr;
  for (long at = 0; at < width; at += LANES) {
    const long panel = at / PANEL<T> * PANEL<T>; // first column of this block's panel
    const long wide = panel_vectors<T>(width, panel) * LANES;
    for (long from = 0; from < depth; from += LANES) {
      const long rows = depth - from < LANES ? depth - from : LANES;
      alignas(128) T block[LANES * LANES] = {};
      if (col == 1) {
        for (long k = 0; k < rows; k++)
          store(block + k * LANES, load(source + (from + k) * row + at));
      } else if (ONE_REGISTER<T> && rows == LANES) {
        if constexpr (ONE_REGISTER<T>) transposed<T>(source + at * col + from, col, block);
      } else {
        for (long j = 0; j < LANES; j++)
          for (long k = 0; k < rows; k++) block[k * LANES + j] = source[(at + j) * col + from + k];
      }
      const long to = panel * depth + from * wide + at - panel;
      if constexpr (sizeof(T) == 4 && !HAS_BF16)
        if (bf16) round_rows(LANES, block, LANES, LANES, block);
      if (!paired) {
        for (long k = 0; k < rows; k++) store(data + to + k * wide, load(block + k * LANES));
        continue;
      }
      if constexpr (sizeof(T) == 4 && HAS_BF16)
        for (long k = 0; k < rows; k += 2)
          *(u32x16 *)(halves + panel * depth / 2 + (from + k) / 2 * wide + at - panel) =
              rounded_half((const float *)block + k * LANES) |
              rounded_half((const float *)block + (k + 1) * LANES) << 16;
    }
  }
  return {data, depth, width, bf16, halves};
}

// C (rows, width) (+)= A (rows, depth) times a packed matrix.
template <class T>
void multiply(long rows, const T *a, long a_row, const Packed<T> &b, T *c, long c_row,
              bool add = false) {
  if constexpr (sizeof(T) == 4 && !HAS_BF16)
    if (b.bf16) {
      float *rounded = half_room<float>(0, rows * b.depth);
      round_rows(rows, a, a_row, b.depth, rounded);
      a = rounded;
      a_row = b.depth;
    }
  if constexpr (sizeof(T) == 4 && HAS_BF16)
    if (b.halves) {
      const long pairs = b.depth / 2;
      uint32_t *half = half_room<uint32_t>(0, rows * pairs);
      pair_columns(rows, a, a_row, b.depth, half);
      for (long at = 0; at < b.width; at += PANEL<T>) {
        const int nv = panel_vectors<T>(b.width, at);
        any_half_panel(nv, rows, pairs, half, pairs, 1, b.halves + at * pairs, nv * LANES, c + at,
                       c_row, add);
      }
      return;
    }
  for (long at = 0; at < b.width; at += PANEL<T>) {
    const int nv = panel_vectors<T>(b.width, at);
    any_panel<T>(nv, rows, b.depth, a, a_row, 1, b.data + at * b.depth, nv * LANES, c + at, c_row,
                 add);
  }
}

// C (m, n) += A^T B for A (rows, m) and B (rows, n): the gradient of a weight.
template <class T>
void add_outer(long rows, const T *a, long a_row, long m, const T *b, long b_row, long n, T *c,
               long c_row, bool bf16) {
  if constexpr (sizeof(T) == 4 && !HAS_BF16)
    if (bf16) {
      float *rounded_a = half_room<float>(0, rows * m), *rounded_b = half_room<float>(1, rows * n);
      round_rows(rows, a, a_row, m, rounded_a);
      round_rows(rows, b, b_row, n, rounded_b);
      a = rounded_a, a_row = m, b = rounded_b, b_row = n;
    }
  if constexpr (sizeof(T) == 4 && HAS_BF16)
    if (bf16) {
      const long pairs = (rows + 1) / 2;
      uint32_t *half_a = half_room<uint32_t>(0, pairs * m);
      uint32_t *half_b = half_room<uint32_t>(1, pairs * n);
      pair_rows(rows, a, a_row, m, half_a);
      pair_rows(rows, b, b_row, n, half_b);
      for (long at = 0; at < n; at += PANEL<T>)
        any_half_panel(panel_vectors<T>(n, at), m, pairs, half_a, 1, m, half_b + at, n, c + at,
                       c_row, true);
      return;
    }
  for (long at = 0; at < n; at += PANEL<T>)
    any_panel<T>(panel_vectors<T>(n, at), m, rows, a, 1, a_row, b + at, b_row, c + at, c_row, true);
}
