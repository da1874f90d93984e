// Vectors of 16 lanes of float or double, by the compiler's own vector extension: one source for
// AVX-512, AVX2 and NEON.
//
// Where a register is smaller, such a vector is made of registers by `Wide`. It must not be a vector
// type of 64 bytes there: GCC keeps those in memory between any two operations (version 12 wrote them
// back in pieces of 8 and 16 bytes, so that each read waited for the store buffer), and products ran
// at a tenth of the processor's rate. Loops that need many vectors at a time (gemm.h, fft.h) work
// on registers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 16;

#if defined(__AVX512F__)
constexpr int FLOAT_LANES = 16, DOUBLE_LANES = 16; // a double vector is two registers: GCC does that well
#elif defined(__AVX__)
constexpr int FLOAT_LANES = 8, DOUBLE_LANES = 4;
#else // NEON, SSE
constexpr int FLOAT_LANES = 4, DOUBLE_LANES = 2;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif

// Lanes of a register.
template <class T> constexpr int REGISTER = sizeof(T) == 4 ? FLOAT_LANES : DOUBLE_LANES;

template <class T, int N> struct Wide;
// The type of N lanes, a power of two from REGISTER<T> to LANES.
template <class T, int N> struct Lanes {
  typedef Wide<T, N> V;
};
template <> struct Lanes<float, FLOAT_LANES> {
  typedef float V __attribute__((vector_size(4 * FLOAT_LANES), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(4 * FLOAT_LANES), aligned(4), may_alias));
};
template <> struct Lanes<double, DOUBLE_LANES> {
  typedef double V __attribute__((vector_size(8 * DOUBLE_LANES), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(8 * DOUBLE_LANES), aligned(8), may_alias));
};
template <class T> using Vec = typename Lanes<T, LANES>::V;
template <class T> using Register = typename Lanes<T, REGISTER<T>>::V;

// Two halves, with the operations of a vector.
template <class T, int N> struct Wide {
  typedef typename Lanes<T, N / 2>::V Half;
  Half low, high;

#define OPERATION(op)                                                                              \
  friend INLINE Wide operator op(Wide a, Wide b) { return {a.low op b.low, a.high op b.high}; }    \
  friend INLINE Wide operator op(Wide a, T b) { return {a.low op b, a.high op b}; }                \
  friend INLINE Wide operator op(T a, Wide b) { return {a op b.low, a op b.high}; }
  OPERATION(+)
  OPERATION(-)
  OPERATION(*)
  OPERATION(/)
#undef OPERATION
  friend INLINE Wide operator-(Wide a) { return {-a.low, -a.high}; }
  friend INLINE Wide &operator+=(Wide &a, Wide b) { return a = a + b; }
};

// Where N is left out, it is LANES.
template <class T, int N = LANES> INLINE typename Lanes<T, N>::V load(const T *p) {
  if constexpr (N > REGISTER<T>) return {load<T, N / 2>(p), load<T, N / 2>(p + N / 2)};
  else return *(const typename Lanes<T, N>::V *)p;
}
template <class T, int N = LANES> INLINE void store(T *p, typename Lanes<T, N>::V v) {
  if constexpr (N > REGISTER<T>) {
    store<T, N / 2>(p, v.low);
    store<T, N / 2>(p + N / 2, v.high);
  } else {
    *(typename Lanes<T, N>::V *)p = v;
  }
}
template <class T, int N = LANES> INLINE typename Lanes<T, N>::V splat(T x) {
  return x - typename Lanes<T, N>::V{};
}

template <class T, int N = LANES>
INLINE typename Lanes<T, N>::V larger(typename Lanes<T, N>::V a, typename Lanes<T, N>::V b) {
  if constexpr (N > REGISTER<T>)
    return {larger<T, N / 2>(a.low, b.low), larger<T, N / 2>(a.high, b.high)};
  else return a > b ? a : b;
}

template <class T, int N = LANES> INLINE T sum_lanes(typename Lanes<T, N>::V v) {
  if constexpr (N > REGISTER<T>) {
    return sum_lanes<T, N / 2>(v.low + v.high);
  } else {
    T s[4] = {};
    for (int i = 0; i < N; i++) s[i & 3] += v[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
  }
}

// Rows and columns of 16 vectors, each a vector type of the compiler, exchanged by exchanging blocks
// of 8, 4, 2, 1.
template <int S, class T> INLINE void swap_blocks(Vec<T> *v) {
#define FROM_LOW(l) ((l)&S ? LANES + (l)-S : (l))
#define FROM_HIGH(l) ((l)&S ? LANES + (l) : (l) + S)
#define ALL_LANES(F)                                                                               \
  F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14),   \
      F(15)
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++)
    if (!(i & S)) {
      const Vec<T> a = v[i], b = v[i + S];
      v[i] = __builtin_shufflevector(a, b, ALL_LANES(FROM_LOW));
      v[i + S] = __builtin_shufflevector(a, b, ALL_LANES(FROM_HIGH));
    }
#undef FROM_LOW
#undef FROM_HIGH
#undef ALL_LANES
}
template <class T> INLINE void transposed(const T *from, long row, T *to) {
  Vec<T> v[LANES];
  for (long i = 0; i < LANES; i++) v[i] = load(from + i * row);
  swap_blocks<8, T>(v);
  swap_blocks<4, T>(v);
  swap_blocks<2, T>(v);
  swap_blocks<1, T>(v);
  for (long i = 0; i < LANES; i++) store(to + i * LANES, v[i]);
}

