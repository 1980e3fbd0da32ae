/* Steps that read or write maps of bytes, over some rows of what they make.

   What is no layer computes in floats, in steps of its output: r is a scale over that of the output.

       sum            (a − z_a) · r_a + (b − z_b) · r_b
       product        (a − z_a) · ((b − z_b) · r)
       mean           (Σ a − n · z_a) · (r / n)

   Each operation is rounded alone, so the bits are those of any machine. */
#include "ghost_bytes.h"

typedef struct {
    uint8_t *data;
    int height, width, channels, rows;
    size_t stride, size; /* of a value, in bytes */
    float scale;         /* 0 where values are floats */
    int zero;
} map;

typedef struct {
    const ghost_step *step;
    const ghost_memory *memory;
    map in, other, out;
    const uint8_t *weights;
    const float *bias;
    ghost_range range;
} work;

static map map_of(const ghost_place *place, const ghost_memory *memory) {
    const void *base = place->where == GHOST_ARENA    ? memory->arena
                       : place->where == GHOST_RING   ? memory->own
                       : place->where == GHOST_OUTPUT ? memory->outputs[place->index]
                                                      : memory->inputs[place->index];
    return (map){(uint8_t *)base + place->at, place->height, place->width, place->channels, place->rows, place->stride,
                 place->scale ? 1 : sizeof(float), place->scale, place->zero};
}

static uint8_t *row_of(const map *m, int y) {
    return m->data + (size_t)(y < m->rows ? y : y % m->rows) * m->width * m->stride * m->size;
}

static int strips_of(int channels) { return (channels + GHOST_STRIP - 1) / GHOST_STRIP; }

static int some_of(int channels, int c) { return channels - c < GHOST_LANES ? channels - c : GHOST_LANES; }

GHOST_INLINE gv load(const map *m, const uint8_t *from, const int c) {
    if (m->size == 1) return gv_float(gv_load_bytes(from + c) - m->zero);
    return gv_load((const float *)from + c);
}

/* What a number of a map is in steps of the output, or as it is. */
static float unit_of(const work *w, const map *m) {
    const int counts = w->out.scale && w->step->activation.kind <= GHOST_RELU;
    const float from = m->scale ? m->scale : 1.0f, to = counts ? w->out.scale : 1.0f;
    return from / to;
}

/* A value in that unit, behind the activation. */
GHOST_INLINE void store(const work *w, uint8_t *to, gv value, const int c, const int count) {
    const ghost_activation how = w->step->activation;
    if (how.kind > GHOST_RELU) {
        value = gv_activate(value, how);
        if (w->out.scale) value = value * (1.0f / w->out.scale);
    }
    if (w->out.scale) gv_store_rounded(to + c, value, &w->range, count);
    else gv_store_some((float *)to + c, how.kind == GHOST_RELU ? gv_relu(value) : value, count);
}

static ghost_rounding rounding_of(const work *w) {
    const int all = w->step->groups * strips_of(w->out.channels / w->step->groups) * GHOST_STRIP;
    return (ghost_rounding){.bias = (const int32_t *)w->bias, .weight_sums = (const int32_t *)w->bias + all,
                            .factor = w->bias + 2 * all, .inverse = w->out.scale ? 1.0f / w->out.scale : 1.0f,
                            .range = w->range, .activation = w->step->activation, .bytes = w->out.scale != 0};
}

static void pointwise(const work *w, int first, int last) {
    const ghost_rounding after = rounding_of(w);
    for (int y = first, count; y < last; y += count) {
        const int left = w->in.rows - y % w->in.rows, room = w->out.rows - y % w->out.rows;
        count = last - y < left ? last - y : left;
        if (room < count) count = room;
        ghost_pointwise_int8(row_of(&w->in, y), w->in.stride, row_of(&w->out, y), w->out.stride, count * w->in.width,
                             w->in.channels, w->out.channels, (const int8_t *)w->weights, &after);
    }
}

/* Strips [first, last) of the outputs of a vector. */
static void vector(const work *w, int first, int last) {
    const int from = first * GHOST_STRIP, end = last * GHOST_STRIP < w->out.channels ? last * GHOST_STRIP : w->out.channels;
    ghost_rounding after = rounding_of(w);
    after.bias += from;
    after.weight_sums += from;
    after.factor += from;
    if (end > from)
        ghost_pointwise_int8(w->in.data, 0, w->out.data + from * w->out.size, 0, 1, w->in.channels, end - from,
                             (const int8_t *)w->weights + (size_t)from * ((w->in.channels + 3) / 4 * 4), &after);
}

