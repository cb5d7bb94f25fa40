/*
 * zsparse.h: zstd frames of content that is mostly zeros, as the XOR of two similar tensors is.
 *
 * A search for bytes that came before finds little in such content but runs of zeros, so that only
 * these are matched: the frame becomes smaller than at the library's levels, in half of the time,
 * and every decoder of zstd reads it. Its bytes depend only on the content.
 */
#ifndef CKPT_ZSPARSE_H
#define CKPT_ZSPARSE_H

#include <stddef.h>
#include <stdint.h>

enum {
    ZSPARSE_BLOCK_BYTES = 1 << 17,          /* of content; only the last block is shorter */
    ZSPARSE_WINDOW_LOG = 17,                /* of its frames */
    ZSPARSE_PACKED_BYTES = 1 << 18          /* most bytes that a block needs while it is packed */
};

typedef struct zsparse zsparse;

/* For any number of frames. NULL: no memory. */
zsparse *zsparse_create(void);
void zsparse_free(zsparse *z);              /* NULL is fine */
/* How many bytes of a block are not zero. Content suits if at most one of ZSPARSE_SHARE is not. */
enum { ZSPARSE_SHARE = 8 };
size_t zsparse_count(const void *block, size_t bytes);
/* Begin a frame of content of this size, which is more than a block. Returns the bytes written. */
size_t zsparse_begin(uint64_t content_bytes, unsigned char *to);
typedef struct {
    const unsigned char *bytes;
    size_t size;
    const uint64_t *marks;          /* of the bytes that are not zero (nonzero_marks of kernels.h);
                                       NULL: not known */
} zsparse_block;
/* Pack the next block. Returns the bytes written, never more than its size + 3. */
size_t zsparse_pack(zsparse *z, const zsparse_block *block, int is_last, unsigned char *to);
size_t zsparse_pack_zeros(size_t bytes, int is_last, unsigned char *to);

#endif
