/* Vectors of float by the extensions of GCC and Clang: one source for AVX-512, AVX2, NEON, WebAssembly and plain C.

   GHOST_LANES  floats of a vector: what one register of the machine holds, or half of that with GHOST_NARROW
   A load or store needs no alignment beyond that of float. The compiler contracts a * b + c to one instruction where the
   machine has it. */
#ifndef GHOST_VECTOR_H
#define GHOST_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#if defined(__wasm__)
void *memcpy(void *to, const void *from, size_t size); /* ghost_wasm.c: there is no C library */
void *memset(void *to, int value, size_t size);
#else
#include <string.h>
#endif
#if defined(__AVX512F__)
#include <immintrin.h> /* which takes as long to read as a small kernel to compile */
#endif

#if defined(__AVX512F__) && !defined(GHOST_NARROW)
#define GHOST_LANES 16
#elif defined(__AVX__)
#define GHOST_LANES 8
#else
#define GHOST_LANES 4
#endif

/* Keeps a product from being fused with a sum, where that would give other bits on other machines. */
#if defined(__SSE__)
#define GHOST_APART(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__)
#define GHOST_APART(value) __asm__("" : "+w"(value))
#else
#define GHOST_APART(value) (void)(value)
#endif

/* Keeps a value in its register. With AVX-512 a second load of 64 bytes costs as much as the multiply-add that reads it. */
#if GHOST_LANES == 16
#define GHOST_HELD(value) __asm__("" : "+v"(value))
#else
#define GHOST_HELD(value) (void)(value)
#endif

typedef float gv __attribute__((vector_size(4 * GHOST_LANES)));
typedef float gv_half __attribute__((vector_size(2 * GHOST_LANES)));
typedef float gv_half_any __attribute__((vector_size(2 * GHOST_LANES), aligned(4), may_alias));
typedef int32_t gv_bits __attribute__((vector_size(4 * GHOST_LANES)));
typedef float gv_any __attribute__((vector_size(4 * GHOST_LANES), aligned(4), may_alias));

#define GHOST_INLINE static inline __attribute__((always_inline))

GHOST_INLINE gv gv_load(const float *from) { return *(const gv_any *)from; }

GHOST_INLINE void gv_store(float *to, gv value) { *(gv_any *)to = value; }

GHOST_INLINE gv_half gv_load_half(const float *from) { return *(const gv_half_any *)from; }

GHOST_INLINE gv gv_all(float value) { return value - (gv){0}; }

#if GHOST_LANES == 8
#define GV_LOW(value) __builtin_shufflevector(value, value, 0, 1, 2, 3)
#define GV_HIGH(value) __builtin_shufflevector(value, value, 4, 5, 6, 7)
#endif

/* Half a vector, and anything. */
GHOST_INLINE gv gv_of_half(gv_half half) {
#if GHOST_LANES == 16
    return _mm512_castps256_ps512((__m256)half);
#else
    gv found = {0};
    __builtin_memcpy(&found, &half, sizeof half);
    return found;
#endif
}

/* Counts of lanes that one store writes: half of them, and with AVX-512 any. */
#if GHOST_LANES == 16
#define GV_STORES_AT_ONCE(count) 1
#else
#define GV_STORES_AT_ONCE(count) ((count) == GHOST_LANES || (count) == GHOST_LANES / 2)
#endif

/* Stores `count` lanes, one of these counts, but not all. */
GHOST_INLINE void gv_store_part(float *to, gv value, int count) {
#if GHOST_LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), value);
#elif GHOST_LANES == 8
    (void)count;
    *(gv_half_any *)to = GV_LOW(value);
#else
    (void)count;
    to[0] = value[0];
    to[1] = value[1];
#endif
}

/* Stores the first `count` lanes, 0 < count ≤ GHOST_LANES: the count is the same for many stores, so the branch is free.
   There are no loops: compilers make a call of one, for which all registers are saved. */
GHOST_INLINE void gv_store_some(float *to, gv value, int count) {
    if (count == GHOST_LANES) {
        gv_store(to, value);
        return;
    }
#if GHOST_LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), value);
#else
#if GHOST_LANES == 8
    gv_half part = GV_LOW(value);
    if (count >= 4) {
        *(gv_half_any *)to = part;
        if (count == 4) return;
        part = GV_HIGH(value);
        to += 4;
        count -= 4;
    }
#else
    const gv part = value;
#endif
    to[0] = part[0];
    if (count > 1) to[1] = part[1];
    if (count > 2) to[2] = part[2];
#endif
}

/* Loads the first `count` lanes, 0 < count ≤ GHOST_LANES, and zeros: what the caller owns may end there. */
GHOST_INLINE gv gv_load_some(const float *from, int count) {
    gv found = {0};
    if (count == GHOST_LANES) return gv_load(from);
    __builtin_memcpy(&found, from, (size_t)count * sizeof(float));
    return found;
}

/* NaN stays NaN, as in PyTorch. */
GHOST_INLINE gv gv_max(gv value, gv least) {
    gv_bits low = value < least;
    return (gv)(((gv_bits)value & ~low) | ((gv_bits)least & low));
}

GHOST_INLINE gv gv_min(gv value, gv most) {
    gv_bits high = value > most;
    return (gv)(((gv_bits)value & ~high) | ((gv_bits)most & high));
}

GHOST_INLINE gv gv_relu(gv value) {
#if GHOST_LANES == 16
    return _mm512_max_ps((gv){0}, value); /* of two operands with a NaN it returns the second */
#elif GHOST_LANES == 8
    return __builtin_ia32_maxps256((gv){0}, value);
#else
    return (gv)((gv_bits)value & ~(value < (gv){0}));
#endif
}

#endif
