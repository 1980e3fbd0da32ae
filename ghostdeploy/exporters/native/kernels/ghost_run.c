/* Passes over the maps, by one thread or a team.

   A group is some steps, each of which reads what the ones before it make. Its last step makes `band` rows at a time; each
   other step makes, right before, the rows that are missing for that:

       need(last) = rows so far + band        need(s) = max over readers r of s: lowest row under r's window at need(r), + 1

   So a row is read again while it is in the cache, and what only the group reads keeps a few rows in place of a map. A step
   that nobody in the group reads, or that gives others a sum, makes the same share of its rows as the last one. A group of
   small maps is whole: one step after the other.

   In a team each thread makes a share of the rows of what leaves a group, and for itself all that these need, in rings of
   its own: some rows at the borders are made twice, and nobody waits before the end of the group. Of a whole group the threads
   share each step. The order of every sum is that of one thread, so the bits are the same. */
#include "ghost_steps.h"

#define MOST_STEPS 64

static int clipped(int row, int height) { return row < 0 ? 0 : row > height ? height : row; }

/* One more than the last row that the rows before `last` read, and the first that the rows from `first` read. */
static int end_of(const ghost_step *step, int last) {
    if (last <= 0) return 0;
    if (step->kind == GHOST_NEAREST) return ghost_nearest(last - 1, step->in.height, step->out.height) + 1;
    return clipped((last - 1) * step->window.stride_y - step->window.pad_top +
                       (step->window.kernel_height - 1) * step->window.dilation_y + 1,
                   step->in.height);
}

static int begin_of(const ghost_step *step, int first) {
    if (step->kind == GHOST_NEAREST) return ghost_nearest(first, step->in.height, step->out.height);
    return clipped(first * step->window.stride_y - step->window.pad_top, step->in.height);
}

/* The same of `other`. */
static int end_of_other(const ghost_step *step, int last) {
    return last <= 0 ? 0 : ghost_nearest(last - 1, step->other.height, step->out.height) + 1;
}

static int begin_of_other(const ghost_step *step, int first) { return ghost_nearest(first, step->other.height, step->out.height); }

static int share(int total, int part, int parts) { return (int)((int64_t)total * part / parts); }

/* Some rows of a step. What others get beside what the group reads is written by the thread that has the row in its share
   [low, high): rows at the borders are made twice. */
static void make(const ghost_step *step, const ghost_memory *memory, int first, int last, int low, int high) {
    if (!step->second.channels || step->second.where == GHOST_RING) {
        ghost_rows(step, memory, first, last);
        return;
    }
    ghost_step alone = *step;
    alone.second.channels = alone.other.channels = 0;
    const int begin = low < first ? first : low > last ? last : low, end = high > last ? last : high < begin ? begin : high;
    ghost_rows(&alone, memory, first, begin);
    ghost_rows(step, memory, begin, end);
    ghost_rows(&alone, memory, end, last);
}

static void stream(const ghost_group *group, const ghost_step *steps, const ghost_memory *memory, int part, int parts) {
    int done[MOST_STEPS], need[MOST_STEPS];
    const int count = group->count, all = steps[count - 1].out.height;
    const int from = share(all, part, parts), to = share(all, part + 1, parts);
    for (int i = 0; i < count; i++) done[i] = steps[i].sink ? share(steps[i].out.height, part, parts) : steps[i].out.height;
    for (int i = count - 1; i >= 0; i--) {
        for (uint64_t makers = steps[i].makers_of_in; makers; makers &= makers - 1) {
            int *row = &done[__builtin_ctzll(makers)], first = begin_of(&steps[i], done[i]);
            if (*row > first) *row = first;
        }
        for (uint64_t makers = steps[i].makers_of_other; makers; makers &= makers - 1) {
            int *row = &done[__builtin_ctzll(makers)], first = begin_of_other(&steps[i], done[i]);
            if (*row > first) *row = first;
        }
    }
    int rows = from;
    do {
        rows = rows + group->band < to ? rows + group->band : to;
        for (int i = 0; i < count; i++) {
            const int height = steps[i].out.height, low = share(height, part, parts), high = share(height, part + 1, parts);
            need[i] = !steps[i].sink ? 0 : rows == to ? high : low + (int)(((int64_t)(high - low) * (rows - from) + to - from - 1) / (to - from));
        }
        for (int i = count - 1; i >= 0; i--) {
            const int end = end_of(&steps[i], need[i]), other = end_of_other(&steps[i], need[i]);
            for (uint64_t makers = steps[i].makers_of_in; makers; makers &= makers - 1)
                if (need[__builtin_ctzll(makers)] < end) need[__builtin_ctzll(makers)] = end;
            for (uint64_t makers = steps[i].makers_of_other; makers; makers &= makers - 1)
                if (need[__builtin_ctzll(makers)] < other) need[__builtin_ctzll(makers)] = other;
        }
        for (int i = 0; i < count; i++) {
            if (need[i] <= done[i]) continue;
            const int height = steps[i].out.height;
            make(&steps[i], memory, done[i], need[i], share(height, part, parts), share(height, part + 1, parts));
            done[i] = need[i];
        }
    } while (rows < to);
}

void ghost_network_run(const ghost_network *network, const ghost_memory *memory, const ghost_team *team) {
    const int part = team ? team->part : 0, parts = team ? team->parts : 1;
    memset(memory->own, 0, network->zeros * sizeof(float));
    for (int g = 0; g < network->group_count; g++) {
        const ghost_group *group = &network->groups[g];
        const ghost_step *steps = network->steps + group->first;
        if (!group->whole) stream(group, steps, memory, part, parts);
        for (int i = 0; group->whole && i < group->count; i++) {
            ghost_share(&steps[i], memory, part, parts);
            if (team && i < group->count - 1) team->wait(team->barrier);
        }
        if (team) team->wait(team->barrier);
    }
}
