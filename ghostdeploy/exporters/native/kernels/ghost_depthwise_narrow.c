/* Depthwise convolutions of few channels with half vectors, for AVX-512. */
#if defined(__AVX512F__)
#define GHOST_NARROW 1
#include "ghost_depthwise.c"
#endif
