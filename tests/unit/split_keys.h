/* split_keys.h: keys of a model, cut by a format as its ranks divide them; no data anywhere. */
#ifndef CKPT_TEST_SPLIT_KEYS_H
#define CKPT_TEST_SPLIT_KEYS_H

#include "formats/format.h"

typedef struct {
    const char *name;
    ckpt_dtype dtype;
    uint32_t rank;
    uint64_t shape[3];
} split_key;

typedef struct {
    const ckpt_format *format;
    const char *map;               /* a text of formats/maps */
    const split_key *keys;
    size_t key_count;
} split_model;

/* The store after `split`, or NULL with *err set. */
ckpt_store *split_keys(const split_model *model, const format_sharding *sharding, ckpt_error *err);

/* A piece by its name, which must be there. */
const ckpt_tensor *split_piece(const ckpt_store *store, const char *name);
/* The corner of a piece in its key. */
void split_corner(const ckpt_store *store, const char *name, uint64_t out[CKPT_RANK_MAX]);

#endif