static void depthwise(const work *w, int first, int last) {
    const ghost_window *window = &w->step->window;
    const int reach = (window->kernel_height - 1) * window->dilation_y + 1;
    const int most = (GHOST_MOST_ROWS - reach) / window->stride_y + 1, all = strips_of(w->out.channels) * GHOST_STRIP;
    const uint8_t *in[GHOST_MOST_ROWS];
    uint8_t *out[GHOST_MOST_ROWS], *outside = (uint8_t *)(w->memory->own + w->step->scratch);
    const ghost_epilogue after = {.bias = w->bias};
    ghost_byte_rows_of rows = {.in = in, .out = out, .zero = w->in.zero, .factor = w->bias + all, .range = w->range};
    const int top = first * window->stride_y - window->pad_top, end = (last - 1) * window->stride_y - window->pad_top + reach;
    if (top < 0 || end > w->in.height) memset(outside, w->in.zero, w->in.width * w->in.stride);
    for (int y = first; y < last; y += rows.count) {
        const int begin = y * window->stride_y - window->pad_top;
        rows.count = last - y < most ? last - y : most;
        for (int i = 0; i < (rows.count - 1) * window->stride_y + reach; i++)
            in[i] = begin + i < 0 || begin + i >= w->in.height ? outside : row_of(&w->in, begin + i);
        for (int i = 0; i < rows.count; i++) out[i] = row_of(&w->out, y + i);
        ghost_depthwise_int8(&rows, w->in.width, w->in.stride, w->out.width, w->out.stride, w->out.channels,
                             (const float *)w->weights, w->out.channels, window, &after);
    }
}

/* Copies in pieces of 16, up to 15 more than asked: what follows is written after it. */
GHOST_INLINE uint8_t *append(uint8_t *to, const uint8_t *from, int count) {
    for (int i = 0; i < count; i += 16) memcpy(to + i, from + i, 16);
    return to + count;
}

/* Patches of one row. Taps of a row of the window lie behind each other where all channels are read. */
static void gather(const work *w, int y, int group, int channels, uint8_t *to) {
    const ghost_window *window = &w->step->window;
    const int whole = window->dilation_x == 1 && w->in.stride == (size_t)channels, taps = window->kernel_width;
    for (int x = 0; x < w->out.width; x++) {
        const int left = x * window->stride_x - window->pad_left;
        for (int i = 0; i < window->kernel_height; i++) {
            const int row = y * window->stride_y - window->pad_top + i * window->dilation_y;
            const uint8_t *from = row_of(&w->in, row < 0 ? 0 : row) + group * channels;
            if (row < 0 || row >= w->in.height) {
                memset(to, w->in.zero, taps * channels);
                to += taps * channels;
            } else if (whole && left >= 0 && left + taps <= w->in.width) {
                to = append(to, from + left * channels, taps * channels);
            } else {
                for (int j = 0; j < taps; j++) {
                    const int column = left + j * window->dilation_x;
                    if (column >= 0 && column < w->in.width) {
                        to = append(to, from + column * w->in.stride, channels);
                    } else {
                        memset(to, w->in.zero, channels);
                        to += channels;
                    }
                }
            }
        }
    }
}

static void dense(const work *w, int first, int last) {
    const int groups = w->step->groups, channels = w->in.channels / groups, outputs = w->out.channels / groups;
    const int inputs = channels * w->step->window.kernel_height * w->step->window.kernel_width;
    const size_t strips = strips_of(outputs), packed = strips * GHOST_STRIP * ((inputs + 3) / 4 * 4);
    uint8_t *patches = (uint8_t *)(w->memory->own + w->step->scratch);
    for (int y = first; y < last; y++) {
        ghost_rounding after = rounding_of(w);
        for (int group = 0; group < groups; group++) {
            gather(w, y, group, channels, patches);
            ghost_pointwise_int8(patches, inputs, row_of(&w->out, y) + group * outputs * w->out.size, w->out.stride,
                                 w->out.width, inputs, outputs, (const int8_t *)w->weights + group * packed, &after);
            after.bias += strips * GHOST_STRIP;
            after.weight_sums += strips * GHOST_STRIP;
            after.factor += strips * GHOST_STRIP;
        }
    }
}

