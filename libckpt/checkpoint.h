/*
 * checkpoint.h: accessors of an open checkpoint that are not public, for the rooms beside formats/.
 * All results are borrowed. Defined in formats/open.c, which defines the struct.
 */
#ifndef CKPT_CHECKPOINT_H
#define CKPT_CHECKPOINT_H

#include "file.h"
#include "json.h"
#include "map.h"
#include "store.h"

const char *checkpoint_path(const ckpt_checkpoint *checkpoint);       /* as it was given */
/* The opened folder, or NULL if a single file was opened. */
const ckpt_folder *checkpoint_folder(const ckpt_checkpoint *checkpoint);
ckpt_store *checkpoint_store(const ckpt_checkpoint *checkpoint);
const json_value *checkpoint_config(const ckpt_checkpoint *checkpoint);   /* NULL: there is none */
const file_list *checkpoint_notes(const ckpt_checkpoint *checkpoint);
map_ledger checkpoint_ledger(const ckpt_checkpoint *checkpoint);      /* of its stored tensors */

#endif
