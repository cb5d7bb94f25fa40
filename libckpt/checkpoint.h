/*
 * checkpoint.h: what rooms beside formats/ need of an open checkpoint, and ckpt.h does not give.
 * Everything is borrowed. Defined where the struct is (formats/open.c).
 */
#ifndef CKPT_CHECKPOINT_H
#define CKPT_CHECKPOINT_H

#include "file.h"
#include "json.h"
#include "map.h"
#include "store.h"

const char *checkpoint_path(const ckpt_checkpoint *checkpoint);       /* as it was given */
/* The folder that was named, or NULL for one file. */
const ckpt_folder *checkpoint_folder(const ckpt_checkpoint *checkpoint);
ckpt_store *checkpoint_store(const ckpt_checkpoint *checkpoint);
const json_value *checkpoint_config(const ckpt_checkpoint *checkpoint);   /* NULL: there is none */
const file_list *checkpoint_notes(const ckpt_checkpoint *checkpoint);
map_ledger checkpoint_ledger(const ckpt_checkpoint *checkpoint);      /* of its stored tensors */

#endif
