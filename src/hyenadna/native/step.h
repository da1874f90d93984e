// One more token of each of B growing sequences through the whole model.
//
// The weights are packed once, for all steps. A thread takes some of the sequences through all
// blocks, so that nothing waits between them; a single sequence has one thread. (Threads that share
// every matrix would wait for each other some thirty times a step: beside another busy process that
// was ten times slower.)
#pragma once

#include "ends.h"
#include "feed.h"
#include "mixer.h"

// The state of one block, see conv/online.py.
template <class T> struct StepLayer {
  T *halo;          // (B, K - 1, 3 D): projections at the positions before, oldest first
  T *recent;        // (B, capacity, D)
  const T *settled; // (B, room, D), or (1, room, D)
  const T *taps;    // (block, D): the filter at the first lags
};

// Where the sequences stand, the same for all blocks.
struct Steps {
  int64_t B, now, start; // the sample to come, and the first that is added one by one
  int64_t recent_batch, settled_batch; // numbers from one sequence to the next
  int64_t threads;
};

template <class T> class Stepper {
  Arena arena_{false};
  Shape s_;
  std::vector<Projection<T>> projections_;
  std::vector<Feed<T>> feeds_;
  std::vector<T> table_, no_bias_;
  std::unique_ptr<Linear<T>> head_;
  long V_;

public:
  // s: of all channels; B and L are not used. table (V, D).
  Stepper(const Shape &s, long layers, const Weights<T> *const *w, const Head<T> &head,
          const T *table)
      : s_(s), table_(table, table + head.V * s.D), no_bias_(head.V), V_(head.V) {
    const ArenaScope mine(arena_);
    for (long i = 0; i < layers; i++) {
      projections_.emplace_back(s_, *w[i], false);
      feeds_.emplace_back(s_, *w[i]);
    }
    head_ = std::make_unique<Linear<T>>(head.w, no_bias_.data(), head.norm_w, head.norm_b, V_, s.D,
                                        false, false);
  }

  bool knows(const int64_t *ids, long count) const {
    return std::all_of(ids, ids + count, [&](int64_t id) { return id >= 0 && id < V_; });
  }

  // ids (B): the tokens to come; logits (B, V): of those after them. Changes halo and recent.
  void run(const Steps &at, const StepLayer<T> *layers, const int64_t *ids, T *logits) const {
    const double flops = 2.0 * (double)(at.B * (long)feeds_.size()) *
                         (double)(4 * s_.D * s_.D + 2 * s_.D * s_.I);
    const int threads = flops < WORTH_WAKING ? 1 : (int)std::min<long>(at.B, at.threads);
    // More pieces than threads, so that a thread that is held up leaves some to the others.
    const long step = std::clamp<long>(divide_up(at.B, threads > 1 ? 2 * threads : 1), 8, CHUNK);
    const long rows = threads > 1 ? std::min(step, divide_up(at.B, threads)) : step;
    pool().run(divide_up(at.B, rows), threads, [&](long i) {
      const long from = i * rows;
      run_rows(at, layers, from, std::min(rows, at.B - from), ids, logits);
    });
  }

private:
  static constexpr double WORTH_WAKING = 1e7; // operations of a step

  // Work space of a thread for some rows.
  struct Rows {
    T *h, *y, *gates, *n, *p, *window;
  };

  void run_rows(const Steps &at, const StepLayer<T> *layers, long from, long rows,
                const int64_t *ids, T *logits) const {
    const long D = s_.D, n_row = D + LANES;
    scratch().reserve((rows * (3 * D + n_row + RUNS) + s_.K * RUNS + feeds_[0].room(rows) + 512) *
                      sizeof(T));
    const Rows w{scratch().take<T>(rows * D),     scratch().take<T>(rows * D),
                 scratch().take<T>(rows * D),     scratch().take<T>(rows * n_row),
                 scratch().take<T>(rows * RUNS), scratch().take<T>(s_.K * RUNS)};
    const size_t rest = scratch().used();
    for (long r = 0; r < rows; r++) std::copy_n(table_.data() + ids[from + r] * D, D, w.h + r * D);
    for (size_t i = 0; i < feeds_.size(); i++) {
      normalise_rows(w, rows);
      for (long g = 0; g < projections_[i].groups; g++) {
        projections_[i].project(g, rows, w.n, n_row, w.p);
        for (long r = 0; r < rows; r++) gate(at, layers[i], projections_[i], g, from, r, w);
      }
      for (long r = 0; r < rows; r++) {
        const T *recent = layers[i].recent + (from + r) * at.recent_batch;
        convolve_newest(at, layers[i].taps, recent, w.gates + r * D, w.y + r * D);
      }
      scratch().back_to(rest);
      feeds_[i].run(rows, w.h, w.y, w.h);
    }
    normalise_rows(w, rows);
    multiply<T>(rows, w.n, n_row, head_->forward, logits + from * V_, V_);
    for (long r = from; r < from + rows; r++)
      for (long j = 0; j < V_; j += LANES)
        store(logits + r * V_ + j, load(logits + r * V_ + j) + load(head_->bias + j));
  }

  void normalise_rows(const Rows &w, long rows) const {
    for (long r = 0; r < rows; r++)
      normalise<T>(w.h + r * s_.D, s_.D, (T)s_.eps, w.n + r * (s_.D + LANES));
  }

  // Short filter and gates of a group of channels of one row: gates becomes x0, the sample v x1
  // joins the recent ones, and y becomes what was added to this output before.
  void gate(const Steps &at, const StepLayer<T> &layer, const Projection<T> &projection, long g,
            long from, long r, const Rows &w) const {
    const long D = s_.D, halo = s_.K - 1, b = from + r, column = g * LANES;
    T *before = layer.halo + b * halo * 3 * D + column;
    for (long i = 0; i < halo * 3; i++) store(w.window + i * LANES, load(before + i * D));
    std::copy_n(w.p + r * RUNS, RUNS, w.window + halo * RUNS);
    Vec<T> x[3];
    projection.filtered(g, w.window + halo * RUNS, halo, x);
    for (long i = 0; i < halo * 3; i++) store(before + i * D, load(w.window + (i + 3) * LANES));
    T *recent = layer.recent + b * at.recent_batch + at.now * D + column;
    const T *settled = layer.settled + b * at.settled_batch + at.now * D + column;
    store(w.y + r * D + column, load(recent) + load(settled));
    store(w.gates + r * D + column, x[0]);
    store(recent, x[1] * x[2]);
  }

  // y = gates (y + the newest samples times the filter at the first lags)
  void convolve_newest(const Steps &at, const T *taps, const T *recent, const T *gates,
                       T *y) const {
    // Vectors in registers: 8 float, 4 double; of 16 registers half of them.
    constexpr int STRIP = REGISTERS == 32 ? 32 / sizeof(T) : 16 / sizeof(T);
    long c = 0;
    for (; c + STRIP * LANES <= s_.D; c += STRIP * LANES)
      strip<STRIP>(at, taps + c, recent + c, gates + c, y + c);
    for (; c < s_.D; c += LANES) strip<1>(at, taps + c, recent + c, gates + c, y + c);
  }

  template <int VECTORS>
  void strip(const Steps &at, const T *taps, const T *recent, const T *gates, T *y) const {
    Vec<T> sum[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) sum[v] = load(y + v * LANES);
    for (long s = at.start; s <= at.now; s++) {
      const T *k = taps + (at.now - s) * s_.D, *u = recent + s * s_.D;
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sum[v] += load(k + v * LANES) * load(u + v * LANES);
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++)
      store(y + v * LANES, sum[v] * load(gates + v * LANES));
  }
};
