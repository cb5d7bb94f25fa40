/*
 * pieces.h: cutting keys into pieces. A sharded layout (model-parallel files, torch_dist) stores
 * boxes of tensors. Here a box becomes a stored tensor, and the extents that place it in its key.
 */
#ifndef CKPT_PIECES_H
#define CKPT_PIECES_H

#include "store.h"

typedef struct {
    size_t key;                          /* tensor of store->keys */
    const char *name;                    /* of the piece; unique in the store */
    uint32_t file;
    uint64_t file_offset;                /* reading: offset of its data in the file; writing: 0 */
    uint64_t offset[CKPT_RANK_MAX];      /* box, in elements of the key's dimensions */
    uint64_t size[CKPT_RANK_MAX];
    int copy;                            /* 1: a replica of data in other pieces */
} piece_box;

/* Set the store's keys (consumed, also on failure) and begin an empty list of pieces. */
ckpt_code pieces_begin(ckpt_store *store, ckpt_catalog *keys, ckpt_error *err);

/* Append one box as a piece with that shape. Refuses a box outside its key. */
ckpt_code pieces_add(ckpt_store *store, const piece_box *box, ckpt_error *err);

/* The same for a piece that is in the store already: tensor `stored` has the box's shape. */
ckpt_code pieces_attach(ckpt_store *store, size_t stored, const piece_box *box, ckpt_error *err);

/* Check that the pieces, without copies, cover every key exactly once. */
ckpt_code pieces_seal(ckpt_store *store, ckpt_error *err);

/* The box that is a whole key. */
piece_box pieces_whole(const ckpt_store *store, size_t key);

#endif