template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
  static constexpr float magic = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float lowest = -87.0f, highest = 88.0f;
  static constexpr int mantissa = 23, bias = 127, degree = 7;
};
template <> struct ExpConstants<double> {
  static constexpr double magic = 6755399441055744.0; // 1.5 * 2^52
  static constexpr double lowest = -708.0, highest = 709.0;
  static constexpr int mantissa = 52, bias = 1023, degree = 13;
};

// exp(x), x clamped to the range of normal numbers: 2^n times the Taylor series of the rest
// |r| <= ln(2)/2, where the terms left out are below half a unit in the last place.
template <class T> INLINE Register<T> exp_register(Register<T> x) {
  typedef ExpConstants<T> C;
  typedef typename Lanes<T, REGISTER<T>>::I I;
  constexpr int N = REGISTER<T>;
  const Register<T> low = splat<T, N>(C::lowest), high = splat<T, N>(C::highest);
  const Register<T> magic = splat<T, N>(C::magic);
  x = x < low ? low : x;
  x = x > high ? high : x;
  const Register<T> shifted = x * T(1.4426950408889634) + magic;
  const Register<T> n = shifted - magic;
  // ln 2 in two parts; the first has so few digits that n * part is exact.
  const T ln2_high = T(0.693145751953125), ln2_low = T(1.42860682030941723212e-6);
  const Register<T> r = (x - n * ln2_high) - n * ln2_low;
  Register<T> sum = splat<T, N>(T(1));
#pragma GCC unroll 16
  for (int k = C::degree; k >= 1; k--) sum = sum * (r * T(1.0 / k)) + T(1);
  const I power = (((I)shifted - (I)magic) + C::bias) << C::mantissa;
  return sum * (Register<T>)power;
}
template <class T, int N = LANES>
INLINE typename Lanes<T, N>::V exp_lanes(typename Lanes<T, N>::V x) {
  if constexpr (N > REGISTER<T>) return {exp_lanes<T, N / 2>(x.low), exp_lanes<T, N / 2>(x.high)};
  else return exp_register<T>(x);
}

// x sigmoid(2 z), z = sqrt(2/pi) (x + 0.044715 x^3): GELU in its tanh form.
template <class T> INLINE Vec<T> gelu_gate(Vec<T> x) {
  const T a = T(-2 * 0.7978845608028654);
  const Vec<T> z = x * (a + T(a * T(0.044715)) * x * x);
  return T(1) / (T(1) + exp_lanes<T>(z));
}

template <class T> INLINE Vec<T> gelu(Vec<T> x) { return x * gelu_gate<T>(x); }

template <class T> INLINE Vec<T> gelu_slope(Vec<T> x, Vec<T> gate) {
  const T a = T(2 * 0.7978845608028654);
  return gate + x * gate * (T(1) - gate) * (a + T(3 * a * T(0.044715)) * x * x);
}

template <class T> struct SinConstants;
template <> struct SinConstants<float> { // pi in parts of few digits: n * part is exact
  static constexpr float pi1 = 3.140625f, pi2 = 9.67502593994140625e-4f, pi3 = 1.50995799e-7f;
  static constexpr float largest = 12000.0f;
  static constexpr int terms = 6;
};
template <> struct SinConstants<double> {
  static constexpr double pi1 = 3.14159265346825122834, pi2 = 1.21542010126079319532e-10,
                          pi3 = 4.04453249759190126308e-21;
  static constexpr double largest = 1e6;
  static constexpr int terms = 11;
};

// (-1)^n sin(x - n pi), n the integer (or, with HALF, integer less 1/2) nearest to x / pi: the sine,
// or the cosine. Taylor series; the terms left out are below the last digit.
template <class T, bool HALF> INLINE Register<T> wave_register(Register<T> x) {
  typedef SinConstants<T> C;
  typedef typename Lanes<T, REGISTER<T>>::I I;
  constexpr int N = REGISTER<T>;
  const Register<T> size = x < T(0) ? -x : x;
  T beyond = 0;
  for (int lane = 0; lane < N; lane++) beyond = size[lane] > C::largest ? T(1) : beyond;
  if (__builtin_expect(beyond != 0, 0)) { // the library reduces any angle
    Register<T> out;
    for (int lane = 0; lane < N; lane++) out[lane] = HALF ? std::cos(x[lane]) : std::sin(x[lane]);
    return out;
  }
  const T shift = HALF ? T(0.5) : T(0);
  const Register<T> shifted = x * T(0.31830988618379067154) + shift + ExpConstants<T>::magic;
  Register<T> n = shifted - ExpConstants<T>::magic;
  const I odd = ((I)shifted & 1) << (sizeof(T) * 8 - 1);
  if (HALF) n = n - T(0.5);
  const Register<T> r = ((x - n * C::pi1) - n * C::pi2) - n * C::pi3, square = r * r;
  Register<T> sum = splat<T, N>(T(1));
#pragma GCC unroll 16
  for (int k = C::terms; k >= 1; k--) sum = T(1) - square * T(1.0 / (2 * k * (2 * k + 1))) * sum;
  return (Register<T>)((I)(sum * r) ^ odd);
}
template <class T, bool HALF, int N = LANES>
INLINE typename Lanes<T, N>::V wave(typename Lanes<T, N>::V x) {
  if constexpr (N > REGISTER<T>)
    return {wave<T, HALF, N / 2>(x.low), wave<T, HALF, N / 2>(x.high)};
  else return wave_register<T, HALF>(x);
}
template <class T> INLINE Vec<T> sin_lanes(Vec<T> x) { return wave<T, false>(x); }
template <class T> INLINE Vec<T> cos_lanes(Vec<T> x) { return wave<T, true>(x); }
