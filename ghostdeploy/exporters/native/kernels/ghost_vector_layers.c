/* Layers of one pixel: every weight is read once and used once, so memory limits.

   out[n] = Σ_k in[k] · w[k][n]                 float: 4 bytes a weight
   out[n] = scale[n] · Σ_k in[k] · q[k][n]      INT8 weights, float sums: 1 byte a weight, and the same order of sums

   A strip of 16 outputs is read in one stream. Even and odd k have sums of their own, so that none waits. INT8 weights of
   four k are the bytes of one word, which two shifts bring out: every machine has these. */
#include "ghost_kernels.h"

#define PARTS (GHOST_STRIP / GHOST_LANES)
#define CHAINS 2
#define FOUR 4
#define AHEAD 2048 /* bytes of INT8 weights: each is used once, so what limits is how soon memory is asked for it */

GHOST_INLINE void finish(gv (*sum)[PARTS], float *out, int channel, int outputs, const float *scales,
                         const ghost_epilogue *after) {
    for (int v = 0; v < PARTS; v++) {
        const int at = channel + v * GHOST_LANES, rest = outputs - at;
        if (rest <= 0) break;
        gv value = sum[0][v] + sum[1][v];
        if (scales) value *= gv_load(scales + at) * 0x1p-24f;
        value += gv_load(after->bias + at);
        if (after->added) value += gv_load(after->added + at);
        gv_store_some(out + at, gv_activate(value, after->activation), rest < GHOST_LANES ? rest : GHOST_LANES);
    }
}

void ghost_vector(const float *in, float *out, int inputs, int outputs, const float *weights, const ghost_epilogue *after) {
    for (int channel = 0; channel < outputs; channel += GHOST_STRIP) {
        gv sum[CHAINS][PARTS] = {{{0}}};
        int k = 0;
        for (; k + CHAINS <= inputs; k += CHAINS)
            for (int c = 0; c < CHAINS; c++, weights += GHOST_STRIP)
                for (int v = 0; v < PARTS; v++) sum[c][v] += gv_load(weights + v * GHOST_LANES) * in[k + c];
        for (; k < inputs; k++, weights += GHOST_STRIP)
            for (int v = 0; v < PARTS; v++) sum[0][v] += gv_load(weights + v * GHOST_LANES) * in[k];
        finish(sum, out, channel, outputs, 0, after);
    }
}

/* Byte `place` of every word, with its sign, times 2^24. */
GHOST_INLINE gv byte_of(gv_bits words, const int place) {
    return __builtin_convertvector((words << (24 - 8 * place)) & ((gv_bits){0} - (1 << 24)), gv);
}

void ghost_vector_int8(const float *in, float *out, int inputs, int outputs, const int8_t *weights, const float *scales,
                       const ghost_epilogue *after) {
    for (int channel = 0; channel < outputs; channel += GHOST_STRIP) {
        gv sum[FOUR][PARTS] = {{{0}}};
        for (int k = 0; k < inputs; k += FOUR, weights += FOUR * GHOST_STRIP) {
            gv_bits words[PARTS];
            __builtin_prefetch(weights + AHEAD, 0, 3);
            for (int v = 0; v < PARTS; v++) words[v] = (gv_bits)gv_load((const float *)weights + v * GHOST_LANES);
            const int count = inputs - k < FOUR ? inputs - k : FOUR; /* words are whole, inputs may end */
            if (count == FOUR) {
                for (int j = 0; j < FOUR; j++)
                    for (int v = 0; v < PARTS; v++) sum[j][v] += byte_of(words[v], j) * in[k + j];
            } else {
                for (int v = 0; v < PARTS; v++) sum[0][v] += byte_of(words[v], 0) * in[k];
                if (count > 1)
                    for (int v = 0; v < PARTS; v++) sum[1][v] += byte_of(words[v], 1) * in[k + 1];
                if (count > 2)
                    for (int v = 0; v < PARTS; v++) sum[2][v] += byte_of(words[v], 2) * in[k + 2];
            }
        }
        for (int v = 0; v < PARTS; v++) {
            sum[0][v] += sum[2][v];
            sum[1][v] += sum[3][v];
        }
        finish(sum, out, channel, outputs, scales, after);
    }
}
