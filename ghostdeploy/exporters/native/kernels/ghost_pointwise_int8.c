/* Pointwise convolutions of bytes: like ghost_pointwise.c, with four inputs of an output in one word of 32 bits.

       sum[n] += Σ_j in[4k + j] · w[n][4k + j]

   AVX-512 VNNI, AVX-VNNI   one instruction
   NEON dot product         one, for signed bytes: in − 128, and 128 · Σ_k w[n][k] is added to the bias
   AVX2, AVX-512            products of two in 16 bits (weights are chosen so that their sum fits), then sums of two
   others                   bytes with odd and with even places as 16 bits: a product fits, and two are added in 32

   The sums are the same whatever is used. */
#include "ghost_bytes.h"

#define WIDE 2
#define FOUR 4
#if GHOST_LANES == 16
#define SUMS 24
#elif defined(__aarch64__)
#define SUMS 16
#elif GHOST_LANES == 8
#define SUMS 10
#else
#define SUMS 6
#endif
#define PER_STRIP (GHOST_STRIP / GHOST_LANES)
#define MOST_PIXELS 12
#define MOST(vectors) (SUMS / (vectors) < MOST_PIXELS ? SUMS / (vectors) : MOST_PIXELS)

#if defined(__AVX512VNNI__) && GHOST_LANES == 16
typedef __m512i four;
GHOST_INLINE four weights_of(const int8_t *from) { return _mm512_loadu_si512(from); }
GHOST_INLINE four inputs_of(int32_t word) { return _mm512_set1_epi32(word); }
GHOST_INLINE gv_bits dot(gv_bits sum, four x, four w) { return (gv_bits)_mm512_dpbusd_epi32((__m512i)sum, x, w); }
#elif GHOST_LANES == 16
typedef __m512i four;
GHOST_INLINE four weights_of(const int8_t *from) { return _mm512_loadu_si512(from); }
GHOST_INLINE four inputs_of(int32_t word) { return _mm512_set1_epi32(word); }
GHOST_INLINE gv_bits dot(gv_bits sum, four x, four w) {
    return sum + (gv_bits)_mm512_madd_epi16(_mm512_maddubs_epi16(x, w), _mm512_set1_epi16(1));
}
#elif defined(__AVX2__)
typedef __m256i four;
GHOST_INLINE four weights_of(const int8_t *from) { return _mm256_loadu_si256((const __m256i *)from); }
GHOST_INLINE four inputs_of(int32_t word) { return _mm256_set1_epi32(word); }
GHOST_INLINE gv_bits dot(gv_bits sum, four x, four w) {
#if defined(__AVXVNNI__)
    return (gv_bits)_mm256_dpbusd_avx_epi32((__m256i)sum, x, w);
#else
    return sum + (gv_bits)_mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1));
#endif
}
#elif defined(__ARM_FEATURE_DOTPROD)
#define SIGNED_INPUTS 1
typedef int8x16_t four;
GHOST_INLINE four weights_of(const int8_t *from) { return vld1q_s8(from); }
GHOST_INLINE four inputs_of(int32_t word) {
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(vdupq_n_s32(word)), vdupq_n_u8(128)));
}
GHOST_INLINE gv_bits dot(gv_bits sum, four x, four w) { return (gv_bits)vdotq_s32((int32x4_t)sum, x, w); }
#else
typedef int16_t gv_pairs __attribute__((vector_size(4 * GHOST_LANES)));
typedef struct {
    gv_pairs even, odd;
} four;
GHOST_INLINE four weights_of(const int8_t *from) {
    const gv_pairs both = (gv_pairs) * (const gv_bits_any *)from;
    return (four){(gv_pairs)(both << 8) >> 8, both >> 8};
}
GHOST_INLINE four inputs_of(int32_t word) {
    const gv_bits all = word - (gv_bits){0};
    return (four){(gv_pairs)(all & 0x00ff00ff), (gv_pairs)((all >> 8) & 0x00ff00ff)};
}
GHOST_INLINE gv_bits dot(gv_bits sum, four x, four w) {
#if defined(__SSE2__)
    sum += (gv_bits)_mm_madd_epi16((__m128i)x.even, (__m128i)w.even);
    return sum + (gv_bits)_mm_madd_epi16((__m128i)x.odd, (__m128i)w.odd);
#else
    const gv_bits even = (gv_bits)(x.even * w.even), odd = (gv_bits)(x.odd * w.odd);
    return sum + ((gv_bits)(even << 16) >> 16) + (even >> 16) + ((gv_bits)(odd << 16) >> 16) + (odd >> 16);
#endif
}
#endif

typedef struct {
    const uint8_t *in;
    const int8_t *weights;
    uint8_t *out;
    size_t in_stride, out_stride; /* bytes */
    const ghost_rounding *after;
    int words, channel, lanes; /* of the last vector */
} tile;

/* What is rare: outputs that are floats, and activations that need the value itself. */
static __attribute__((noinline)) void store_any(const tile *t, gv (*sum)[WIDE], int pixels, int vectors) {
    const ghost_rounding *after = t->after;
    const size_t size = after->bytes ? 1 : sizeof(float);
    for (int p = 0; p < pixels; p++) {
        for (int v = 0; v < vectors; v++) {
            uint8_t *to = t->out + p * t->out_stride + v * GHOST_LANES * size;
            const int lanes = v == vectors - 1 ? t->lanes : GHOST_LANES;
            gv value = sum[p][v];
            if (after->activation.kind > GHOST_RELU) value = gv_activate(value, after->activation) * after->inverse;
            if (after->bytes) gv_store_rounded(to, value, &after->range, lanes);
            else gv_store_some((float *)to, after->activation.kind == GHOST_RELU ? gv_relu(value) : value, lanes);
        }
    }
}

