/* zstd frames in one call. */
#include "zblock.h"

#include <stdlib.h>
#include <zstd.h>

struct zblock_packer {
    ZSTD_CCtx *zstd;
    int level;
};

size_t zblock_bound(size_t content_bytes)
{
    return ZSTD_compressBound(content_bytes);
}

zblock_packer *zblock_packer_create(int level)
{
    zblock_packer *p = calloc(1, sizeof *p);

    if (p == NULL)
        return NULL;
    p->level = level;
    if ((p->zstd = ZSTD_createCCtx()) == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_compressionLevel, level))) {
        zblock_packer_free(p);
        return NULL;
    }
    return p;
}

void zblock_packer_free(zblock_packer *p)
{
    if (p != NULL)
        ZSTD_freeCCtx(p->zstd);
    free(p);
}

/*
 * The exponents of weights have about 2.6 bits of entropy, so that every few bytes occur again by
 * chance. To name such a match takes more bits than the bytes themselves: level 1 ends 10 % above
 * the entropy, and takes three times as long as with a table too small to find any. The last
 * parameter, literalCompressionMode, lets zstd step over content and still compress it; where a
 * library does not know it, content is searched byte by byte.
 */
static int set_content(const zblock_packer *p, zblock_content content)
{
    enum { HASH_LOG_MIN = 6, MATCH_MAX = 7, STEP_MAX = 1 << 17, LITERALS_ENABLED = 1 };
    const int is_fast = content == ZBLOCK_WEIGHTS;
    ZSTD_CCtx *zstd = p->zstd;
    size_t result;

    if (p->level != 1)
        return 1;
    result = ZSTD_CCtx_setParameter(zstd, ZSTD_c_experimentalParam5,
                                    is_fast ? LITERALS_ENABLED : 0);
    if (!ZSTD_isError(result))
        result = ZSTD_CCtx_setParameter(zstd, ZSTD_c_targetLength, is_fast ? STEP_MAX : 0);
    else
        result = 0;
    if (!ZSTD_isError(result))
        result = ZSTD_CCtx_setParameter(zstd, ZSTD_c_strategy, is_fast ? ZSTD_fast : 0);
    if (!ZSTD_isError(result))
        result = ZSTD_CCtx_setParameter(zstd, ZSTD_c_hashLog, is_fast ? HASH_LOG_MIN : 0);
    if (!ZSTD_isError(result))
        result = ZSTD_CCtx_setParameter(zstd, ZSTD_c_minMatch, is_fast ? MATCH_MAX : 0);
    return !ZSTD_isError(result);
}

size_t zblock_pack(zblock_packer *p, zblock_content content, const void *from, size_t bytes,
                   void *to)
{
    size_t packed;

    if (!set_content(p, content))
        return 0;
    packed = ZSTD_compress2(p->zstd, to, ZSTD_compressBound(bytes), from, bytes);
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
