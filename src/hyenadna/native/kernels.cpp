// What Python calls, for float (f32) and double (f64). Every function returns 0, or 1 when memory
// has run out; a step 2 where an id is not in the table.

#include "feed.h"
#include "mixer.h"
#include "ends.h"
#include "settle.h"
#include "step.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

template <class Work> static int guarded(const Work &work) {
  int result = 0;
  arena().reset();
  try {
    work();
  } catch (...) { // no exception may pass into C
    result = 1;
  }
  return result;
}

// Gives large work space of this thread back; between calls it is kept.
EXPORTED void release() {
  scratch().trim();
  call_scratch().trim();
}
// Bytes of work space and tables that are kept between calls.
EXPORTED int64_t kept() { return kept_bytes(); }
EXPORTED int has_bf16() { return HAS_BF16; }
EXPORTED int64_t fft_length(int64_t minimum) { return Fft<float>::good_length(minimum); }

#define FOR_TYPE(T, NAME)                                                                          \
  EXPORTED int NAME##_sine_network(const SineNetwork<T> *net, int64_t L, int64_t threads,        \
                                     const T *z, T *out) {                                         \
    return guarded([&] { sine_network<T>(*net, L, threads, z, out); });                            \
  }                                                                                                \
  EXPORTED int NAME##_sine_network_backward(const SineNetwork<T> *net, int64_t L,                \
                                              int64_t threads, const T *z, const T *grad,          \
                                              T *const *sum_w, T *const *sum_b, T *sum_freq) {     \
    return guarded(                                                                                \
        [&] { sine_network_backward<T>(*net, L, threads, z, grad, sum_w, sum_b, sum_freq); });     \
  }                                                                                                \
  EXPORTED int NAME##_spectrum(const Shape *s, const Weights<T> *w, const Filter<T> *filter,     \
                                 T *out) {                                                         \
    return guarded([&] { make_spectrum<T>(*s, *w, *filter, out); });                               \
  }                                                                                                \
  EXPORTED int NAME##_filter_backward(const Shape *s, const Weights<T> *w,                       \
                                        const Filter<T> *filter, const T *grad_k, T *grad_hidden,  \
                                        const Sums<T> *sums) {                                     \
    return guarded([&] { filter_backward<T>(*s, *w, *filter, grad_k, grad_hidden, *sums); });      \
  }                                                                                                \
  EXPORTED int NAME##_mix(const Shape *s, const Weights<T> *w, const T *h, const T *spectrum,    \
                            const Past<T> *past, T *gated, T *y) {                                 \
    return guarded([&] {                                                                           \
      const Past<T> none{};                                                                        \
      project_and_gate<T>(*s, *w, h, past ? *past : none, gated, y);                               \
      convolve<T>(*s, gated, spectrum, past ? *past : none, y);                                    \
    });                                                                                            \
  }                                                                                                \
  EXPORTED int NAME##_settle(const Shape *s, const Weights<T> *w, const Filter<T> *filter,         \
                               int64_t lags, const T *gated, int64_t room, T *effect) {            \
    return guarded([&] { settle<T>(*s, *w, *filter, lags, gated, room, effect); });                \
  }                                                                                                \
  EXPORTED void *NAME##_stepper(const Shape *s, int64_t layers, const Weights<T> *const *w,        \
                                const Head<T> *head, const T *table) {                             \
    void *made = nullptr;                                                                          \
    guarded([&] { made = new Stepper<T>(*s, layers, w, *head, table); });                          \
    return made;                                                                                   \
  }                                                                                                \
  EXPORTED void NAME##_stepper_free(void *stepper) { delete (Stepper<T> *)stepper; }               \
  EXPORTED int NAME##_step(const void *stepper, const Steps *at   , const StepLayer<T> *layers,    \
                           const int64_t *ids, T *logits) {                                        \
    const auto &mine = *(const Stepper<T> *)stepper;                                               \
    if (!mine.knows(ids, at->B)) return 2;                                                         \
    return guarded([&] { mine.run(*at, layers, ids, logits); });                                   \
  }                                                                                                \
  EXPORTED int NAME##_mix_backward(const Shape *s, const Weights<T> *w, const T *h,              \
                                     const T *spectrum, const T *grad_y, T *projected, T *grad_k,  \
                                     T *grad_n, const Sums<T> *sums) {                             \
    return guarded([&] {                                                                           \
      mix_backward<T>(*s, *w, h, spectrum, grad_y, projected, grad_k, grad_n, *sums);              \
    });                                                                                            \
  }                                                                                                \
  EXPORTED int NAME##_finish(const Shape *s, const Weights<T> *w, const T *h, const T *y,        \
                               T *out) {                                                           \
    return guarded([&] { finish<T>(*s, *w, h, y, out); });                                         \
  }                                                                                                \
  EXPORTED int NAME##_finish_backward(const Shape *s, const Weights<T> *w, const T *h, T *y,     \
                                        T *grad, const Sums<T> *sums) {                            \
    return guarded([&] { finish_backward<T>(*s, *w, h, y, grad, *sums); });                        \
  }                                                                                                \
  EXPORTED int NAME##_norm_backward(const Shape *s, const T *h, const T *grad_n, T *grad) {      \
    return guarded([&] { norm_backward<T>(*s, h, grad_n, grad); });                                \
  }                                                                                                \
  EXPORTED int NAME##_embed(const Shape *s, const int64_t *ids, const T *table, T *h) {          \
    return guarded([&] { embed<T>(*s, ids, table, h); });                                          \
  }                                                                                                \
  EXPORTED int NAME##_embed_backward(const Shape *s, const int64_t *ids, int64_t table_rows,     \
                                       const T *grad, T *sum) {                                    \
    return guarded([&] { embed_backward<T>(*s, ids, table_rows, grad, sum); });                    \
  }                                                                                                \
  EXPORTED int NAME##_norm(const Shape *s, const T *w, const T *b, const T *h, T *out) {         \
    return guarded([&] { norm<T>(*s, w, b, h, out); });                                            \
  }                                                                                                \
  EXPORTED int NAME##_nats(const Shape *s, const Head<T> *head, const T *h,                      \
                             const int64_t *targets, T *nats) {                                    \
    return guarded([&] { nats_of<T>(*s, *head, h, targets, nats); });                              \
  }                                                                                                \
  EXPORTED int NAME##_nats_backward(const Shape *s, const Head<T> *head, const T *h,             \
                                      const int64_t *targets, const T *grad, T *grad_h,            \
                                      T *sum_w, T *sum_norm_w, T *sum_norm_b) {                    \
    return guarded([&] {                                                                           \
      nats_backward<T>(*s, *head, h, targets, grad, grad_h, sum_w, sum_norm_w, sum_norm_b);        \
    });                                                                                            \
  }

FOR_TYPE(float, f32)
FOR_TYPE(double, f64)
