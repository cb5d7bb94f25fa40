/*
 * delta_pack.h: a delta against nothing: a whole checkpoint of any layout, packed into one file
 * (libckpt/packed.h) that can be read like the folder, and unpacked to the same files.
 */
#ifndef CKPT_DELTA_PACK_H
#define CKPT_DELTA_PACK_H

#include "delta.h"

enum { PACK_LEVEL_DEFAULT = 1 };

typedef struct {
    const char *source;             /* a checkpoint; to unpack, a packed one */
    const char *target;             /* must not exist */
    int level;                      /* of zstd, 1 .. PACKED_LEVEL_MAX; packing only */
    int dry_run;                    /* write nothing */
    int restart;                    /* unpacking: discard an unfinished run of another source */
    int no_space_check;             /* unpacking: start even if the disk is too small */
    ckpt_open_options open;
    ckpt_run_options run;
} pack_options;

typedef struct {
    size_t file_count;
    uint64_t bytes;                 /* of the files */
    uint64_t packed_bytes;          /* of the packed file */
    delta_roots roots;              /* empty: some values have no digest, or unpacking */
    file_list notes;                /* owned: file_list_free, also after a failure */
} pack_outcome;

/*
 * Pack a checkpoint: all files of its folder but hidden ones. The result is read back: its digest
 * is in its index, and every byte was compared with what was packed. It appears whole or not at
 * all.
 */
ckpt_code delta_pack(const pack_options *options, pack_outcome *out, ckpt_error *err);
/* Write the files of a packed checkpoint to a new folder. */
ckpt_code delta_unpack(const pack_options *options, pack_outcome *out, ckpt_error *err);

#endif
