/* Each kind of step over some rows of what it makes. */
#include "ghost_steps.h"

typedef struct {
    const ghost_step *step;
    const ghost_memory *memory;
    ghost_map in, other, out, second;
    ghost_epilogue after;
    const float *weights, *zeros;
} work;

static ghost_map map_of(const ghost_place *place, const ghost_memory *memory) {
    float *base = place->where == GHOST_ARENA    ? memory->arena
                  : place->where == GHOST_RING   ? memory->own
                  : place->where == GHOST_OUTPUT ? memory->outputs[place->index]
                                                 : (float *)memory->inputs[place->index];
    return (ghost_map){base + place->at / sizeof(float), place->height, place->width, place->channels, place->rows, place->stride};
}

/* Rows that lie behind each other in both maps. */
static int together(const ghost_map *a, const ghost_map *b, int y, int last) {
    const int left_a = a->rows - y % a->rows, left_b = b->rows - y % b->rows;
    int count = last - y;
    if (count > left_a) count = left_a;
    if (count > left_b) count = left_b;
    return count;
}

static int strips_of(int channels) { return (channels + GHOST_STRIP - 1) / GHOST_STRIP; }

static void add_row(work *w, int y) {
    if (!w->step->other.channels) return;
    w->after.added = ghost_row(&w->other, y);
    w->after.added_stride = w->other.stride;
}

static void pointwise(work *w, int first, int last) {
    for (int y = first, count; y < last; y += count) {
        count = together(&w->in, &w->out, y, last);
        if (w->step->other.channels) {
            const int more = together(&w->in, &w->other, y, y + count);
            if (more < count) count = more;
        }
        if (w->step->second.channels) {
            const int more = together(&w->in, &w->second, y, y + count);
            if (more < count) count = more;
            w->after.second = ghost_row(&w->second, y);
            w->after.second_stride = w->second.stride;
        }
        add_row(w, y);
        ghost_pointwise(ghost_row(&w->in, y), w->in.stride, ghost_row(&w->out, y), w->out.stride, count * w->in.width,
                        w->in.channels, w->out.channels, w->weights, &w->after);
    }
}

/* Pixels of maps that are whole. */
static void some_pixels(work *w, int first, int last) {
    if (w->step->other.channels) {
        w->after.added = w->other.data + (size_t)first * w->other.stride;
        w->after.added_stride = w->other.stride;
    }
    if (w->step->second.channels) {
        w->after.second = w->second.data + (size_t)first * w->second.stride;
        w->after.second_stride = w->second.stride;
    }
    if (last > first)
        ghost_pointwise(w->in.data + (size_t)first * w->in.stride, w->in.stride, w->out.data + (size_t)first * w->out.stride,
                        w->out.stride, last - first, w->in.channels, w->out.channels, w->weights, &w->after);
}

static void depthwise(work *w, int first, int last) {
    const ghost_window *window = &w->step->window;
    const int reach = (window->kernel_height - 1) * window->dilation_y + 1;
    const int most = (GHOST_MOST_ROWS - reach) / window->stride_y + 1;
    const float *in[GHOST_MOST_ROWS], *added[GHOST_MOST_ROWS];
    float *out[GHOST_MOST_ROWS];
    ghost_rows_of rows = {.in = in, .out = out, .added = w->step->other.channels ? added : 0};
    for (int y = first; y < last; y += rows.count) {
        rows.count = last - y < most ? last - y : most;
        const int top = y * window->stride_y - window->pad_top, count = (rows.count - 1) * window->stride_y + reach;
        for (int i = 0; i < count; i++)
            in[i] = top + i < 0 || top + i >= w->in.height ? w->zeros : ghost_row(&w->in, top + i);
        for (int i = 0; i < rows.count; i++) {
            out[i] = ghost_row(&w->out, y + i);
            if (rows.added) added[i] = ghost_row(&w->other, y + i);
        }
        w->after.added_stride = w->other.stride;
        ghost_depthwise(&rows, w->in.width, w->in.stride, w->out.width, w->out.stride, w->out.channels, w->weights,
                        w->out.channels, window, &w->after);
    }
}

