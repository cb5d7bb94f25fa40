/*
 * zframe.h: one zstd frame inside a file, written and read as a stream in bounded memory.
 *
 * Frames that are written contain the size of their content and no checksum; their bytes depend
 * only on the content. On reading, the frame must fill its range of the file exactly, with nothing
 * before or after it, and have a window of at most ZFRAME_WINDOW_BYTES.
 */
#ifndef CKPT_ZFRAME_H
#define CKPT_ZFRAME_H

#include "file.h"

enum {
    ZFRAME_WINDOW_BYTES = 1 << 23,
    ZFRAME_WRITER_BYTES = 5 << 20,      /* most memory of a writer at level 1 to 3 */
    ZFRAME_READER_BYTES = 9 << 20       /* most memory of a reader */
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
/* The same with the marks of the bytes (nonzero_marks of kernels.h), which saves finding them. */
ckpt_code zframe_add_marked(zframe_writer *w, const void *bytes, const uint64_t *marks,
                            size_t size, ckpt_error *err);
ckpt_code zframe_add_zeros(zframe_writer *w, uint64_t size, ckpt_error *err);
/* End the frame when all of its content was added. *packed_bytes: its size in the file. */
ckpt_code zframe_end(zframe_writer *w, uint64_t *packed_bytes, ckpt_error *err);

/* ---- reading ---- */

typedef struct zframe_reader zframe_reader;

/* For any number of frames, one after another. *out is yours to free. */
ckpt_code zframe_reader_create(zframe_reader **out, ckpt_error *err);
void zframe_reader_free(zframe_reader *r);              /* NULL is fine */

/* The position of a frame in a file, and its name in errors; file and name are borrowed. */
typedef struct {
    const ckpt_file *file;
    uint64_t offset;
    uint64_t packed_bytes;
    const char *subject;
} zframe_place;

ckpt_code zframe_open(zframe_reader *r, const zframe_place *place, ckpt_error *err);
/* The size of the content that the frame's header gives; UINT64_MAX: none. */
uint64_t zframe_content_bytes(const zframe_reader *r);
/* Read the next `size` bytes of the content; content that ends earlier is CKPT_E_FORMAT. */
ckpt_code zframe_read(zframe_reader *r, void *out, size_t size, ckpt_error *err);
/* Skip the next `size` bytes. */
ckpt_code zframe_skip(zframe_reader *r, uint64_t size, ckpt_error *err);
/* Check that the content and the range end here: else CKPT_E_FORMAT. */
ckpt_code zframe_finish(zframe_reader *r, ckpt_error *err);

#endif
