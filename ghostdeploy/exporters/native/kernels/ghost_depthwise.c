/* Depthwise convolutions, one row of outputs at a time: a vector of channels, its weights in registers, walks along x.

   3 × 3 with stride 1: a column of three pixels is read once and counts for three outputs,

       a(x) = Σ_i in[i][x] · w[i][0]     b(x) = Σ_i in[i][x] · w[i][1]     c(x) = Σ_i in[i][x] · w[i][2]
       out[x] = a(x − 1) + b(x) + c(x + 1)

   3 loads and 11 operations an output, where sums of nine products each wait for one another.

   5 × 5 has a file of its own, ghost_depthwise_five.h.

   1 × 5 reads a pixel once for five outputs, as above; 5 × 1 reads five rows. Other windows take four outputs at a time, so that
   each weight is read once for four, and four sums do not wait for each other. Where the window leaves the map, its columns
   outside are left out; rows outside are rows of zeros. */
#if defined(GHOST_OF_BYTES)
#include "ghost_bytes.h"
#else
#include "ghost_kernels.h"
#endif

#define AT_ONCE 4
#define MOST_ROWS 5

/* Maps of bytes go the same ways, see ghost_depthwise_int8.c: a byte without its zero point is a float, weights are whole
   numbers, and so are all sums, exactly. */
#if defined(GHOST_OF_BYTES)
typedef uint8_t item;
typedef ghost_byte_rows_of rows_of;
#define OF_BYTES 1
#define NARROW ghost_depthwise_narrow_int8
#define RAW(from) gv_float(gv_load_bytes(from))
#define ZERO(s) ((float)(s)->r->zero)
#define LOAD(from) (RAW(from) - ZERO(s))
#else
typedef float item;
typedef ghost_rows_of rows_of;
#define OF_BYTES 0
#define NARROW ghost_depthwise_narrow
#define RAW(from) gv_load(from)
#define ZERO(s) 0.0f
#define LOAD(from) RAW(from)
#endif

typedef struct {
    const rows_of *r;
    const item *const *rows;
    const float *weights;
    const ghost_window *window;
    const ghost_epilogue *after;
    item *out;
    size_t in_stride, out_stride, weights_stride;
    int in_width, out_width, channel, lanes;
} strip;

/* What an epilogue does, known while compiling: the loops hold no branches. Windows that are rare look at each output. */
enum { PLAIN, WITH_RELU, WITH_SUM, ANY };
#if defined(GHOST_OF_BYTES)
#define RARE PLAIN
#else
#define RARE ANY
#endif

typedef struct {
    item *out;
    size_t stride, added_stride;
    const float *added;
    int lanes, relu;
#if defined(GHOST_OF_BYTES)
    gv factor;
    ghost_range range;
#endif
} target;

GHOST_INLINE target target_of(const strip *s) {
    const float *added = s->after->added ? s->after->added + s->channel : 0;
    target t = {.out = s->out + s->channel, .stride = s->out_stride, .added_stride = s->after->added_stride, .added = added, .lanes = s->lanes,
                .relu = !added && s->after->activation.kind == GHOST_RELU};
#if defined(GHOST_OF_BYTES)
    t.factor = gv_load(s->r->factor + s->channel);
    t.range = s->r->range;
#endif
    return t;
}

GHOST_INLINE void finish(target *t, gv value, const int epilogue) {
    if (epilogue == WITH_SUM || (epilogue == ANY && t->added)) {
        value += gv_load(t->added);
        t->added += t->added_stride;
    }
    if (epilogue == WITH_RELU || (epilogue == ANY && t->relu)) value = gv_relu(value);
#if defined(GHOST_OF_BYTES)
    gv_store_rounded(t->out, value * t->factor, &t->range, t->lanes);
#else
    gv_store_some(t->out, value, t->lanes);
#endif
    t->out += t->stride;
}

