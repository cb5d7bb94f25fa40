/* Stacks the views from the files of the base to the result. */
#include "delta_views.h"

#include <stdlib.h>
#include <string.h>

#include "delta_structure.h"
#include "formats/hf.h"
#include "libckpt/digest.h"
#include "libckpt/sink.h"

/* Give the base the tensors of the first delta's result, of which some are zeros until it is
 * applied. */
static ckpt_code shape_base(const delta_chain *chain, const ckpt_open_options *open,
                            delta_views *v, ckpt_error *err)
{
    const ckpt_delta *first = chain->deltas[0];
    ckpt_code code;

    v->real = v->checkpoint;
    v->checkpoint = NULL;
    if ((code = delta_structure_shape(first, v->real, &v->shape, err)) != CKPT_OK ||
        (code = delta_shape_open(&v->shape, v->real, open, &v->checkpoint, err)) != CKPT_OK)
        return code;
    return delta_structure_check(first, &v->shape, v->real, err);
}

static ckpt_code open_base(const delta_chain *chain, const ckpt_open_options *open,
                           delta_views *v, ckpt_error *err)
{
    const ckpt_code code = ckpt_open(chain->base, open, &v->checkpoint, err);

    if (code != CKPT_OK)
        return code;
    if (v->checkpoint->format != &format_hf)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' has the layout %s: deltas are applied to a "
                         "Hugging Face directory (ckpt-convert makes one)", chain->base,
                         ckpt_layout_name(v->checkpoint));
    return chain->deltas[0]->is_structural ? shape_base(chain, open, v, err) : CKPT_OK;
}

const ckpt_checkpoint *delta_views_base(const delta_views *v)
{
    return v->real == NULL ? v->checkpoint : v->real;
}

ckpt_code delta_views_stack(const delta_chain *chain, ckpt_source *from,
                            const delta_patch_options *patch, delta_views *v, ckpt_error *err)
{
    v->result = from;
    if ((v->patches = calloc(chain->count + 1, sizeof *v->patches)) == NULL)
        return ckpt_fail_memory(err, "a chain of deltas", chain->count);
    for (size_t i = 0; i < chain->count; i++) {
        delta_patch_options options = *patch;
        ckpt_code code;

        options.delta = chain->deltas[i];
        if ((code = source_patch(v->result, &v->model, &options, &v->patches[i], err)) != CKPT_OK)
            return code;
        v->patch_count++;
        v->result = v->patches[i];
    }
    return CKPT_OK;
}

ckpt_code delta_views_open(const delta_chain *chain, const ckpt_open_options *open,
                           const delta_patch_options *patch, delta_views *v, ckpt_error *err)
{
    delta_input in;
    ckpt_code code;

    *v = (delta_views){ .checkpoint = NULL };
    if ((code = open_base(chain, open, v, err)) != CKPT_OK)
        return code;
    in = delta_input_of(v->checkpoint);
    if ((code = delta_model_open(&in, delta_input_needs_stored(&in), NULL, &v->model, err)) !=
        CKPT_OK)
        return code;
    if ((code = delta_views_stack(chain, v->model.tensors, patch, v, err)) != CKPT_OK)
        return code;
    if (v->model.digest == NULL)
        return CKPT_OK;
    if ((v->digest = digest_create(v->result->catalog)) == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(v->result->catalog));
    if ((code = source_digest_tap(v->result, v->digest, &v->tap, err)) == CKPT_OK)
        v->result = v->tap;
    return code;
}

void delta_views_release(delta_views *v)
{
    ckpt_source_free(v->tap);
    ckpt_digest_free(v->digest);
    for (size_t i = v->patch_count; i > 0; i--)
        ckpt_source_free(v->patches[i - 1]);
    free(v->patches);
    delta_model_release(&v->model);
    ckpt_close(v->checkpoint);
    delta_shape_release(&v->shape);
    ckpt_close(v->real);
}

ckpt_run_options delta_views_run(const delta_views *v, const ckpt_run_options *run,
                                 uint64_t thread_bytes)
{
    ckpt_run_options with = *run;
    const uint64_t each = thread_bytes + v->patch_count * (uint64_t)DELTA_PATCH_THREAD_BYTES;

    with.fixed_bytes += v->model.in.fixed_bytes + delta_model_bytes(&v->model);
    if (v->real != NULL)
        with.fixed_bytes += ckpt_checkpoint_bytes(v->real) + v->shape.held_bytes;
    if (each > 0) {
        with.thread_count = (unsigned)copy_thread_count(&with, each);
        with.thread_count += with.thread_count == 0;
        with.fixed_bytes += with.thread_count * each;
    }
    return with;
}
