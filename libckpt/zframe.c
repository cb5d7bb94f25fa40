/* One zstd frame in a file. */
#include "zframe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "size.h"
#include "zsparse.h"

enum { PIECE_BYTES = 1 << 16, WINDOW_LOG_MAX = 23, MAGIC_BYTES = 4 };

_Static_assert(ZFRAME_WINDOW_BYTES == 1 << WINDOW_LOG_MAX, "one limit, said twice");

/* Who packs a frame: that is chosen by the first block that is not all zeros. The library may
 * follow zsparse, from a block on that repeats itself. */
typedef enum { BY_NOBODY_YET, BY_LIBRARY, BY_ZSPARSE } frame_packer;

struct zframe_writer {
    ZSTD_CCtx *zstd;
    int level;
    ckpt_file *file;
    uint64_t begin;
    uint64_t offset;
    uint64_t content_bytes;
    uint64_t taken_bytes;          /* of the content, not by the library */
    frame_packer packer;
    size_t drop_bytes;             /* of what the library makes next: the head of its frame */
    char packed[PIECE_BYTES];
    zsparse *sparse;
    size_t block_used;
    size_t blocks_used;
    unsigned char block[ZSPARSE_BLOCK_BYTES];      /* the content of one that is not complete */
    unsigned char blocks[PIECE_BYTES + ZSPARSE_PACKED_BYTES];     /* packed, not written yet */
};

struct zframe_reader {
    ZSTD_DCtx *zstd;
    zframe_place place;
    uint64_t read_bytes;           /* bytes of the range that were read */
    uint64_t content_bytes;
    int is_done;                   /* zstd has seen the end of the frame */
    ZSTD_inBuffer in;
    char packed[PIECE_BYTES];
    char skipped[PIECE_BYTES];
};

/* ---- writing ---- */

ckpt_code zframe_writer_create(int level, zframe_writer **out, ckpt_error *err)
{
    zframe_writer *w = calloc(1, sizeof *w);

    if (w == NULL || (w->zstd = ZSTD_createCCtx()) == NULL ||
        (w->sparse = zsparse_create()) == NULL) {
        zframe_writer_free(w);
        return ckpt_fail_memory(err, "a compressor", sizeof *w);
    }
    if (ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_contentSizeFlag, 1)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 0))) {
        zframe_writer_free(w);
        return ckpt_fail(err, CKPT_E_USAGE, "cannot compress at level %d", level);
    }
    w->level = level;
    *out = w;
    return CKPT_OK;
}

void zframe_writer_free(zframe_writer *w)
{
    if (w == NULL)
        return;
    ZSTD_freeCCtx(w->zstd);
    zsparse_free(w->sparse);
    free(w);
}

static ckpt_code fail_packing(const zframe_writer *w, size_t code, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot compress into '%s': %s", file_path(w->file),
                     ZSTD_getErrorName(code));
}

/* Set how the library packs next, from the beginning of a frame on. */
static ckpt_code set_library(zframe_writer *w, int window_log, uint64_t pledged, ckpt_error *err)
{
    size_t code;

    w->packer = BY_LIBRARY;
    ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_only);
    if (ZSTD_isError(code = ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_windowLog, window_log)) ||
        ZSTD_isError(code = ZSTD_CCtx_setPledgedSrcSize(w->zstd, pledged)))
        return fail_packing(w, code, err);
    return CKPT_OK;
}

static ckpt_code begin_library(zframe_writer *w, ckpt_error *err)
{
    w->drop_bytes = 0;
    return set_library(w, 0, w->content_bytes, err);
}

ckpt_code zframe_begin(zframe_writer *w, ckpt_file *file, uint64_t offset, uint64_t content_bytes,
                       ckpt_error *err)
{
    w->file = file;
    w->begin = w->offset = offset;
    w->content_bytes = content_bytes;
    w->taken_bytes = 0;
    w->block_used = w->blocks_used = 0;
    w->packer = BY_NOBODY_YET;
    return content_bytes > ZSPARSE_BLOCK_BYTES ? CKPT_OK : begin_library(w, err);
}

