/* digest_compare.h: two sets of tensors by their digests: which are not the same, and how. */
#ifndef CKPT_DIGEST_COMPARE_H
#define CKPT_DIGEST_COMPARE_H

#include "libckpt/digest.h"

typedef enum {
    DIGEST_VALUE,                  /* another digest */
    DIGEST_SHAPE,                  /* another shape or class */
    DIGEST_MISSING,                /* expected only */
    DIGEST_EXTRA                   /* got only */
} digest_difference;

/* Tensors and the digest over them. */
typedef struct {
    const ckpt_catalog *catalog;
    const ckpt_digest *digest;     /* NULL: values are not compared */
} digest_side;

/* Told of one tensor; both texts are NULL unless the kind is DIGEST_VALUE. */
typedef void digest_difference_fn(void *context, digest_difference kind, const char *name,
                                  const char *expected, const char *got);

/*
 * Tell of every tensor that is not the same: those that were expected in their order, then the
 * others. `main_only`: mtp.* is left out. Returns how many tensors both have.
 */
size_t digest_compare(const digest_side *expected, const digest_side *got, int main_only,
                      digest_difference_fn *tell, void *context);

#endif
