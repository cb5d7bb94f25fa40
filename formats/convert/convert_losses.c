/* Measures what quantising lost in each tensor and compares it with the limits. */
#include <stdlib.h>

#include "convert_private.h"

#include "libckpt/text.h"

/* ---- tensors of an earlier run ---- */

typedef struct {
    ckpt_sink base;
    const job_plan *plan;
    const uint8_t *kept;
} nowhere;

static int nowhere_wants(const ckpt_sink *self, size_t tensor)
{
    const nowhere *n = (const nowhere *)self;

    return n->kept[tensor] && n->plan->rules[tensor] != NULL;
}

/*
 * The journal does not record what tensors of an earlier run lost. Quantise them again without
 * writing: otherwise a resumed run could not check its limits.
 */
static ckpt_code measure_kept(const job_plan *plan, job_result *result, ckpt_error *err)
{
    static const sink_ops ops = { nowhere_wants, sink_put_nothing, NULL, NULL };
    const ckpt_run_options copy = pipeline_run_options(plan);
    const encode_options encode = pipeline_encode_options(plan);
    nowhere to = { { &ops }, plan, result->kept };
    ckpt_source *encoded = NULL;
    ckpt_code code;

    if ((code = source_encode(plan->picked, plan->targets, &encode, &encoded, err)) != CKPT_OK)
        return code;
    code = ckpt_copy(encoded, &to.base, &copy, err);
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        if (nowhere_wants(&to.base, i)) {
            result->losses[i] = *source_encode_loss(encoded, i);
            result->stats[i] = source_encode_stats(encoded, i);
        }
    ckpt_source_free(encoded);
    return code;
}

/* ---- the limits ---- */

static ckpt_code check_limits(const job_plan *plan, const job_result *result, ckpt_error *err)
{
    const class_limits *limits = &plan->options.max_relf;
    double worst_excess = 1;
    double worst_error = 0;
    double worst_limit = 0;
    size_t worst = 0;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets) && limits->is_given; i++) {
        const double error = quantise_loss_relative(&result->losses[i]);
        const double most = class_limits_find(limits, ckpt_catalog_at(plan->targets, i)->name);

        if (plan->rules[i] == NULL || error <= most)
            continue;
        if (count++ == 0 || error / most > worst_excess) {
            worst_excess = error / most;
            worst_error = error;
            worst_limit = most;
            worst = i;
        }
    }
    if (count == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_INEXACT,
                     "tensor '%s': %s loses %.4g of it (relative error), more than --max-relf "
                     "%.4g; %s too much",
                     ckpt_catalog_at(plan->targets, worst)->name, plan->rules[worst]->name,
                     worst_error, worst_limit,
                     text_count(count, "tensor loses", "tensors lose").text);
}

ckpt_code convert_take_losses(const job_plan *plan, const convert_pipeline *p, job_result *result,
                              ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(plan->targets);
    ckpt_code code = CKPT_OK;

    if (plan->rules == NULL)
        return CKPT_OK;
    if ((result->losses = calloc(count + 1, sizeof *result->losses)) == NULL)
        return ckpt_fail_memory(err, "statistics", count);
    for (size_t i = 0; i < count; i++)
        result->losses[i] = *source_encode_loss(p->encoded, i);
    if (result->kept_count > 0)
        code = measure_kept(plan, result, err);
    if (code == CKPT_OK)
        code = check_limits(plan, result, err);
    result->is_refused |= code == CKPT_E_INEXACT;
    return code;
}
