/*
 * certificate_read.h: reads the facts of a checkpoint for a certificate: SHA-256 of its files and
 * value digests of its tensors, computed at the same time, so that the disk is read once.
 */
#ifndef CKPT_CERTIFICATE_READ_H
#define CKPT_CERTIFICATE_READ_H

#include "certificate.h"
#include "libckpt/sink.h"

typedef struct {
    ckpt_run_options run;          /* fixed_bytes: without the checkpoint, which is added */
    int structure_only;            /* no values, and no hashes of weights */
    int values_only;               /* no hashes of weights */
    ckpt_source *values;           /* a source with the same catalog to read instead of the
                                      checkpoint's logical tensors; or NULL */
    ckpt_sink *watch;              /* also receives every tile of the pass; or NULL */
    const char *const *left_out;   /* paths of files to ignore: outputs about the checkpoint; NULL:
                                      none */
    size_t left_out_count;
} certificate_read_options;

/*
 * Fill in *out, which is zeroed. The checkpoint must outlive it. Fails if a file changed while it
 * was read. The caller fills in `origin`, `has_place_for_config` and `unlisted`.
 */
ckpt_code certificate_read(ckpt_checkpoint *checkpoint, const certificate_read_options *options,
                           certificate_checkpoint *out, ckpt_error *err);

/* Fill in only the files beside the weights that companions.h compares, with their hashes, and the
 * folder, which is borrowed (NULL: no files). The rest stays zero. */
ckpt_code certificate_read_companions(const ckpt_folder *folder, certificate_checkpoint *out,
                                      ckpt_error *err);

/* Fill in label, path and the files of a folder that is not a checkpoint, with hashes of all. */
ckpt_code certificate_read_folder(const char *path, const ckpt_folder *folder,
                                  const certificate_read_options *options,
                                  certificate_checkpoint *out, ckpt_error *err);

/* The role of a file, from its name in the folder. */
certificate_role certificate_role_of(const char *name);

#endif
