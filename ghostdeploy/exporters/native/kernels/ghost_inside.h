/* See ghost_inside.c. */
#ifndef GHOST_INSIDE_H
#define GHOST_INSIDE_H

#include "ghost_steps.h"
#include "model.h"

/* weights: of the network; scaled: of this step, where a gate multiplies them; own: an arena that begins with zeros;
   maps: what it reads, its second operand, what it makes, and its sum with the second operand, or null. */
void ghost_alone(const ghost_step *of, const void *weights, const void *scaled, void *own, void *const *maps);
void ghost_told(const ghost_network *network, int step, unsigned *numbers);

#endif
