/* digest.h: accumulating value digests, tile by tile, in any order. */
#ifndef CKPT_DIGEST_H
#define CKPT_DIGEST_H

#include "values.h"

/* Borrows the catalog. NULL when there is no memory. */
ckpt_digest *digest_create(const ckpt_catalog *catalog);

/* Add the rows of one tile. Thread-safe. */
ckpt_code digest_add(ckpt_digest *digest, const source_range *range, const ckpt_tile *tile,
                     arena *scratch, ckpt_error *err);
/* Bytes of scratch that digest_add takes for a tile of this tensor. */
uint64_t digest_need(const ckpt_tensor *tensor);

/* The sum of a tensor's unit hashes, and one that is known from an earlier run. */
hash128 digest_get(const ckpt_digest *digest, size_t tensor);
void digest_set(ckpt_digest *digest, size_t tensor, hash128 sum);

/*
 * 1 for mtp.*, the blocks that the digest `main` leaves out, because layouts for training lack
 * them. This prefix of logical names is part of the definition of the digest (ckpt-digest(7)), not
 * knowledge of a family: maps give next-token blocks such names, whatever a family calls them.
 */
int digest_is_mtp(const char *name);
/* The number m of mtp.{m}.*; 0: the name is not of such a block. */
int digest_mtp_block(const char *name, uint64_t *block);

/* 1 when the text is a root: CKPT_ROOT_HEX - 1 hexadecimal digits in lower case. */
int digest_is_root(const char *text);

/* The root of the tensors for which `included` is not 0, by tensor of the digest's catalog. */
ckpt_code digest_root_of(const ckpt_digest *digest, const uint8_t *included,
                         char out[CKPT_ROOT_HEX], ckpt_error *err);

/* "float" or "int", as in the lines that the root hashes. */
const char *digest_class(const ckpt_tensor *tensor);

/* 32 hex digits, most significant first. */
void hash128_hex(hash128 sum, char out[CKPT_DIGEST_HEX]);
int hash128_from_hex(const char *hex, hash128 *out);

/* A view that passes tiles through and adds them to the digest, which must use `from`'s catalog. */
ckpt_code source_digest_tap(ckpt_source *from, ckpt_digest *digest, ckpt_source **out,
                            ckpt_error *err);

#endif
