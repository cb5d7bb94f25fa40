/* zstd frames in one call. */
#include "zblock.h"

#include <zstd.h>

/* Both are zstd's own contexts under names of ours. */

size_t zblock_bound(size_t content_bytes)
{
    return ZSTD_compressBound(content_bytes);
}

zblock_packer *zblock_packer_create(int level)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();

    if (zstd != NULL &&
        ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level))) {
        ZSTD_freeCCtx(zstd);
        zstd = NULL;
    }
    return (zblock_packer *)zstd;
}

void zblock_packer_free(zblock_packer *p)
{
    ZSTD_freeCCtx((ZSTD_CCtx *)p);
}

size_t zblock_pack(zblock_packer *p, const void *from, size_t bytes, void *to)
{
    const size_t packed =
        ZSTD_compress2((ZSTD_CCtx *)p, to, ZSTD_compressBound(bytes), from, bytes);

    return ZSTD_isError(packed) ? 0 : packed;
}

zblock_unpacker *zblock_unpacker_create(void)
{
    return (zblock_unpacker *)ZSTD_createDCtx();
}

void zblock_unpacker_free(zblock_unpacker *u)
{
    ZSTD_freeDCtx((ZSTD_DCtx *)u);
}

int zblock_unpack(zblock_unpacker *u, const void *from, size_t packed_bytes, void *to,
                  size_t bytes)
{
    const size_t frame = ZSTD_findFrameCompressedSize(from, packed_bytes);

    return !ZSTD_isError(frame) && frame == packed_bytes &&
           ZSTD_decompressDCtx((ZSTD_DCtx *)u, to, bytes, from, packed_bytes) == bytes;
}
