/*
 * checksum.h: the three kinds of checksums that weight deltas use, computed piece by piece, as
 * lower-case hex digits.
 *
 *   xxh3-128   32 digits, the canonical form, seed 0     blake3   64     adler32   8 (weak)
 */
#ifndef CKPT_CHECKSUM_H
#define CKPT_CHECKSUM_H

#include "blake3.h"
#include "kernels/kernels.h"

typedef enum { CHECKSUM_XXH3_128, CHECKSUM_BLAKE3, CHECKSUM_ADLER32, CHECKSUM_COUNT } checksum_kind;

enum { CHECKSUM_HEX = 65 };                         /* of the longest, with the NUL */

/* "xxh3-128" ... */
const char *checksum_name(checksum_kind kind);
/* Find a kind by its name; 0: there is none. */
int checksum_find(const char *name, checksum_kind *out);
/* 1 when `text` can be a checksum of this kind: the right number of lower-case hex digits. */
int checksum_is_text(checksum_kind kind, const char *text);

typedef struct {
    checksum_kind kind;
    union {
        hash_stream xxh3;
        blake3 tree;
        uint32_t adler;
    } state;
} checksum;

void checksum_begin(checksum *sum, checksum_kind kind);
void checksum_add(checksum *sum, const void *bytes, size_t size);
void checksum_end(const checksum *sum, char out[CHECKSUM_HEX]);

#endif