/* Copies `width` pixels of some channels. */
static void copy_pixels(float *to, const float *from, size_t stride, int width, int channels) {
    for (int x = 0; x < width; x++, from += stride, to += channels) {
        int c = 0;
        for (; c + GHOST_LANES <= channels; c += GHOST_LANES) gv_store(to + c, gv_load(from + c));
        if (c < channels) memcpy(to + c, from + c, (channels - c) * sizeof(float));
    }
}

/* Rows of a group without the channels of others, as far as windows reach: `width` pixels with zeros outside the map. */
static void lines(const work *w, int top, int count, int group, int channels, int width, float *to) {
    const int pad = w->step->window.pad_left, left = pad < width ? pad : width;
    const int room = width - left, inside = w->in.width < room ? w->in.width : room;
    for (int row = top; row < top + count; row++, to += width * channels) {
        if (row < 0 || row >= w->in.height) {
            memset(to, 0, (size_t)width * channels * sizeof(float));
            continue;
        }
        memset(to, 0, (size_t)left * channels * sizeof(float));
        copy_pixels(to + left * channels, ghost_row(&w->in, row) + group * channels, w->in.stride, inside, channels);
        memset(to + (left + inside) * channels, 0, (size_t)(room - inside) * channels * sizeof(float));
    }
}

/* 1 × 1 with a stride: the pixels that count, behind each other, some rows at a time. */
static void thinned(work *w, int first, int last) {
    const ghost_window *window = &w->step->window;
    const int rows = GHOST_DENSE_ROWS, channels = w->in.channels;
    work some = *w;
    some.in = (ghost_map){w->memory->own + w->step->scratch, w->out.height, w->out.width, channels, rows, channels};
    for (int y = first, end; y < last; y = end) {
        end = y - y % rows + rows < last ? y - y % rows + rows : last;
        for (int row = y; row < end; row++)
            copy_pixels(ghost_row(&some.in, row), ghost_row(&w->in, row * window->stride_y), window->stride_x * w->in.stride,
                        w->out.width, channels);
        pointwise(&some, y, end);
    }
}

/* Some rows of a group at a time: a window is a run of each line, or one for each tap where it is dilated. */
static void dense(work *w, int first, int last) {
    const ghost_step *step = w->step;
    const ghost_window *window = &step->window;
    const int groups = step->groups, channels = w->in.channels / groups, outputs = w->out.channels / groups;
    const int height = window->kernel_height, across = window->kernel_width, apart = window->dilation_x;
    const int width = (w->out.width - 1) * window->stride_x + (across - 1) * apart + 1;
    const size_t line = (size_t)width * channels;
    const int taps = apart > 1 ? across : 1, run = across * channels / taps, runs = height * taps;
    const size_t weights = (size_t)strips_of(outputs) * GHOST_STRIP * runs * run;
    const int within = (w->out.width - 1) * window->stride_x < w->in.width && (last - 1) * window->stride_y < w->in.height;
    const float **found = (const float **)(w->memory->own + step->scratch);
    float *room = w->memory->own + step->scratch + (height * across * 2 + GHOST_STRIP - 1) / GHOST_STRIP * GHOST_STRIP;
    if (height * across * groups == 1 && !window->pad_left && !window->pad_top && within) { thinned(w, first, last); return; }
    for (int y = first, count; y < last; y += count) {
        count = last - y < GHOST_DENSE_ROWS ? last - y : GHOST_DENSE_ROWS;
        const int reach = (count - 1) * window->stride_y + (height - 1) * window->dilation_y + 1;
        for (int group = 0; group < groups; group++) {
            lines(w, y * window->stride_y - window->pad_top, reach, group, channels, width, room);
            for (int i = 0; i < count; i++) {
                add_row(w, y + i);
                ghost_epilogue after = w->after;
                after.bias += group * strips_of(outputs) * GHOST_STRIP;
                if (after.added) after.added += group * outputs;
                for (int k = 0; k < runs; k++)
                    found[k] = room + (i * window->stride_y + k / taps * window->dilation_y) * line + k % taps * apart * channels;
                ghost_gathered(found, runs, run, (size_t)window->stride_x * channels, ghost_row(&w->out, y + i) + group * outputs,
                               w->out.stride, w->out.width, outputs, w->weights + group * weights, &after);
            }
        }
    }
}

