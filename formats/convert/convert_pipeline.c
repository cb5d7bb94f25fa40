/* Views between the inputs and the files of the result. */
#include "convert_pipeline.h"

#include <string.h>

#include "libckpt/digest.h"
#include "libckpt/sink.h"

void pipeline_free(convert_pipeline *p)
{
    if (p->written != p->encoded)
        ckpt_source_free(p->written);
    ckpt_source_free(p->encoded);
    ckpt_source_free(p->tap);
    memset(p, 0, sizeof *p);
}

/*
 * Values of the result may differ from the inputs if rounding is allowed. They also differ if BF16
 * values are encoded with scales that are not powers of two: the codes restore the products from
 * which the BF16 values were rounded.
 */
int pipeline_may_change(const job_plan *plan)
{
    int may = plan->options.allow_lossy || plan->rules != NULL;

    for (size_t i = 0; plan->like != NULL && i < ckpt_catalog_count(plan->targets) && !may; i++) {
        const ckpt_tensor *to = ckpt_catalog_at(plan->targets, i);

        may = ckpt_catalog_at(plan->picked->catalog, i)->dtype == CKPT_BF16 &&
              to->scale_dtype != CKPT_NONE && to->scale_dtype != CKPT_F8_E8M0;
    }
    return may;
}

static ckpt_code tap_encoded(const job_plan *plan, job_result *result, convert_pipeline *p,
                             ckpt_error *err)
{
    ckpt_source *tap = NULL;
    ckpt_code code;

    if (result->digest == NULL || !pipeline_may_change(plan) ||
        (!plan->options.verify && plan->rules == NULL))
        return CKPT_OK;
    if (result->encoded_digest == NULL &&
        (result->encoded_digest = digest_create(plan->targets)) == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(plan->targets));
    if ((code = source_digest_tap(p->encoded, result->encoded_digest, &tap, err)) == CKPT_OK)
        p->written = tap;
    return code;
}

encode_options pipeline_encode_options(const job_plan *plan)
{
    const convert_options *o = &plan->options;

    return (encode_options){
        .allow_lossy = o->allow_lossy,
        .allow_odd_scales = o->open.lenient,
        .match_reference = o->match_reference,
        .scales = plan->like == NULL ? NULL : ckpt_logical(plan->like),
        .rules = plan->rules,
        .whole = plan->picked,
        .input_scales = plan->input_scales,
        .sticky_scale = o->sticky_scale,
        .zero_nonfinite = o->zero_nonfinite,
        .quantise_f32 = o->quantise_f32,
        .exceptions_in = plan->side == NULL ? NULL : side_data_table(plan->side),
    };
}

ckpt_code pipeline_make(const job_plan *plan, encode_exception_sink *exceptions,
                        job_result *result, convert_pipeline *p, ckpt_error *err)
{
    encode_options encode = pipeline_encode_options(plan);
    ckpt_source *from = plan->picked;
    ckpt_code code;

    encode.exceptions_out = exceptions;
    if (!plan->options.no_digest) {
        if (result->digest == NULL && (result->digest = digest_create(from->catalog)) == NULL)
            return ckpt_fail_memory(err, "digests", ckpt_catalog_count(from->catalog));
        if ((code = source_digest_tap(from, result->digest, &p->tap, err)) != CKPT_OK)
            return code;
        from = p->tap;
    }
    if ((code = source_encode(from, plan->targets, &encode, &p->encoded, err)) != CKPT_OK)
        return code;
    p->written = p->encoded;
    return tap_encoded(plan, result, p, err);
}

ckpt_run_options pipeline_run_options(const job_plan *plan)
{
    ckpt_run_options copy = plan->options.copy;

    copy.fixed_bytes = plan->fixed_bytes;
    return copy;
}

/* A stand-in for the sink, which does not exist yet, with its memory need. */
typedef struct {
    ckpt_sink base;
    const job_plan *plan;
} planned_sink;

static uint64_t planned_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    return store_write_need(((const planned_sink *)self)->plan->layout, tensor, row_count);
}

ckpt_code pipeline_tile_bytes(const job_plan *plan, uint64_t *out, ckpt_error *err)
{
    static const sink_ops ops = { NULL, NULL, planned_need, NULL };
    const planned_sink sink = { { &ops }, plan };
    convert_pipeline p = { .tap = NULL };
    job_result digests = { .digest = NULL };
    const ckpt_code code = pipeline_make(plan, NULL, &digests, &p, err);

    if (code == CKPT_OK)
        *out = copy_tile_need(p.written, &sink.base);
    pipeline_free(&p);
    job_result_release(&digests);
    return code;
}
