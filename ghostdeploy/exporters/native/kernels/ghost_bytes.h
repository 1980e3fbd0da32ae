/* Maps of bytes: a value is scale · (byte − zero), and a vector of them is loaded as floats that hold whole numbers.

   Every result is the same on every machine: what is summed are whole numbers below 2^24, in floats or in 32 bits, so no order
   and no fused multiply-add changes a bit; and a product that is rounded is added to nothing. */
#ifndef GHOST_BYTES_H
#define GHOST_BYTES_H

#include "ghost_steps.h"
#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

typedef uint8_t gv_bytes __attribute__((vector_size(GHOST_LANES)));
typedef int32_t gv_bits_any __attribute__((vector_size(4 * GHOST_LANES), aligned(4), may_alias));

GHOST_INLINE gv_bits gv_load_bytes(const uint8_t *from) {
#if GHOST_LANES == 16
    return (gv_bits)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    return (gv_bits)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
#else
    gv_bytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, gv_bits);
#endif
}

GHOST_INLINE gv gv_float(gv_bits value) { return __builtin_convertvector(value, gv); }

/* To the nearest whole number, halves to the even one. */
GHOST_INLINE gv_bits gv_round(gv value) {
#if GHOST_LANES == 16
    return (gv_bits)_mm512_cvtps_epi32(value);
#elif GHOST_LANES == 8
    return (gv_bits)_mm256_cvtps_epi32(value);
#elif defined(__SSE2__)
    return (gv_bits)_mm_cvtps_epi32(value);
#elif defined(__aarch64__)
    return (gv_bits)vcvtnq_s32_f32((float32x4_t)value);
#else
    gv_bits found;
    for (int i = 0; i < GHOST_LANES; i++) found[i] = (int32_t)__builtin_rintf(value[i]);
    return found;
#endif
}

/* Stores the first `count` lanes as bytes; they lie between 0 and 255. */
GHOST_INLINE void gv_store_bytes(uint8_t *to, gv_bits value, int count) {
#if GHOST_LANES == 16
    _mm_mask_storeu_epi8(to, (__mmask16)((1u << count) - 1), _mm512_cvtepi32_epi8((__m512i)value));
#else
#if defined(__AVX2__)
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128((__m256i)value), _mm256_extracti128_si256((__m256i)value, 1));
    uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    if (count == 8) {
        memcpy(to, &bytes, 8);
        return;
    }
    if (count & 4) {
        memcpy(to, &bytes, 4);
        bytes >>= 32;
        to += 4;
    }
#else
    const gv_bytes found = __builtin_convertvector(value, gv_bytes);
    uint32_t bytes;
    memcpy(&bytes, &found, 4);
    if (count == 4) {
        memcpy(to, &bytes, 4);
        return;
    }
#endif
    if (count & 2) {
        memcpy(to, &bytes, 2);
        bytes >>= 16;
        to += 2;
    }
    if (count & 1) *to = (uint8_t)bytes;
#endif
}

/* How a value that counts steps of the output becomes a byte: limits are 0 and 255 without the zero point, or 0 of a ReLU. */
typedef struct {
    float low, high;
    int zero;
} ghost_range;

GHOST_INLINE gv gv_limited(gv value, const ghost_range *range) {
#if GHOST_LANES == 16
    return _mm512_min_ps(_mm512_max_ps(value, gv_all(range->low)), gv_all(range->high));
#elif GHOST_LANES == 8
    return _mm256_min_ps(_mm256_max_ps(value, gv_all(range->low)), gv_all(range->high));
#elif defined(__SSE__)
    return _mm_min_ps(_mm_max_ps(value, gv_all(range->low)), gv_all(range->high));
#elif defined(__aarch64__)
    return (gv)vminq_f32(vmaxq_f32((float32x4_t)value, (float32x4_t)gv_all(range->low)), (float32x4_t)gv_all(range->high));
#else
    return gv_min(gv_max(value, gv_all(range->low)), gv_all(range->high));
#endif
}

GHOST_INLINE void gv_store_rounded(uint8_t *to, gv value, const ghost_range *range, int count) {
    value = gv_limited(value, range);
    gv_store_bytes(to, gv_round(value) + range->zero, count);
}

/* Epilogue of sums in 32 bits: (sum + bias) · factor, in steps of the output or as it is. */
typedef struct {
    const int32_t *bias;   /* with the zero point of the input times all weights taken off */
    const int32_t *weight_sums;
    const float *factor;
    float inverse;         /* steps of the output in 1, where an activation needs the value itself */
    ghost_range range;
    ghost_activation activation;
    int bytes;             /* the output's are, else floats */
} ghost_rounding;

/* out[p][n] = round((Σ_k in[p][k] · weights[n / 16][k / 4][n mod 16][k mod 4] + bias[n]) · factor[n]) */
void ghost_pointwise_int8(const uint8_t *in, size_t in_stride, void *out, size_t out_stride, int pixels, int inputs, int outputs,
                          const int8_t *weights, const ghost_rounding *after);

typedef struct {
    const uint8_t *const *in;
    const float *const *added; /* none */
    uint8_t *const *out;
    int count;
    int zero; /* of the input */
    const float *factor;
    ghost_range range;
} ghost_byte_rows_of;

void ghost_depthwise_int8(const ghost_byte_rows_of *rows, int in_width, size_t in_stride, int out_width, size_t out_stride,
                          int channels, const float *weights, size_t weights_stride, const ghost_window *window,
                          const ghost_epilogue *after);

#endif
