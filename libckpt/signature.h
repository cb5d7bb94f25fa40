/*
 * signature.h: signing and verifying with ECDSA on P-256 (SHA-256) or Ed25519. Keys are PEM files,
 * as `openssl genpkey` and `openssl pkey -pubout` write them, without a password.
 */
#ifndef CKPT_SIGNATURE_H
#define CKPT_SIGNATURE_H

#include "sha256.h"

enum { SIGNATURE_BYTES_MAX = 128 };

typedef struct signature_key signature_key;

typedef struct {
    unsigned char bytes[SIGNATURE_BYTES_MAX];
    size_t size;
} signature_value;

/* Read a private key, to sign with. The path is given by the user and may be a pipe. Other kinds of
 * keys are refused. *out is yours to free. */
ckpt_code signature_read_private(const char *path, signature_key **out, ckpt_error *err);
/* Read a public key, to verify with. */
ckpt_code signature_read_public(const char *path, signature_key **out, ckpt_error *err);
void signature_key_free(signature_key *key);             /* NULL is fine */

/* The fingerprint of a key: SHA-256 over the public key as SubjectPublicKeyInfo in DER, in hex. */
const char *signature_key_id(const signature_key *key);

/* Sign. An Ed25519 signature is 64 bytes and deterministic; ECDSA gives a DER sequence that differs
 * each time. */
ckpt_code signature_make(const signature_key *key, const void *data, size_t size,
                         signature_value *out, ckpt_error *err);
/* 1 when the signature is valid. */
int signature_is_right(const signature_key *key, const void *data, size_t size,
                       const unsigned char *signature, size_t signature_bytes);

#endif
