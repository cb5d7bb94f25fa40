/* Whole text files, plain or zstd. */
#include "zfile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "memory.h"
#include "size.h"

/* Do not change the level: equal contents must give equal files. */
enum { LEVEL = 3, PIECE_BYTES = 1 << 16, WINDOW_LOG_MAX = 23 };

struct zfile_writer {
    char *path;
    ckpt_file *file;
    uint64_t offset;               /* where to write next in the file */
    ZSTD_CCtx *zstd;               /* NULL: not compressed */
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

/* Compress the current piece; the last one ends the stream. */
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

struct zfile_reader {
    char *subject;
    ckpt_file *file;               /* NULL: the whole content is in `in` */
    uint64_t offset;               /* of the first byte of the file that is not in `in` yet */
    ZSTD_inBuffer in;              /* stored bytes, compressed or not */
    ZSTD_DCtx *zstd;               /* NULL: not compressed */
    size_t expected;               /* zstd: 0 at the end of a frame */
    char *text;                    /* zfile_read_line: text from text_begin to text_end has not */
    size_t text_begin;             /* been returned yet */
    size_t text_end;
    size_t text_capacity;
    char piece[PIECE_BYTES];       /* of the file */
};

static int begins_like_zstd(const char *data, size_t size)
{
    static const unsigned char magic[] = { 0x28, 0xb5, 0x2f, 0xfd };

    return size >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

/* Fill `in` if it is empty, unless the file has no more bytes. */
static ckpt_code refill(zfile_reader *r, ckpt_error *err)
{
    size_t size;
    ckpt_code code;

    if (r->in.pos < r->in.size || r->file == NULL || r->offset >= file_size(r->file))
        return CKPT_OK;
    size = size_min(PIECE_BYTES, file_size(r->file) - r->offset);
    if ((code = file_read_at(r->file, r->offset, r->piece, size, err)) != CKPT_OK)
        return code;
    r->offset += size;
    r->in = (ZSTD_inBuffer){ r->piece, size, 0 };
    return CKPT_OK;
}

/* Read the next bytes of the text, as many as are available at once; *got is 0 only at its end. */
static ckpt_code unpack(zfile_reader *r, char *bytes, size_t room, size_t *got, ckpt_error *err)
{
    ZSTD_outBuffer out = { bytes, room, 0 };
    ckpt_code code = CKPT_OK;

    while (out.pos == 0 && (code = refill(r, err)) == CKPT_OK) {
        const size_t left = r->in.size - r->in.pos;

        if (r->zstd == NULL) {
            out.pos = size_min(room, left);
            memcpy(bytes, (const char *)r->in.src + r->in.pos, out.pos);
            r->in.pos += out.pos;
            break;
        }
        if (left == 0 && r->expected == 0)
            break;
        r->expected = ZSTD_decompressStream(r->zstd, &out, &r->in);
        if (ZSTD_isError(r->expected))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: zstd says: %s", r->subject,
                             ZSTD_getErrorName(r->expected));
        if (left == 0 && out.pos == 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged: the zstd stream ends early",
                             r->subject);
    }
    *got = out.pos;
    return code;
}

/* Consumes the file, which may be NULL, also on failure. NULL: no memory. */
static zfile_reader *reader_create(const char *subject, ckpt_file *file)
{
    zfile_reader *r = calloc(1, sizeof *r);

    if (r == NULL || (r->subject = strdup(subject)) == NULL) {
        file_close(file, NULL);
        free(r);
        return NULL;
    }
    r->file = file;
    r->expected = 1;
    return r;
}

static ckpt_code reader_begin(zfile_reader *r, int must_be_zstd, ckpt_error *err)
{
    const ckpt_code code = refill(r, err);

    if (code == CKPT_OK && (must_be_zstd || begins_like_zstd(r->in.src, r->in.size)) &&
        ((r->zstd = ZSTD_createDCtx()) == NULL ||
         ZSTD_isError(ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))))
        return ckpt_fail_memory(err, "a decompressor", sizeof *r);
    return code;
}

void zfile_close(zfile_reader *r)
{
    if (r == NULL)
        return;
    ZSTD_freeDCtx(r->zstd);
    file_close(r->file, NULL);
    free(r->text);
    free(r->subject);
    free(r);
}

/* ---- by lines ---- */

ckpt_code zfile_open(const char *path, zfile_reader **out, ckpt_error *err)
{
    ckpt_file *file;
    const ckpt_code code = file_open(path, &file, err);

    *out = NULL;
    return code == CKPT_OK ? zfile_open_file(file, out, err) : code;
}

ckpt_code zfile_open_file(ckpt_file *file, zfile_reader **out, ckpt_error *err)
{
    const int must_be_zstd = is_compressed_name(file_path(file));
    ckpt_code code;

    if ((*out = reader_create(file_path(file), file)) == NULL)
        return ckpt_fail_memory(err, "a reader", sizeof **out);
    if ((code = reader_begin(*out, must_be_zstd, err)) != CKPT_OK) {
        zfile_close(*out);
        *out = NULL;
    }
    return code;
}

ckpt_code zfile_open_text(const char *text, size_t size, const char *subject, zfile_reader **out,
                          ckpt_error *err)
{
    if ((*out = reader_create(subject, NULL)) == NULL)
        return ckpt_fail_memory(err, subject, sizeof **out);
    (*out)->in = (ZSTD_inBuffer){ text, size, 0 };
    return CKPT_OK;
}

/* Make room after the text that has not been returned. A line of more than ZFILE_LINE_BYTES_MAX is
 * an error. */