GHOST_INLINE void elements(const work *w, int y, const int kind) {
    const int both = kind == GHOST_ADD || kind == GHOST_MUL, channels = w->out.channels;
    const uint8_t *a = row_of(&w->in, y), *b = w->other.data;
    if (both) b = row_of(&w->other, ghost_nearest(y, w->other.height, w->out.height));
    const float first = unit_of(w, &w->in), sum = unit_of(w, &w->other);
    const float product = unit_of(w, &w->in) * (w->other.scale ? w->other.scale : 1.0f), offset = unit_of(w, &(map){0});
    uint8_t *to = row_of(&w->out, y);
    for (int x = 0, rest = 0; x < w->out.width; x++, a += w->in.stride * w->in.size, to += w->out.stride * w->out.size) {
        for (int c = 0; c < channels; c += GHOST_LANES) {
            gv value = load(&w->in, a, c);
            if (kind == GHOST_ADD || kind == GHOST_SHIFT) {
                gv other = load(&w->other, b, c) * sum;
                GHOST_APART(other);
                value = value * first;
                GHOST_APART(value);
                value = value + other;
            } else if (kind == GHOST_MUL || kind == GHOST_SCALE) {
                value = value * (load(&w->other, b, c) * product);
            } else if (kind == GHOST_AFFINE) {
                value = value * (gv_load((const float *)w->weights + c) * first);
                GHOST_APART(value);
                gv more = gv_load(w->bias + c) * offset;
                GHOST_APART(more);
                value = value + more;
            } else {
                value = value * first;
            }
            store(w, to, value, c, some_of(channels, c));
        }
        for (rest += both ? w->other.width : 0; rest >= w->out.width; rest -= w->out.width) b += w->other.stride * w->other.size;
    }
}

static void squeeze(const work *w, int y) {
    const uint8_t *row = row_of(&w->in, y);
    float *to = (float *)row_of(&w->out, y);
    for (int c = 0; c < w->in.channels; c += GHOST_LANES) {
        gv_bits sum = {0};
        for (int x = 0; x < w->in.width; x++) sum += gv_load_bytes(row + x * w->in.stride + c);
        gv_store_some(to + c, gv_float(sum), some_of(w->in.channels, c));
    }
}

/* Of sums of rows; `other` is the map that they are of. */
static void mean(const work *w) {
    const float count = (float)w->in.height * (float)w->other.width, share = unit_of(w, &w->other) / count;
    const float zero = w->other.scale ? (float)w->other.zero * count : 0.0f;
    for (int c = 0; c < w->in.channels; c += GHOST_LANES) {
        gv sum = {0};
        for (int y = 0; y < w->in.height; y++) sum += gv_load((const float *)row_of(&w->in, y) + c);
        store(w, w->out.data, (sum - zero) * share, c, some_of(w->in.channels, c));
    }
}

static void largest(const work *w, int y) {
    const ghost_window *window = &w->step->window;
    for (int x = 0; x < w->out.width; x++) {
        uint8_t *to = row_of(&w->out, y) + x * w->out.stride;
        memset(to, 0, w->out.channels);
        for (int i = 0; i < window->kernel_height; i++) {
            const int row = y * window->stride_y - window->pad_top + i * window->dilation_y;
            for (int j = 0; row >= 0 && row < w->in.height && j < window->kernel_width; j++) {
                const int column = x * window->stride_x - window->pad_left + j * window->dilation_x;
                const uint8_t *from = row_of(&w->in, row) + column * (ptrdiff_t)w->in.stride;
                if (column < 0 || column >= w->in.width) continue;
                for (int c = 0; c < w->out.channels; c++) to[c] = from[c] > to[c] ? from[c] : to[c];
            }
        }
    }
}

static void nearest(const work *w, int y) {
    const uint8_t *row = row_of(&w->in, (int)((int64_t)y * w->in.height / w->out.height));
    for (int x = 0; x < w->out.width; x++)
        memcpy(row_of(&w->out, y) + x * w->out.stride, row + (int64_t)x * w->in.width / w->out.width * w->in.stride,
               w->out.channels);
}

