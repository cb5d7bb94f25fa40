/* digest_compare.h: compares two sets of tensors by their digests. */
#ifndef CKPT_DIGEST_COMPARE_H
#define CKPT_DIGEST_COMPARE_H

#include "libckpt/digest.h"

typedef enum {
    DIGEST_VALUE,                  /* another digest */
    DIGEST_SHAPE,                  /* another shape or class */
    DIGEST_MISSING,                /* only in expected */
    DIGEST_EXTRA                   /* only in got */
} digest_difference;

/* Tensors and their digest. */
typedef struct {
    const ckpt_catalog *catalog;
    const ckpt_digest *digest;     /* NULL: values are not compared */
} digest_side;

/* Called for each tensor that differs; both digests are NULL unless the kind is DIGEST_VALUE. */
typedef void digest_difference_fn(void *context, digest_difference kind, const char *name,
                                  const char *expected, const char *got);

/*
 * Call `tell` for every tensor that differs: expected ones in their order, then extra ones. With
 * `main_only` mtp.* is ignored. Returns the number of tensors that both have.
 */
size_t digest_compare(const digest_side *expected, const digest_side *got, int main_only,
                      digest_difference_fn *tell, void *context);

#endif
