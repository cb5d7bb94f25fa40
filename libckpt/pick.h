/* pick.h: the view that chooses and orders tensors, from several sources. */
#ifndef CKPT_PICK_H
#define CKPT_PICK_H

#include "source.h"

typedef struct {
    ckpt_source *source;       /* borrowed */
    size_t tensor;
} pick_entry;

/* A view with tensor i of `entries` as its tensor i. Names must differ. `entries` is copied. */
ckpt_code source_pick(const pick_entry *entries, size_t count, ckpt_source **out, ckpt_error *err);

#endif
