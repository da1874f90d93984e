// FFT of 16 channels at once, for convolution.
//
// An array holds N complex numbers of 16 lanes each, (N, 2, 16). Forward is decimation in frequency,
// backward decimation in time, both in place: the order of the spectrum is permuted, which a
// product does not mind. Blocks are handled depth first, so that all but the first passes run in
// cache, and a convolution returns from a block before it leaves the cache.
//
// A causal convolution of real sequences of L <= N samples needs no padding to 2 N: with
// w = exp(i pi / 2N), multiply sample j by w^j; the product modulo (x^N - i) then has the first N
// outputs in its real part and the rest in its imaginary part (right-angle convolution). The map
// is unitary, so its adjoint is the same with the conjugate spectrum.
#pragma once

#include "pool.h"
#include "simd.h"

#include <memory>
#include <vector>

template <class T, int N = LANES> struct Complex {
  typename Lanes<T, N>::V r, i;
};

template <class T> constexpr long CELL = 2 * LANES; // numbers of one complex vector

// N of the lanes of a cell.
template <class T, int N = LANES> INLINE Complex<T, N> get(const T *z) {
  return {load<T, N>(z), load<T, N>(z + LANES)};
}
template <class T, int N = LANES> INLINE void put(T *z, Complex<T, N> x) {
  store<T, N>(z, x.r);
  store<T, N>(z + LANES, x.i);
}
template <class T, int N> INLINE Complex<T, N> operator+(Complex<T, N> a, Complex<T, N> b) {
  return {a.r + b.r, a.i + b.i};
}
template <class T, int N> INLINE Complex<T, N> operator-(Complex<T, N> a, Complex<T, N> b) {
  return {a.r - b.r, a.i - b.i};
}
template <class T, int N> INLINE Complex<T, N> operator*(Complex<T, N> a, Complex<T, N> b) {
  return {a.r * b.r - a.i * b.i, a.r * b.i + a.i * b.r};
}
template <class T, int N> // conj(a) b
INLINE Complex<T, N> conj_times(Complex<T, N> a, Complex<T, N> b) {
  return {a.r * b.r + a.i * b.i, a.r * b.i - a.i * b.r};
}
// a times -i (forward) or i (backward)
template <bool BACK, class T, int N> INLINE Complex<T, N> quarter(Complex<T, N> a) {
  if constexpr (BACK) return {-a.i, a.r};
  return {a.i, -a.r};
}
// x times w or its conjugate, w a plain complex number
template <bool BACK, class T, int N> INLINE Complex<T, N> turn(Complex<T, N> x, const T *w) {
  const auto c = splat<T, N>(w[0]), s = splat<T, N>(w[1]);
  if constexpr (BACK) return {x.r * c + x.i * s, x.i * c - x.r * s};
  return {x.r * c - x.i * s, x.i * c + x.r * s};
}

template <int R, bool BACK, class T, int N> INLINE void dft(Complex<T, N> *x) {
  typedef Complex<T, N> C;
  if constexpr (R == 2) {
    const C a = x[0], b = x[1];
    x[0] = a + b;
    x[1] = a - b;
  } else if constexpr (R == 3) {
    const T s = T(0.86602540378443864676); // sin(2 pi / 3)
    const C a = x[0], sum = x[1] + x[2], d = x[1] - x[2];
    const C mid = {a.r - sum.r * T(0.5), a.i - sum.i * T(0.5)};
    const C q = quarter<BACK>(C{d.r * s, d.i * s});
    x[0] = a + sum;
    x[1] = mid + q;
    x[2] = mid - q;
  } else if constexpr (R == 4) {
    const C a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3];
    const C d = quarter<BACK>(x[1] - x[3]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  } else if constexpr (R == 5) {
    const T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
    const T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
    const C a = x[0], p = x[1] + x[4], m = x[1] - x[4], q = x[2] + x[3], n = x[2] - x[3];
    const C u = {a.r + p.r * c1 + q.r * c2, a.i + p.i * c1 + q.i * c2};
    const C v = {a.r + p.r * c2 + q.r * c1, a.i + p.i * c2 + q.i * c1};
    const C f = quarter<BACK>(C{m.r * s1 + n.r * s2, m.i * s1 + n.i * s2});
    const C g = quarter<BACK>(C{m.r * s2 - n.r * s1, m.i * s2 - n.i * s1});
    x[0] = a + p + q;
    x[1] = u + f;
    x[2] = v + g;
    x[3] = v - g;
    x[4] = u - f;
  } else {
    static_assert(R == 8);
    const T h = T(0.70710678118654752440); // sqrt(1/2)
    C e[4] = {x[0] + x[4], x[1] + x[5], x[2] + x[6], x[3] + x[7]};
    const C d1 = x[1] - x[5], d3 = x[3] - x[7];
    const C t1 = quarter<BACK>(d1), t3 = quarter<BACK>(d3);
    C o[4] = {x[0] - x[4],
                       {(d1.r + t1.r) * h, (d1.i + t1.i) * h},
                       quarter<BACK>(x[2] - x[6]),
                       {(t3.r - d3.r) * h, (t3.i - d3.i) * h}};
    dft<4, BACK>(e);
    dft<4, BACK>(o);
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
      x[2 * q] = e[q];
      x[2 * q + 1] = o[q];
    }
  }
}

