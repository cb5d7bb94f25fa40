/*
 * whole_maxima.h: the maximum of a whole tensor, from which the tensor scale of NVFP4 is computed.
 * It is determined when the first tile of the tensor is converted, by several threads.
 *
 * The first thread that asks for a maximum begins to read the tensor. Threads that ask meanwhile
 * read other tiles of it, so that none waits longer than for one tile. Weights that servers fuse
 * need one tensor scale (tensor_fused_partner): the maximum of each is that of both.
 */
#ifndef CKPT_WHOLE_MAXIMA_H
#define CKPT_WHOLE_MAXIMA_H

#include "source.h"

typedef enum {
    MAXIMUM_NONE,                  /* not needed for this tensor */
    MAXIMUM_VALUE,                 /* bits of the largest finite magnitude, rounded to BF16 */
    MAXIMUM_EXACT_VALUE,           /* the same, not rounded */
    MAXIMUM_SCALE                  /* the largest E8M0 code of its block scales, except 255 (NaN) */
} maximum_kind;

typedef struct whole_maxima whole_maxima;

/* For the tensors of `from`, which is borrowed; kinds[i] is the kind for tensor i. *out is yours to
 * free. */
ckpt_code whole_maxima_create(ckpt_source *from, const maximum_kind *kinds, whole_maxima **out,
                              ckpt_error *err);
void whole_maxima_free(whole_maxima *maxima);           /* NULL is fine */

/* The maximum of a tensor; 0 with MAXIMUM_NONE. Thread-safe. Uses scratch and rewinds it. */
ckpt_code whole_maxima_get(whole_maxima *maxima, size_t tensor, arena *scratch, uint32_t *out,
                           ckpt_error *err);
uint64_t whole_maxima_need(const whole_maxima *maxima, size_t tensor);

#endif
