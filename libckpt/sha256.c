/* SHA-256 and SHA-1, by OpenSSL. */
#include "sha256.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "size.h"

struct sha256 {
    EVP_MD_CTX *context;
    unsigned size;           /* of the result in bytes */
};

static void to_hex(const unsigned char *bytes, size_t size, char *out)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        out[2 * i] = hex[bytes[i] >> 4];
        out[2 * i + 1] = hex[bytes[i] & 15];
    }
    out[2 * size] = '\0';
}

static ckpt_code begin(const EVP_MD *kind, sha256 **out, ckpt_error *err)
{
    sha256 *h = malloc(sizeof *h);

    *out = NULL;
    if (h == NULL)
        return ckpt_fail_memory(err, "a SHA-256", sizeof *h);
    h->size = (unsigned)EVP_MD_get_size(kind);
    h->context = EVP_MD_CTX_new();
    if (h->context == NULL || EVP_DigestInit_ex(h->context, kind, NULL) != 1) {
        sha256_abort(h);
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot start a hash");
    }
    *out = h;
    return CKPT_OK;
}

ckpt_code sha256_begin(sha256 **out, ckpt_error *err)
{
    return begin(EVP_sha256(), out, err);
}

ckpt_code git_blob_begin(uint64_t size_bytes, sha256 **out, ckpt_error *err)
{
    char head[32];
    const int size = snprintf(head, sizeof head, "blob %" PRIu64, size_bytes);
    ckpt_code code = begin(EVP_sha1(), out, err);

    if (code == CKPT_OK && (code = sha256_add(*out, head, (size_t)size + 1, err)) != CKPT_OK) {
        sha256_abort(*out);
        *out = NULL;
    }
    return code;
}

ckpt_code sha256_add(sha256 *h, const void *data, size_t size, ckpt_error *err)
{
    if (size > 0 && EVP_DigestUpdate(h->context, data, size) != 1)
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot update a hash");
    return CKPT_OK;
}

ckpt_code sha256_end(sha256 *h, char out[SHA256_HEX], ckpt_error *err)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    ckpt_code code = CKPT_OK;

    if (EVP_DigestFinal_ex(h->context, bytes, &size) != 1 || size != h->size)
        code = ckpt_fail(err, CKPT_E_MEMORY, "cannot finish a hash");
    else
        to_hex(bytes, size, out);
    sha256_abort(h);
    return code;
}

void sha256_abort(sha256 *h)
{
    if (h == NULL)
        return;
    EVP_MD_CTX_free(h->context);
    free(h);
}

typedef int stop_fn(void *context);

static ckpt_code add_file(sha256 *h, const ckpt_file *f, stop_fn *stop, void *context,
                          ckpt_error *err)
{
    unsigned char *piece = malloc(SHA256_PIECE_BYTES);
    ckpt_code code = CKPT_OK;
    uint64_t offset = 0;

    if (piece == NULL)
        return ckpt_fail_memory(err, "a piece of a file", SHA256_PIECE_BYTES);
    while (offset < file_size(f) && code == CKPT_OK) {
        const size_t size = (size_t)size_min(file_size(f) - offset, SHA256_PIECE_BYTES);

        code = file_read_at(f, offset, piece, size, err);
        if (code == CKPT_OK)
            code = sha256_add(h, piece, size, err);
        if (code == CKPT_OK && stop != NULL && stop(context))
            code = ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted");
        offset += size;
    }
    free(piece);
    return code;
}

static ckpt_code hash_file(const char *path, int as_blob, char out[SHA256_HEX], ckpt_error *err)
{
    ckpt_file *f = NULL;
    sha256 *h = NULL;
    ckpt_code code;

    if ((code = file_open(path, &f, err)) != CKPT_OK)
        return code;
    if ((code = as_blob ? git_blob_begin(file_size(f), &h, err) : sha256_begin(&h, err)) !=
        CKPT_OK)
        goto out;
    if ((code = add_file(h, f, NULL, NULL, err)) != CKPT_OK)
        goto out;
    code = sha256_end(h, out, err);
    h = NULL;
out:
    sha256_abort(h);
    file_close(f, NULL);
    return code;
}

ckpt_code sha256_of(const ckpt_file *file, int (*stop)(void *context), void *context,
                    char out[SHA256_HEX], ckpt_error *err)
{
    sha256 *h = NULL;
    ckpt_code code;

    if ((code = sha256_begin(&h, err)) != CKPT_OK)
        return code;
    if ((code = add_file(h, file, stop, context, err)) == CKPT_OK)
        return sha256_end(h, out, err);
    sha256_abort(h);
    return code;
}

ckpt_code sha256_file(const char *path, char out[SHA256_HEX], ckpt_error *err)
{
    return hash_file(path, 0, out, err);
}

ckpt_code git_blob_file(const char *path, char out[SHA256_HEX], ckpt_error *err)
{
    return hash_file(path, 1, out, err);
}
