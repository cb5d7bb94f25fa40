/*
 * delta_frames.h: copies frames from spool files into the data files of a delta, and hashes what is
 * written on the way: a delta of gigabytes would take as long again to be hashed afterwards.
 */
#ifndef CKPT_DELTA_FRAMES_H
#define CKPT_DELTA_FRAMES_H

#include "delta_side.h"
#include "delta_write.h"

/*
 * Write the frames of all entries to `store`, whose catalog has them in the order of the entries
 * and whose files are open and have their headers. hashes[i] becomes that of file i; its name is
 * borrowed from the store.
 */
ckpt_code delta_frames_write(const delta_content *c, ckpt_store *store, delta_file_hash *hashes,
                             ckpt_error *err);

#endif
