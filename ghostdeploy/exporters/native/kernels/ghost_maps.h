/* Rows of maps without weights, included by ghost_rows.c. */
static void squeeze(const work *w, int y) {
    const float *row = ghost_row(&w->in, y);
    float *to = ghost_row(&w->out, y);
    for (int c = 0; c < w->in.channels; c += GHOST_LANES) {
        gv sum = {0}, other = {0};
        int x = 0;
        for (; x + 2 <= w->in.width; x += 2) {
            sum += gv_load(row + x * w->in.stride + c);
            other += gv_load(row + (x + 1) * w->in.stride + c);
        }
        if (x < w->in.width) sum += gv_load(row + x * w->in.stride + c);
        gv_store_some(to + c, sum + other, w->in.channels - c < GHOST_LANES ? w->in.channels - c : GHOST_LANES);
    }
}

static void mean(const work *w) {
    const float share = 1.0f / ((float)w->in.height * (float)w->other.width);
    for (int c = 0; c < w->in.channels; c += GHOST_LANES) {
        gv sum = {0};
        for (int y = 0; y < w->in.height; y++) sum += gv_load(ghost_row(&w->in, y) + c);
        gv_store_some(w->out.data + c, sum * share, w->in.channels - c < GHOST_LANES ? w->in.channels - c : GHOST_LANES);
    }
}

/* Bytes as floats, each channel with a factor and an offset. */
static void pixels(const work *w, int y) {
    const uint8_t *from = (const uint8_t *)w->in.data + (size_t)y * w->in.width * w->in.channels;
    float *to = ghost_row(&w->out, y);
    for (int x = 0; x < w->in.width; x++, from += w->in.channels, to += w->out.stride)
        for (int c = 0; c < w->in.channels; c++) to[c] = (float)from[c] * w->weights[c] + w->after.bias[c];
}

static void copy(const work *w, int y) {
    const float *from = ghost_row(&w->in, y);
    float *to = ghost_row(&w->out, y);
    for (int x = 0; x < w->in.width; x++, from += w->in.stride, to += w->out.stride)
        memcpy(to, from, w->in.channels * sizeof(float));
}

/* exp(x − most) / Σ exp(x − most) */
static void softmax(const work *w) {
    const int count = w->in.channels;
    const float *in = w->in.data;
    float *out = w->out.data, most = in[0], sum = 0;
    for (int c = 1; c < count; c++) most = in[c] > most ? in[c] : most;
    for (int c = 0; c < count; c++) {
        const gv one = gv_exp(gv_all(in[c] - most));
        out[c] = one[0];
        sum += one[0];
    }
    for (int c = 0; c < count; c++) out[c] /= sum;
}

/* `kind` and `active` are known while compiling where a network spends time with them. */
GHOST_INLINE gv one_of(const work *w, const int kind, const int active, const float *a, const float *b, int c) {
    gv value = gv_load(a + c);
    if (kind == GHOST_ADD || kind == GHOST_SHIFT) value += gv_load(b + c);
    if (kind == GHOST_MUL || kind == GHOST_SCALE) value *= gv_load(b + c);
    if (kind == GHOST_AFFINE) value = value * gv_load(w->weights + c) + gv_load(w->after.bias + c);
    return active ? gv_activate(value, w->step->activation) : value;
}

GHOST_INLINE void each(const work *w, int y, const int kind, const int active) {
    const int channels = w->out.channels, both = kind == GHOST_ADD || kind == GHOST_MUL;
    const float *a = ghost_row(&w->in, y), *b = w->other.data;
    if (both) b = ghost_row(&w->other, ghost_nearest(y, w->other.height, w->out.height));
    float *to = ghost_row(&w->out, y);
    for (int x = 0, rest = 0; x < w->out.width; x++, a += w->in.stride, to += w->out.stride) {
        int c = 0;
        for (; c + GHOST_LANES <= channels; c += GHOST_LANES) gv_store(to + c, one_of(w, kind, active, a, b, c));
        if (c < channels) gv_store_some(to + c, one_of(w, kind, active, a, b, c), channels - c);
        for (rest += both ? w->other.width : 0; rest >= w->out.width; rest -= w->out.width) b += w->other.stride;
    }
}

static void elementwise(const work *w, int y) {
    const int kind = w->step->kind;
    if (w->step->activation.kind) each(w, y, kind, 1);
    else if (kind == GHOST_MUL) each(w, y, GHOST_MUL, 0);
    else if (kind == GHOST_ADD) each(w, y, GHOST_ADD, 0);
    else if (kind == GHOST_SCALE) each(w, y, GHOST_SCALE, 0);
    else each(w, y, kind, 0);
}

static void pool(const work *w, int y) {
    const ghost_window *window = &w->step->window;
    const int average = w->step->kind == GHOST_AVERAGE, channels = w->out.channels;
    const float share = 1.0f / (float)(window->kernel_height * window->kernel_width);
    const float *rows[GHOST_MOST_ROWS];
    int count = 0;
    for (int i = 0; i < window->kernel_height; i++) {
        const int from = y * window->stride_y - window->pad_top + i * window->dilation_y;
        if (from >= 0 && from < w->in.height) rows[count++] = ghost_row(&w->in, from);
    }
    float *to = ghost_row(&w->out, y);
    for (int x = 0; x < w->out.width; x++, to += w->out.stride) {
        for (int c = 0; c < channels; c += GHOST_LANES) {
            gv value = average ? gv_all(0) : gv_all(-3.402823466e38f);
            for (int i = 0; i < count; i++) {
                for (int j = 0; j < window->kernel_width; j++) {
                    const int column = x * window->stride_x - window->pad_left + j * window->dilation_x;
                    if (column < 0 || column >= w->in.width) continue;
                    const gv one = gv_load(rows[i] + column * w->in.stride + c);
                    value = average ? value + one : gv_max(value, one);
                }
            }
            if (average) value *= share;
            gv_store_some(to + c, value, channels - c < GHOST_LANES ? channels - c : GHOST_LANES);
        }
    }
}

static void nearest(const work *w, int y) {
    const float *from = ghost_row(&w->in, ghost_nearest(y, w->in.height, w->out.height));
    float *to = ghost_row(&w->out, y);
    for (int x = 0, rest = 0; x < w->out.width; x++, to += w->out.stride) {
        memcpy(to, from, w->out.channels * sizeof(float));
        for (rest += w->in.width; rest >= w->out.width; rest -= w->out.width) from += w->in.stride;
    }
}

static void transpose(const work *w, int y) {
    const int loads = w->step->kind == GHOST_LOAD, width = w->in.width, channels = w->in.channels;
    const float *row = loads ? 0 : ghost_row(&w->in, y);
    float *to = loads ? ghost_row(&w->out, y) : 0;
    for (int c = 0; c < channels; c++) {
        const size_t plane = ((size_t)c * w->in.height + y) * width;
        if (loads)
            for (int x = 0; x < width; x++) to[x * w->out.stride + c] = w->in.data[plane + x];
        else
            for (int x = 0; x < width; x++) w->out.data[plane + x] = row[x * w->in.stride + c];
    }
}