GHOST_INLINE void compute(const tile *t, const int pixels, const int vectors) {
    gv_bits sum[MOST_PIXELS][WIDE];
    gv value[MOST_PIXELS][WIDE];
    const size_t strip = (size_t)t->words * FOUR * GHOST_STRIP;
    const ghost_rounding *after = t->after;
    const int8_t *weights = t->weights;
    for (int v = 0; v < vectors; v++) {
        gv_bits bias = *(const gv_bits_any *)(after->bias + t->channel + v * GHOST_LANES);
#if defined(SIGNED_INPUTS)
        bias += *(const gv_bits_any *)(after->weight_sums + t->channel + v * GHOST_LANES) * 128;
#endif
        for (int p = 0; p < pixels; p++) sum[p][v] = bias;
    }
#pragma GCC unroll 2
    for (int k = 0; k < t->words; k++, weights += FOUR * GHOST_STRIP) {
        four w[WIDE];
        for (int v = 0; v < vectors; v++)
            w[v] = weights_of(weights + (v / PER_STRIP) * strip + (v % PER_STRIP) * GHOST_LANES * FOUR);
        for (int p = 0; p < pixels; p++) {
            int32_t word;
            memcpy(&word, t->in + p * t->in_stride + k * FOUR, FOUR);
            const four x = inputs_of(word);
            for (int v = 0; v < vectors; v++) sum[p][v] = dot(sum[p][v], x, w[v]);
        }
    }
    for (int v = 0; v < vectors; v++) {
        const gv factor = gv_load(after->factor + t->channel + v * GHOST_LANES);
        for (int p = 0; p < pixels; p++) value[p][v] = gv_float(sum[p][v]) * factor;
    }
    if (!after->bytes || after->activation.kind > GHOST_RELU) {
        gv kept[MOST_PIXELS][WIDE];
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < vectors; v++) kept[p][v] = value[p][v];
        store_any(t, kept, pixels, vectors);
        return;
    }
    const ghost_range range = after->range;
    uint8_t *out = t->out;
    for (int p = 0; p < pixels; p++, out += t->out_stride) {
        for (int v = 0; v < vectors - 1; v++) gv_store_rounded(out + v * GHOST_LANES, value[p][v], &range, GHOST_LANES);
        gv_store_rounded(out + (vectors - 1) * GHOST_LANES, value[p][vectors - 1], &range, t->lanes);
    }
}

GHOST_INLINE void several(tile t, int tiles, const int pixels, const int vectors) {
    for (; tiles > 0; tiles--) {
        compute(&t, pixels, vectors);
        t.in += pixels * t.in_stride;
        t.out += pixels * t.out_stride;
    }
}

#define PIXELS(count, vectors)                                                                                              \
    case count:                                                                                                             \
        if (count <= MOST(vectors)) several(*t, tiles, count, vectors);                                                     \
        break;
#define TILES(name, vectors)                                                                                                \
    static __attribute__((noinline)) void name(const tile *t, int tiles, int pixels) {                                      \
        switch (pixels) {                                                                                                   \
            PIXELS(1, vectors)                                                                                              \
            PIXELS(2, vectors)                                                                                              \
            PIXELS(3, vectors)                                                                                              \
            PIXELS(4, vectors)                                                                                              \
            PIXELS(5, vectors)                                                                                              \
            PIXELS(6, vectors)                                                                                              \
            PIXELS(7, vectors)                                                                                              \
            PIXELS(8, vectors)                                                                                              \
            PIXELS(9, vectors)                                                                                              \
            PIXELS(10, vectors)                                                                                             \
            PIXELS(11, vectors)                                                                                             \
            PIXELS(12, vectors)                                                                                             \
        }                                                                                                                   \
    }

TILES(one, 1)
TILES(two, 2)

void ghost_pointwise_int8(const uint8_t *in, size_t in_stride, void *out, size_t out_stride, int pixels, int inputs, int outputs,
                          const int8_t *weights, const ghost_rounding *after) {
    const size_t size = after->bytes ? 1 : sizeof(float);
    const int vectors = (outputs + GHOST_LANES - 1) / GHOST_LANES;
    tile t = {.in_stride = in_stride, .out_stride = out_stride * size, .after = after, .words = (inputs + FOUR - 1) / FOUR};
    for (int first = 0; first < vectors; first += WIDE) {
        const int wide = vectors - first < WIDE ? vectors - first : WIDE;
        const int most = MOST(wide), tiles = (pixels + most - 1) / most, small = pixels / tiles, larger = pixels - small * tiles;
        t.channel = first * GHOST_LANES;
        t.lanes = outputs - t.channel - (wide - 1) * GHOST_LANES;
        if (t.lanes > GHOST_LANES) t.lanes = GHOST_LANES;
        t.weights = weights + (size_t)(t.channel / GHOST_STRIP) * t.words * FOUR * GHOST_STRIP + t.channel % GHOST_STRIP * FOUR;
        for (int part = 0, done = 0; part < 2; part++) {
            const int count = part ? small : small + 1, many = part ? tiles - larger : larger;
            t.in = in + (size_t)done * in_stride;
            t.out = (uint8_t *)out + (size_t)done * t.out_stride + t.channel * size;
            if (many) (wide == 2 ? two : one)(&t, many, count);
            done += many * count;
        }
    }
}
