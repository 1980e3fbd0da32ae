/* Pointwise convolutions: a matrix product whose tile of outputs stays in registers.

   A tile is P pixels × V vectors of output channels. Each input channel k costs V loads of weights and P broadcasts, and
   gives P · V multiply-adds:

       lanes   registers   tile          loads per multiply-add
       16      32          12 × 2, 12 × 1, and × 1½, × ½ at the end
                                               0.58, 1.08
       8       16          6 × 2, 12 × 1       0.67, 1.08
       4       32          6 × 4, 8 × 3, …     0.42, 0.46
       4       16          3 × 4, 4 × 3, …     0.58, 0.58

   A core does two multiply-adds and two or more loads a cycle, so that the multiply-adds limit. Weights lie in strips of
   16 outputs, in the order in which tiles read them; a strip stays in the first cache while all pixels pass. The pixels
   are shared out evenly: 49 are 9 tiles of 5 or 6, not 8 of 6 and one that waits for its own sums. */
#include "ghost_kernels.h"

#if GHOST_LANES == 4
#define WIDE 4
#else
#define WIDE 2
#endif
#if GHOST_LANES == 16 || defined(__aarch64__)
#define SUMS 24
#else
#define SUMS 12
#endif
/* Processors that compute vectors of 16 in two halves, as Zen 4 does, take half the time for half a vector; others lose nothing. */
#define HALVES (GHOST_LANES == 16)
#define PER_STRIP (GHOST_STRIP / GHOST_LANES)
#define WEIGHTS_OF(v, strip) (((v) / PER_STRIP) * (strip) + (v) % PER_STRIP * GHOST_LANES)
#define MOST_PIXELS 12
/* Pixels of a tile of some vectors. */
#define MOST(vectors) (SUMS / (vectors) < MOST_PIXELS ? SUMS / (vectors) : MOST_PIXELS)

typedef struct {
    const float *const *in; /* of each run, the inputs of the first pixel */
    const float *weights, *bias, *added;
    float *out, *second;
    size_t in_stride, out_stride, added_stride, second_stride;
    ghost_activation activation;
    size_t first;          /* of the inputs, from there */
    int inputs, runs, run; /* in all, how many runs, inputs of each */
    int lanes;             /* of the last vector */
    int rare;              /* see store_any */
} tile;

/* What is rare: sums of a map, other activations, a second place, and a last vector that is neither whole nor half. */
static __attribute__((noinline)) void store_any(const tile *t, gv (*sum)[WIDE], int pixels, int vectors) {
    for (int p = 0; p < pixels; p++) {
        for (int v = 0; v < vectors; v++) {
            const int lanes = v == vectors - 1 ? t->lanes : GHOST_LANES;
            gv value = sum[p][v], added = {0};
            if (t->added) added = gv_load(t->added + p * t->added_stride + v * GHOST_LANES);
            if (!t->second) value += added;
            if (t->activation.kind == GHOST_RELU) value = gv_relu(value);
            else if (t->activation.kind != GHOST_NONE) value = gv_activate(value, t->activation);
            gv_store_some(t->out + p * t->out_stride + v * GHOST_LANES, value, lanes);
            if (t->second) gv_store_some(t->second + p * t->second_stride + v * GHOST_LANES, value + added, lanes);
        }
    }
}

/* p, and p + y: what the cheap operation reads, and the first half of what the block gives. */
static __attribute__((noinline)) void store_both(const tile *t, gv (*sum)[WIDE], int pixels, int vectors) {
    const float *added = t->added;
    float *out = t->out, *second = t->second;
    const int last = (vectors - 1) * GHOST_LANES, lanes = t->lanes;
    for (int p = 0; p < pixels; p++, added += t->added_stride, out += t->out_stride, second += t->second_stride) {
        for (int v = 0; v < vectors - 1; v++) {
            gv_store(out + v * GHOST_LANES, sum[p][v]);
            gv_store(second + v * GHOST_LANES, sum[p][v] + gv_load(added + v * GHOST_LANES));
        }
        gv_store_some(out + last, sum[p][vectors - 1], lanes);
        gv_store_some(second + last, sum[p][vectors - 1] + gv_load(added + last), lanes);
    }
}