/* One output whose window may leave the map: a sum for each row of the kernel, so that they do not wait for each other. */
GHOST_INLINE void at_edge(const strip *s, int x, const int height) {
    const ghost_window *w = s->window;
    gv sum[MOST_ROWS] = {gv_load(s->after->bias + s->channel)};
    for (int j = 0; j < w->kernel_width; j++) {
        const int column = x * w->stride_x - w->pad_left + j * w->dilation_x;
        if (column < 0 || column >= s->in_width) continue;
        const float *weights = s->weights + j * s->weights_stride + s->channel;
        for (int i = 0; i < height; i++, weights += w->kernel_width * s->weights_stride)
            sum[i % MOST_ROWS] += LOAD(s->rows[i * w->dilation_y] + column * s->in_stride + s->channel) * gv_load(weights);
    }
    for (int i = 1; i < MOST_ROWS && i < height; i++) sum[0] += sum[i];
    target t = target_of(s);
    t.out += x * t.stride;
    if (t.added) t.added += x * t.added_stride;
    finish(&t, sum[0], RARE);
}

/* A whole row of 3 × 3, padded by 1: columns outside the map count nothing. Bytes keep their zero point, and `bias` takes off
   that of nine; `first` is the bias with the column outside on the left, `right` what the one on the right is too much. */
GHOST_INLINE void three(const strip *s, const gv *w, const gv bias, const gv first, const gv right, const int stride,
                        const int epilogue) {
    const size_t step = s->in_stride;
    const item *top = s->rows[0] + s->channel, *middle = s->rows[1] + s->channel, *low = s->rows[2] + s->channel;
    const int inner = stride == 1 ? s->in_width - 1 : s->in_width / 2;
    target t = target_of(s);
    size_t at = 0;
    gv left = first, p, q, r;
#define COLUMN() p = RAW(top + at), q = RAW(middle + at), r = RAW(low + at), at += step
#define TIMES(j) (p * w[j] + q * w[3 + j] + r * w[6 + j])
    if (stride == 1) {
        COLUMN();
        gv now = left + TIMES(1);
        left = bias + TIMES(0);
        for (int x = 0; x < inner; x++) {
            COLUMN();
            finish(&t, now + TIMES(2), epilogue);
            now = left + TIMES(1);
            left = bias + TIMES(0);
        }
        finish(&t, OF_BYTES ? now + right : now, epilogue);
    } else {
        for (int x = 0; x < inner; x++) {
            COLUMN();
            const gv now = left + TIMES(1);
            COLUMN();
            finish(&t, now + TIMES(2), epilogue);
            left = bias + TIMES(0);
        }
        if (inner < s->out_width) {
            COLUMN();
            const gv now = left + TIMES(1);
            finish(&t, OF_BYTES ? now + right : now, epilogue);
        }
    }
}

/* A whole row of 1 × 5, padded by 2: a pixel counts for five outputs, four of which wait for others. */
GHOST_INLINE void wide(const strip *s, const gv *w, const gv bias, const int epilogue) {
    const item *row = s->rows[0] + s->channel;
    target t = target_of(s);
    gv next = bias, second = bias, third = bias, fourth = bias;
    for (int x = -2; x < s->in_width; x++, row += s->in_stride) {
        const gv value = x + 2 < s->in_width ? LOAD(row) : (gv){0};
        const gv now = next + value * w[4];
        next = second + value * w[3];
        second = third + value * w[2];
        third = fourth + value * w[1];
        fourth = bias + value * w[0];
        if (x >= 0) finish(&t, now, epilogue);
    }
}

/* A whole row of 5 × 1. */
GHOST_INLINE void tall(const strip *s, const gv *w, const gv bias, const int epilogue) {
    const item *const *r = s->rows;
    target t = target_of(s);
    for (size_t at = (size_t)s->channel, x = 0; x < (size_t)s->in_width; x++, at += s->in_stride) {
        const gv even = bias + LOAD(r[0] + at) * w[0] + LOAD(r[2] + at) * w[2] + LOAD(r[4] + at) * w[4];
        finish(&t, even + (LOAD(r[1] + at) * w[1] + LOAD(r[3] + at) * w[3]), epilogue);
    }
}

/* Windows with ways of their own. */
enum { THREE, THREE_BY_TWO, WIDE, TALL, FIVE, FIVE_BY_TWO, OTHER };

