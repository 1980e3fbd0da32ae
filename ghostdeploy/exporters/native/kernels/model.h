/* A network in C: no allocation, no files, no state. Any number of threads may run it, each with an arena of its own.

   weights   weights.bin, whole, at an address divisible by 4 (by 64 is faster)
   arena     ghost_arena_bytes() bytes, likewise; what they hold does not matter
   inputs    one image each: float planes (C, H, W), or bytes (H, W, C); see plan.json
   outputs   one image each, float */
#ifndef GHOST_MODEL_H
#define GHOST_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

size_t ghost_arena_bytes(void);

/* Bytes of an input, and numbers of an output, of one image. */
int ghost_input_count(void);
int ghost_output_count(void);
size_t ghost_input_bytes(int input);
size_t ghost_output_floats(int output);

/* SHA-256 of the tables and the weights: plan.json has the same. */
const char *ghost_identity(void);

/* For looking inside; ghost_run needs none of it. They return 0; 1 where there is no such step, or a pointer is null.

   numbers   GHOST_STEP_NUMBERS of them, what the table has of a step: see ghost_inside.c
   scaled    its weights times a gate, where another step multiplies them
   maps      whole ones with the channels of a pixel together: what it reads, the second operand, what it makes, and the
             sum of these; null where there is none */
#define GHOST_STEP_NUMBERS 19
int ghost_step_count(void);
int ghost_step_read(int step, unsigned *numbers);
int ghost_step_alone(int step, const void *weights, const void *scaled, void *arena, void *const *maps);

/* Returns 0; 1 where a pointer is null. */
int ghost_run(const void *weights, void *arena, const void *const *inputs, float *const *outputs);

/* The same by several threads, to the last bit; not in builds without threads. One team serves one call at a time.

   arenas    one per thread, the first of which they share */
struct ghost_team;
typedef int ghost_part(const void *weights, void *arena, void *own, const void *const *inputs, float *const *outputs,
                       const struct ghost_team *team);
ghost_part ghost_run_part;

typedef struct ghost_threads ghost_threads;
ghost_threads *ghost_threads_new(int count);
int ghost_threads_run(ghost_threads *team, ghost_part *network, const void *weights, void *const *arenas,
                      const void *const *inputs, float *const *outputs);
void ghost_threads_free(ghost_threads *team);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
