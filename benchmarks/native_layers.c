/* Clocks around the steps of a network: its sources are linked with --wrap=ghost_network_run,ghost_rows,ghost_share. */
#include "ghost_inside.h"
#include <time.h>

#define MOST 4096
#define SUMS 12 /* independent sums hide the latency of an instruction */

void __real_ghost_rows(const ghost_step *step, const ghost_memory *memory, int first, int last);
void __real_ghost_share(const ghost_step *step, const ghost_memory *memory, int part, int parts);
void __real_ghost_network_run(const ghost_network *network, const ghost_memory *memory, const ghost_team *team);

static const ghost_network *of;
static double seconds[MOST];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* A row is made from a step of the table or from a copy that lacks what it adds. */
static int place_of(const ghost_step *step) {
    const int count = of->groups[of->group_count - 1].first + of->groups[of->group_count - 1].count;
    if (step >= of->steps && step < of->steps + count) return (int)(step - of->steps);
    for (int i = 0; i < count; i++) {
        const ghost_step *one = &of->steps[i];
        if (one->kind == step->kind && one->weights == step->weights && one->out.at == step->out.at && one->in.at == step->in.at) return i;
    }
    return MOST - 1;
}

void __wrap_ghost_rows(const ghost_step *step, const ghost_memory *memory, int first, int last) {
    const double begin = now();
    __real_ghost_rows(step, memory, first, last);
    seconds[place_of(step)] += now() - begin;
}

void __wrap_ghost_share(const ghost_step *step, const ghost_memory *memory, int part, int parts) {
    const double begin = now();
    __real_ghost_share(step, memory, part, parts);
    seconds[place_of(step)] += now() - begin;
}

void __wrap_ghost_network_run(const ghost_network *network, const ghost_memory *memory, const ghost_team *team) {
    of = network;
    memset(seconds, 0, sizeof seconds);
    __real_ghost_network_run(network, memory, team);
}

/* Seconds of each step of the last run. */
__attribute__((visibility("default"))) const double *layers_seconds(void) { return seconds; }

/* Multiply-accumulates a second of registers alone: what no kernel exceeds. */
__attribute__((visibility("default"))) double layers_peak(void) {
    gv sums[SUMS], factor = gv_all(0.999f);
    for (int i = 0; i < SUMS; i++) sums[i] = gv_all((float)i);
    const int rounds = 1 << 20;
    const double begin = now();
    for (int round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) sums[i] = sums[i] * factor + factor;
    }
    gv kept = sums[0];
    for (int i = 1; i < SUMS; i++) kept += sums[i];
    const double took = now() - begin;
    seconds[MOST - 1] = (double)kept[0]; /* used: the compiler must not leave it out */
    return (double)rounds * SUMS * GHOST_LANES / took;
}
