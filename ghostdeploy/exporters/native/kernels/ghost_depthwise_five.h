/* 5 × 5, included by ghost_depthwise.c: a vector of channels is first gathered from each input row into a line with zeros at
   both ends, so that four outputs at a time read at fixed distances, and there are no edges:

       out[x + o] += line[i][column] · w[i][column − o · stride]      0 ≤ column − o · stride < 5

   with stride 2 these are 55 values and 25 weights for 100 multiply-adds. */
#define SIDE 5
#define LINE 136 /* values of the widest line, with what the last tile reads behind it */

/* Written out: sums in an array leave the registers when a compiler unrolls late. */
#define USE(o, j) SUMS(o) += value * w##j
#define COLUMN_OF(column) gv value = line[column]; GHOST_HELD(value)
#define ROW_1()                                                                                                             \
    { COLUMN_OF(0); USE(0, 0); }                                                                                            \
    { COLUMN_OF(1); USE(0, 1); USE(1, 0); }                                                                                 \
    { COLUMN_OF(2); USE(0, 2); USE(1, 1); USE(2, 0); }                                                                      \
    { COLUMN_OF(3); USE(0, 3); USE(1, 2); USE(2, 1); USE(3, 0); }                                                           \
    { COLUMN_OF(4); USE(0, 4); USE(1, 3); USE(2, 2); USE(3, 1); }                                                           \
    { COLUMN_OF(5); USE(1, 4); USE(2, 3); USE(3, 2); }                                                                      \
    { COLUMN_OF(6); USE(2, 4); USE(3, 3); }                                                                                 \
    { COLUMN_OF(7); USE(3, 4); }
#define ROW_2()                                                                                                             \
    { COLUMN_OF(0); USE(0, 0); }                                                                                            \
    { COLUMN_OF(1); USE(0, 1); }                                                                                            \
    { COLUMN_OF(2); USE(0, 2); USE(1, 0); }                                                                                 \
    { COLUMN_OF(3); USE(0, 3); USE(1, 1); }                                                                                 \
    { COLUMN_OF(4); USE(0, 4); USE(1, 2); USE(2, 0); }                                                                      \
    { COLUMN_OF(5); USE(1, 3); USE(2, 1); }                                                                                 \
    { COLUMN_OF(6); USE(1, 4); USE(2, 2); USE(3, 0); }                                                                      \
    { COLUMN_OF(7); USE(2, 3); USE(3, 1); }                                                                                 \
    { COLUMN_OF(8); USE(2, 4); USE(3, 2); }                                                                                 \
    { COLUMN_OF(9); USE(3, 3); }                                                                                            \
    { COLUMN_OF(10); USE(3, 4); }

#define WEIGHTS_OF(i)                                                                                                       \
    const gv *line = lines[(first + (i)) % SIDE] + x * stride;                                                              \
    const float *from = weights + (i) * SIDE * all;                                                                         \
    const gv w0 = gv_load(from), w1 = gv_load(from + all), w2 = gv_load(from + 2 * all), w3 = gv_load(from + 3 * all);      \
    const gv w4 = gv_load(from + 4 * all);

/* Four outputs, of which `count` are wanted. Odd rows have sums of their own: four would wait for each other. */
GHOST_INLINE void tile_of_five(target *t, gv (*lines)[LINE], int first, int x, const gv bias, const float *weights, size_t all,
                               int count, const int stride, const int epilogue) {
    gv even0 = bias, even1 = bias, even2 = bias, even3 = bias, odd0 = {0}, odd1 = {0}, odd2 = {0}, odd3 = {0};
    for (int i = 0; i < SIDE; i += 2) {
        {
#define SUMS(o) even##o
            WEIGHTS_OF(i)
            if (stride == 1) { ROW_1() } else { ROW_2() }
#undef SUMS
        }
        if (i + 1 < SIDE) {
#define SUMS(o) odd##o
            WEIGHTS_OF(i + 1)
            if (stride == 1) { ROW_1() } else { ROW_2() }
#undef SUMS
        }
    }
    finish(t, even0 + odd0, epilogue);
    if (count > 1) finish(t, even1 + odd1, epilogue);
    if (count > 2) finish(t, even2 + odd2, epilogue);
    if (count > 3) finish(t, even3 + odd3, epilogue);
}

GHOST_INLINE gv gathered_from(const strip *s, const item *from) {
    (void)s;
    return LOAD(from);
}

GHOST_INLINE void fives(strip s, const rows_of *r, const int stride, const int epilogue) {
    gv lines[SIDE][LINE];
    const int left = s.window->pad_left, width = s.in_width, wide = (s.out_width + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    const gv bias = gv_load(s.after->bias + s.channel);
    ghost_epilogue after = *s.after;
    s.after = &after;
    for (int y = 0, gathered = 0; y < r->count; y++) {
        const int first = y * s.window->stride_y;
        for (gathered = gathered < first ? first : gathered; gathered < first + SIDE; gathered++) {
            gv *line = lines[gathered % SIDE];
            const item *from = r->in[gathered] + s.channel;
            for (int x = 0; x < left; x++) line[x] = (gv){0};
            for (int x = 0; x < width; x++, from += s.in_stride) line[left + x] = gathered_from(&s, from);
            for (int x = left + width; x < (wide - 1) * stride + SIDE; x++) line[x] = (gv){0};
        }
        s.out = r->out[y];
        after.added = r->added ? r->added[y] : 0;
        target t = target_of(&s);
        for (int x = 0; x < s.out_width; x += AT_ONCE)
            tile_of_five(&t, lines, first, x, bias, s.weights + s.channel, s.weights_stride, s.out_width - x, stride, epilogue);
    }
}
