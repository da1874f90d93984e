// The mixer of a block of order 2: projection, short filter, gates, long convolution.
//
// Groups of 16 channels; a group's three projected runs x0, x1, v lie side by side: 48 columns.
#pragma once

#include "filter.h"

constexpr long RUNS = 3 * LANES; // x0, x1, v of a group

// Projection and short filter of a block of channels, one group after the other.
template <class T> class Projection {
public:
  long groups, d, taps;
  std::vector<Packed<T>> matrix; // per group (D, 48)
  std::vector<Packed<T>> back;   // per group (48, D)
  std::vector<T> bias;       // per group 48
  std::vector<T> short_taps; // per group (K + 1, 48): taps, then the bias

  Projection(const Shape &s, const Weights<T> &w, bool backward)
      : groups(s.groups()), d(s.D), taps(s.K), bias(groups * RUNS),
        short_taps(groups * (taps + 1) * RUNS) {
    std::vector<T> rows(RUNS * d);
    for (long g = 0; g < groups; g++) {
      for (long c = 0; c < RUNS; c++) {
        const long source = (c / LANES) * d + s.from + g * LANES + c % LANES;
        for (long j = 0; j < d; j++) rows[c * d + j] = w.in_w[source * d + j] * w.norm1_w[j];
        bias[g * RUNS + c] = w.in_b[source] + dot(w.in_w + source * d, w.norm1_b, d);
        for (long k = 0; k < taps; k++)
          short_taps[(g * (taps + 1) + k) * RUNS + c] = w.short_w[source * taps + k];
        short_taps[(g * (taps + 1) + taps) * RUNS + c] = w.short_b[source];
      }
      matrix.push_back(pack(rows.data(), 1, d, d, RUNS, s.bf16));
      if (backward) back.push_back(pack(rows.data(), d, 1, RUNS, d, s.bf16));
    }
  }

  // p (rows, 48) = n (rows, D) times the group's matrix, plus bias.
  void project(long g, long rows, const T *n, long n_row, T *p) const {
    multiply<T>(rows, n, n_row, matrix[g], p, RUNS);
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

// What came before the positions of a call, and what it leaves to the next. All of it may be null.
template <class T> struct Past {
  const T *halo;    // (B, K - 1, 3 D): projections at the K - 1 positions before
  T *next_halo;     // the same at the last positions of this call; not `halo` itself
  const T *settled; // (B, L, D): effect of earlier samples on the long convolution
  int64_t settled_batch; // numbers from one sequence to the next; 0 where all share one

  // The rows of a group before position 0, (K - 1, 48).
  void load_halo(const Shape &s, long b, long g, T *p) const {
    for (long i = 0; i < (s.K - 1) * 3; i++)
      store(p + i * LANES, load(halo + at(s, b, g, i)));
  }
  // The last K - 1 of `rows` rows of a group; zeros before the first.
  void store_halo(const Shape &s, long b, long g, const T *p, long rows) const {
    for (long i = 0; i < (s.K - 1) * 3; i++) {
      const long from = (rows - (s.K - 1)) * 3 + i;
      store(next_halo + at(s, b, g, i), from < 0 ? Vec<T>{} : load(p + from * LANES));
    }
  }

private:
  static long at(const Shape &s, long b, long g, long i) {
    return ((b * (s.K - 1) + i / 3) * 3 + i % 3) * s.D + s.from + g * LANES;
  }
};

// Fills gated (B, groups, L, 16) with v x1, and the block's columns of y (B, L, D) with x0.
template <class T>
void project_and_gate(const Shape &s, const Weights<T> &w, const T *h, const Past<T> &past,
                      T *gated, T *y) {
  const Projection<T> projection(s, w, false);
  const int threads = useful_threads(s.threads, 2.0 * s.rows() * s.D * RUNS * projection.groups);
  const long halo = s.K - 1;
  const long chunk = std::max(chunk_rows(s.L, s.B < threads ? threads : 1), 2 * halo);
  const long step = std::max<long>(1, chunk - halo);
  const long chunks = divide_up(s.L, step);
  const long n_row = s.D + LANES, G = projection.groups;
  pool().run(s.B * chunks, threads, [&](long task) {
    const long b = task / chunks, from = task % chunks * step, to = std::min<long>(s.L, from + step);
    const long given = from == 0 && past.halo ? halo : 0; // rows of p that are known already
    const long before = std::min(from, halo) + given, rows = to - from + before;
    scratch().reserve((rows * (n_row + RUNS) + 256) * sizeof(T));
    T *n = scratch().take<T>(rows * n_row), *p = scratch().take<T>(rows * RUNS);
    for (long r = given; r < rows; r++)
      normalise<T>(h + (b * s.L + from - before + r) * s.D, s.D, (T)s.eps, n + r * n_row);
    for (long g = 0; g < G; g++) {
      if (given) past.load_halo(s, b, g, p);
      projection.project(g, rows - given, n + given * n_row, n_row, p + given * RUNS);
      if (past.next_halo && to == s.L) past.store_halo(s, b, g, p, rows);
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
template <class T>
void convolve(const Shape &s, const T *gated, const T *spectrum, const Past<T> &past, T *y) {
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, G = s.groups();
  auto one = [&](long b, long g, T *z, int threads) {
    const T *in = gated + (b * G + g) * s.L * LANES;
    T *out = y + b * s.L * s.D + s.from + g * LANES;
    const T *settled =
        past.settled ? past.settled + b * past.settled_batch + s.from + g * LANES : nullptr;
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
      for (long t = range.start; t < range.stop; t++) {
        Vec<T> mixed = fft->untwisted(z + t * CELL<T>, t);
        if (settled) mixed += load(settled + t * s.D);
        store(out + t * s.D, load(out + t * s.D) * mixed);
      }
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

// Backward pass of gates, long convolution and short filter for one group of 16 channels and one
// sequence. p (L, 48): projection in, its gradient out. `spectrum_sum` gathers the spectrum of the
// filter's gradient. `shared`: all threads work on one group, in a fixed number of ranges.
template <class T> class MixerBackward {
  const Shape &s_;
  const Projection<T> &projection_;
  const Fft<T> &fft_;
  bool shared_;
  int threads_;
  static constexpr long RANGES = 32; // does not depend on threads, so that sums do not either

public:
  MixerBackward(const Shape &s, const Projection<T> &projection, const Fft<T> &fft, bool shared)
      : s_(s), projection_(projection), fft_(fft), shared_(shared),
        threads_(shared ? (int)s.threads : 1) {}

  // short_sum (K + 1, 48): gradients of taps and bias, added to.
  void run(long g, T *p, const T *grad_y, const T *spectrum, T *spectrum_sum, T *first, T *second,
           double *short_sum) const {
    const long L = s_.L, n = fft_.n, K = s_.K, halo = K - 1;
    const long ranges = shared_ ? std::min(RANGES, std::max<long>(1, L / (4 * K))) : 1;
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
      slopes(g, p, grad_y, first, second, piece(L, ranges, i), before.data() + i * halo * RUNS,
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
    each([&](long i) { adjoint(g, p, piece(L, ranges, i), after.data() + i * halo * RUNS); });
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
      for (long j = 0; j < (K + 1) * 3; j++) {
        T lanes[LANES];
        store(lanes, sum[j]);
        for (int lane = 0; lane < LANES; lane++) sums[j * LANES + lane] += (double)lanes[lane];
      }
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

// Backward pass of the mixer for a block of channels. projected: work space (B, groups, L, 48);
// grad_k (L, count): gradient of the filters; grad_n (B, L, D): added to, as are the sums.
template <class T>
void mix_backward(const Shape &s, const Weights<T> &w, const T *h, const T *spectrum,
                  const T *grad_y, T *projected, T *grad_k, T *grad_n,
                  const Sums<T> &sums) {
  const Projection<T> projection(s, w, true);
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, G = s.groups(), D = s.D, d_row = D + LANES, L = s.L;
  const long chunks = divide_up(L, CHUNK);
  std::vector<double> short_sums(G * (s.K + 1) * RUNS);
  pool().run(s.B * chunks, (int)s.threads, [&](long task) {
    const long b = task / chunks, from = task % chunks * CHUNK, rows = std::min<long>(CHUNK, L - from);
    scratch().reserve((CHUNK * d_row + 256) * sizeof(T));
    T *normal = scratch().take<T>(CHUNK * d_row);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (b * L + from + r) * D, D, (T)s.eps, normal + r * d_row);
    for (long g = 0; g < G; g++)
      projection.project(g, rows, normal, d_row, projected + ((b * G + g) * L + from) * RUNS);
  });
  auto group = [&](long g, T *memory, bool shared) {
    const int threads = shared ? (int)s.threads : 1;
    T *first = memory, *second = first + n * CELL<T>, *spectrum_sum = second + n * CELL<T>;
    const long parts = threads > 1 ? 8 * threads : 1;
    pool().run(parts, threads, [&](long i) {
      const Range cells = piece(n, parts, i);
      std::fill(spectrum_sum + cells.start * CELL<T>, spectrum_sum + cells.stop * CELL<T>, T(0));
    });
    const MixerBackward<T> backward(s, projection, *fft, shared);
    for (long b = 0; b < s.B; b++)
      backward.run(g, projected + (b * G + g) * L * RUNS,
                   grad_y + b * L * D + s.from + g * LANES, spectrum + g * n * CELL<T>,
                   spectrum_sum, first, second, short_sums.data() + g * (s.K + 1) * RUNS);
    T *arrays[1] = {spectrum_sum};
    fft->template run<false, true, 1>(arrays, threads, [](long, long) {});
    const Vec<T> one = splat(T(1) / T(n));
    pool().run(parts, threads, [&](long i) {
      const Range lags = piece(L, parts, i);
      for (long t = lags.start; t < lags.stop; t++)
        store(grad_k + t * s.count + g * LANES,
              fft->untwisted(spectrum_sum + t * CELL<T>, t) * one);
    });
  };
  if (n >= SHARED_CELLS) {
    call_scratch().reserve((3 * n * CELL<T> + 256) * sizeof(T));
    T *memory = call_scratch().take<T>(3 * n * CELL<T>);
    for (long g = 0; g < G; g++) group(g, memory, true);
  } else {
    pool().run(G, (int)s.threads, [&](long g) {
      scratch().reserve((3 * n * CELL<T> + 256) * sizeof(T));
      group(g, scratch().take<T>(3 * n * CELL<T>), false);
    });
  }
  // Sums: per group the gradient of the folded matrix (48, D), then per group that of the bias.
  const long numbers = G * RUNS * (D + 1);
  const T *total = in_slabs<T>(s.rows(), numbers, s.threads, [&](T *sum, long from, long rows) {
    scratch().reserve((CHUNK * d_row + 256) * sizeof(T));
    T *normal = scratch().take<T>(CHUNK * d_row);
    for (long r = 0; r < rows; r++)
      normalise<T>(h + (from + r) * D, D, (T)s.eps, normal + r * d_row);
    for (long done = 0; done < rows;) { // a chunk may cross from one sequence into the next
      const long b = (from + done) / L, t = (from + done) % L;
      const long here = std::min(rows - done, L - t);
      for (long g = 0; g < G; g++) {
        const T *p = projected + ((b * G + g) * L + t) * RUNS;
        multiply<T>(here, p, RUNS, projection.back[g], grad_n + (from + done) * D, D, true);
        add_outer(here, p, RUNS, RUNS, normal + done * d_row, d_row, D, sum + g * RUNS * D, D,
                  s.bf16);
        add_rows(p, RUNS, here, RUNS, sum + G * RUNS * D + g * RUNS);
      }
      done += here;
    }
  });
  for (long g = 0; g < G; g++)
    for (long run = 0; run < 3; run++) {
      const long row = run * D + s.from + g * LANES, column = g * RUNS + run * LANES;
      const T *bias = total + G * RUNS * D + column;
      add_numbers((long)LANES, bias, sums.in_b + row);
      unfold<T>(LANES, D, total + column * D, bias, w.in_w + row * D, w.norm1_w, w.norm1_b,
                sums.in_w + row * D, sums.norm1_w, sums.norm1_b);
      const double *taps = short_sums.data() + g * (s.K + 1) * RUNS + run * LANES;
      for (long c = 0; c < LANES; c++) {
        for (long k = 0; k < s.K; k++) sums.short_w[(row + c) * s.K + k] += (T)taps[k * RUNS + c];
        sums.short_b[row + c] += (T)taps[s.K * RUNS + c];
      }
    }
}
