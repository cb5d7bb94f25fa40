/*
 * overlay.h: of a tensor that several files of an index have, the one that counts.
 *
 * An overlay is a file with edited tensors beside the files of a release, which keep the older
 * copies. Whoever loads by the index takes a tensor from the file that the index names for it; so
 * do we. The other copies stay where they are, and each is told.
 */
#ifndef CKPT_OVERLAY_H
#define CKPT_OVERLAY_H

#include "libckpt/store.h"

typedef struct {
    ckpt_store *store;
    file_list *notes;
    uint8_t *is_repeat;        /* by tensor of the catalog; NULL: no tensor is there twice */
    table shadowed;            /* name -> the file of its copy that does not count */
    arena names;               /* of those */
} overlay;

/* The files are read, with store->keeps_repeats. */
ckpt_code overlay_begin(overlay *o, ckpt_store *store, file_list *notes, ckpt_error *err);
/* An entry of the index: the tensor of this file counts, if it is there. */
void overlay_choose(overlay *o, const char *name, uint32_t file);
/* No more entries: the catalog keeps one tensor of a name. */
ckpt_code overlay_end(overlay *o, ckpt_error *err);
void overlay_release(overlay *o);

#endif