/* With `half` the last vector is half a one, see HALVES; with `gathered` there may be several runs. */
GHOST_INLINE void compute(const tile *t, const int pixels, const int vectors, const int half, const int gathered) {
    gv sum[MOST_PIXELS][WIDE];
    gv_half tail[MOST_PIXELS];
    const size_t strip = (size_t)t->inputs * GHOST_STRIP, stride = t->in_stride;
    const int strips = (vectors + PER_STRIP - 1) / PER_STRIP; /* that this tile reads; the next ones are asked for early */
    const int whole = vectors - half, last = (vectors - 1) * GHOST_LANES;
    const float *weights = t->weights;
    for (int p = 0; p < pixels; p++) {
        for (int v = 0; v < whole; v++) sum[p][v] = gv_load(t->bias + v * GHOST_LANES);
        if (half) tail[p] = gv_load_half(t->bias + last);
    }
    const int runs = gathered ? t->runs : 1, inputs = gathered ? t->run : t->inputs;
    for (int run = 0; run < runs; run++) {
        const float *in = t->in[run] + t->first;
#if HALVES
#pragma GCC unroll 2
#else
#pragma GCC unroll 4
#endif
        for (int k = 0; k < inputs; k++, weights += GHOST_STRIP) {
            gv w[WIDE];
            gv_half part = {0};
            for (int next = strips; next < 2 * strips; next++) __builtin_prefetch(weights + next * strip, 0, 2);
            for (int v = 0; v < whole; v++) w[v] = gv_load(weights + WEIGHTS_OF(v, strip));
            if (half) part = gv_load_half(weights + WEIGHTS_OF(whole, strip));
            for (int p = 0; p < pixels; p++) {
                for (int v = 0; v < whole; v++) sum[p][v] += w[v] * in[p * stride + k];
                if (half) tail[p] += part * in[p * stride + k];
            }
        }
    }
    if (half)
        for (int p = 0; p < pixels; p++) sum[p][whole] = gv_of_half(tail[p]);
    if (t->rare) {
        gv kept[MOST_PIXELS][WIDE]; /* a copy: the sums themselves have no address, and so stay in registers */
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < vectors; v++) kept[p][v] = sum[p][v];
        if (t->second && t->activation.kind == GHOST_NONE) store_both(t, kept, pixels, vectors);
        else store_any(t, kept, pixels, vectors);
        return;
    }
    if (t->activation.kind == GHOST_RELU)
        for (int p = 0; p < pixels; p++)
            for (int v = 0; v < vectors; v++) sum[p][v] = gv_relu(sum[p][v]);
    float *out = t->out;
    for (int p = 0; p < pixels; p++, out += t->out_stride) {
        for (int v = 0; v < vectors - 1; v++) gv_store(out + v * GHOST_LANES, sum[p][v]);
        if (!half && t->lanes == GHOST_LANES) gv_store(out + last, sum[p][vectors - 1]);
        else gv_store_part(out + last, sum[p][vectors - 1], t->lanes);
    }
}

/* Tiles of the same size, one after the other: the next one begins while the last one is still being stored. */
GHOST_INLINE void several(tile t, int tiles, const int pixels, const int vectors, const int half, const int gathered) {
    for (; tiles > 0; tiles--) {
        compute(&t, pixels, vectors, half, gathered);
        t.first += pixels * t.in_stride;
        t.out += pixels * t.out_stride;
        if (t.added) t.added += pixels * t.added_stride;
        if (t.second) t.second += pixels * t.second_stride;
    }
}

#define PIXELS(count, vectors, half, gathered)                                                                              \
    case count:                                                                                                             \
        if (count <= MOST(vectors)) several(*t, tiles, count, vectors, half, gathered);                                     \
        break;
