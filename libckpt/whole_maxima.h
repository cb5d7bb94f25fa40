/*
 * whole_maxima.h: the largest of a whole tensor, which the scales of NVFP4 come from, found while
 * its tiles are already being read by several threads.
 *
 * Who asks first begins to read the tensor; others who ask meanwhile take tiles of it too, so that
 * nobody waits for more than a tile. Weights that servers fuse share one scale
 * (tensor_fused_partner): what is told of one is the largest of both.
 */
#ifndef CKPT_WHOLE_MAXIMA_H
#define CKPT_WHOLE_MAXIMA_H

#include "source.h"

typedef enum {
    MAXIMUM_NONE,                  /* nobody asks for this tensor's */
    MAXIMUM_VALUE,                 /* bits of the largest finite magnitude, rounded to BF16 */
    MAXIMUM_EXACT_VALUE,           /* the same, not rounded */
    MAXIMUM_SCALE                  /* the largest E8M0 code of its block scales but 255 */
} maximum_kind;

typedef struct whole_maxima whole_maxima;

/* Of the tensors of `from`, which is borrowed; kinds[i] of each. *out is yours to free. */
ckpt_code whole_maxima_create(ckpt_source *from, const maximum_kind *kinds, whole_maxima **out,
                              ckpt_error *err);
void whole_maxima_free(whole_maxima *maxima);           /* NULL is fine */

/* Thread-safe. Scratch is used and given back. 0 of tensors that nobody asks about. */
ckpt_code whole_maxima_get(whole_maxima *maxima, size_t tensor, arena *scratch, uint32_t *out,
                           ckpt_error *err);
uint64_t whole_maxima_need(const whole_maxima *maxima, size_t tensor);

#endif
