/* sha256.h: SHA-256, where a hub, a certificate or the digest root asks for it; git's SHA-1. */
#ifndef CKPT_SHA256_H
#define CKPT_SHA256_H

#include "file.h"

enum { SHA256_HEX = 65, GIT_BLOB_HEX = 41 };     /* with the NUL */
enum { SHA256_PIECE_BYTES = 1 << 20 };           /* memory that a file takes while it is hashed */

typedef struct sha256 sha256;

/* On success *out is to be given to sha256_end or sha256_abort. */
ckpt_code sha256_begin(sha256 **out, ckpt_error *err);
/* The name that git gives to a file of size_bytes: SHA-1 over "blob SIZE", NUL, content. The same
 * functions go on with it; its end is GIT_BLOB_HEX long. */
ckpt_code git_blob_begin(uint64_t size_bytes, sha256 **out, ckpt_error *err);
ckpt_code sha256_add(sha256 *h, const void *data, size_t size, ckpt_error *err);
/* 64 lower-case hex digits (of a git blob 40) and a NUL. Consumes h, also on failure. */
ckpt_code sha256_end(sha256 *h, char out[SHA256_HEX], ckpt_error *err);
void sha256_abort(sha256 *h);            /* consumes h; NULL is fine */

/* Of a whole file, read to its end in pieces. */
ckpt_code sha256_file(const char *path, char out[SHA256_HEX], ckpt_error *err);
/* The same of a file that is open; `stop` (may be NULL) is asked between pieces, and not 0 ends it
 * with CKPT_E_INTERRUPTED. */
ckpt_code sha256_of(const ckpt_file *file, int (*stop)(void *context), void *context,
                    char out[SHA256_HEX], ckpt_error *err);
ckpt_code git_blob_file(const char *path, char out[SHA256_HEX], ckpt_error *err);

#endif
