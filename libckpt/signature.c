/* Signatures, by OpenSSL's EVP. */
#include "signature.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES_MAX = 1 << 16 };

struct signature_key {
    EVP_PKEY *key;
    const EVP_MD *hash;            /* NULL: the scheme includes its hash */
    char id[SHA256_HEX];
};

/* Keys with a password are refused: do not let OpenSSL ask for it on the terminal. */
static int no_password(char *out, int size, int is_writing, void *context)
{
    (void)out;
    (void)size;
    (void)is_writing;
    (void)context;
    return -1;
}

/* 1 when the key is of a kind that is supported. */
static int find_scheme(signature_key *k)
{
    char group[64];
    size_t length = 0;

    k->hash = NULL;
    if (EVP_PKEY_is_a(k->key, "ED25519"))
        return 1;
    k->hash = EVP_sha256();
    return EVP_PKEY_is_a(k->key, "EC") &&
           EVP_PKEY_get_group_name(k->key, group, sizeof group, &length) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static ckpt_code find_id(signature_key *k, ckpt_error *err)
{
    unsigned char *der = NULL;
    const int size = i2d_PUBKEY(k->key, &der);
    sha256 *h = NULL;
    ckpt_code code;

    if (size <= 0)
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot encode a public key");
    if ((code = sha256_begin(&h, err)) == CKPT_OK) {
        if ((code = sha256_add(h, der, (size_t)size, err)) == CKPT_OK)
            code = sha256_end(h, k->id, err);
        else
            sha256_abort(h);
    }
    OPENSSL_free(der);
    return code;
}

static ckpt_code read_key(const char *path, int is_private, signature_key **out, ckpt_error *err)
{
    signature_key *k = calloc(1, sizeof *k);
    char *text = NULL;
    size_t size = 0;
    BIO *bio = NULL;
    ckpt_code code;

    *out = NULL;
    if (k == NULL)
        return ckpt_fail_memory(err, "a key", sizeof *k);
    if ((code = file_read_named(path, KEY_BYTES_MAX, &text, &size, err)) != CKPT_OK)
        goto out;
    if ((bio = BIO_new_mem_buf(text, (int)size)) == NULL) {
        code = ckpt_fail_memory(err, "a key", size);
        goto out;
    }
    k->key = is_private ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL)
                        : PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL);
    if (k->key == NULL)
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a %s key: expected PEM%s", path,
                         is_private ? "private" : "public",
                         is_private ? ", without a password" : ", as openssl pkey -pubout writes");
    else if (!find_scheme(k))
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a key of another kind: expected EC on P-256 "
                         "or Ed25519", path);
    else
        code = find_id(k, err);
out:
    BIO_free(bio);
    if (text != NULL)
        OPENSSL_cleanse(text, size);
    free(text);
    if (code != CKPT_OK)
        signature_key_free(k);
    else
        *out = k;
    return code;
}

ckpt_code signature_read_private(const char *path, signature_key **out, ckpt_error *err)
{
    return read_key(path, 1, out, err);
}

ckpt_code signature_read_public(const char *path, signature_key **out, ckpt_error *err)
{
    return read_key(path, 0, out, err);
}

void signature_key_free(signature_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->key);
    free(key);
}

const char *signature_key_id(const signature_key *key)
{
    return key->id;
}

ckpt_code signature_make(const signature_key *key, const void *data, size_t size,
                         signature_value *out, ckpt_error *err)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    ckpt_code code = CKPT_OK;

    out->size = SIGNATURE_BYTES_MAX;
    if (context == NULL ||
        EVP_DigestSignInit(context, NULL, key->hash, NULL, key->key) != 1 ||
        EVP_DigestSign(context, out->bytes, &out->size, data, size) != 1)
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot sign with this key");
    EVP_MD_CTX_free(context);
    return code;
}

int signature_is_right(const signature_key *key, const void *data, size_t size,
                       const unsigned char *signature, size_t signature_bytes)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const int right = context != NULL &&
                      EVP_DigestVerifyInit(context, NULL, key->hash, NULL, key->key) == 1 &&
                      EVP_DigestVerify(context, signature, signature_bytes, data, size) == 1;

    EVP_MD_CTX_free(context);
    return right;
}
