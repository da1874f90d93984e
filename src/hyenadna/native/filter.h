// The implicit filter: sine network, window, and the transform of the result.
#pragma once

#include "fft.h"
#include "layers.h"

constexpr long SHARED_CELLS = 1L << 17; // from here on all threads work on one transform

// The network up to its last sine: `depth` hidden layers of width F on features of width E, all with
// one vector of frequencies. w[i], b[i]: as torch keeps them.
template <class T> struct SineNetwork {
  static constexpr int MOST_LAYERS = 16;
  int64_t E, F, layers;
  const T *w[MOST_LAYERS], *b[MOST_LAYERS], *freq;
};

// out (L, F) of features z (L, E). F: a multiple of LANES.
template <class T>
void sine_network(const SineNetwork<T> &net, long L, long threads, const T *z, T *out) {
  const long F = net.F;
  std::vector<Packed<T>> matrices;
  for (long i = 0; i < net.layers; i++) {
    const long depth = i ? F : net.E;
    matrices.push_back(pack(net.w[i], 1, depth, depth, F, false));
  }
  const double flops = (double)L * F * (2 * F + 40) * net.layers;
  pool().run(divide_up(L, CHUNK), useful_threads(threads, flops), [&](long task) {
    const long from = task * CHUNK, rows = std::min<long>(CHUNK, L - from);
    scratch().reserve((2 * CHUNK * F + 256) * sizeof(T));
    T *room[2] = {scratch().take<T>(CHUNK * F), scratch().take<T>(CHUNK * F)};
    const T *x = z + from * net.E;
    long x_row = net.E;
    for (long i = 0; i < net.layers; i++) {
      T *to = i + 1 == net.layers ? out + from * F : room[i % 2];
      multiply<T>(rows, x, x_row, matrices[i], to, F);
      for (long r = 0; r < rows; r++)
        for (long j = 0; j < F; j += LANES) {
          T *at = to + r * F + j;
          store(at, sin_lanes<T>(load(net.freq + j) * (load(at) + load(net.b[i] + j))));
        }
      x = to;
      x_row = F;
    }
  });
}

// Adds the gradients of the network's weights, given grad (L, F) of its output.
template <class T>
void sine_network_backward(const SineNetwork<T> &net, long L, long threads, const T *z,
                           const T *grad, T *const *sum_w, T *const *sum_b, T *sum_freq) {
  const long F = net.F, E = net.E, n = net.layers;
  std::vector<Packed<T>> forward, backward;
  for (long i = 0; i < n; i++) {
    const long depth = i ? F : E;
    forward.push_back(pack(net.w[i], 1, depth, depth, F, false));
    backward.push_back(i ? pack(net.w[i], F, 1, F, F, false) : Packed<T>{});
  }
  // Sums: freq, then per layer bias and matrix; the first layer's matrix is kept transposed, (E, F),
  // since E is no multiple of LANES.
  const long numbers = F + n * F + E * F + (n - 1) * F * F;
  const T *total = in_slabs<T>(L, numbers, threads, [&](T *sum, long from, long rows) {
    scratch().reserve(((2 * n + 1) * CHUNK * F + 64 * (2 * n + 2)) * sizeof(T));
    T *angle[SineNetwork<T>::MOST_LAYERS], *value[SineNetwork<T>::MOST_LAYERS];
    const T *x = z + from * E;
    long x_row = E;
    for (long i = 0; i < n; i++) { // angle: before the frequency
      angle[i] = scratch().take<T>(CHUNK * F);
      value[i] = scratch().take<T>(CHUNK * F);
      multiply<T>(rows, x, x_row, forward[i], angle[i], F);
      for (long k = 0; k < rows * F; k += LANES) {
        const Vec<T> a = load(angle[i] + k) + load(net.b[i] + k % F);
        store(angle[i] + k, a);
        store(value[i] + k, sin_lanes<T>(load(net.freq + k % F) * a));
      }
      x = value[i];
      x_row = F;
    }
    T *g = scratch().take<T>(CHUNK * F);
    std::copy_n(grad + from * F, rows * F, g);
    for (long i = n; i-- > 0;) {
      T *bias = sum + F + i * F;
      for (long k = 0; k < rows * F; k += LANES) {
        const Vec<T> freq = load(net.freq + k % F), a = load(angle[i] + k);
        const Vec<T> slope = load(g + k) * cos_lanes<T>(freq * a);
        store(sum + k % F, load(sum + k % F) + slope * a);
        store(g + k, slope * freq);
        store(bias + k % F, load(bias + k % F) + slope * freq);
      }
      T *matrix = sum + F + n * F + (i ? E * F + (i - 1) * F * F : 0);
      if (i == 0) {
        add_outer<T>(rows, z + from * E, E, E, g, F, F, matrix, F, false);
      } else {
        add_outer<T>(rows, g, F, F, value[i - 1], F, F, matrix, F, false);
        multiply<T>(rows, g, F, backward[i], value[i], F); // value[i] is not needed any more
        std::swap(g, value[i]);
      }
    }
  });
  add_numbers(F, total, sum_freq);
  for (long i = 0; i < n; i++) {
    add_numbers(F, total + F + i * F, sum_b[i]);
    const T *matrix = total + F + n * F + (i ? E * F + (i - 1) * F * F : 0);
    if (i) {
      add_numbers(F * F, matrix, sum_w[i]);
    } else {
      for (long j = 0; j < F; j++)
        for (long k = 0; k < E; k++) sum_w[0][j * E + k] += matrix[k * F + j];
    }
  }
}

