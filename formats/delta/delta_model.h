/*
 * delta_model.h: the stored tensors of a Hugging Face layout as streams of bytes. They are read as
 * parts of the logical tensors, so that one pass gives both the bytes and the value roots.
 *
 * If a stored tensor contains several logical ones (stacked experts), or none, the stored tensors
 * are read instead, and the roots need another pass.
 */
#ifndef CKPT_DELTA_MODEL_H
#define CKPT_DELTA_MODEL_H

#include "delta.h"

enum { DELTA_NO_TENSOR = -1 };

/* Input of a model; borrowed. */
typedef struct {
    const char *path;
    ckpt_source *logical;
    const ckpt_layout *layout;          /* positions of the logical tensors in the stored ones */
    const ckpt_catalog *stored;         /* names, dtypes, shapes */
    ckpt_source *stored_source;         /* NULL: there are no files */
    uint64_t fixed_bytes;               /* memory held by these */
} delta_input;

typedef struct {
    delta_input in;
    int is_stored;                      /* `tensors` are the stored ones */
    ckpt_source *tensors;               /* what is read */
    const ckpt_layout *layout;          /* positions of these in the stored ones */
    ckpt_layout *own_layout;            /* if is_stored, `layout`; else NULL */
    int64_t *first;                     /* by CKPT_PART_COUNT * tensor + part: a stored tensor */
    int64_t *next;                      /* by stored tensor: another one with the same bytes */
    ckpt_digest *digest;                /* filled by reading; NULL: none, see delta_model_roots */
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

/* 1 when all tensors have value digests. */
int delta_model_has_digest(const delta_model *model);

/* The roots of the model, after all of it was read; needs another pass if there is no digest. Empty
 * if some values have no digest. */
ckpt_code delta_model_roots(const delta_model *model, const ckpt_run_options *run,
                            delta_roots *out, ckpt_error *err);
ckpt_code delta_digest_roots(const ckpt_digest *digest, delta_roots *out, ckpt_error *err);

/* Memory that it holds, without that of its input. */
uint64_t delta_model_bytes(const delta_model *model);

#endif