static ckpt_code pack(zframe_writer *w, ZSTD_inBuffer *in, ZSTD_EndDirective how, ckpt_error *err)
{
    size_t left;

    do {
        ZSTD_outBuffer out = { w->packed, sizeof w->packed, 0 };
        size_t drop;
        ckpt_code code;

        left = ZSTD_compressStream2(w->zstd, &out, in, how);
        if (ZSTD_isError(left))
            return fail_packing(w, left, err);
        drop = (size_t)size_min(w->drop_bytes, out.pos);
        if ((code = file_write_at(w->file, w->offset, w->packed + drop, out.pos - drop, err)) !=
            CKPT_OK)
            return code;
        w->drop_bytes -= drop;
        w->offset += out.pos - drop;
    } while (in->pos < in->size || (how == ZSTD_e_end && left > 0));
    return CKPT_OK;
}

static ckpt_code pack_by_library(zframe_writer *w, const void *bytes, size_t size,
                                 ckpt_error *err)
{
    ZSTD_inBuffer in = { bytes, size, 0 };

    return size == 0 ? CKPT_OK : pack(w, &in, ZSTD_e_continue, err);
}

static ckpt_code write_blocks(zframe_writer *w, ckpt_error *err)
{
    const ckpt_code code = file_write_at(w->file, w->offset, w->blocks, w->blocks_used, err);

    w->offset += w->blocks_used;
    w->blocks_used = 0;
    return code;
}

/* The zeros before the first block that is not all zeros. */
static ckpt_code pack_first_zeros(zframe_writer *w, ckpt_error *err)
{
    const uint64_t zero_bytes = w->taken_bytes;
    ckpt_code code = CKPT_OK;

    if (w->packer == BY_LIBRARY)
        return zframe_add_zeros(w, zero_bytes, err);
    for (uint64_t at = 0; at < zero_bytes && code == CKPT_OK; at += ZSPARSE_BLOCK_BYTES) {
        w->blocks_used += zsparse_pack_zeros(ZSPARSE_BLOCK_BYTES, 0, w->blocks + w->blocks_used);
        if (w->blocks_used > PIECE_BYTES)
            code = write_blocks(w, err);
    }
    return code;
}

/* Most of what a delta packs is zeros, for which zsparse is smaller and faster. */
static ckpt_code choose_packer(zframe_writer *w, size_t nonzero, size_t bytes, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (nonzero > bytes / ZSPARSE_SHARE) {
        code = begin_library(w, err);
    } else {
        w->packer = BY_ZSPARSE;
        w->blocks_used = zsparse_begin(w->content_bytes, w->blocks);
    }
    return code == CKPT_OK ? pack_first_zeros(w, err) : code;
}

/*
 * The library's blocks may follow those of zsparse: these leave the decoder with the offsets that
 * a frame begins with, and the library's do not refer to anything before them. Their window is that
 * of the frame; without a size of the content, the head of the library's frame is always as long.
 */
static ckpt_code continue_by_library(zframe_writer *w, ckpt_error *err)
{
    enum { HEAD_BYTES = MAGIC_BYTES + 2 };
    ckpt_code code = write_blocks(w, err);

    if (code == CKPT_OK)
        code = set_library(w, ZSPARSE_WINDOW_LOG, ZSTD_CONTENTSIZE_UNKNOWN, err);
    w->drop_bytes = HEAD_BYTES;
    return code;
}

/* Whether a block may repeat itself is worth a trial if it is the first of zsparse, or dense. */
static int is_worth_a_trial(int is_first, const unsigned char *block, size_t bytes, size_t packed)
{
    enum { SMALL_SHARE = 64 };

    return is_first || (packed > bytes / SMALL_SHARE &&
                        zsparse_count(block, bytes) > bytes / ZSPARSE_SHARE);
}

/* 1 if the library packs a block into three quarters of `most`. */
static int library_is_better(zframe_writer *w, const unsigned char *block, size_t bytes,
                             size_t most)
{
    unsigned char *unused = w->blocks + w->blocks_used + most;

    return !ZSTD_isError(ZSTD_compressCCtx(w->zstd, unused, most / 4 * 3, block, bytes, w->level));
}

