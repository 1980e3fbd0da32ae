/* The same for maps of bytes. */
#if defined(__AVX512F__)
#define GHOST_NARROW 1
#define GHOST_OF_BYTES 1
#include "ghost_depthwise.c"
#endif
