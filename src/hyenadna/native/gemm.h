// Matrix products of chunks that fit into a core's cache, at the speed of its multiply-adds.
//
// The inner loop keeps a tile of C in registers. A is read element by element through two strides,
// so it may be transposed; rows of B are read as vectors.
#pragma once

#include "simd.h"

// Vectors of a panel of B, and rows of a tile for so many vectors: 24 accumulators of 32 registers.
template <class T> struct Tile;
#if defined(__AVX512F__)
template <> struct Tile<float> {
  static constexpr int vectors = 4;
  static constexpr int rows(int nv) { return nv == 4 ? 6 : nv == 3 ? 8 : 12; }
};
template <> struct Tile<double> { // a vector is two registers
  static constexpr int vectors = 2;
  static constexpr int rows(int nv) { return nv == 2 ? 6 : 12; }
};
#else // AVX2: a float vector is two of 16 registers; NEON: four of 32
template <> struct Tile<float> {
  static constexpr int vectors = 1;
  static constexpr int rows(int) { return 6; }
};
template <> struct Tile<double> {
  static constexpr int vectors = 1;
  static constexpr int rows(int) { return 3; }
};
#endif

template <class T, int R, int NV>
INLINE void tile(long depth, const T *a, long a_row, long a_col, const T *b, long b_row, T *c,
                 long c_row, bool add) {
  Vec<T> acc[R][NV];
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) acc[i][j] = add ? load(c + i * c_row + j * LANES) : Vec<T>{};
  for (long k = 0; k < depth; k++) {
    Vec<T> bv[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) bv[j] = load(b + k * b_row + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const Vec<T> av = splat(a[i * a_row + k * a_col]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) acc[i][j] += av * bv[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) store(c + i * c_row + j * LANES, acc[i][j]);
}

// One panel of C: all its rows.
template <class T, int NV>
void panel(long rows, long depth, const T *a, long a_row, long a_col, const T *b, long b_row, T *c,
           long c_row, bool add) {
  constexpr int R = Tile<T>::rows(NV);
  long r = 0;
  for (; r + R <= rows; r += R)
    tile<T, R, NV>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r + 4 <= rows; r += 4)
    tile<T, 4, NV>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
  for (; r < rows; r++)
    tile<T, 1, NV>(depth, a + r * a_row, a_row, a_col, b, b_row, c + r * c_row, c_row, add);
}

template <class T>
void any_panel(int vectors, long rows, long depth, const T *a, long a_row, long a_col, const T *b,
               long b_row, T *c, long c_row, bool add) {
  constexpr int most = Tile<T>::vectors;
  if (vectors == 1) panel<T, 1>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
  if constexpr (most > 1)
    if (vectors == 2) panel<T, 2>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
  if constexpr (most > 2) {
    if (vectors == 3) panel<T, 3>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
    if (vectors == 4) panel<T, 4>(rows, depth, a, a_row, a_col, b, b_row, c, c_row, add);
  }
}

template <class T> constexpr long PANEL = Tile<T>::vectors * LANES;

template <class T> INLINE int panel_vectors(long width, long at) {
  const long left = (width - at) / LANES;
  return left < Tile<T>::vectors ? (int)left : Tile<T>::vectors;
}

// A matrix (depth, width) stored panel by panel, so that the inner loop reads it in one line.
template <class T> struct Packed {
  const T *data;
  long depth, width; // width: a multiple of LANES
};

// C (rows, width) (+)= A (rows, depth) times a packed matrix.
template <class T>
void multiply(long rows, const T *a, long a_row, const Packed<T> &b, T *c, long c_row,
              bool add = false) {
  for (long at = 0; at < b.width; at += PANEL<T>) {
    const int nv = panel_vectors<T>(b.width, at);
    any_panel<T>(nv, rows, b.depth, a, a_row, 1, b.data + at * b.depth, nv * LANES, c + at, c_row,
                 add);
  }
}

// C (m, n) += A^T B for A (rows, m) and B (rows, n): the gradient of a weight.
template <class T>
void add_outer(long rows, const T *a, long a_row, long m, const T *b, long b_row, long n, T *c,
               long c_row) {
  for (long at = 0; at < n; at += PANEL<T>)
    any_panel<T>(panel_vectors<T>(n, at), m, rows, a, 1, a_row, b + at, b_row, c + at, c_row, true);
}

// Packs element (k, j) = source[k * row + j * col] of a (depth, width) matrix.
template <class T>
void pack(const T *source, long row, long col, long depth, long width, T *packed) {
  for (long at = 0; at < width; at += PANEL<T>) {
    const long wide = panel_vectors<T>(width, at) * LANES;
    T *out = packed + at * depth;
    for (long j = 0; j < wide; j++)
      for (long k = 0; k < depth; k++) out[k * wide + j] = source[k * row + (at + j) * col];
  }
}