#define TILES(name, vectors, half, gathered)                                                                                \
    static __attribute__((noinline)) void name(const tile *t, int tiles, int pixels) {                                      \
        switch (pixels) {                                                                                                   \
            PIXELS(1, vectors, half, gathered)                                                                              \
            PIXELS(2, vectors, half, gathered)                                                                              \
            PIXELS(3, vectors, half, gathered)                                                                              \
            PIXELS(4, vectors, half, gathered)                                                                              \
            PIXELS(5, vectors, half, gathered)                                                                              \
            PIXELS(6, vectors, half, gathered)                                                                              \
            PIXELS(7, vectors, half, gathered)                                                                              \
            PIXELS(8, vectors, half, gathered)                                                                              \
            PIXELS(9, vectors, half, gathered)                                                                              \
            PIXELS(10, vectors, half, gathered)                                                                             \
            PIXELS(11, vectors, half, gathered)                                                                             \
            PIXELS(12, vectors, half, gathered)                                                                             \
        }                                                                                                                   \
    }

typedef void tiles_of(const tile *, int, int);
#if HALVES /* tiles that are gathered take one run as well: two of each would be 100 KB more */
TILES(one, 1, 0, 1)
TILES(two, 2, 0, 1)
TILES(half, 1, 1, 1)
TILES(one_and_half, 2, 1, 1)
static tiles_of *const whole_or_half[2][WIDE] = {{one, two}, {half, one_and_half}};
#else
TILES(one, 1, 0, 0)
TILES(two, 2, 0, 0)
TILES(one_gathered, 1, 0, 1)
TILES(two_gathered, 2, 0, 1)
#if WIDE == 4
TILES(three, 3, 0, 0)
TILES(four, 4, 0, 0)
TILES(three_gathered, 3, 0, 1)
TILES(four_gathered, 4, 0, 1)
static tiles_of *const one_or_many[2][WIDE] = {{one, two, three, four}, {one_gathered, two_gathered, three_gathered, four_gathered}};
#else
static tiles_of *const one_or_many[2][WIDE] = {{one, two}, {one_gathered, two_gathered}};
#endif
#endif

static void product(tile t, int pixels, int outputs, const float *weights, const ghost_epilogue *after) {
    const int vectors = (outputs + GHOST_LANES - 1) / GHOST_LANES;
    float *out = t.out;
    t.inputs = t.runs * t.run;
    t.added_stride = after->added_stride;
    t.second_stride = after->second_stride;
    t.activation = after->activation;
    for (int first = 0; first < vectors; first += WIDE) {
        const int wide = vectors - first < WIDE ? vectors - first : WIDE;
        const int most = MOST(wide), tiles = (pixels + most - 1) / most;
        const int channel = first * GHOST_LANES, rest = outputs - channel - (wide - 1) * GHOST_LANES;
        const int small = pixels / tiles, larger = pixels - small * tiles;
#if HALVES
        tiles_of *const make = whole_or_half[rest <= GHOST_LANES / 2][wide - 1];
#else
        tiles_of *const make = one_or_many[t.runs > 1][wide - 1];
#endif
        t.lanes = rest < GHOST_LANES ? rest : GHOST_LANES;
        t.rare = after->added || after->activation.kind > GHOST_RELU || !GV_STORES_AT_ONCE(t.lanes);
        t.bias = after->bias + channel;
        t.weights = weights + (size_t)(channel / GHOST_STRIP) * t.inputs * GHOST_STRIP + channel % GHOST_STRIP;
        for (int part = 0, done = 0; part < 2; part++) {
            const int count = part ? small : small + 1, many = part ? tiles - larger : larger;
            t.first = done * t.in_stride;
            t.out = out + done * t.out_stride + channel;
            t.added = after->added ? after->added + done * after->added_stride + channel : 0;
            t.second = after->second ? after->second + done * after->second_stride + channel : 0;
            if (!many) continue;
            make(&t, many, count);
            done += many * count;
        }
    }
}

void ghost_gathered(const float *const *runs, int count, int run, size_t in_stride, float *out, size_t out_stride, int pixels,
                    int outputs, const float *weights, const ghost_epilogue *after) {
    const tile t = {.in = runs, .runs = count, .run = run, .in_stride = in_stride, .out = out, .out_stride = out_stride};
    product(t, pixels, outputs, weights, after);
}

void ghost_pointwise(const float *in, size_t in_stride, float *out, size_t out_stride, int pixels, int inputs, int outputs,
                     const float *weights, const ghost_epilogue *after) {
    ghost_gathered(&in, 1, inputs, in_stride, out, out_stride, pixels, outputs, weights, after);
}
