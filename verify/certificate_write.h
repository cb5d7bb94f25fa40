/*
 * certificate_write.h: the files that `certify` writes: the certificate, optionally signed, the
 * digests of its tensors, and the same facts in formats of other tools.
 */
#ifndef CKPT_CERTIFICATE_WRITE_H
#define CKPT_CERTIFICATE_WRITE_H

#include "certificate.h"
#include "libckpt/signature.h"

/*
 * Write `path`, with a key as a DSSE envelope. A list of tensors over 1 MB is written beside it as
 * a manifest, FILE.tensors.json.zst; c->tensor_file becomes its name.
 */
ckpt_code certificate_write(const char *path, certificate *c, const signature_key *key,
                            ckpt_error *err);

/* Path of that manifest; malloc'd, NULL without memory. */
char *certificate_tensor_path(const char *path);

/* The files of checkpoint `i` as `sha256sum -c` reads them in its folder. */
ckpt_code certificate_write_sums(const char *path, const certificate *c, size_t i,
                                 ckpt_error *err);

/*
 * integrity.json as Megatron-LM verifies it (megatron/core/dist_checkpointing/integrity.py):
 * {"algorithm": "sha256", "files": {NAME: HEX}}, of the files in the folder with .metadata. Fails
 * if no checkpoint has such a folder.
 */
ckpt_code certificate_write_integrity(const char *path, const certificate *c, ckpt_error *err);
/* That failure, for a caller that knows it before the files are read. */
ckpt_code certificate_fail_integrity(const char *path, ckpt_error *err);

/* A CycloneDX 1.6 document: a machine-learning-model component per checkpoint, with its roots as
 * properties and the files as components of their own. */
ckpt_code certificate_write_cyclonedx(const char *path, const certificate *c, ckpt_error *err);

/* JUnit: a suite per checkpoint, a case per check. */
ckpt_code certificate_write_junit(const char *path, const certificate *c, ckpt_error *err);

/* Markdown for the page of a CI job. */
ckpt_code certificate_write_summary(const char *path, const certificate *c, ckpt_error *err);

#endif
