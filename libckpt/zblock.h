/* zblock.h: zstd frames of small content, packed and unpacked in one call. Their bytes depend only
 * on content and level. */
#ifndef CKPT_ZBLOCK_H
#define CKPT_ZBLOCK_H

#include <stddef.h>

/* The most bytes of a frame of such content. */
size_t zblock_bound(size_t content_bytes);

/* State for one thread, used for any number of frames. NULL: no memory, or no such level. At level
 * 1 weights are packed without a search for bytes that come again. */
typedef struct zblock_packer zblock_packer;
zblock_packer *zblock_packer_create(int level);
void zblock_packer_free(zblock_packer *p);              /* NULL is fine */
/* What content is like: texts and tables, or weights, in which no bytes come again but some occur
 * more often than others. */
typedef enum { ZBLOCK_ANY, ZBLOCK_WEIGHTS } zblock_content;
/* `to` has room for zblock_bound bytes. The size of the frame; 0: it failed. */
size_t zblock_pack(zblock_packer *p, zblock_content content, const void *from, size_t bytes,
                   void *to);

typedef struct zblock_unpacker zblock_unpacker;
zblock_unpacker *zblock_unpacker_create(void);
void zblock_unpacker_free(zblock_unpacker *u);          /* NULL is fine */
/* 1 if `from` is exactly one frame of exactly `bytes` of content, which is now in `to`. */
int zblock_unpack(zblock_unpacker *u, const void *from, size_t packed_bytes, void *to,
                  size_t bytes);

#endif
