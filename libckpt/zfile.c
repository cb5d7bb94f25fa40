/* Whole text files, plain or zstd. */
#include "zfile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "file.h"
#include "size.h"

/* The level is part of the promise that equal contents are equal files. */
enum { LEVEL = 3, PIECE_BYTES = 1 << 16, WINDOW_LOG_MAX = 23 };

struct zfile_writer {
    char *path;
    ckpt_file *file;
    uint64_t offset;               /* of the file */
    ZSTD_CCtx *zstd;               /* NULL: plain */
    char *packed;
    size_t packed_bytes;           /* of the buffer */
    size_t piece_used_bytes;
    ckpt_error first;              /* sticky: set by the first failure */
    char piece[PIECE_BYTES];
};

static int is_compressed_name(const char *path)
{
    const size_t size = strlen(path);

    return size >= 4 && strcmp(path + size - 4, ".zst") == 0;
}

/* ---- writing ---- */

static void writer_free(zfile_writer *w)
{
    ZSTD_freeCCtx(w->zstd);
    free(w->packed);
    free(w->path);
    free(w);
}

static ckpt_code begin_zstd(zfile_writer *w, ckpt_error *err)
{
    w->packed_bytes = ZSTD_CStreamOutSize();
    w->packed = malloc(w->packed_bytes);
    w->zstd = ZSTD_createCCtx();
    if (w->packed == NULL || w->zstd == NULL)
        return ckpt_fail_memory(err, "a compressor", w->packed_bytes);
    if (ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1)))
        return ckpt_fail(err, CKPT_E_IO, "cannot set up the compression of '%s'", w->path);
    return CKPT_OK;
}

ckpt_code zfile_create(const char *path, zfile_writer **out, ckpt_error *err)
{
    zfile_writer *w = calloc(1, sizeof *w);
    ckpt_code code;

    *out = NULL;
    if (w == NULL)
        return ckpt_fail_memory(err, path, sizeof *w);
    if ((w->path = strdup(path)) == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(path));
    else if (!is_compressed_name(path) || (code = begin_zstd(w, err)) == CKPT_OK)
        code = file_begin_replacing(path, &w->file, err);
    if (code == CKPT_OK)
        *out = w;
    else
        writer_free(w);
    return code;
}

static ckpt_code write_bytes(zfile_writer *w, const void *bytes, size_t size)
{
    const ckpt_code code = file_write_at(w->file, w->offset, bytes, size, &w->first);

    w->offset += size;
    return code;
}

/* Compress the piece at hand; the last one ends the stream. */
static ckpt_code flush_zstd(zfile_writer *w, int is_last)
{
    ZSTD_inBuffer in = { w->piece, w->piece_used_bytes, 0 };
    size_t left;

    do {
        ZSTD_outBuffer packed = { w->packed, w->packed_bytes, 0 };
        ckpt_code code;

        left = ZSTD_compressStream2(w->zstd, &packed, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return ckpt_fail(&w->first, CKPT_E_IO, "cannot compress '%s': %s", w->path,
                             ZSTD_getErrorName(left));
        if ((code = write_bytes(w, packed.dst, packed.pos)) != CKPT_OK)
            return code;
    } while (in.pos < in.size || (is_last && left > 0));
    return CKPT_OK;
}

static ckpt_code flush_piece(zfile_writer *w, int is_last)
{
    const ckpt_code code = w->zstd != NULL ? flush_zstd(w, is_last)
                                           : write_bytes(w, w->piece, w->piece_used_bytes);

    w->piece_used_bytes = 0;
    return code;
}

int zfile_write(void *writer, const char *bytes, size_t size)
{
    zfile_writer *w = writer;

    while (size > 0 && w->first.code == CKPT_OK) {
        const size_t step = size_min(size, PIECE_BYTES - w->piece_used_bytes);

        memcpy(w->piece + w->piece_used_bytes, bytes, step);
        w->piece_used_bytes += step;
        bytes += step;
        size -= step;
        if (w->piece_used_bytes == PIECE_BYTES)
            flush_piece(w, 0);
    }
    return w->first.code != CKPT_OK;
}

ckpt_code zfile_commit(zfile_writer *w, ckpt_error *err)
{
    ckpt_code code = w->first.code;

    if (code == CKPT_OK)
        code = flush_piece(w, 1);
    if (code == CKPT_OK) {
        code = file_commit_replacing(w->file, w->path, err);
    } else {
        file_abort_replacing(w->file);
        if (err != NULL)
            *err = w->first;
    }
    writer_free(w);
    return code;
}

void zfile_abort(zfile_writer *w)
{
    if (w == NULL)
        return;
    file_abort_replacing(w->file);
    writer_free(w);
}

/* ---- reading ---- */

typedef struct {
    const char *subject;
    uint64_t max_bytes;
    char *bytes;
    size_t size;
    size_t capacity;               /* one byte of it stays free for the NUL */
} unpacked_text;

static ckpt_code fail_size(const char *subject, uint64_t max_bytes, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %" PRIu64 " bytes",
                     subject, max_bytes);
}