/* Pack a whole block, or the last one. */
static ckpt_code add_block(zframe_writer *w, const zsparse_block *content, ckpt_error *err)
{
    const unsigned char *block = content->bytes;
    const size_t bytes = content->size;
    const int is_last = w->taken_bytes + bytes == w->content_bytes;
    const int is_first = w->packer == BY_NOBODY_YET;
    const size_t nonzero = is_first ? zsparse_count(block, bytes) : 0;
    ckpt_code code;

    if (is_first && (nonzero > 0 || is_last) &&
        (code = choose_packer(w, nonzero, bytes, err)) != CKPT_OK)
        return code;
    w->taken_bytes += bytes;
    if (w->packer == BY_ZSPARSE) {
        const size_t packed = zsparse_pack(w->sparse, content, is_last,
                                           w->blocks + w->blocks_used);

        if (!is_worth_a_trial(is_first, block, bytes, packed) ||
            !library_is_better(w, block, bytes, packed))
            w->blocks_used += packed;
        else if ((code = continue_by_library(w, err)) != CKPT_OK)
            return code;
    }
    if (w->packer == BY_LIBRARY)
        return pack_by_library(w, block, bytes, err);
    return w->blocks_used > PIECE_BYTES ? write_blocks(w, err) : CKPT_OK;
}

/* Add bytes to a block that is not complete, which is packed when it is. */
static ckpt_code fill_block(zframe_writer *w, const unsigned char *bytes, size_t size,
                            ckpt_error *err)
{
    const zsparse_block block = { w->block, ZSPARSE_BLOCK_BYTES, NULL };

    memcpy(w->block + w->block_used, bytes, size);
    w->block_used += size;
    if (w->block_used < ZSPARSE_BLOCK_BYTES)
        return CKPT_OK;
    w->block_used = 0;
    return add_block(w, &block, err);
}

ckpt_code zframe_add_marked(zframe_writer *w, const void *bytes, const uint64_t *marks,
                            size_t size, ckpt_error *err)
{
    const unsigned char *at = bytes;
    ckpt_code code = CKPT_OK;

    while (size > 0 && code == CKPT_OK && w->packer != BY_LIBRARY) {
        size_t take = ZSPARSE_BLOCK_BYTES;

        if (w->block_used == 0 && size >= ZSPARSE_BLOCK_BYTES) {
            code = add_block(w, &(zsparse_block){ at, take, marks }, err);
        } else {
            take = (size_t)size_min(size, ZSPARSE_BLOCK_BYTES - w->block_used);
            code = fill_block(w, at, take, err);
        }
        marks = marks == NULL || take % 64 != 0 ? NULL : marks + take / 64;
        at += take;
        size -= take;
    }
    return code == CKPT_OK ? pack_by_library(w, at, size, err) : code;
}

ckpt_code zframe_add(zframe_writer *w, const void *bytes, size_t size, ckpt_error *err)
{
    return zframe_add_marked(w, bytes, NULL, size, err);
}

ckpt_code zframe_add_zeros(zframe_writer *w, uint64_t size, ckpt_error *err)
{
    static const char zeros[PIECE_BYTES];
    ckpt_code code = CKPT_OK;

    while (size > 0 && code == CKPT_OK) {
        const size_t take = (size_t)size_min(size, sizeof zeros);

        code = zframe_add(w, zeros, take, err);
        size -= take;
    }
    return code;
}

ckpt_code zframe_end(zframe_writer *w, uint64_t *packed_bytes, ckpt_error *err)
{
    ZSTD_inBuffer nothing = { NULL, 0, 0 };
    ckpt_code code = CKPT_OK;

    if (w->packer != BY_LIBRARY && w->block_used > 0)
        code = add_block(w, &(zsparse_block){ w->block, w->block_used, NULL }, err);
    if (code == CKPT_OK)
        code = w->packer == BY_LIBRARY ? pack(w, &nothing, ZSTD_e_end, err) : write_blocks(w, err);
    assert(code != CKPT_OK || w->packer == BY_LIBRARY || w->taken_bytes == w->content_bytes);
    *packed_bytes = w->offset - w->begin;
    return code;
}

/* ---- reading ---- */

ckpt_code zframe_reader_create(zframe_reader **out, ckpt_error *err)
{
    zframe_reader *r = calloc(1, sizeof *r);

    if (r == NULL || (r->zstd = ZSTD_createDCtx()) == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
        zframe_reader_free(r);
        return ckpt_fail_memory(err, "a decompressor", sizeof *r);
    }
    *out = r;
    return CKPT_OK;
}

