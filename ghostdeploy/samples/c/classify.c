/* Classifies images with a native bundle, in plain C: classify BUNDLE IMAGE.ppm…

   The bundle takes bytes (exported with --input uint8-nhwc), so that normalisation is in the network. An image is a binary
   PPM of the network's own size, as `python -m ghostdeploy.samples.c` makes it of any file: header, then one byte each
   for red, green and blue. Exit codes are those of `ghostdeploy run`: 2 for the wrong words, 3 where an image or a file of
   the bundle is wrong; other images are classified all the same. */
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 1024 /* of a path, and of a label */

/* A whole file, 0 where it cannot be read. */
static unsigned char *content(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    unsigned char *found = 0;
    long end = -1;
    if (file && !fseek(file, 0, SEEK_END) && (end = ftell(file)) > 0 && !fseek(file, 0, SEEK_SET)) found = malloc((size_t)end + 1);
    if (found && fread(found, 1, (size_t)end, file) != (size_t)end) {
        free(found);
        found = 0;
    }
    if (file) fclose(file);
    if (!found) return 0;
    found[end] = 0;
    *size = (size_t)end;
    return found;
}

static unsigned char *of_bundle(const char *bundle, const char *name, size_t *size) {
    char path[LONGEST];
    unsigned char *found = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", bundle, name) < sizeof path) found = content(path, size);
    if (!found) fprintf(stderr, "%s/%s cannot be read\n", bundle, name);
    return found;
}

/* Where the pixels of a PPM begin, 0 where it is none of `bytes` bytes of pixels. */
static const unsigned char *pixels(const unsigned char *file, size_t size, size_t bytes) {
    unsigned width, height;
    int end = 0;
    if (size < 3 || memcmp(file, "P6", 2) || memchr(file, 0, size < 20 ? size : 3)) return 0;
    if (sscanf((const char *)file, "P6 %5u %5u 255%n", &width, &height, &end) != 2 || !end) return 0;
    if ((size_t)width * height * 3 != bytes || size != (size_t)end + 1 + bytes) return 0;
    return file + end + 1;
}

/* The n-th line of labels.txt. */
static void print_label(const char *labels, size_t n) {
    for (; n && (labels = strchr(labels, '\n')); n--) labels++;
    printf("%.*s", labels ? (int)strcspn(labels, "\n") : 1, labels ? labels : "?");
}

static void print_best(const char *image, const char *labels, const float *logits, size_t count) {
    size_t best = 0;
    float sum = 0;
    for (size_t n = 1; n < count; n++) best = logits[n] > logits[best] ? n : best;
    for (size_t n = 0; n < count; n++) sum += expf(logits[n] - logits[best]);
    printf("%s: ", image);
    print_label(labels, best);
    printf(" %.4f\n", 1 / (double)sum);
}

int main(int count, char **words) {
    size_t size, length;
    int wrong = 0;
    if (count < 3) {
        fprintf(stderr, "usage: %s BUNDLE IMAGE.ppm...\n", words[0]);
        return 2;
    }
    unsigned char *weights = of_bundle(words[1], "weights.bin", &size), *labels = of_bundle(words[1], "labels.txt", &length);
    if (!weights || !labels) return 3;
    if (size != GHOST_WEIGHTS_BYTES) {
        fprintf(stderr, "%s/weights.bin has %zu bytes, expected %d: this program is of another bundle\n", words[1], size,
                (int)GHOST_WEIGHTS_BYTES);
        return 3;
    }
    void *arena = malloc(ghost_arena_bytes());
    float *logits = malloc(ghost_output_floats(0) * sizeof(float));
    if (!arena || !logits || ghost_input_count() != 1 || ghost_output_count() != 1) {
        fprintf(stderr, "expected a network with one image and one output, and memory for it\n");
        return 3;
    }
    for (int i = 2; i < count; i++) {
        unsigned char *file = content(words[i], &size);
        const void *input = file ? pixels(file, size, ghost_input_bytes(0)) : 0;
        if (input && !ghost_run(weights, arena, &input, &logits)) {
            print_best(words[i], (const char *)labels, logits, ghost_output_floats(0));
        } else {
            fprintf(stderr, "%s is no PPM file of %zu bytes of pixels\n", words[i], ghost_input_bytes(0));
            wrong = 3;
        }
        free(file);
    }
    free(weights);
    free(labels);
    free(arena);
    free(logits);
    return wrong;
}
