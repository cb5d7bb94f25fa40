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

/* A private key, to sign with; a path that the user gave: a pipe is fine, too. Other kinds of keys
 * are refused. *out is yours to free. */
ckpt_code signature_read_private(const char *path, signature_key **out, ckpt_error *err);
/* A public key, to verify with. */
ckpt_code signature_read_public(const char *path, signature_key **out, ckpt_error *err);
void signature_key_free(signature_key *key);             /* NULL is fine */

/* SHA-256 over the public key as SubjectPublicKeyInfo in DER, in hex: its name. */
const char *signature_key_id(const signature_key *key);

/* Ed25519 gives 64 bytes, always the same; ECDSA a DER sequence, another one every time. */
ckpt_code signature_make(const signature_key *key, const void *data, size_t size,
                         signature_value *out, ckpt_error *err);
/* 1 when it is right. */
int signature_is_right(const signature_key *key, const void *data, size_t size,
                       const unsigned char *signature, size_t signature_bytes);

#endif