/* Room for a piece more, but never for more than is allowed, and one to see that there is more. */
static ckpt_code make_room(unpacked_text *text, ckpt_error *err)
{
    const uint64_t most = size_min(text->max_bytes, SIZE_MAX - 2) + 2;
    const uint64_t capacity = size_min(size_max(2 * (uint64_t)text->capacity, PIECE_BYTES), most);
    char *bytes;

    if (text->size + 1 < text->capacity)
        return CKPT_OK;
    bytes = realloc(text->bytes, capacity);
    if (bytes == NULL)
        return ckpt_fail_memory(err, text->subject, capacity);
    text->bytes = bytes;
    text->capacity = capacity;
    return CKPT_OK;
}

static ckpt_code unpack_stream(ZSTD_DCtx *zstd, ZSTD_inBuffer *in, unpacked_text *text,
                               ckpt_error *err)
{
    size_t expected = 1;           /* 0 at the end of a frame */

    ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    for (;;) {
        ZSTD_outBuffer out = { NULL, 0, 0 };
        ckpt_code code = make_room(text, err);

        if (code != CKPT_OK)
            return code;
        out.dst = text->bytes + text->size;
        out.size = text->capacity - text->size - 1;
        expected = ZSTD_decompressStream(zstd, &out, in);
        if (ZSTD_isError(expected))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: zstd says: %s", text->subject,
                             ZSTD_getErrorName(expected));
        text->size += out.pos;
        if (text->size > text->max_bytes)
            return fail_size(text->subject, text->max_bytes, err);
        if (in->pos == in->size && expected == 0)
            return CKPT_OK;
        if (in->pos == in->size && out.pos < out.size)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: the zstd stream ends early",
                             text->subject);
    }
}

/* On failure text->bytes is freed. */
static ckpt_code unpack(unpacked_text *text, const char *data, size_t data_bytes, ckpt_error *err)
{
    ZSTD_inBuffer in = { data, data_bytes, 0 };
    ZSTD_DCtx *zstd = ZSTD_createDCtx();
    ckpt_code code;

    if (zstd == NULL)
        return ckpt_fail_memory(err, "a decompressor", sizeof in);
    code = unpack_stream(zstd, &in, text, err);
    ZSTD_freeDCtx(zstd);
    if (code == CKPT_OK)
        text->bytes[text->size] = '\0';
    else
        free(text->bytes);
    return code;
}

static int begins_like_zstd(const char *data, size_t size)
{
    static const unsigned char magic[] = { 0x28, 0xb5, 0x2f, 0xfd };

    return size >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

ckpt_code zfile_read(const char *path, uint64_t max_bytes, char **out, size_t *size,
                     ckpt_error *err)
{
    /* What does not compress grows a little. */
    const uint64_t most_bytes = size_min(max_bytes, UINT64_MAX / 2) + PIECE_BYTES;
    unpacked_text text = { path, max_bytes, NULL, 0, 0 };
    char *data;
    size_t data_bytes;
    ckpt_code code;

    *out = NULL;
    *size = 0;
    if ((code = file_read_all(path, most_bytes, &data, &data_bytes, err)) != CKPT_OK)
        return code;
    if (begins_like_zstd(data, data_bytes) || is_compressed_name(path)) {
        code = unpack(&text, data, data_bytes, err);
        free(data);
        if (code != CKPT_OK)
            return code;
    } else {
        text.bytes = data;
        text.size = data_bytes;
    }
    if (text.size > max_bytes) {
        free(text.bytes);
        return fail_size(path, max_bytes, err);
    }
    *out = text.bytes;
    *size = text.size;
    return CKPT_OK;
}
