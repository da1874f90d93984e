// Both ends of the model: token table, final norm, and the loss with its head.
#pragma once

#include "layers.h"

template <class T> void embed(const Shape &s, const int64_t *ids, const T *table, T *h) {
  const int threads = useful_threads(s.threads, 4.0 * s.rows() * s.D);
  pool().run(divide_up(s.rows(), 8 * CHUNK), threads, [&](long task) {
    for (long r = task * 8 * CHUNK; r < std::min(s.rows(), (task + 1) * 8 * CHUNK); r++)
      std::copy_n(table + ids[r] * s.D, s.D, h + r * s.D);
  });
}

// Adds to sum (table_rows, D).
template <class T>
void embed_backward(const Shape &s, const int64_t *ids, long table_rows, const T *grad, T *sum) {
  const T *total =
      in_slabs<T>(s.rows(), table_rows * s.D, s.threads, [&](T *part, long from, long rows) {
        for (long r = from; r < from + rows; r++) {
          T *to = part + ids[r] * s.D;
          for (long j = 0; j < s.D; j += LANES)
            store(to + j, load(to + j) + load(grad + r * s.D + j));
        }
      });
  add_numbers(table_rows * s.D, total, sum);
}

// out = norm(h), affine part included; `out` may be h.
template <class T> void norm(const Shape &s, const T *w, const T *b, const T *h, T *out) {
  const int threads = useful_threads(s.threads, 20.0 * s.rows() * s.D);
  pool().run(divide_up(s.rows(), CHUNK), threads, [&](long task) {
    for (long r = task * CHUNK; r < std::min(s.rows(), (task + 1) * CHUNK); r++) {
      T *at = out + r * s.D;
      normalise<T>(h + r * s.D, s.D, (T)s.eps, at);
      for (long j = 0; j < s.D; j += LANES) store(at + j, load(at + j) * load(w + j) + load(b + j));
    }
  });
}

// Final norm and language-model head; V, the classes, is a multiple of LANES.
template <class T> struct Head {
  const T *w, *norm_w, *norm_b; // (V, D), (D), (D)
  int64_t V, ignored;           // targets of this value do not count
};

// The head with the final norm folded in, and probabilities of a chunk of rows.
template <class T> struct FoldedHead {
  const Head<T> &head;
  long D;
  std::vector<T> no_bias;
  Linear<T> layer;
  FoldedHead(const Head<T> &h, long d, bool backward)
      : head(h), D(d), no_bias(h.V),
        layer(h.w, no_bias.data(), h.norm_w, h.norm_b, h.V, d, backward, false) {}

  // exps (rows, V) and their sums; returns through `target` the logit of the target less the
  // largest one.
  void probabilities(long rows, const T *n, long n_row, T *exps, T *sums, const int64_t *targets,
                     T *target) const {
    const long V = head.V;
    multiply<T>(rows, n, n_row, layer.forward, exps, V);
    for (long r = 0; r < rows; r++) {
      T *at = exps + r * V;
      Vec<T> top = splat(T(-INFINITY)), sum{};
      for (long j = 0; j < V; j += LANES) {
        const Vec<T> logit = load(at + j) + load(layer.bias + j);
        store(at + j, logit);
        top = larger<T>(logit, top);
      }
      T tops[LANES];
      store(tops, top);
      const T highest = *std::max_element(tops, tops + LANES);
      target[r] = targets[r] == head.ignored ? T(0) : at[targets[r]] - highest;
      for (long j = 0; j < V; j += LANES) {
        const Vec<T> e = exp_lanes<T>(load(at + j) - highest);
        store(at + j, e);
        sum += e;
      }
      sums[r] = sum_lanes<T>(sum);
    }
  }
};

// nats (rows): negative log-likelihood of each target, 0 where it is ignored.
template <class T>
void nats_of(const Shape &s, const Head<T> &head, const T *h, const int64_t *targets, T *nats) {
  const FoldedHead<T> folded(head, s.D, false);
  const int threads = useful_threads(s.threads, (double)s.rows() * (20 * s.D + 2 * s.D * head.V));
  const long n_row = s.D + LANES;
  pool().run(divide_up(s.rows(), CHUNK), threads, [&](long task) {
    const long from = task * CHUNK, rows = std::min(CHUNK, s.rows() - from);
    scratch().reserve((CHUNK * (n_row + head.V + 2) + 512) * sizeof(T));
    T *n = scratch().take<T>(CHUNK * n_row), *exps = scratch().take<T>(CHUNK * head.V);
    T *sums = scratch().take<T>(CHUNK), *target = scratch().take<T>(CHUNK);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (from + r) * s.D, s.D, (T)s.eps, n + r * n_row);
    folded.probabilities(rows, n, n_row, exps, sums, targets + from, target);
    for (long r = 0; r < rows; r++)
      nats[from + r] =
          targets[from + r] == head.ignored ? T(0) : std::log(sums[r]) - target[r];
  });
}

// grad_h (rows, D) and sums added to, given grad (rows) of the nats.
template <class T>
void nats_backward(const Shape &s, const Head<T> &head, const T *h, const int64_t *targets,
                   const T *grad, T *grad_h, T *sum_w, T *sum_norm_w, T *sum_norm_b) {
  const FoldedHead<T> folded(head, s.D, true);
  const long D = s.D, V = head.V, n_row = D + LANES;
  const T *total = in_slabs<T>(s.rows(), V * D + V, s.threads, [&](T *sum, long from, long rows) {
    scratch().reserve((CHUNK * (2 * n_row + V + 3) + 1024) * sizeof(T));
    T *n = scratch().take<T>(CHUNK * n_row), *back = scratch().take<T>(CHUNK * n_row);
    T *slope = scratch().take<T>(CHUNK * V), *sums = scratch().take<T>(CHUNK);
    T *target = scratch().take<T>(CHUNK), *rstd = scratch().take<T>(CHUNK);
    for (long r = 0; r < rows; r++)
      rstd[r] = normalise<T>(h + (from + r) * D, D, (T)s.eps, n + r * n_row);
    folded.probabilities(rows, n, n_row, slope, sums, targets + from, target);
    for (long r = 0; r < rows; r++) {
      const bool counts = targets[from + r] != head.ignored;
      const T scale = counts ? grad[from + r] / sums[r] : T(0);
      for (long j = 0; j < V; j += LANES) store(slope + r * V + j, load(slope + r * V + j) * scale);
      if (counts) slope[r * V + targets[from + r]] -= grad[from + r];
    }
    add_outer<T>(rows, slope, V, V, n, n_row, D, sum, D, false);
    add_rows(slope, V, rows, V, sum + V * D);
    multiply<T>(rows, slope, V, folded.layer.backward, back, n_row);
    for (long r = 0; r < rows; r++) {
      std::fill_n(grad_h + (from + r) * D, D, T(0));
      normalise_back<T>(n + r * n_row, rstd[r], back + r * n_row, D, grad_h + (from + r) * D);
    }
  });
  unfold<T>(V, D, total, total + V * D, head.w, head.norm_w, head.norm_b, sum_w, sum_norm_w,
            sum_norm_b);
}
