// What Python calls, for float (f32) and double (f64). Every function returns 0, or 1 when memory
// has run out.

#include "block.h"

template <class Work> static int guarded(const Work &work) {
  int result = 0;
  try {
    work();
  } catch (const std::bad_alloc &) {
    result = 1;
  }
  scratch().trim();
  call_scratch().trim();
  return result;
}

extern "C" int64_t fft_length(int64_t minimum) { return Fft<float>::good_length(minimum); }

#define FOR_TYPE(T, NAME)                                                                          \
  extern "C" int NAME##_spectrum(const Shape *s, const T *hidden, const T *last_w, const T *skip,  \
                                 const T *t, const T *rates, double shift, T *out) {               \
    return guarded([&] { make_spectrum<T>(*s, hidden, last_w, skip, t, rates, shift, out); });     \
  }                                                                                                \
  extern "C" int NAME##_mix(const Shape *s, const Weights<T> *w, const T *h, const T *spectrum,    \
                            T *gated, T *y) {                                                      \
    return guarded([&] {                                                                           \
      project_and_gate<T>(*s, *w, h, gated, y);                                                    \
      convolve<T>(*s, gated, spectrum, y);                                                         \
    });                                                                                            \
  }                                                                                                \
  extern "C" int NAME##_finish(const Shape *s, const Weights<T> *w, const T *h, const T *y,        \
                               T *out) {                                                           \
    return guarded([&] { finish<T>(*s, *w, h, y, out); });                                         \
  }                                                                                                \
  extern "C" int NAME##_finish_backward(const Shape *s, const Weights<T> *w, const T *h, T *y,     \
                                        T *grad, T *sums) {                                        \
    return guarded([&] { finish_backward<T>(*s, *w, h, y, grad, sums); });                         \
  }                                                                                                \
  extern "C" int NAME##_mix_backward(const Shape *s, const Weights<T> *w, const T *h,              \
                                     const T *spectrum, const T *grad_y, T *projected, T *grad_k,  \
                                     T *grad_n, T *sums, double *short_sums) {                     \
    return guarded([&] {                                                                           \
      mix_backward<T>(*s, *w, h, spectrum, grad_y, projected, grad_k, grad_n, sums, short_sums);   \
    });                                                                                            \
  }                                                                                                \
  extern "C" int NAME##_norm_backward(const Shape *s, const T *h, const T *grad_n, T *grad) {      \
    return guarded([&] { norm_backward<T>(*s, h, grad_n, grad); });                                \
  }

FOR_TYPE(float, f32)
FOR_TYPE(double, f64)