/* Some pixels of one channel, in steps of the output. */
GHOST_INLINE void scatter(const work *w, uint8_t *to, gv value, int count) {
    const gv_bits rounded = gv_round(gv_limited(value, &w->range)) + w->range.zero;
    for (int i = 0; i < GHOST_LANES; i++)
        if (i < count) to[i * w->out.stride] = (uint8_t)rounded[i];
}

/* The caller's planes of floats. */
static void planes(const work *w, int y) {
    const float steps = 1.0f / w->out.scale;
    for (int c = 0; c < w->in.channels; c++) {
        const float *from = (const float *)w->in.data + ((size_t)c * w->in.height + y) * w->in.width;
        uint8_t *to = row_of(&w->out, y) + c;
        for (int x = 0; x < w->in.width; x += GHOST_LANES, to += GHOST_LANES * w->out.stride) {
            const int count = some_of(w->in.width, x);
            gv value = {0};
            if (count == GHOST_LANES) value = gv_load(from + x);
            else memcpy(&value, from + x, count * sizeof(float));
            scatter(w, to, value * steps, count);
        }
    }
}

/* The caller's bytes, with a factor and an offset for each channel. */
static void pixels(const work *w, int y) {
    const float steps = 1.0f / w->out.scale;
    const uint8_t *from = w->in.data + (size_t)y * w->in.width * w->in.channels;
    uint8_t *to = row_of(&w->out, y);
    for (int x = 0; x < w->in.width; x++, from += w->in.channels, to += w->out.stride) {
        for (int c = 0; c < w->in.channels; c++) {
            float value = (float)from[c] * ((const float *)w->weights)[c];
            GHOST_APART(value);
            value += w->bias[c];
            GHOST_APART(value);
            scatter(w, to + c, gv_all(value * steps), 1);
        }
    }
}

/* Bytes to the caller's planes. */
static void leave(const work *w, int y) {
    for (int c = 0; c < w->in.channels; c++)
        for (int x = 0; x < w->in.width; x++)
            ((float *)w->out.data)[((size_t)c * w->in.height + y) * w->in.width + x] =
                (float)(row_of(&w->in, y)[x * w->in.stride + c] - w->in.zero) * w->in.scale;
}

static work work_of(const ghost_step *step, const ghost_memory *memory) {
    work w = {.step = step, .memory = memory, .in = map_of(&step->in, memory), .other = map_of(&step->other, memory),
              .out = map_of(&step->out, memory), .weights = (const uint8_t *)(memory->weights + step->weights),
              .bias = memory->weights + step->bias};
    const float zero = (float)w.out.zero;
    w.range = (ghost_range){step->activation.kind == GHOST_RELU ? 0.0f : -zero, 255.0f - zero, w.out.zero};
    return w;
}

void ghost_rows_int8(const ghost_step *step, const ghost_memory *memory, int first, int last) {
    const work w = work_of(step, memory);
    switch (step->kind) {
    case GHOST_POINTWISE: pointwise(&w, first, last); return;
    case GHOST_DEPTHWISE: depthwise(&w, first, last); return;
    case GHOST_DENSE: dense(&w, first, last); return;
    case GHOST_VECTOR: vector(&w, 0, strips_of(w.out.channels)); return;
    case GHOST_MEAN: mean(&w); return;
    }
    for (int y = first; y < last; y++) {
        switch (step->kind) {
        case GHOST_SQUEEZE: squeeze(&w, y); break;
        case GHOST_MAXIMUM: largest(&w, y); break;
        case GHOST_NEAREST: nearest(&w, y); break;
        case GHOST_LOAD: planes(&w, y); break;
        case GHOST_PIXELS: pixels(&w, y); break;
        case GHOST_STORE: leave(&w, y); break;
        case GHOST_ADD: elements(&w, y, GHOST_ADD); break;
        case GHOST_SHIFT: elements(&w, y, GHOST_SHIFT); break;
        case GHOST_MUL: elements(&w, y, GHOST_MUL); break;
        case GHOST_SCALE: elements(&w, y, GHOST_SCALE); break;
        case GHOST_AFFINE: elements(&w, y, GHOST_AFFINE); break;
        default: elements(&w, y, GHOST_COPY);
        }
    }
}

void ghost_strips_int8(const ghost_step *step, const ghost_memory *memory, int first, int last) {
    const work w = work_of(step, memory);
    vector(&w, first, last);
}
