// The rest of a block: output projection, second norm, MLP.
#pragma once

#include "layers.h"

// out = a + fc2(gelu(fc1(norm2(a)))), a = h + out_proj(y), for a chunk of rows.
template <class T> struct Feed {
  const long D, I;
  const T eps;
  const Linear<T> project, fc1, fc2;

  Feed(const Shape &s, const Weights<T> &w)
      : D(s.D), I(s.I), eps((T)s.eps),
        project(w.out_w, w.out_b, nullptr, nullptr, D, D, false, s.bf16),
        fc1(w.fc1_w, w.fc1_b, w.norm2_w, w.norm2_b, I, D, false, s.bf16),
        fc2(w.fc2_w, w.fc2_b, nullptr, nullptr, D, I, false, s.bf16) {}

  // Numbers of work space for a chunk; rows lie apart, not all on one cache set.
  long room(long rows) const { return rows * (2 * (D + LANES) + I + LANES) + 256; }

  // h, y, out (rows, D); `out` may be h or y. Takes room(rows) numbers of this thread's scratch.
  void run(long rows, const T *h, const T *y, T *out) const {
    const long d_row = D + LANES, i_row = I + LANES;
    T *a = scratch().take<T>(rows * d_row), *n = scratch().take<T>(rows * d_row);
    T *u = scratch().take<T>(rows * i_row);
    multiply<T>(rows, y, D, project.forward, a, d_row);
    for (long r = 0; r < rows; r++) {
      for (long j = 0; j < D; j += LANES)
        store(a + r * d_row + j,
              load(a + r * d_row + j) + load(project.bias + j) + load(h + r * D + j));
      normalise<T>(a + r * d_row, D, eps, n + r * d_row);
    }
    multiply<T>(rows, n, d_row, fc1.forward, u, i_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < I; j += LANES)
        store(u + r * i_row + j, gelu<T>(load(u + r * i_row + j) + load(fc1.bias + j)));
    multiply<T>(rows, u, i_row, fc2.forward, n, d_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < D; j += LANES)
        store(out + r * D + j,
              load(a + r * d_row + j) + load(n + r * d_row + j) + load(fc2.bias + j));
  }
};

// The same for all rows. `out` may be h or y.
template <class T>
void finish(const Shape &s, const Weights<T> &w, const T *h, const T *y, T *out) {
  const Feed<T> feed(s, w);
  const int threads = useful_threads(s.threads, 2.0 * s.rows() * (s.D * s.D + 2 * s.D * s.I));
  const long step = chunk_rows(s.rows(), threads);
  pool().run(divide_up(s.rows(), step), threads, [&](long task) {
    const long from = task * step, rows = std::min(step, s.rows() - from);
    scratch().reserve(feed.room(step) * sizeof(T));
    feed.run(rows, h + from * s.D, y + from * s.D, out + from * s.D);
  });
}

// In place: grad (of the output) becomes the gradient of a, y that of y.
template <class T>
void finish_backward(const Shape &s, const Weights<T> &w, const T *h, T *y, T *grad,
                     const Sums<T> &sums) {
  const long D = s.D, I = s.I, d_row = D + LANES, i_row = I + LANES;
  const Linear<T> project(w.out_w, w.out_b, nullptr, nullptr, D, D, true, s.bf16);
  const Linear<T> fc1(w.fc1_w, w.fc1_b, w.norm2_w, w.norm2_b, I, D, true, s.bf16);
  const Packed<T> fc2_back = pack(w.fc2_w, I, 1, D, I, s.bf16);
  // Sums: out_w (D, D), fc1_w (I, D) with the norm folded in, fc2_w (D, I), out_b, fc1_b, fc2_b.
  const long numbers = D * D + 2 * I * D + 2 * D + I;
  const T *total = in_slabs<T>(s.rows(), numbers, s.threads, [&](T *sum, long from, long rows) {
    T *out_w = sum, *fc1_w = out_w + D * D, *fc2_w = fc1_w + I * D;
    T *out_b = fc2_w + D * I, *fc1_b = out_b + D, *fc2_b = fc1_b + I;
    scratch().reserve((CHUNK * (3 * d_row + 2 * i_row + 1) + 512) * sizeof(T));
    T *n = scratch().take<T>(CHUNK * d_row), *back = scratch().take<T>(CHUNK * d_row);
    T *da = scratch().take<T>(CHUNK * d_row), *rstd = scratch().take<T>(CHUNK);
    T *u = scratch().take<T>(CHUNK * i_row), *du = scratch().take<T>(CHUNK * i_row);
    T *y_at = y + from * D, *grad_at = grad + from * D;
    const T *h_at = h + from * D;
    // The forward pass again, up to the inner layer.
    multiply<T>(rows, y_at, D, project.forward, n, d_row);
    for (long r = 0; r < rows; r++) {
      for (long j = 0; j < D; j += LANES)
        store(n + r * d_row + j, load(n + r * d_row + j) + load(project.bias + j) +
                                     load(h_at + r * D + j));
      rstd[r] = normalise<T>(n + r * d_row, D, (T)s.eps, n + r * d_row);
    }
    multiply<T>(rows, n, d_row, fc1.forward, u, i_row);
    // MLP
    add_rows(grad_at, D, rows, D, fc2_b);
    multiply<T>(rows, grad_at, D, fc2_back, du, i_row);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < I; j += LANES) {
        const Vec<T> x = load(u + r * i_row + j) + load(fc1.bias + j);
        const Vec<T> gate = gelu_gate<T>(x);
        store(du + r * i_row + j, load(du + r * i_row + j) * gelu_slope<T>(x, gate));
        store(u + r * i_row + j, x * gate);
      }
    add_outer(rows, grad_at, D, D, u, i_row, I, fc2_w, I, s.bf16);
    add_outer(rows, du, i_row, I, n, d_row, D, fc1_w, D, s.bf16);
    add_rows(du, i_row, rows, I, fc1_b);
    multiply<T>(rows, du, i_row, fc1.backward, back, d_row);
    for (long r = 0; r < rows; r++) {
      T *at = da + r * d_row;
      for (long j = 0; j < D; j += LANES) store(at + j, load(grad_at + r * D + j));
      normalise_back<T>(n + r * d_row, rstd[r], back + r * d_row, D, at);
    }
    // Output projection
    add_outer(rows, da, d_row, D, y_at, D, D, out_w, D, s.bf16);
    add_rows(da, d_row, rows, D, out_b);
    multiply<T>(rows, da, d_row, project.backward, y_at, D);
    for (long r = 0; r < rows; r++)
      for (long j = 0; j < D; j += LANES) store(grad_at + r * D + j, load(da + r * d_row + j));
  });
  const T *out_w = total, *fc1_w = out_w + D * D, *fc2_w = fc1_w + I * D;
  const T *out_b = fc2_w + D * I, *fc1_b = out_b + D, *fc2_b = fc1_b + I;
  add_numbers(D * D, out_w, sums.out_w);
  add_numbers(D * I, fc2_w, sums.fc2_w);
  add_numbers(D, out_b, sums.out_b);
  add_numbers(I, fc1_b, sums.fc1_b);
  add_numbers(D, fc2_b, sums.fc2_b);
  unfold<T>(I, D, fc1_w, fc1_b, w.fc1_w, w.norm2_w, w.norm2_b, sums.fc1_w, sums.norm2_w,
            sums.norm2_b);
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