/* Outputs [first, last) of a row, whose input channels are planes: each row of a kernel is a pointer into one, or, where windows
   leave the plane, into a copy with zeros around it. */
static void stem_part(work *w, int y, int first, int last, int inside) {
    const ghost_window *window = &w->step->window;
    const int height = w->in.height, width = w->in.width, left = first * window->stride_x - window->pad_left;
    const int reach = (last - 1 - first) * window->stride_x + window->kernel_width;
    const int begin = left < 0 ? 0 : left, end = left + reach < width ? left + reach : width;
    float *copy = w->memory->own + w->step->scratch;
    const float *rows[128], **tap = rows;
    if (first >= last) return;
    for (int c = 0; c < w->in.channels; c++) {
        for (int i = 0; i < window->kernel_height; i++) {
            const int row = y * window->stride_y - window->pad_top + i, there = row >= 0 && row < height;
            const float *from = w->in.data + ((size_t)c * height + (there ? row : 0)) * width + (begin < width ? begin : 0);
            if (!there || !inside) {
                memset(copy, 0, reach * sizeof(float));
                if (there && begin < end) memcpy(copy + begin - left, from, (end - begin) * sizeof(float));
                from = copy;
                copy += reach;
            }
            *tap++ = from;
        }
    }
    add_row(w, y);
    if (w->after.added) w->after.added += first * w->after.added_stride;
    ghost_gathered(rows, (int)(tap - rows), window->kernel_width, window->stride_x, ghost_row(&w->out, y) + first * w->out.stride,
                   w->out.stride, last - first, w->out.channels, w->weights, &w->after);
}

static void stem(work *w, int first, int last) {
    const ghost_window *window = &w->step->window;
    const int room = w->in.width - window->kernel_width + window->pad_left;
    int begin = (window->pad_left + window->stride_x - 1) / window->stride_x, end = room < 0 ? 0 : room / window->stride_x + 1;
    if (end > w->out.width) end = w->out.width;
    if (begin > end) begin = end;
    for (int y = first; y < last; y++) {
        stem_part(w, y, 0, begin, 0);
        stem_part(w, y, begin, end, 1);
        stem_part(w, y, end, w->out.width, 0);
    }
}

/* Strips [first, last) of the outputs. */
static void vector(work *w, int first, int last) {
    const int inputs = w->in.channels, from = first * GHOST_STRIP;
    const int end = last * GHOST_STRIP < w->out.channels ? last * GHOST_STRIP : w->out.channels;
    const int8_t *codes = (const int8_t *)w->weights + (size_t)from * ((inputs + 3) / 4 * 4);
    const float *scales = w->after.bias + strips_of(w->out.channels) * GHOST_STRIP + from;
    if (end <= from) return;
    add_row(w, 0);
    w->after.bias += from;
    if (w->after.added) w->after.added += from;
    if (w->step->int8) ghost_vector_int8(w->in.data, w->out.data + from, inputs, end - from, codes, scales, &w->after);
    else ghost_vector(w->in.data, w->out.data + from, inputs, end - from, w->weights + (size_t)from * inputs, &w->after);
}

