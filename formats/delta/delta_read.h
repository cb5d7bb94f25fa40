/*
 * delta_read.h: reading a delta in the form of slime and miles (delta.h), and what readers of every
 * form share.
 */
#ifndef CKPT_DELTA_READ_H
#define CKPT_DELTA_READ_H

#include "delta.h"

/* An entry in delta->tensors for each frame of the store. */
ckpt_code delta_list_tensors(ckpt_delta *delta, ckpt_error *err);

/* 1 when the folder has an index whose metadata says how the delta is encoded. */
int delta_has_weights(const folder_place *place);

/* Fill a delta whose place and store are set: index, headers, checksums. */
ckpt_code delta_read_weights(ckpt_delta *delta, ckpt_error *err);

#endif
