/* One zstd frame in a file. */
#include "zframe.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "size.h"

enum { PIECE_BYTES = 1 << 16, WINDOW_LOG_MAX = 23, MAGIC_BYTES = 4 };

_Static_assert(ZFRAME_WINDOW_BYTES == 1 << WINDOW_LOG_MAX, "one limit, said twice");

struct zframe_writer {
    ZSTD_CCtx *zstd;
    ckpt_file *file;
    uint64_t begin;
    uint64_t offset;
    char packed[PIECE_BYTES];
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

    if (w == NULL || (w->zstd = ZSTD_createCCtx()) == NULL) {
        zframe_writer_free(w);
        return ckpt_fail_memory(err, "a compressor", sizeof *w);
    }
    if (ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_contentSizeFlag, 1)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 0))) {
        zframe_writer_free(w);
        return ckpt_fail(err, CKPT_E_USAGE, "cannot compress at level %d", level);
    }
    *out = w;
    return CKPT_OK;
}

void zframe_writer_free(zframe_writer *w)
{
    if (w == NULL)
        return;
    ZSTD_freeCCtx(w->zstd);
    free(w);
}

static ckpt_code fail_packing(const zframe_writer *w, size_t code, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot compress into '%s': %s", file_path(w->file),
                     ZSTD_getErrorName(code));
}

ckpt_code zframe_begin(zframe_writer *w, ckpt_file *file, uint64_t offset, uint64_t content_bytes,
                       ckpt_error *err)
{
    size_t code;

    w->file = file;
    w->begin = offset;
    w->offset = offset;
    ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_only);
    code = ZSTD_CCtx_setPledgedSrcSize(w->zstd, content_bytes);
    return ZSTD_isError(code) ? fail_packing(w, code, err) : CKPT_OK;
}

static ckpt_code pack(zframe_writer *w, ZSTD_inBuffer *in, ZSTD_EndDirective how, ckpt_error *err)
{
    size_t left;

    do {
        ZSTD_outBuffer out = { w->packed, sizeof w->packed, 0 };
        ckpt_code code;

        left = ZSTD_compressStream2(w->zstd, &out, in, how);
        if (ZSTD_isError(left))
            return fail_packing(w, left, err);
        if ((code = file_write_at(w->file, w->offset, w->packed, out.pos, err)) != CKPT_OK)
            return code;
        w->offset += out.pos;
    } while (in->pos < in->size || (how == ZSTD_e_end && left > 0));
    return CKPT_OK;
}

ckpt_code zframe_add(zframe_writer *w, const void *bytes, size_t size, ckpt_error *err)
{
    ZSTD_inBuffer in = { bytes, size, 0 };

    return size == 0 ? CKPT_OK : pack(w, &in, ZSTD_e_continue, err);
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
    const ckpt_code code = pack(w, &nothing, ZSTD_e_end, err);

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
