/* The kernels, and what they read and write.

   A map holds its pixels in rows, a pixel its channels: element (y, x, c) is at row(y)[x · stride + c]. A map may be part of
   the channels of a wider one, so `stride` is that of the wider one: what concatenates is the address. A map that is read
   while it is made keeps only its last rows: row y lies at y mod rows. Reads may go GHOST_SLACK floats beyond the end. */
#ifndef GHOST_KERNELS_H
#define GHOST_KERNELS_H

#include "ghost_activation.h"

/* Output channels of a strip of weights. */
#define GHOST_STRIP 16
#define GHOST_SLACK 16
#define GHOST_DENSE_ROWS 4 /* that a dense layer makes of its lines at a time */
#define GHOST_MOST_ROWS 64 /* of the inputs of a band */

typedef struct {
    float *data;
    int height, width, channels, rows;
    size_t stride;
} ghost_map;

typedef struct {
    int kernel_height, kernel_width, stride_y, stride_x, pad_top, pad_left, dilation_y, dilation_x;
} ghost_window;

/* What happens to an output before it is stored: activate(sum + bias + added). With a `second` place, what is stored first
   is activate(sum + bias), and the second gets that + added: a cheap operation reads the one, the block gives the other. */
typedef struct {
    const float *bias; /* as many as the strips have */
    const float *added;
    size_t added_stride;
    float *second;
    size_t second_stride;
    ghost_activation activation;
} ghost_epilogue;

GHOST_INLINE float *ghost_row(const ghost_map *map, int y) {
    return map->data + (size_t)(y < map->rows ? y : y % map->rows) * map->width * map->stride;
}

/* out[p][n] = Σ_k in[p][k] · weights[n / 16][k][n mod 16] */
void ghost_pointwise(const float *in, size_t in_stride, float *out, size_t out_stride, int pixels, int inputs, int outputs,
                     const float *weights, const ghost_epilogue *after);

/* The same where the inputs of a pixel are `count` runs of `run` inputs: runs[i] points to the first of those of the first pixel. */
void ghost_gathered(const float *const *runs, int count, int run, size_t in_stride, float *out, size_t out_stride, int pixels,
                    int outputs, const float *weights, const ghost_epilogue *after);

/* Some rows of a depthwise convolution: in[y · stride_y + i · dilation_y] is the input row under row i of the kernel for
   output row y; added is null where nothing is added. */
typedef struct {
    const float *const *in, *const *added;
    float *const *out;
    int count;
} ghost_rows_of;

/* out[y][x][c] = Σ_ij in[y · stride_y + i · dilation_y][x · stride_x + j · dilation_x − pad_left][c] · weights[i · width + j][c] */
void ghost_depthwise(const ghost_rows_of *rows, int in_width, size_t in_stride, int out_width, size_t out_stride, int channels,
                     const float *weights, size_t weights_stride, const ghost_window *window, const ghost_epilogue *after);

/* out[n] = Σ_k in[k] · weights[n / 16][k][n mod 16], for one pixel; weights of 8 bits are multiplied with scales[n]. */
void ghost_vector(const float *in, float *out, int inputs, int outputs, const float *weights, const ghost_epilogue *after);
void ghost_vector_int8(const float *in, float *out, int inputs, int outputs, const int8_t *weights, const float *scales,
                       const ghost_epilogue *after);

#endif
