/*
 * zfile.h: whole text files, compressed with zstd if their name ends in ".zst".
 */
#ifndef CKPT_ZFILE_H
#define CKPT_ZFILE_H

#include "folder.h"

/* ---- writing ---- */

typedef struct zfile_writer zfile_writer;

/*
 * Begin a file that will replace `path`. The bytes of the file depend only on the content, not on
 * the sizes of the writes. Pass *out to zfile_commit or zfile_abort.
 */
ckpt_code zfile_create(const char *path, zfile_writer **out, ckpt_error *err);
/* A json_write_fn; `writer` is a zfile_writer. Non-zero: it failed, and zfile_commit returns the
 * error. */
int zfile_write(void *writer, const char *bytes, size_t size);
/* Write the rest and replace `path`, which on failure is unchanged. Consumes w, also on failure. */
ckpt_code zfile_commit(zfile_writer *w, ckpt_error *err);
void zfile_abort(zfile_writer *w);              /* removes the temporary; NULL is fine */

/* ---- reading: decompresses files that begin like a zstd stream, or are named like one ---- */

typedef struct zfile_reader zfile_reader;

enum { ZFILE_LINE_BYTES_MAX = 1 << 20 };

/* Read line by line, with little more memory than the longest line. *out is yours to close. */
ckpt_code zfile_open(const char *path, zfile_reader **out, ckpt_error *err);
/* The same for an open file. Consumes it, also on failure. */
ckpt_code zfile_open_file(ckpt_file *file, zfile_reader **out, ckpt_error *err);
/* The same for plain text in memory, which is borrowed; `subject` is for errors. */
ckpt_code zfile_open_text(const char *text, size_t size, const char *subject, zfile_reader **out,
                          ckpt_error *err);
/* The next line without its newline, borrowed until the next call; NULL after the last. A line
 * without a newline, or of more than ZFILE_LINE_BYTES_MAX, is an error. */
ckpt_code zfile_read_line(zfile_reader *r, const char **line, size_t *size, ckpt_error *err);
void zfile_close(zfile_reader *r);              /* NULL is fine */

/*
 * Read a whole file of a folder, as folder_read_all does. Decompression stops with an error as soon
 * as the result exceeds max_bytes.
 */
ckpt_code zfile_read_in(const ckpt_folder *folder, const char *name, uint64_t max_bytes,
                        folder_text *out, ckpt_error *err);
/* The same for a path given by the user, which may be a pipe. *out is malloc'd, NUL-terminated,
 * yours to free. */
ckpt_code zfile_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                           ckpt_error *err);

#endif
