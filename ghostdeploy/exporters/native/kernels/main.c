/* Replays arrays through a network: replay weights.bin INPUT.npy… OUTPUT.npy…, see docs/native.md.

   Prints the largest error of all outputs. */
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char *content(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *found = 0;
    long end = -1;
    if (file && !fseek(file, 0, SEEK_END) && (end = ftell(file)) > 0 && !fseek(file, 0, SEEK_SET)) found = malloc((size_t)end);
    if (!found || fread(found, 1, (size_t)end, file) != (size_t)end) {
        fprintf(stderr, "%s cannot be read\n", path);
        exit(3);
    }
    fclose(file);
    *size = (size_t)end;
    return found;
}

/* The values of an .npy file: a magic string, the version, and the length of a text that describes them come first. */
static unsigned char *values(const char *path, size_t *size) {
    unsigned char *found = content(path, size);
    const size_t text = *size < 10 ? *size : 10 + found[8] + 256u * found[9];
    *size -= text;
    return found + text;
}

int main(int count, char **words) {
    const int inputs = ghost_input_count(), outputs = ghost_output_count();
    const void *given[64];
    float *made[64], error = 0;
    size_t size, images = 0;
    if (count != 2 + inputs + outputs || inputs > 64 || outputs > 64) {
        fprintf(stderr, "expected weights.bin, %d input and %d output .npy files\n", inputs, outputs);
        return 2;
    }
    const void *weights = content(words[1], &size);
    void *arena = malloc(ghost_arena_bytes());
    for (int i = 0; i < inputs; i++) {
        given[i] = values(words[2 + i], &size);
        images = size / ghost_input_bytes(i);
    }
    for (int i = 0; i < outputs; i++) made[i] = malloc(ghost_output_floats(i) * sizeof(float));
    for (size_t image = 0; image < images; image++) {
        ghost_run(weights, arena, given, made);
        for (int i = 0; i < outputs; i++) {
            const float *wanted = (const float *)values(words[2 + inputs + i], &size) + image * ghost_output_floats(i);
            for (size_t k = 0; k < ghost_output_floats(i); k++) error = fmaxf(error, fabsf(made[i][k] - wanted[k]));
        }
        for (int i = 0; i < inputs; i++) given[i] = (const char *)given[i] + ghost_input_bytes(i);
    }
    printf("%zu images, largest error %g\n", images, (double)error);
    return 0;
}
