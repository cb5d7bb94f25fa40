/*
 * delta_read.h: reads a delta in the format of slime and miles (delta.h); functions shared with the
 * readers of other formats.
 */
#ifndef CKPT_DELTA_READ_H
#define CKPT_DELTA_READ_H

#include "delta.h"

/* Create an entry in delta->tensors for each frame of the store. */
ckpt_code delta_list_tensors(ckpt_delta *delta, ckpt_error *err);

/* 1 when the folder has an index whose metadata has the encoding of a delta. */
int delta_has_weights(const folder_place *place);

/* Fill a delta whose place and store are set: index, headers, checksums. */
ckpt_code delta_read_weights(ckpt_delta *delta, ckpt_error *err);

#endif
