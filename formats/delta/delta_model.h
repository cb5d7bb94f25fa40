/*
 * delta_model.h: a checkpoint as deltas see it: the stored tensors of a Hugging Face layout, each a
 * stream of bytes, read through the logical tensors that they are parts of, so that one pass gives
 * bytes and value roots.
 *
 * Where a stored tensor holds several logical ones (stacked experts), or none, the tensors that are
 * read are the stored ones, and the roots take a pass of their own.
 */
#ifndef CKPT_DELTA_MODEL_H
#define CKPT_DELTA_MODEL_H

#include "delta.h"

enum { DELTA_NO_TENSOR = -1 };

/* What a model is made of; borrowed. */
typedef struct {
    const char *path;
    ckpt_source *logical;
    const ckpt_layout *layout;          /* of the logical tensors in the stored ones */
    const ckpt_catalog *stored;         /* names, dtypes, shapes */
    ckpt_source *stored_source;         /* NULL: there are no files */
    uint64_t fixed_bytes;               /* memory that they hold */
} delta_input;

typedef struct {
    delta_input in;
    int is_stored;                      /* the tensors are the stored ones */
    ckpt_source *tensors;               /* what is read */
    const ckpt_layout *layout;          /* of these in the stored ones */
    ckpt_layout *own_layout;            /* of the stored ones in themselves; or NULL */
    int64_t *first;                     /* by CKPT_PART_COUNT * tensor + part: a stored tensor */
    int64_t *next;                      /* by stored tensor: another one with the same bytes */
    ckpt_digest *digest;                /* that reading fills; NULL: none, see delta_model_roots */
    ckpt_source *tap;
} delta_model;

/* The stored tensors of an open checkpoint as they are. */
delta_input delta_input_of(const ckpt_checkpoint *c);

/* 1 when the logical tensors cannot be streamed as the stored ones. */
int delta_input_needs_stored(const delta_input *in);

/* Release it, also after a failure. With `order` (or NULL), tensors come in the order of that
 * model's, which it must have: the same names, encodings, shapes and stored names. */
ckpt_code delta_model_open(const delta_input *in, int is_stored, const delta_model *order,
                           delta_model *out, ckpt_error *err);
void delta_model_release(delta_model *model);

/* Do all tensors have a value digest? */
int delta_model_has_digest(const delta_model *model);

/* The roots of what was read, all of it; by a pass of its own where it takes one. Empty where
 * values have no digest. */
ckpt_code delta_model_roots(const delta_model *model, const ckpt_run_options *run,
                            delta_roots *out, ckpt_error *err);
ckpt_code delta_digest_roots(const ckpt_digest *digest, delta_roots *out, ckpt_error *err);

/* Memory that it holds beside its input's. */
uint64_t delta_model_bytes(const delta_model *model);

#endif