static ckpt_code make_line_room(zfile_reader *r, ckpt_error *err)
{
    const size_t held = r->text_end - r->text_begin;
    const size_t capacity = size_max(2 * r->text_capacity, PIECE_BYTES);
    char *text;

    if (r->text_begin > 0) {
        memmove(r->text, r->text + r->text_begin, held);
        r->text_begin = 0;
        r->text_end = held;
    }
    if (r->text_end < r->text_capacity)
        return CKPT_OK;
    if (held >= ZFILE_LINE_BYTES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has a line that is too long: expected at most "
                         "%d bytes", r->subject, ZFILE_LINE_BYTES_MAX);
    if ((text = realloc(r->text, capacity)) == NULL)
        return ckpt_fail_memory(err, r->subject, capacity);
    r->text = text;
    r->text_capacity = capacity;
    return CKPT_OK;
}

ckpt_code zfile_read_line(zfile_reader *r, const char **line, size_t *size, ckpt_error *err)
{
    size_t seen = 0;               /* bytes that were searched for a newline */
    size_t got;
    ckpt_code code;

    for (*line = NULL;; r->text_end += got) {
        const size_t held = r->text_end - r->text_begin;

        if (held > seen) {
            const char *begin = r->text + r->text_begin;
            const char *newline = memchr(begin + seen, '\n', held - seen);

            if (newline != NULL) {
                *line = begin;
                *size = (size_t)(newline - begin);
                r->text_begin += *size + 1;
                return CKPT_OK;
            }
            seen = held;
        }
        if ((code = make_line_room(r, err)) != CKPT_OK ||
            (code = unpack(r, r->text + r->text_end, r->text_capacity - r->text_end, &got,
                           err)) != CKPT_OK)
            return code;
        if (got == 0 && seen > 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends in the middle of a line", r->subject);
        if (got == 0)
            return CKPT_OK;
    }
}

/* ---- as a whole ---- */

static ckpt_code fail_size(const char *subject, uint64_t max_bytes, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %" PRIu64 " bytes",
                     subject, max_bytes);
}

typedef struct {
    char *bytes;
    size_t size;
    size_t capacity;               /* one byte of it stays free for the NUL */
} whole_text;

/* Make room for one more piece, but for at most one byte more than allowed, to detect an excess. */
static ckpt_code make_room(const zfile_reader *r, whole_text *text, uint64_t max_bytes,
                           ckpt_error *err)
{
    const uint64_t most = size_min(max_bytes, SIZE_MAX - 2) + 2;
    const uint64_t capacity = size_min(size_max(2 * (uint64_t)text->capacity, PIECE_BYTES), most);
    char *bytes;

    if (text->size + 1 < text->capacity)
        return CKPT_OK;
    bytes = memory_has(capacity) ? realloc(text->bytes, capacity) : NULL;
    if (bytes == NULL)
        return ckpt_fail_memory(err, r->subject, capacity);
    text->bytes = bytes;
    text->capacity = capacity;
    return CKPT_OK;
}

/* The caller frees text->bytes, also on failure, when its content is not valid. */
static ckpt_code unpack_all(zfile_reader *r, uint64_t max_bytes, whole_text *text,
                            ckpt_error *err)
{
    size_t got;
    ckpt_code code;

    do {
        if ((code = make_room(r, text, max_bytes, err)) != CKPT_OK ||
            (code = unpack(r, text->bytes + text->size, text->capacity - text->size - 1, &got,
                           err)) != CKPT_OK)
            return code;
        text->size += got;
        if (text->size > max_bytes)
            return fail_size(r->subject, max_bytes, err);
    } while (got > 0);
    text->bytes[text->size] = '\0';
    return CKPT_OK;
}

/* The limit for compressed data: data that does not compress becomes slightly larger. */
static uint64_t packed_max(uint64_t max_bytes)
{
    return size_min(max_bytes, UINT64_MAX / 2) + PIECE_BYTES;
}

/* Replace the compressed data in `text` by its content. The caller frees it, also on failure. */
static ckpt_code unpack_text(const char *path, uint64_t max_bytes, whole_text *text,
                             ckpt_error *err)
{
    whole_text out = { NULL, 0, 0 };
    zfile_reader *r = reader_create(path, NULL);
    ckpt_code code;

    if (r == NULL)
        return ckpt_fail_memory(err, path, sizeof *r);
    r->in = (ZSTD_inBuffer){ text->bytes, text->size, 0 };
    if ((code = reader_begin(r, is_compressed_name(path), err)) == CKPT_OK)
        code = unpack_all(r, max_bytes, &out, err);
    zfile_close(r);
    free(text->bytes);
    *text = out;
    return code;
}

static ckpt_code give_text(whole_text *text, ckpt_code code, char **out, size_t *size)
{
    if (code != CKPT_OK) {
        free(text->bytes);
        return code;
    }
    *out = text->bytes;
    *size = text->size;
    return CKPT_OK;
}

ckpt_code zfile_read_in(const ckpt_folder *folder, const char *name, uint64_t max_bytes,
                        folder_text *out, ckpt_error *err)
{
    ckpt_code code = folder_read_all(folder, name, packed_max(max_bytes), out, err);
    whole_text text = { out->bytes, out->size, 0 };

    if (code == CKPT_OK)
        code = unpack_text(out->path, max_bytes, &text, err);
    out->bytes = NULL;
    out->size = 0;
    return give_text(&text, code, &out->bytes, &out->size);
}

ckpt_code zfile_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                           ckpt_error *err)
{
    whole_text text = { NULL, 0, 0 };
    ckpt_code code = file_read_named(path, packed_max(max_bytes), &text.bytes, &text.size, err);

    *out = NULL;
    *size = 0;
    if (code == CKPT_OK)
        code = unpack_text(path, max_bytes, &text, err);
    return give_text(&text, code, out, size);
}
