/* pick.h: a view that selects and orders tensors of several sources. */
#ifndef CKPT_PICK_H
#define CKPT_PICK_H

#include "source.h"

typedef struct {
    ckpt_source *source;       /* borrowed */
    size_t tensor;
} pick_entry;

/* Make a view whose tensor i is that of entries[i]. Names must be unique. `entries` is copied;
 * the names of the sources' tensors are borrowed. */
ckpt_code source_pick(const pick_entry *entries, size_t count, ckpt_source **out, ckpt_error *err);

#endif