/* Whole rows, with the weights in registers. */
GHOST_INLINE void held(strip s, const rows_of *r, const int shape, const int epilogue) {
    gv w[9];
    for (int i = 0; i < (shape < WIDE ? 9 : 5); i++) w[i] = gv_load(s.weights + i * s.weights_stride + s.channel);
    gv bias = gv_load(s.after->bias + s.channel), first = bias, right = {0};
    if (OF_BYTES && shape < WIDE) {
        right = (w[2] + w[5] + w[8]) * ZERO(&s);
        first = bias - right - (w[1] + w[4] + w[7]) * ZERO(&s);
        bias = first - (w[0] + w[3] + w[6]) * ZERO(&s);
    }
    ghost_epilogue after = *s.after;
    s.after = &after;
    for (int y = 0; y < r->count; y++) {
        s.rows = r->in + y * s.window->stride_y;
        s.out = r->out[y];
        after.added = r->added ? r->added[y] : 0;
        if (shape == WIDE) wide(&s, w, bias, epilogue);
        else if (shape == TALL) tall(&s, w, bias, epilogue);
        else three(&s, w, bias, first, right, shape == THREE ? 1 : 2, epilogue);
    }
}

#include "ghost_depthwise_five.h"

GHOST_INLINE void some(const strip *s, int x, const int count, const int height, const int width) {
    const size_t step = s->window->dilation_x * s->in_stride, apart = s->window->stride_x * s->in_stride;
    const size_t all = s->weights_stride;
    const ptrdiff_t begin = (x * s->window->stride_x - s->window->pad_left) * (ptrdiff_t)s->in_stride + s->channel;
    const float *weights = s->weights + s->channel;
    gv sum[AT_ONCE];
    for (int o = 0; o < count; o++) sum[o] = gv_load(s->after->bias + s->channel);
    for (int i = 0; i < height; i++) {
        const item *row = s->rows[i * s->window->dilation_y] + begin;
        for (int j = 0; j < width; j++, row += step, weights += all) {
            const gv weight = gv_load(weights);
            for (int o = 0; o < count; o++) sum[o] += LOAD(row + o * apart) * weight;
        }
    }
    target t = target_of(s);
    t.out += x * t.stride;
    if (t.added) t.added += x * t.added_stride;
    for (int o = 0; o < count; o++) finish(&t, sum[o], RARE);
}

GHOST_INLINE void along(const strip *s, int first, int last, const int height, const int width) {
    int x = 0;
    for (; x < first; x++) at_edge(s, x, height);
    for (; x + AT_ONCE <= last; x += AT_ONCE) some(s, x, AT_ONCE, height, width);
    for (; x + 2 <= last; x += 2) some(s, x, 2, height, width);
    for (; x < last; x++) some(s, x, 1, height, width);
    for (; x < s->out_width; x++) at_edge(s, x, height);
}

static __attribute__((noinline)) void others(strip s, const rows_of *r) {
    const ghost_window *w = s.window;
    /* Outputs [first, last) have their windows inside the map. */
    const int room = s.in_width - 1 - (w->kernel_width - 1) * w->dilation_x + w->pad_left;
    int first = (w->pad_left + w->stride_x - 1) / w->stride_x, last = room < 0 ? 0 : room / w->stride_x + 1;
    if (last > s.out_width) last = s.out_width;
    if (first > last) first = last;
    ghost_epilogue after = *s.after;
    s.after = &after;
    for (int y = 0; y < r->count; y++) {
        s.rows = r->in + y * w->stride_y;
        s.out = r->out[y];
        after.added = r->added ? r->added[y] : 0;
        if (w->kernel_height == 3 && w->kernel_width == 3) along(&s, first, last, 3, 3);
        else along(&s, first, last, w->kernel_height, w->kernel_width);
    }
}

static int shape_of(const ghost_window *w, int in_width, int out_width) {
    const int height = w->kernel_height, width = w->kernel_width, left = w->pad_left, stride = w->stride_x;
    const int same = stride == 1 && out_width == in_width, half = stride == 2 && out_width == (in_width + 1) / 2;
    if (w->dilation_x != 1 || w->dilation_y != 1) return OTHER;
    if (height == 3 && width == 3 && left == 1 && (same || half)) return same ? THREE : THREE_BY_TWO;
    if (height == 1 && width == SIDE && left == 2 && same) return WIDE;
    if (height == SIDE && width == 1 && left == 0 && same) return TALL;
    const int short_enough = left + in_width <= LINE && (out_width + AT_ONCE - 1) * stride + SIDE <= LINE;
    if (height == SIDE && width == SIDE && stride <= 2 && short_enough) return stride == 1 ? FIVE : FIVE_BY_TWO;
    return OTHER;
}

