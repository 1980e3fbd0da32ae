/* Looking into a network: what its table says of a step, and one step alone, by the kernels of ghost_run.

   A step alone has whole maps in place of rings, and in place of a part of a wider map one of its own: only places change,
   so every sum is the one that ghost_run makes. ghost_run knows nothing of this file. */
#include "ghost_inside.h"

static void stands_alone(ghost_place *place, int map) {
    place->at = 0;
    place->rows = place->height;
    place->stride = place->channels;
    place->where = GHOST_INPUT;
    place->index = (uint8_t)map;
}

void ghost_alone(const ghost_step *of, const void *weights, const void *scaled, void *own, void *const *maps) {
    ghost_step step = *of;
    const void *given[] = {maps[0], maps[1], maps[2], maps[3]};
    const ghost_memory memory = {(const float *)weights, (float *)(uintptr_t)scaled, (float *)own, given, 0};
    if (step.second.channels && !maps[3]) step.second.channels = step.other.channels = 0;
    stands_alone(&step.in, 0);
    stands_alone(&step.other, 1);
    stands_alone(&step.out, 2);
    stands_alone(&step.second, 3);
    if (step.scaled) step.weights = 0;
    ghost_rows(&step, &memory, 0, step.out.height);
}

void ghost_told(const ghost_network *network, int step, unsigned *numbers) {
    const ghost_step *of = &network->steps[step];
    int group = 0;
    while (step >= network->groups[group].first + network->groups[group].count) group++;
    const unsigned found[GHOST_STEP_NUMBERS] = {
        of->kind, (unsigned)group, of->int8, of->in.height, of->in.width, of->in.channels, of->out.height, of->out.width,
        of->out.channels, of->out.rows, of->out.stride, of->out.where, of->out.at, (unsigned)of->window.kernel_height,
        (unsigned)of->window.kernel_width, of->groups, of->weights, of->bias,
        of->in.scale ? 8 : 32,
    };
    memcpy(numbers, found, sizeof found);
}