// Passes are divided into parts of so many numbers when several threads share them.
constexpr long LEAF_CELLS = 2048; // 256 KiB of float: all passes below this size stay in cache

template <class T> class Fft {
  struct Stage {
    int radix;
    long n, m; // block length, and length of its parts
    std::vector<T> twiddles; // (m, radix - 1, 2)
  };
  std::vector<Stage> stages_;
  std::vector<T> twist_; // (N, 2): exp(i pi j / 2N)

  template <int R, bool BACK> static void pass(const Stage &s, T *z, long from, long to) {
    constexpr int N = REGISTER<T>;
    const long step = s.m * CELL<T>;
    for (long j = from; j < to; j++) {
      const T *w = s.twiddles.data() + j * 2 * (R - 1);
      for (long lane = 0; lane < LANES; lane += N) {
        Complex<T, N> x[R];
        T *at = z + j * CELL<T> + lane;
#pragma GCC unroll 8
        for (int q = 0; q < R; q++) x[q] = get<T, N>(at + q * step);
        if constexpr (BACK) {
#pragma GCC unroll 8
          for (int q = 1; q < R; q++) x[q] = turn<true>(x[q], w + 2 * (q - 1));
          dft<R, true>(x);
        } else {
          dft<R, false>(x);
#pragma GCC unroll 8
          for (int q = 1; q < R; q++) x[q] = turn<false>(x[q], w + 2 * (q - 1));
        }
#pragma GCC unroll 8
        for (int q = 0; q < R; q++) put<T, N>(at + q * step, x[q]);
      }
    }
  }

  template <bool BACK> static void any_pass(const Stage &s, T *z, long from, long to) {
    if (s.radix == 8) return pass<8, BACK>(s, z, from, to);
    if (s.radix == 4) return pass<4, BACK>(s, z, from, to);
    if (s.radix == 5) return pass<5, BACK>(s, z, from, to);
    if (s.radix == 3) return pass<3, BACK>(s, z, from, to);
    return pass<2, BACK>(s, z, from, to);
  }

  // Applies passes to all arrays of one block, depth first; `leaf(offset, cells)` is called between
  // the forward and the backward passes, while that part of the block is in cache.
  template <bool FORWARD, bool BACK, int ARRAYS, class Leaf>
  void descend(size_t stage, T *const *z, long offset, const Leaf &leaf) const {
    const long n = stage < stages_.size() ? stages_[stage].n : 1;
    if (n > LEAF_CELLS) {
      const Stage &s = stages_[stage];
      if (FORWARD)
        for (int a = 0; a < ARRAYS; a++) any_pass<false>(s, z[a] + offset * CELL<T>, 0, s.m);
      for (int q = 0; q < s.radix; q++)
        descend<FORWARD, BACK, ARRAYS>(stage + 1, z, offset + q * s.m, leaf);
      if (BACK)
        for (int a = 0; a < ARRAYS; a++) any_pass<true>(s, z[a] + offset * CELL<T>, 0, s.m);
      return;
    }
    if (FORWARD)
      for (int a = 0; a < ARRAYS; a++)
        for (size_t d = stage; d < stages_.size(); d++)
          for (long at = 0; at < n; at += stages_[d].n)
            any_pass<false>(stages_[d], z[a] + (offset + at) * CELL<T>, 0, stages_[d].m);
    leaf(offset, n);
    if (BACK)
      for (int a = 0; a < ARRAYS; a++)
        for (size_t d = stages_.size(); d-- > stage;)
          for (long at = 0; at < n; at += stages_[d].n)
            any_pass<true>(stages_[d], z[a] + (offset + at) * CELL<T>, 0, stages_[d].m);
  }

public:
  const long n;

  explicit Fft(long length) : twist_(2 * length), n(length) {
    for (long rest = length; rest > 1;) {
      // Large radices first: the first passes are those that run outside of the cache.
      const int radix = rest % 8 == 0 && rest != 16 ? 8
                        : rest % 4 == 0             ? 4
                        : rest % 2 == 0             ? 2
                        : rest % 3 == 0             ? 3
                                                    : 5;
      Stage s{radix, rest, rest / radix, {}};
      s.twiddles.resize(s.m * 2 * (radix - 1));
      for (long j = 0; j < s.m; j++)
        for (int q = 1; q < radix; q++) {
          const double angle = -2 * M_PI * (double)(j * q) / (double)rest;
          s.twiddles[(j * (radix - 1) + q - 1) * 2] = (T)std::cos(angle);
          s.twiddles[(j * (radix - 1) + q - 1) * 2 + 1] = (T)std::sin(angle);
        }
      stages_.push_back(std::move(s));
      rest /= radix;
    }
    for (long j = 0; j < n; j++) {
      twist_[2 * j] = (T)std::cos(M_PI * (double)j / (2.0 * (double)n));
      twist_[2 * j + 1] = (T)std::sin(M_PI * (double)j / (2.0 * (double)n));
    }
  }

  // The smallest length >= minimum that is a power of two times one of these: at most a seventh more.
  static long good_length(long minimum) {
    long best = 1;
    while (best < minimum) best *= 2;
    for (long odd : {3, 5, 9, 15, 25, 27, 45, 75, 225}) {
      long length = odd;
      while (length < minimum) length *= 2;
      if (length < best) best = length;
    }
    return best;
  }

  int64_t bytes() const { return 4 * n * (int64_t)sizeof(T); } // of both tables, about

  // Plans are shared; those of the most recent lengths are kept, as far as they are small.
  static std::shared_ptr<const Fft> plan(long length) {
    static std::mutex mutex;
    static std::vector<std::shared_ptr<const Fft>> kept;
    constexpr int64_t MOST = int64_t(32) << 20;
    {
      std::lock_guard<std::mutex> lock(mutex);
      for (size_t i = 0; i < kept.size(); i++)
        if (kept[i]->n == length) {
          auto found = kept[i];
          kept.erase(kept.begin() + i);
          kept.push_back(found);
          return found;
        }
    }
    auto made = std::make_shared<const Fft>(length); // long: not under the lock
    std::lock_guard<std::mutex> lock(mutex);
    kept.push_back(made);
    kept_bytes() += kept.back()->bytes();
    int64_t all = 0;
    for (const auto &plan : kept) all += plan->bytes();
    while (kept.size() > 1 && (all > MOST || kept.size() > 8)) {
      all -= kept.front()->bytes();
      kept_bytes() -= kept.front()->bytes();
      kept.erase(kept.begin());
    }
    return made;
  }

  // Sample j times w^j, w as above.
  INLINE Complex<T> twisted(Vec<T> x, long j) const {
    return {x * splat(twist_[2 * j]), x * splat(twist_[2 * j + 1])};
  }
  // Real part of z[j] times w^-j.
  INLINE Vec<T> untwisted(const T *z, long j) const {
    return load(z) * splat(twist_[2 * j]) + load(z + LANES) * splat(twist_[2 * j + 1]);
  }

  // Its imaginary part.
  INLINE Vec<T> beyond(const T *z, long j) const {
    return load(z + LANES) * splat(twist_[2 * j]) - load(z) * splat(twist_[2 * j + 1]);
  }

  // Transforms ARRAYS arrays, calls leaf(offset, cells) on every part of the spectrum, transforms
  // back; FORWARD or BACK alone leave out the other half. With threads > 1 they share the work.
  template <bool FORWARD, bool BACK, int ARRAYS, class Leaf>
  void run(T *const *z, int threads, const Leaf &leaf) const {
    if (threads < 2 || n <= LEAF_CELLS) return descend<FORWARD, BACK, ARRAYS>(0, z, 0, leaf);
    const Stage &s = stages_[0];
    const long parts = 8 * threads;
    auto first = [&](auto back) {
      pool().run(parts, threads, [&](long i) {
        const Range j = piece(s.m, parts, i);
        for (int a = 0; a < ARRAYS; a++) any_pass<decltype(back)::value>(s, z[a], j.start, j.stop);
      });
    };
    if (FORWARD) first(std::false_type{});
    pool().run(s.radix, threads,
               [&](long q) { descend<FORWARD, BACK, ARRAYS>(1, z, q * s.m, leaf); });
    if (BACK) first(std::true_type{});
  }
};
