/*
 * zframe.h: one zstd frame inside a file: written as its content comes, read as it is asked for,
 * both in bounded memory, both strict.
 *
 * Frames that are written say how large their content is, have no checksum of their own and depend
 * on the content alone. On reading, a frame must be exactly what its place in the file holds:
 * nothing before it, nothing behind it, a window of at most ZFRAME_WINDOW_BYTES.
 */
#ifndef CKPT_ZFRAME_H
#define CKPT_ZFRAME_H

#include "file.h"

enum {
    ZFRAME_WINDOW_BYTES = 1 << 23,
    ZFRAME_WRITER_BYTES = 4 << 20,      /* what a writer holds, at most, at level 1 to 3 */
    ZFRAME_READER_BYTES = 9 << 20       /* what a reader holds, at most */
};

/* ---- writing ---- */

typedef struct zframe_writer zframe_writer;

/* For any number of frames, one after another. *out is yours to free. */
ckpt_code zframe_writer_create(int level, zframe_writer **out, ckpt_error *err);
void zframe_writer_free(zframe_writer *w);              /* NULL is fine */

/* Begin a frame of content_bytes at `offset` of a file, which is borrowed until its end. */
ckpt_code zframe_begin(zframe_writer *w, ckpt_file *file, uint64_t offset, uint64_t content_bytes,
                       ckpt_error *err);
ckpt_code zframe_add(zframe_writer *w, const void *bytes, size_t size, ckpt_error *err);
ckpt_code zframe_add_zeros(zframe_writer *w, uint64_t size, ckpt_error *err);
/* All of the content was added. *packed_bytes: what the frame takes in the file. */
ckpt_code zframe_end(zframe_writer *w, uint64_t *packed_bytes, ckpt_error *err);

/* ---- reading ---- */

typedef struct zframe_reader zframe_reader;

/* For any number of frames, one after another. *out is yours to free. */
ckpt_code zframe_reader_create(zframe_reader **out, ckpt_error *err);
void zframe_reader_free(zframe_reader *r);              /* NULL is fine */

/* Where a frame is, and what errors call it; both are borrowed. */
typedef struct {
    const ckpt_file *file;
    uint64_t offset;
    uint64_t packed_bytes;
    const char *subject;
} zframe_place;

ckpt_code zframe_open(zframe_reader *r, const zframe_place *place, ckpt_error *err);
/* What the frame says of its content's size; UINT64_MAX: nothing. */
uint64_t zframe_content_bytes(const zframe_reader *r);
/* The next `size` bytes of the content; content that ends before is CKPT_E_FORMAT. */
ckpt_code zframe_read(zframe_reader *r, void *out, size_t size, ckpt_error *err);
/* Leave out the next `size` bytes. */
ckpt_code zframe_skip(zframe_reader *r, uint64_t size, ckpt_error *err);
/* The content ends here, and the place with it: else CKPT_E_FORMAT. */
ckpt_code zframe_finish(zframe_reader *r, ckpt_error *err);

#endif
