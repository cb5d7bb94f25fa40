/*
 * file_record.h: a JSON list of files with roles, sizes and hashes. A certificate lists all files,
 * a manifest those beside the weights.
 *
 *   [{"name": N, "role": R, "size": S, "sha256": HEX64|null}, ...]
 */
#ifndef CKPT_FILE_RECORD_H
#define CKPT_FILE_RECORD_H

#include "certificate.h"

/* Put the files of a checkpoint, as one value of `w`. */
void file_record_put(json_writer *w, const certificate_checkpoint *c);

/* Read such a list into out->files, which must be empty. `path` is for errors. */
ckpt_code file_record_read(const json_value *files, const char *path, certificate_checkpoint *out,
                           ckpt_error *err);

#endif