// What a filter is made of besides the block's weights: hidden (L, F), normalised lags t (L), decay
// rates (D).
template <class T> struct Filter {
  const T *hidden, *t, *rates;
  double shift;
  INLINE Vec<T> window(long lag, Vec<T> rate) const {
    return exp_lanes<T>(rate * splat(-t[lag])) + splat(T(shift));
  }
};

// out (groups, N, 2, 16): transform of the filters, divided by N.
template <class T>
void make_spectrum(const Shape &s, const Weights<T> &w, const Filter<T> &filter, T *out) {
  const auto fft = Fft<T>::plan(Fft<T>::good_length(s.L));
  const long n = fft->n, F = s.F;
  auto fill = [&](long g, const Packed<T> &matrix, long from, long to) {
    const long first = s.from + g * LANES;
    const Vec<T> rate = load(filter.rates + first), one = splat(T(1) / T(n));
    T *z = out + g * n * CELL<T>;
    scratch().reserve((CHUNK * LANES + 64) * sizeof(T));
    T *k = scratch().take<T>(CHUNK * LANES);
    for (long at = from; at < to; at += CHUNK) {
      const long rows = std::min(CHUNK, to - at);
      multiply<T>(rows, filter.hidden + at * F, F, matrix, k, LANES);
      for (long r = 0; r < rows; r++) {
        const long lag = at + r;
        Vec<T> value = load(k + r * LANES) * filter.window(lag, rate);
        if (lag == 0) value += load(w.skip + first);
        put(z + lag * CELL<T>, fft->twisted(value * one, lag));
      }
    }
  };
  std::vector<Packed<T>> matrices;
  for (long g = 0; g < s.groups(); g++)
    matrices.push_back(pack(w.last_w + (s.from + g * LANES) * F, 1, F, F, LANES, false));
  const bool shared = n >= SHARED_CELLS;
  auto zero_rest = [&](long g) {
    T *z = out + g * n * CELL<T>;
    std::fill(z + s.L * CELL<T>, z + n * CELL<T>, T(0));
  };
  if (!shared) {
    const int threads = useful_threads(s.threads, (double)s.count * s.L * (2 * F + 60));
    pool().run(s.groups(), threads, [&](long g) {
      fill(g, matrices[g], 0, s.L);
      zero_rest(g);
      T *z[1] = {out + g * n * CELL<T>};
      fft->template run<true, false, 1>(z, 1, [](long, long) {});
    });
    return;
  }
  for (long g = 0; g < s.groups(); g++) {
    const long parts = divide_up(s.L, 64 * CHUNK);
    pool().run(parts, s.threads, [&](long i) {
      fill(g, matrices[g], i * 64 * CHUNK, std::min<long>(s.L, (i + 1) * 64 * CHUNK));
    });
    zero_rest(g);
    T *z[1] = {out + g * n * CELL<T>};
    fft->template run<true, false, 1>(z, s.threads, [](long, long) {});
  }
}

// Adds to grad_hidden (L, F) and to the sums of the last layer and the skip, given the gradient of
// the filters, grad_k (L, count).
template <class T>
void filter_backward(const Shape &s, const Weights<T> &w, const Filter<T> &filter, const T *grad_k,
                     T *grad_hidden, const Sums<T> &sums) {
  const long F = s.F, C = s.count;
  add_numbers(C, grad_k, sums.skip + s.from);
  const Packed<T> back = pack(w.last_w + s.from * F, F, 1, C, F, false);
  const T *total = in_slabs<T>(s.L, C * F, s.threads, [&](T *sum, long from, long rows) {
    scratch().reserve((CHUNK * C + 256) * sizeof(T));
    T *slope = scratch().take<T>(CHUNK * C);
    for (long c = 0; c < C; c += LANES) {
      const Vec<T> rate = load(filter.rates + s.from + c);
      for (long r = 0; r < rows; r++)
        store(slope + r * C + c,
              load(grad_k + (from + r) * C + c) * filter.window(from + r, rate));
    }
    multiply<T>(rows, slope, C, back, grad_hidden + from * F, F, true);
    add_outer<T>(rows, slope, C, C, filter.hidden + from * F, F, F, sum, F, false);
  });
  add_numbers(C * F, total, sums.last_w + s.from * F);
}
