/*
 * certificate_read.h: the facts of a checkpoint for a certificate: SHA-256 of its files and value
 * digests of its tensors, made beside each other, so that a disk gives every byte once.
 */
#ifndef CKPT_CERTIFICATE_READ_H
#define CKPT_CERTIFICATE_READ_H

#include "certificate.h"
#include "libckpt/sink.h"

typedef struct {
    ckpt_run_options run;          /* fixed_bytes: beside the checkpoint, which is counted */
    int structure_only;            /* no values, and no hashes of weights */
    int values_only;               /* no hashes of weights */
    ckpt_source *values;           /* read instead of the checkpoint's logical tensors: a source
                                      with the same catalog; NULL: those */
    ckpt_sink *watch;              /* sees every tile of the one pass, too; NULL: nobody does */
    const char *const *left_out;   /* paths of files that are not part of it: what is written about
                                      it; NULL: none */
    size_t left_out_count;
} certificate_read_options;

/*
 * Fill in *out, which is zeroed. The checkpoint must outlive it. Fails when a file changed while
 * it was read. `origin`, has_place_for_config and unlisted are the caller's to fill in.
 */
ckpt_code certificate_read(ckpt_checkpoint *checkpoint, const certificate_read_options *options,
                           certificate_checkpoint *out, ckpt_error *err);

/* Only the files beside the weights that companions.h compares, with their hashes, and the folder,
 * which is borrowed; NULL: there are none. What else is there is left zero. */
ckpt_code certificate_read_companions(const ckpt_folder *folder, certificate_checkpoint *out,
                                      ckpt_error *err);

/* What a file is, by its name in the folder. */
certificate_role certificate_role_of(const char *name);

#endif
