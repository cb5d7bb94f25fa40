/*
 * torch_dist_state.h: state of a torch_dist checkpoint while it is written: between cutting the
 * keys into boxes, laying out the items and sealing them.
 */
#ifndef CKPT_TORCH_DIST_STATE_H
#define CKPT_TORCH_DIST_STATE_H

#include "formats/format.h"

/* A byte entry KEY._extra_state/shard_INDEX_COUNT. It is in the file of a piece and written by the
 * process that writes the piece. For a stack of layers and experts INDEX and COUNT have two
 * numbers: "3.7" and "48.128". */
typedef struct {
    size_t key;
    size_t piece;
    size_t axis_count;
    uint64_t index[2];
    uint64_t count[2];
    int is_none;                 /* it holds None, else an empty tensor */
    uint64_t offset;             /* of the item, once laid out */
} dist_extra;

/* State of a store that is being written; it is the store's watch. */
typedef struct {
    store_watch base;
    const ckpt_catalog *pieces;
    uint32_t *crcs;              /* by piece: XOR of the contributions of all runs of bytes */
    dist_extra *extras;
    size_t extra_count;
} dist_watch;

/* Attach the state to a store that is to be written, which owns it. torch_dist_watch: borrowed. */
ckpt_code torch_dist_watch_begin(ckpt_store *store, ckpt_error *err);
dist_watch *torch_dist_watch(const ckpt_store *store);

/* The folder of an iteration below the checkpoint: "release" or that of --iteration. */
const char *torch_dist_folder(const format_sharding *sharding);

#endif
