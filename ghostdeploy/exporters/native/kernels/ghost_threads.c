/* A team of threads for one network: they meet at a barrier after each group, and sleep between calls.

   Waiting spins for a while first: to sleep and to be woken takes longer than most steps. It gives its processor away only
   when the others are late, which tells that they have none: what runs there instead keeps it for milliseconds. This file
   is for hosts; what is embedded elsewhere calls ghost_run. */
#if defined(__unix__) || defined(__APPLE__)
#define _GNU_SOURCE
#include "model.h"
#include "ghost_steps.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define SPINS 20000
#define LATE 4000

struct ghost_threads {
    int count, stop, failed;
    unsigned arrived, round, call; /* of the barrier; and calls so far */
    unsigned finished;
    pthread_mutex_t lock;
    pthread_cond_t called;
    ghost_part *network;
    const void *weights;
    void *const *arenas;
    const void *const *inputs;
    float *const *outputs;
    struct member {
        struct ghost_threads *team;
        pthread_t thread;
        int part;
    } members[];
};

static void pause_for(int turn) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (turn > LATE) sched_yield();
}

static void wait_for_all(void *of) {
    ghost_threads *team = of;
    const unsigned round = __atomic_load_n(&team->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == (unsigned)team->count) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int turn = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; turn++) pause_for(turn);
}

static void take_part(ghost_threads *team, int part) {
    const ghost_team own = {part, team->count, wait_for_all, team};
    team->network(team->weights, team->arenas[0], team->arenas[part], team->inputs, team->outputs, &own);
}

static void *live(void *of) {
    struct member *member = of;
    ghost_threads *team = member->team;
    for (unsigned seen = 0;;) {
        for (int turn = 0; turn < SPINS && __atomic_load_n(&team->call, __ATOMIC_ACQUIRE) == seen; turn++) pause_for(turn);
        pthread_mutex_lock(&team->lock);
        while (team->call == seen) pthread_cond_wait(&team->called, &team->lock);
        seen = team->call;
        pthread_mutex_unlock(&team->lock);
        if (team->stop) return 0;
        take_part(team, member->part);
        __atomic_add_fetch(&team->finished, 1, __ATOMIC_RELEASE);
    }
}

static void call_all(ghost_threads *team) {
    pthread_mutex_lock(&team->lock);
    __atomic_add_fetch(&team->call, 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&team->called);
    pthread_mutex_unlock(&team->lock);
}

void ghost_threads_free(ghost_threads *team) {
    team->stop = 1;
    call_all(team);
    for (int part = 1; part < team->count; part++) pthread_join(team->members[part].thread, 0);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->called);
    free(team);
}

ghost_threads *ghost_threads_new(int count) {
    ghost_threads *team = calloc(1, sizeof *team + (size_t)count * sizeof(struct member));
    if (!team) return 0;
    pthread_mutex_init(&team->lock, 0);
    pthread_cond_init(&team->called, 0);
    team->count = 1;
    for (int part = 1; part < count; part++) {
        team->members[part] = (struct member){.team = team, .part = part};
        if (pthread_create(&team->members[part].thread, 0, live, &team->members[part])) {
            ghost_threads_free(team);
            return 0;
        }
        team->count++;
    }
    return team;
}

int ghost_threads_run(ghost_threads *team, ghost_part *network, const void *weights, void *const *arenas,
                      const void *const *inputs, float *const *outputs) {
    if (!team || !network || !weights || !arenas || !inputs || !outputs) return 1;
    team->network = network;
    team->weights = weights;
    team->arenas = arenas;
    team->inputs = inputs;
    team->outputs = outputs;
    team->finished = 0;
    call_all(team);
    take_part(team, 0);
    for (int turn = 0; __atomic_load_n(&team->finished, __ATOMIC_ACQUIRE) + 1 < (unsigned)team->count; turn++) pause_for(turn);
    return 0;
}
#endif
