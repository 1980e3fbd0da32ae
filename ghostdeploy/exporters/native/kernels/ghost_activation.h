/* Activations, in the epilogue of whatever produces a tensor.

   hard sigmoid   min(max(x / 6 + 1/2, 0), 1)
   sigmoid        1 / (1 + exp(-x))
   exp(x) = 2^n · exp(r), n = round(x / ln 2), |r| ≤ ln 2 / 2, exp(r) by a polynomial of degree 6: error below 2 units in
   the last place between -87 and 88; beyond, x is clipped to that range. */
#ifndef GHOST_ACTIVATION_H
#define GHOST_ACTIVATION_H

#include "ghost_vector.h"

enum {
    GHOST_NONE,
    GHOST_RELU,
    GHOST_CLIP,          /* min(max(x, low), high) */
    GHOST_HARD_SIGMOID,  /* min(max(low · x + high, 0), 1) */
    GHOST_HARD_SWISH,    /* x · hard sigmoid(x) */
    GHOST_SIGMOID,
    GHOST_SILU,          /* x · sigmoid(x) */
    GHOST_LEAKY_RELU,    /* x below 0: low · x */
};

typedef struct {
    int kind;
    float low, high;
} ghost_activation;

GHOST_INLINE gv gv_exp(gv x) {
    x = gv_min(gv_max(x, gv_all(-87.0f)), gv_all(88.0f));
    const gv shift = gv_all(12582912.0f); /* 1.5 · 2^23: adding it rounds to a whole number */
    gv n = x * 1.44269504f + shift;
    gv_bits exponent = ((gv_bits)n - (gv_bits)shift) << 23;
    n -= shift;
    gv r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    gv p = r * (1.0f / 720) + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (gv)((gv_bits)p + exponent);
}

GHOST_INLINE gv gv_sigmoid(gv x) { return 1.0f / (1.0f + gv_exp(-x)); }

GHOST_INLINE gv gv_unit(gv x) { return gv_min(gv_relu(x), gv_all(1.0f)); }

/* Not inline: it is long, and what is common is done in place. */
static __attribute__((noinline, unused)) gv gv_activate(gv x, ghost_activation how) {
    switch (how.kind) {
    case GHOST_RELU:
        return gv_relu(x);
    case GHOST_CLIP:
        return gv_min(gv_max(x, gv_all(how.low)), gv_all(how.high));
    case GHOST_HARD_SIGMOID:
        x = x * how.low;
        GHOST_APART(x);
        return gv_unit(x + how.high);
    case GHOST_HARD_SWISH:
        return x * gv_unit(x * (1.0f / 6) + 0.5f);
    case GHOST_SIGMOID:
        return gv_sigmoid(x);
    case GHOST_SILU:
        return x * gv_sigmoid(x);
    case GHOST_LEAKY_RELU: {
        gv_bits below = x < (gv){0};
        return (gv)(((gv_bits)(x * how.low) & below) | ((gv_bits)x & ~below));
    }
    default:
        return x;
    }
}

#endif