void zframe_reader_free(zframe_reader *r)
{
    if (r == NULL)
        return;
    ZSTD_freeDCtx(r->zstd);
    free(r);
}

static ckpt_code fail_frame(const zframe_reader *r, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the zstd frame of '%s' %s",
                     file_path(r->place.file), r->place.subject, what);
}

/* Read more bytes of the range when zstd has consumed all input. */
static ckpt_code refill(zframe_reader *r, ckpt_error *err)
{
    const size_t take = (size_t)size_min(r->place.packed_bytes - r->read_bytes, sizeof r->packed);
    ckpt_code code;

    if (r->in.pos < r->in.size)
        return CKPT_OK;
    if (take == 0)
        return fail_frame(r, "is cut off", err);
    if ((code = file_read_at(r->place.file, r->place.offset + r->read_bytes, r->packed, take,
                             err)) != CKPT_OK)
        return code;
    r->read_bytes += take;
    r->in = (ZSTD_inBuffer){ r->packed, take, 0 };
    return CKPT_OK;
}

ckpt_code zframe_open(zframe_reader *r, const zframe_place *place, ckpt_error *err)
{
    static const unsigned char magic[MAGIC_BYTES] = { 0x28, 0xb5, 0x2f, 0xfd };
    unsigned long long content;
    ckpt_code code;

    r->place = *place;
    r->read_bytes = 0;
    r->is_done = 0;
    r->in = (ZSTD_inBuffer){ r->packed, 0, 0 };
    ZSTD_DCtx_reset(r->zstd, ZSTD_reset_session_only);
    if ((code = refill(r, err)) != CKPT_OK)
        return code;
    /* zstd would ignore a skippable frame; refuse it, because it has no content. */
    content = ZSTD_getFrameContentSize(r->packed, r->in.size);
    if (r->in.size < MAGIC_BYTES || memcmp(r->packed, magic, MAGIC_BYTES) != 0 ||
        content == ZSTD_CONTENTSIZE_ERROR)
        return fail_frame(r, "does not begin as one", err);
    r->content_bytes = content == ZSTD_CONTENTSIZE_UNKNOWN ? UINT64_MAX : content;
    return CKPT_OK;
}

uint64_t zframe_content_bytes(const zframe_reader *r)
{
    return r->content_bytes;
}

/* Read up to `size` bytes. */
static ckpt_code unpack(zframe_reader *r, void *out, size_t size, size_t *got, ckpt_error *err)
{
    ZSTD_outBuffer to = { out, size, 0 };
    ckpt_code code;

    while (!r->is_done && to.pos < size) {
        const size_t before = to.pos;
        size_t left;

        /* zstd may have buffered output although it has consumed all input: call it first. */
        left = ZSTD_decompressStream(r->zstd, &to, &r->in);
        if (ZSTD_isError(left))
            return fail_frame(r, ZSTD_getErrorName(left), err);
        r->is_done = left == 0;
        if (!r->is_done && to.pos == before && (code = refill(r, err)) != CKPT_OK)
            return code;
    }
    *got = to.pos;
    return CKPT_OK;
}

ckpt_code zframe_read(zframe_reader *r, void *out, size_t size, ckpt_error *err)
{
    size_t got;
    const ckpt_code code = unpack(r, out, size, &got, err);

    if (code == CKPT_OK && got < size)
        return fail_frame(r, "has less content than the tensor", err);
    return code;
}

ckpt_code zframe_skip(zframe_reader *r, uint64_t size, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (size > 0 && code == CKPT_OK) {
        const size_t take = (size_t)size_min(size, sizeof r->skipped);

        code = zframe_read(r, r->skipped, take, err);
        size -= take;
    }
    return code;
}

ckpt_code zframe_finish(zframe_reader *r, ckpt_error *err)
{
    char more;
    size_t got;
    const ckpt_code code = unpack(r, &more, 1, &got, err);

    if (code != CKPT_OK)
        return code;
    if (got > 0)
        return fail_frame(r, "has more content than the tensor", err);
    if (r->in.pos < r->in.size || r->read_bytes < r->place.packed_bytes)
        return fail_frame(r, "has bytes behind its end", err);
    return CKPT_OK;
}
