/*
 * dsse.h: signed envelopes: Dead Simple Signing Envelope v1 (github.com/secure-systems-lab/dsse):
 *
 *   {"payloadType": T, "payload": BASE64, "signatures": [{"keyid": K, "sig": BASE64}]}
 *
 * The signed bytes are "DSSEv1" SP len(T) SP T SP len(payload) SP payload.
 */
#ifndef CKPT_DSSE_H
#define CKPT_DSSE_H

#include "libckpt/buffer.h"
#include "libckpt/json.h"
#include "libckpt/signature.h"

#define DSSE_INTOTO_TYPE "application/vnd.in-toto+json"

/* Append the envelope of a payload of that type, signed with the key, to `out`. */
ckpt_code dsse_sign(const char *payload, size_t size, const signature_key *key, byte_buffer *out,
                    ckpt_error *err);

/* The content of an envelope. */
typedef struct {
    char *payload;                 /* malloc'd, NUL-terminated */
    size_t payload_bytes;
    size_t signature_count;
    char key_id[SHA256_HEX];       /* keyid of the first signature, truncated; only a hint */
} dsse_content;

/* 1 when a document is an envelope. */
int dsse_is_envelope(const json_value *document);
/* Open an envelope. With a key, one of its signatures must be right (CKPT_E_DIFFERENT if none is).
 * Base64 must be canonical. *out is yours to release, also on failure. */
ckpt_code dsse_open(const json_value *envelope, const char *path, const signature_key *key,
                    dsse_content *out, ckpt_error *err);
void dsse_release(dsse_content *content);

#endif