static void scale_weights(work *w, int first, int last) {
    const int inputs = w->in.channels;
    const size_t begin = (size_t)first * inputs * GHOST_STRIP;
    const float *from = w->weights + begin;
    float *to = w->out.data + begin;
    for (int strip = first; strip < last; strip++)
        for (int k = 0; k < inputs; k++, from += GHOST_STRIP, to += GHOST_STRIP)
            for (int v = 0; v < GHOST_STRIP; v += GHOST_LANES) gv_store(to + v, gv_load(from + v) * w->in.data[k]);
}

#include "ghost_maps.h"

static work work_of(const ghost_step *step, const ghost_memory *memory) {
    return (work){.step = step, .memory = memory, .in = map_of(&step->in, memory), .other = map_of(&step->other, memory),
                  .out = map_of(&step->out, memory), .second = map_of(&step->second, memory), .zeros = memory->own,
                  .weights = (step->scaled ? memory->arena : memory->weights) + step->weights,
                  .after = {.bias = memory->weights + step->bias, .activation = step->activation}};
}

void ghost_rows(const ghost_step *step, const ghost_memory *memory, int first, int last) {
    if (step->bytes) { ghost_rows_int8(step, memory, first, last); return; }
    work w = work_of(step, memory);
    switch (step->kind) {
    case GHOST_STEM: stem(&w, first, last); return;
    case GHOST_POINTWISE: pointwise(&w, first, last); return;
    case GHOST_DEPTHWISE: depthwise(&w, first, last); return;
    case GHOST_DENSE: dense(&w, first, last); return;
    case GHOST_VECTOR: vector(&w, 0, strips_of(w.out.channels)); return;
    case GHOST_SCALE_WEIGHTS: scale_weights(&w, 0, w.out.channels / w.in.channels / GHOST_STRIP); return;
    case GHOST_MEAN: mean(&w); return;
    case GHOST_SOFTMAX: softmax(&w); return;
    }
    for (int y = first; y < last; y++) {
        switch (step->kind) {
        case GHOST_SQUEEZE: squeeze(&w, y); break;
        case GHOST_AVERAGE: case GHOST_MAXIMUM: pool(&w, y); break;
        case GHOST_PIXELS: pixels(&w, y); break;
        case GHOST_COPY: copy(&w, y); break;
        case GHOST_NEAREST: nearest(&w, y); break;
        case GHOST_LOAD: transpose(&w, y); break;
        case GHOST_STORE: /* a vector takes all rows at once */
            for (int i = 0; i < step->window.kernel_height; i++) transpose(&w, y * step->window.stride_y + i);
            break;
        default: elementwise(&w, y);
        }
    }
}

static int part_of(int total, int part, int parts) { return (int)((int64_t)total * part / parts); }

/* A share of a whole step: pixels, strips of outputs, or rows; what is small is done by the first thread. */
void ghost_share(const ghost_step *step, const ghost_memory *memory, int part, int parts) {
    work w = work_of(step, memory);
    const int strips = step->kind == GHOST_SCALE_WEIGHTS ? w.out.channels / w.in.channels / GHOST_STRIP : strips_of(w.out.channels);
    const int first = part_of(strips, part, parts), last = part_of(strips, part + 1, parts);
    if (step->kind == GHOST_VECTOR && step->bytes) ghost_strips_int8(step, memory, first, last);
    else if (step->kind == GHOST_VECTOR) vector(&w, first, last);
    else if (step->kind == GHOST_SCALE_WEIGHTS) scale_weights(&w, first, last);
    else if (w.out.height == 1) {
        if (part == 0) ghost_rows(step, memory, 0, 1);
    } else if (step->kind == GHOST_POINTWISE && parts > 1 && !step->bytes) {
        const int pixels = w.in.height * w.in.width;
        some_pixels(&w, part_of(pixels, part, parts), part_of(pixels, part + 1, parts));
    } else ghost_rows(step, memory, part_of(w.out.height, part, parts), part_of(w.out.height, part + 1, parts));
}
