/*
 * zfile.h: whole text files, compressed with zstd when their name ends in ".zst". The only file
 * pair that knows zstd.
 */
#ifndef CKPT_ZFILE_H
#define CKPT_ZFILE_H

#include "folder.h"

/* ---- writing ---- */

typedef struct zfile_writer zfile_writer;

/*
 * Begin to write what shall replace `path`. The bytes depend on what is written alone, not on how
 * it is cut. *out is to be given to zfile_commit or zfile_abort.
 */
ckpt_code zfile_create(const char *path, zfile_writer **out, ckpt_error *err);
/* A json_write_fn; `writer` is a zfile_writer. Not 0: it failed, and zfile_commit says why. */
int zfile_write(void *writer, const char *bytes, size_t size);
/* Write what is left; `path` holds it now, or what it did. Consumes w, also on failure. */
ckpt_code zfile_commit(zfile_writer *w, ckpt_error *err);
void zfile_abort(zfile_writer *w);              /* removes the temporary; NULL is fine */

/* ---- reading: what begins like a zstd stream, or is called one, is decompressed ---- */

typedef struct zfile_reader zfile_reader;

enum { ZFILE_LINE_BYTES_MAX = 1 << 20 };

/* Read line by line, which takes little more memory than the longest line. *out is to be closed. */
ckpt_code zfile_open(const char *path, zfile_reader **out, ckpt_error *err);
/* The same of a file that is open. Consumes it, also on failure. */
ckpt_code zfile_open_file(ckpt_file *file, zfile_reader **out, ckpt_error *err);
/* The same for plain text in memory, which is borrowed; `subject` is for errors. */
ckpt_code zfile_open_text(const char *text, size_t size, const char *subject, zfile_reader **out,
                          ckpt_error *err);
/* The next line without its newline, borrowed until the next call; NULL behind the last. A line
 * without a newline or of more than ZFILE_LINE_BYTES_MAX is refused. */
ckpt_code zfile_read_line(zfile_reader *r, const char **line, size_t *size, ckpt_error *err);
void zfile_close(zfile_reader *r);              /* NULL is fine */

/*
 * Read a whole file of a folder, as folder_read_all does. More than max_bytes of result are refused
 * as soon as they come out.
 */
ckpt_code zfile_read_in(const ckpt_folder *folder, const char *name, uint64_t max_bytes,
                        folder_text *out, ckpt_error *err);
/* The same for a path that the user gave for this file: a pipe is fine, too. *out is malloc'd,
 * NUL-terminated, yours to free. */
ckpt_code zfile_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                           ckpt_error *err);

#endif
