/* Depthwise convolutions of bytes: the ways of ghost_depthwise.c with other loads and stores.

   Σ (in − zero) · w of 25 taps is at most 25 · 255 · 128 < 2^20, and the plan sees to it that the bias leaves it below 2^24:
   floats hold it exactly. */
#define GHOST_OF_BYTES 1
#include "ghost_depthwise.c"
