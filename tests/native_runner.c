/* Runs networks that are compiled together: networks GIVEN MADE FIRST THREADS…

   GIVEN holds the weights and the inputs of each, MADE gets the outputs of each from FIRST on. Every block has a place of its own that ends with its
   last byte, so that a sanitizer sees what lies beyond; arenas and outputs begin as numbers that are none. Teams must give
   the same bits. The one who compiles puts `entries`, a table of the networks, in front of this. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16

/* A vector of channels may end in the channels of a neighbour, which another thread writes: these lanes are read and left.
   What else races, writes among them, is told. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:gv_load\n"; }

static void *block(size_t size) {
    void *found = aligned_alloc(64, size);
    if (!found) abort();
    memset(found, 255, size);
    return found;
}

/* Rooms of inputs and outputs are whole numbers, no cache lines: malloc ends them where they end. */
static void *room(size_t size) {
    void *found = malloc(size);
    if (!found) abort();
    memset(found, 255, size);
    return found;
}

static int run_one(int place, FILE *given, FILE *made, const int *threads, int teams) {
    const entry *e = &entries[place];
    void *weights = block(e->weights), *arenas[MOST];
    const void *inputs[MOST];
    float *outputs[MOST], *again[MOST];
    int failed = fread(weights, 1, e->weights, given) != e->weights;
    for (int i = 0; i < e->input_count(); i++) {
        inputs[i] = room(e->input_bytes(i));
        failed |= fread((void *)inputs[i], 1, e->input_bytes(i), given) != e->input_bytes(i);
    }
    for (int i = 0; i < e->output_count(); i++) {
        outputs[i] = room(e->output_floats(i) * sizeof(float));
        again[i] = room(e->output_floats(i) * sizeof(float));
    }
    arenas[0] = block(e->arena());
    failed |= e->run(weights, arenas[0], inputs, outputs);
    for (int i = 0; i < e->output_count(); i++) fwrite(outputs[i], sizeof(float), e->output_floats(i), made);
    for (int t = 0; t < teams; t++) {
        ghost_threads *team = ghost_threads_new(threads[t]);
        for (int i = 1; i < threads[t]; i++) arenas[i] = block(e->arena());
        memset(arenas[0], 255, e->arena());
        failed |= !team || ghost_threads_run(team, e->part, weights, arenas, inputs, again);
        ghost_threads_free(team);
        for (int i = 0; i < e->output_count(); i++)
            if (memcmp(outputs[i], again[i], e->output_floats(i) * sizeof(float))) {
                printf("network %d, output %d: %d threads give other bits\n", place, i, threads[t]);
            }
        for (int i = 1; i < threads[t]; i++) free(arenas[i]);
    }
    for (int i = 0; i < e->input_count(); i++) free((void *)inputs[i]);
    for (int i = 0; i < e->output_count(); i++) free(outputs[i]), free(again[i]);
    free(weights);
    free(arenas[0]);
    return failed;
}

int main(int count, char **words) {
    const int networks = sizeof entries / sizeof entries[0];
    int threads[MOST], failed = 0, first = atoi(words[3]);
    FILE *given = fopen(words[1], "rb"), *made = fopen(words[2], "wb");
    for (int i = 4; i < count && i < MOST; i++) threads[i - 4] = atoi(words[i]);
    for (int place = 0; place < first; place++) {
        fseek(given, (long)entries[place].weights, SEEK_CUR);
        for (int i = 0; i < entries[place].input_count(); i++) fseek(given, (long)entries[place].input_bytes(i), SEEK_CUR);
    }
    for (int place = first; place < networks && !failed; place++) {
        fprintf(stderr, "network %d\n", place);
        failed = run_one(place, given, made, threads, count - 4);
        fflush(0); /* a sanitizer ends at once */
    }
    fclose(given);
    fclose(made);
    return failed;
}
