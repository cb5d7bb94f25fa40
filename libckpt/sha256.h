/* sha256.h: SHA-256 for hubs, certificates and the digest root; and git's SHA-1 of files. */
#ifndef CKPT_SHA256_H
#define CKPT_SHA256_H

#include "file.h"

enum { SHA256_HEX = 65, GIT_BLOB_HEX = 41 };     /* with the NUL */
enum { SHA256_PIECE_BYTES = 1 << 20 };           /* memory for hashing a file */

typedef struct sha256 sha256;

/* On success pass *out to sha256_end or sha256_abort. */
ckpt_code sha256_begin(sha256 **out, ckpt_error *err);
/* Begin git's object id of a file of size_bytes: SHA-1 over "blob SIZE", NUL, content. Continue
 * with the functions below; sha256_end writes GIT_BLOB_HEX bytes. */
ckpt_code git_blob_begin(uint64_t size_bytes, sha256 **out, ckpt_error *err);
ckpt_code sha256_add(sha256 *h, const void *data, size_t size, ckpt_error *err);
/* Write 64 lower-case hex digits (40 for a git blob) and a NUL. Consumes h, also on failure. */
ckpt_code sha256_end(sha256 *h, char out[SHA256_HEX], ckpt_error *err);
void sha256_abort(sha256 *h);            /* consumes h; NULL is fine */

/* Hash a whole file. */
ckpt_code sha256_file(const char *path, char out[SHA256_HEX], ckpt_error *err);
/* The same for an open file. `stop` (may be NULL) is called between pieces; a result other than 0
 * ends it with CKPT_E_INTERRUPTED. */
ckpt_code sha256_of(const ckpt_file *file, int (*stop)(void *context), void *context,
                    char out[SHA256_HEX], ckpt_error *err);
ckpt_code git_blob_file(const char *path, char out[SHA256_HEX], ckpt_error *err);

#endif
