/*
 * planes.h: bytes of numbers divided into planes, which compress better: all first bytes of the
 * elements, then all second bytes, and so on. Bytes behind the last whole element stay behind them.
 */
#ifndef CKPT_PLANES_H
#define CKPT_PLANES_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    PLANES_NONE,        /* as they are */
    PLANES_2,           /* elements of 2 bytes */
    PLANES_4,
    PLANES_8,
    PLANES_BF16,        /* of 2 bytes, rotated left by one bit: the exponent fills a byte */
    PLANES_F32          /* of 4 bytes, the same */
} planes_kind;

enum { PLANES_KINDS = PLANES_F32 + 1 };

/* Both copy `size` bytes and change nothing but their order and, when rotating, their bits. */
void planes_split(planes_kind kind, const void *from, void *to, size_t size);
void planes_join(planes_kind kind, const void *from, void *to, size_t size);

#endif
