/* certify_deltas.h: the deltas that a certificate covers. */
#ifndef TOOL_CERTIFY_DELTAS_H
#define TOOL_CERTIFY_DELTAS_H

#include "libckpt/ckpt.h"
#include "verify/certificate_check.h"
#include "verify/certificate_read.h"

typedef struct {
    char *const *paths;            /* versions, or folders of them, in order */
    size_t count;
    const char *base;              /* path of the first checkpoint of the certificate */
    const ckpt_open_options *open;
    const certificate_read_options *read;
} certify_deltas_options;

/* Refuse before hours of work what is not a chain of deltas, is damaged, or changes tensors that
 * the base does not have in this form. Reads the deltas, and of the base the headers. */
ckpt_code certify_deltas_check(const certify_deltas_options *options, ckpt_error *err);

/* Read the deltas into the certificate, whose first checkpoint was read; apply them to it without
 * writing anything, and append the check "delta". */
ckpt_code certify_deltas(const certify_deltas_options *options, certificate *c, ckpt_error *err);

/* 1 when `path` is a delta, of any writer. */
int certify_is_delta(const char *path);

/* Read the files of a delta into *out, and the roots that it tells of, "" where it does not. */
ckpt_code certify_read_delta(const char *path, const certificate_read_options *read,
                             certificate_checkpoint *out, certificate_delta_roots *roots,
                             ckpt_error *err);

#endif
