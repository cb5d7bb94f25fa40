/*
 * overlay.h: chooses between copies of a tensor in several files of an index.
 *
 * An overlay is a file with edited tensors beside the files of a release, which keep the older
 * copies. Like loaders that use the index, we read a tensor from the file that the index names.
 * Other copies are ignored with a note.
 */
#ifndef CKPT_OVERLAY_H
#define CKPT_OVERLAY_H

#include "libckpt/store.h"

typedef struct {
    ckpt_store *store;
    file_list *notes;
    uint8_t *is_repeat;        /* by tensor of the catalog; NULL: no duplicates */
    table shadowed;            /* name -> file of the unused copy */
    arena names;               /* of those */
} overlay;

/* Call after the files are read, with store->keeps_repeats. */
ckpt_code overlay_begin(overlay *o, ckpt_store *store, file_list *notes, ckpt_error *err);
/* An entry of the index: use this file's copy of the tensor, if it exists. */
void overlay_choose(overlay *o, const char *name, uint32_t file);
/* After the last entry: keep one tensor of each name in the catalog. */
ckpt_code overlay_end(overlay *o, ckpt_error *err);
void overlay_release(overlay *o);

#endif
