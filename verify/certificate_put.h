/*
 * certificate_put.h: writes a certificate as an in-toto Statement (v1). Its subjects are the
 * checkpoints by value root, and every file by SHA-256; the predicate has everything else.
 * ckpt-certificate(5) describes all members. The bytes depend only on the certificate.
 */
#ifndef CKPT_CERTIFICATE_PUT_H
#define CKPT_CERTIFICATE_PUT_H

#include "certificate.h"

#define CERTIFICATE_SCHEMA "ckpt-certificate/1"
#define CERTIFICATE_PREDICATE_TYPE "urn:x-ckpt:certificate:v1"
#define CERTIFICATE_STATEMENT_TYPE "https://in-toto.io/Statement/v1"
/* A list of tensors larger than this is written to a file beside the certificate. */
enum { CERTIFICATE_TENSORS_INLINE_BYTES = 1 << 20 };

/* The document, as one value of `w`; `what` is a const certificate (json_file.h). */
ckpt_code certificate_put(json_writer *w, const void *what, ckpt_error *err);

/* The members `checks` and `findings`, for use in other documents. */
void certificate_put_results(json_writer *w, const certificate *c);

/* Bytes of the reference's tensors in the document. */
ckpt_code certificate_tensor_bytes(const certificate *c, uint64_t *out, ckpt_error *err);

/* "2026-11-29T01:02:03Z" */
enum { CERTIFICATE_TIME_BYTES = 24 };
void certificate_time_text(int64_t seconds, char out[CERTIFICATE_TIME_BYTES]);

#endif
