/*
 * torch_dist_state.h: state of a torch_dist checkpoint while it is written: between cutting the
 * keys into boxes, laying out the items and sealing them.
 */
#ifndef CKPT_TORCH_DIST_STATE_H
#define CKPT_TORCH_DIST_STATE_H

#include "formats/format.h"

/* A byte entry KEY._extra_state/shard_INDEX_COUNT, in the file of a piece; whoever writes the piece
 * writes it. Of a stack of layers and of experts, INDEX and COUNT are "3.7" and "48.128". */
typedef struct {
    size_t key;
    size_t piece;
    size_t axis_count;
    uint64_t index[2];
    uint64_t count[2];
    int is_none;                 /* None, not an empty tensor */
    uint64_t offset;             /* of the item, once laid out */
} dist_extra;

/* What a store that is being written keeps beside its pieces; it is the store's watch. */
typedef struct {
    store_watch base;
    const ckpt_catalog *pieces;
    uint32_t *crcs;              /* by piece: the XOR of what every run of bytes contributes */
    dist_extra *extras;
    size_t extra_count;
} dist_watch;

ckpt_code torch_dist_watch_begin(ckpt_store *store, ckpt_error *err);
dist_watch *torch_dist_watch(const ckpt_store *store);

const char *torch_dist_folder(const format_sharding *sharding);

#endif
