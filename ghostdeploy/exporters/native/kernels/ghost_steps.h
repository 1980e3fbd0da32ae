/* A network as data: steps, in groups that pass over the maps row by row. */
#ifndef GHOST_STEPS_H
#define GHOST_STEPS_H

#include "ghost_kernels.h"

enum {
    GHOST_STEM,          /* dense convolution of an input whose channels are planes */
    GHOST_LOAD,          /* planes to pixels */
    GHOST_STORE,         /* pixels to planes */
    GHOST_POINTWISE,
    GHOST_DEPTHWISE,
    GHOST_DENSE,
    GHOST_VECTOR,
    GHOST_SCALE_WEIGHTS, /* weights of a pointwise step times a vector: w[n][k] · in[k] */
    GHOST_ADD,
    GHOST_MUL,
    GHOST_SCALE,         /* map times vector */
    GHOST_SHIFT,         /* map plus vector */
    GHOST_ACTIVATE,
    GHOST_AFFINE,        /* map · vector + vector, of the weights */
    GHOST_PIXELS,        /* the same for an input of bytes */
    GHOST_COPY,
    GHOST_SQUEEZE,       /* sums of rows */
    GHOST_MEAN,          /* sum of the rows' sums, over the pixels */
    GHOST_SOFTMAX,       /* of a vector */
    GHOST_AVERAGE,
    GHOST_MAXIMUM,
    GHOST_NEAREST,
};

/* A ring is in the arena of the thread, everything else in the one that all threads share. */
enum { GHOST_ARENA, GHOST_RING, GHOST_INPUT, GHOST_OUTPUT };

typedef struct {
    uint32_t at; /* bytes from the beginning */
    uint16_t height, width, rows;
    uint32_t channels, stride;
    uint8_t where, index; /* of the input or output */
    uint8_t zero;         /* of a map of bytes, and their scale; 0 where values are floats */
    float scale;
} ghost_place;

/* PyTorch's "nearest": row or column y of `out` is ⌊y · in / out⌋ of `in`. */
static inline int ghost_nearest(int y, int in, int out) { return (int)((int64_t)y * in / out); }

typedef struct {
    uint8_t kind;
    ghost_activation activation;
    ghost_window window;
    ghost_place in, other, out; /* other: what is added, or the second operand; of a product it may have another size, see GHOST_NEAREST */
    ghost_place second;         /* gets the output with what is added, and out the output without */
    uint16_t groups;
    uint64_t makers_of_in, makers_of_other; /* steps of the group, a bit each */
    uint32_t weights, bias, scratch; /* floats from the beginning of the weights, of the arena */
    uint8_t int8;                /* weights of 8 bits, whose scales lie behind the bias */
    uint8_t scaled;              /* its weights are in the arena */
    uint8_t sink;                /* makes all its rows: no step of the group reads them, or others get a sum */
    uint8_t bytes;               /* reads or writes maps of bytes, see ghost_rows_int8.c */
} ghost_step;

typedef struct {
    uint16_t first, count, band; /* rows of the last step that one pass makes */
    uint8_t whole;               /* one step after the other */
} ghost_group;

typedef struct {
    const ghost_step *steps;
    const ghost_group *groups;
    int group_count;
    uint32_t zeros; /* floats at the beginning of the arena: rows outside of maps */
} ghost_network;

typedef struct {
    const float *weights;
    float *arena, *own; /* of all threads, of this one */
    const void *const *inputs;
    float *const *outputs;
} ghost_memory;

void ghost_rows(const ghost_step *step, const ghost_memory *memory, int first, int last);
void ghost_rows_int8(const ghost_step *step, const ghost_memory *memory, int first, int last);
void ghost_strips_int8(const ghost_step *step, const ghost_memory *memory, int first, int last); /* of a vector's outputs */
void ghost_share(const ghost_step *step, const ghost_memory *memory, int part, int parts);

/* One of several threads; no team is one thread. */
typedef struct ghost_team {
    int part, parts;
    void (*wait)(void *barrier);
    void *barrier;
} ghost_team;

void ghost_network_run(const ghost_network *network, const ghost_memory *memory, const ghost_team *team);

#endif