GHOST_INLINE void band(strip s, const rows_of *r, const int first, const int channels, const int epilogue) {
    const int shape = shape_of(s.window, s.in_width, s.out_width);
    for (s.channel = first; s.channel < channels; s.channel += GHOST_LANES) {
        s.lanes = channels - s.channel < GHOST_LANES ? channels - s.channel : GHOST_LANES;
        switch (shape) {
        case THREE: held(s, r, THREE, epilogue); break;
        case THREE_BY_TWO: held(s, r, THREE_BY_TWO, epilogue); break;
        case WIDE: held(s, r, WIDE, epilogue); break;
        case TALL: held(s, r, TALL, epilogue); break;
        case FIVE: fives(s, r, 1, epilogue); break;
        case FIVE_BY_TWO: fives(s, r, 2, epilogue); break;
        default: others(s, r);
        }
    }
}

GHOST_INLINE void bands(const strip *s, int first, int channels) {
    if (OF_BYTES) band(*s, s->r, first, channels, PLAIN);
    else if (s->r->added) band(*s, s->r, first, channels, WITH_SUM);
    else if (s->after->activation.kind == GHOST_RELU) band(*s, s->r, first, channels, WITH_RELU);
    else band(*s, s->r, first, channels, PLAIN);
}

/* The last channels, at most half a vector of 16, by vectors of 8: where the processor computes 16 in two halves, as Zen 4
   does, these take half the time. */
void NARROW(const strip *s, int first, int channels);

#if defined(GHOST_NARROW)
void NARROW(const strip *s, int first, int channels) { bands(s, first, channels); }
#else
static void all_channels(const strip *s, int channels) {
    const int rest = channels % GHOST_LANES, wide = GHOST_LANES == 16 && rest <= GHOST_LANES / 2 ? channels - rest : channels;
    if (wide) bands(s, 0, wide);
    if (wide < channels) NARROW(s, wide, channels);
}

#if OF_BYTES
void ghost_depthwise_int8(const ghost_byte_rows_of *rows, int in_width, size_t in_stride, int out_width, size_t out_stride,
                          int channels, const float *weights, size_t weights_stride, const ghost_window *window,
                          const ghost_epilogue *after) {
    const strip s = {.r = rows, .weights = weights, .window = window, .after = after, .in_stride = in_stride,
                     .out_stride = out_stride, .weights_stride = weights_stride, .in_width = in_width, .out_width = out_width};
    all_channels(&s, channels);
}
#else
/* Other activations follow on their own, row by row: they need registers, which the weights have. */
GHOST_INLINE void activate(const rows_of *rows, int width, size_t stride, int channels, ghost_activation how, const int sigmoid) {
    for (int y = 0; y < rows->count; y++) {
        float *row = rows->out[y];
        for (int x = 0; x < width; x++, row += stride) {
            for (int c = 0; c < channels; c += GHOST_LANES) {
                const int lanes = channels - c < GHOST_LANES ? channels - c : GHOST_LANES;
                const gv value = gv_load_some(row + c, lanes);
                gv_store_some(row + c, sigmoid ? gv_sigmoid(value) : gv_activate(value, how), lanes);
            }
        }
    }
}

void ghost_depthwise(const ghost_rows_of *rows, int in_width, size_t in_stride, int out_width, size_t out_stride, int channels,
                     const float *weights, size_t weights_stride, const ghost_window *window, const ghost_epilogue *after) {
    const strip s = {.r = rows, .weights = weights, .window = window, .after = after, .in_stride = in_stride, .out_stride = out_stride,
                     .weights_stride = weights_stride, .in_width = in_width, .out_width = out_width};
    const int kind = after->activation.kind;
    all_channels(&s, channels);
    if (kind == GHOST_SIGMOID) activate(rows, out_width, out_stride, channels, after->activation, 1);
    else if (kind > GHOST_RELU || (rows->added && kind)) activate(rows, out_width, out_stride, channels, after->activation, 0);
}
#endif
#endif
