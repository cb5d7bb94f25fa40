/*
 * whole_scale.h: scales of whole tensors, which NVFP4 has: one F32 for the weight, and one for the
 * activations that it is multiplied by. Servers divide by them, and run the two weights of a gate
 * as one, under the scale of one of them.
 */
#ifndef CKPT_WHOLE_SCALE_H
#define CKPT_WHOLE_SCALE_H

#include "libckpt/source.h"

enum { WHOLE_SCALE_NAME_BYTES = 1024 };

/* "X.w1.weight" -> "X.w3.weight", gate_proj -> up_proj: the weight that servers join with this one.
 * 0: there is none. */
int whole_scale_partner(const char *name, char out[WHOLE_SCALE_NAME_BYTES]);

#endif
