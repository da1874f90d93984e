// The effect of samples that have come on outputs still to come: conv/online.py, `settle`.
#pragma once

#include "filter.h"

// For one group of 16 channels of one sequence. Samples and outputs are cut into pieces of one
// length N; modulo x^N - i the samples times `k0 + i k1`, two neighbouring pieces of the filter, have
// their effect on the piece of outputs after them as imaginary part.
template <class T> class Settling {
  const Filter<T> &filter_;
  const Packed<T> &matrix_; // (F, 16): last layer of the filter network
  const Vec<T> rate_;
  const long lags_, F_;
  const Fft<T> &fft_;

public:
  static constexpr long SHORTEST = 1024, LONGEST = 32768;
  static long piece_length(long count, long room) {
    const long wanted = std::max(std::min(count, room), SHORTEST);
    return Fft<T>::good_length(std::clamp<long>(std::max(count, room), 16, std::min(wanted, LONGEST)));
  }
  static long numbers(long n) { return 4 * n * CELL<T> + CHUNK * LANES + 512; }

  Settling(const Filter<T> &filter, const Packed<T> &matrix, Vec<T> rate, long lags, long F,
           const Fft<T> &fft)
      : filter_(filter), matrix_(matrix), rate_(rate), lags_(lags), F_(F), fft_(fft) {}

  // samples (count, 16); effect (room, 16), rows `effect_row` apart. Takes `numbers` of scratch.
  void run(const T *samples, long count, T *effect, long room, long effect_row) const {
    const long n = fft_.n, pieces = divide_up(count, n);
    T *z = scratch().take<T>(n * CELL<T>), *total = scratch().take<T>(n * CELL<T>);
    T *low = scratch().take<T>(n * CELL<T>), *high = scratch().take<T>(n * CELL<T>);
    T *k = scratch().take<T>(CHUNK * LANES);
    for (long ahead = 0; ahead * n < room; ahead++) {
      if (ahead == 0 || pieces > 1) transform_filter(ahead, k, low);
      for (long back = 0; back < pieces; back++) {
        transform_filter(ahead + back + 1, k, high);
        transform_samples(samples, count - (back + 1) * n, z);
        for (long c = 0; c < n * CELL<T>; c += CELL<T>) {
          const Complex<T> a = get(low + c), b = get(high + c);
          const Complex<T> sum = get(z + c) * Complex<T>{a.r - b.i, a.i + b.r};
          put(total + c, back ? get(total + c) + sum : sum);
        }
        std::swap(low, high);
      }
      T *arrays[1] = {total};
      fft_.template run<false, true, 1>(arrays, 1, [](long, long) {});
      for (long t = 0; t < std::min(n, room - ahead * n); t++)
        store(effect + (ahead * n + t) * effect_row, fft_.beyond(total + t * CELL<T>, t));
    }
  }

private:
  // Filter at the lags of a piece, divided by N; the skip term at lag 0 has no effect later.
  void transform_filter(long piece, T *k, T *z) const {
    const long n = fft_.n;
    const Vec<T> one = splat(T(1) / T(n));
    for (long at = 0; at < n; at += CHUNK) {
      const long rows = std::min(CHUNK, n - at), known = std::min(rows, lags_ - piece * n - at);
      if (known > 0) multiply<T>(known, filter_.hidden + (piece * n + at) * F_, F_, matrix_, k, LANES);
      for (long r = 0; r < rows; r++) {
        const long lag = piece * n + at + r;
        Vec<T> value{};
        if (r < known) value = load(k + r * LANES) * filter_.window(lag, rate_) * one;
        put(z + (at + r) * CELL<T>, fft_.twisted(value, at + r));
      }
    }
    T *arrays[1] = {z};
    fft_.template run<true, false, 1>(arrays, 1, [](long, long) {});
  }

  void transform_samples(const T *samples, long first, T *z) const {
    for (long t = 0; t < fft_.n; t++)
      put(z + t * CELL<T>, first + t < 0 ? Complex<T>{}
                                         : fft_.twisted(load(samples + (first + t) * LANES), t));
    T *arrays[1] = {z};
    fft_.template run<true, false, 1>(arrays, 1, [](long, long) {});
  }
};

// effect (B, room, D), its columns of the block of channels, of gated (B, groups, L, 16). filter: at
// L + room lags, or as many as there are.
template <class T>
void settle(const Shape &s, const Weights<T> &w, const Filter<T> &filter, long lags, const T *gated,
            long room, T *effect) {
  const long G = s.groups(), F = s.F;
  const auto fft = Fft<T>::plan(Settling<T>::piece_length(s.L, room));
  std::vector<Packed<T>> matrices;
  for (long g = 0; g < G; g++)
    matrices.push_back(pack(w.last_w + (s.from + g * LANES) * F, 1, F, F, LANES, false));
  const int threads = useful_threads(s.threads, 300.0 * (double)(s.L + room) * LANES * s.B * G);
  pool().run(s.B * G, threads, [&](long task) {
    const long b = task % s.B, g = task / s.B, first = s.from + g * LANES;
    scratch().reserve(Settling<T>::numbers(fft->n) * sizeof(T));
    const Settling<T> settling(filter, matrices[g], load(filter.rates + first), lags, F, *fft);
    settling.run(gated + (b * G + g) * s.L * LANES, s.L, effect + b * room * s.D + first, room, s.D);
  });
}
