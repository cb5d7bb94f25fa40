/*
 * file_record.h: files with their roles, sizes and hashes as JSON: all of them in a certificate,
 * those beside the weights in a manifest.
 *
 *   [{"name": N, "role": R, "size": S, "sha256": HEX64|null}, ...]
 */
#ifndef CKPT_FILE_RECORD_H
#define CKPT_FILE_RECORD_H

#include "certificate.h"

/* The files of a checkpoint, as one value of `w`. */
void file_record_put(json_writer *w, const certificate_checkpoint *c);

/* Such a list, read into out->files, which is empty. `path` is for errors. */
ckpt_code file_record_read(const json_value *files, const char *path, certificate_checkpoint *out,
                           ckpt_error *err);

#endif
