/*
 * The scales of activations beside the NVFP4 weights of a conversion. A weight keeps the one that
 * it has in its input. The others get that of --input-scale; without it, with --like, that of the
 * original; else 1.
 *
 * They are numbers of a calibration, which the weights do not tell. Servers give both weights of a
 * gate, and some kernels all experts of a layer, the largest of theirs (vLLM, SGLang), so that w1
 * and w3 may have two.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert_plan.h"
#include "formats/notes.h"
#include "libckpt/scale.h"
#include "libckpt/text.h"

#define WEIGHT_ENDING ".weight"
#define INPUT_SCALE_ENDING ".input_scale"

/* Weights of one kind, for notes and errors. */
typedef struct {
    size_t count;
    size_t first;
} weights;

static void count_weight(weights *w, size_t i)
{
    w->first = w->count++ == 0 ? i : w->first;
}

static int lacks_scale(const job_plan *plan, size_t i)
{
    return ckpt_catalog_at(plan->targets, i)->has_input_scale &&
           !ckpt_catalog_at(plan->picked->catalog, i)->has_input_scale;
}

/* ---- a calibration ---- */

/* A weight with a scale of activations. That of compressed-tensors is the inverse of it. */
static int has_scale(const ckpt_tensor *t)
{
    return t->has_input_scale && t->tensor_scale == CKPT_TENSOR_SCALE_FACTOR;
}

/* The first scale that it holds, or the weight that has it; NULL: none. */
static const char *first_scale(const ckpt_catalog *calibration)
{
    for (size_t i = 0; i < ckpt_catalog_count(calibration); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(calibration, i);

        if (has_scale(t) || text_ends_with(t->name, INPUT_SCALE_ENDING))
            return t->name;
    }
    return NULL;
}

/* The tensor X.input_scale for a weight X.weight. */
static int64_t find_beside(const ckpt_catalog *calibration, const char *weight)
{
    char name[MAP_NAME_BYTES];

    if (weight == NULL || !text_ends_with(weight, WEIGHT_ENDING) ||
        snprintf(name, sizeof name, "%.*s%s", (int)(strlen(weight) - strlen(WEIGHT_ENDING)), weight,
                 INPUT_SCALE_ENDING) >= MAP_NAME_BYTES)
        return CKPT_NOT_FOUND;
    return ckpt_catalog_find(calibration, name);
}

/* Under which names a calibration may know the weight: canonical, of the result, of its input. */
static int64_t find_loose(const job_plan *plan, const ckpt_catalog *calibration, size_t i)
{
    const char *name = ckpt_catalog_at(plan->targets, i)->name;
    const ckpt_checkpoint *input = plan->origins[i] == NULL ? plan->source : plan->fill;
    const int64_t own = ckpt_catalog_find(input->reading.logical, name);
    const char *names[] = {
        name, convert_stored_name(plan->layout, i),
        own < 0 ? NULL : convert_stored_name(input->layout, (size_t)own)
    };
    int64_t found = CKPT_NOT_FOUND;

    for (size_t n = 0; n < sizeof names / sizeof *names && found < 0; n++)
        found = find_beside(calibration, names[n]);
    return found;
}

static ckpt_code check_form(const ckpt_tensor *t, const char *path, ckpt_error *err)
{
    char shape[256];

    if (t->dtype == CKPT_F32 && t->scale_dtype == CKPT_NONE && t->rank <= 1 &&
        ckpt_tensor_cols(t) == 1)
        return CKPT_OK;
    catalog_shape_text(t, shape, sizeof shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "--input-scale '%s': '%s' is %s %s, expected F32 [] or "
                     "[1]", path, t->name, ckpt_dtype_name(t->dtype), shape);
}

/* *is_there: 0 if the calibration has no scale for target i. */
static ckpt_code read_scale(const job_plan *plan, size_t i, float *out, int *is_there,
                            ckpt_error *err)
{
    const char *path = plan->options.input_scales;
    const ckpt_catalog *calibration = plan->calibration->reading.logical;
    int64_t at = ckpt_catalog_find(calibration, ckpt_catalog_at(plan->targets, i)->name);
    ckpt_part part = CKPT_INPUT_SCALE;
    ckpt_code code;

    if (at < 0 || !has_scale(ckpt_catalog_at(calibration, (size_t)at))) {
        at = find_loose(plan, calibration, i);
        part = CKPT_DATA;
    }
    *is_there = at >= 0;
    if (at < 0)
        return CKPT_OK;
    if ((part == CKPT_DATA &&
         (code = check_form(ckpt_catalog_at(calibration, (size_t)at), path, err)) != CKPT_OK) ||
        (code = ckpt_source_read(ckpt_logical(plan->calibration), (size_t)at, part, 0, 1, out,
                                 err)) != CKPT_OK)
        return code;
    return scale_is_fit(*out)
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_FORMAT, "--input-scale '%s': the scale of the activations "
                           "of '%s' is %.9g, expected a finite number above 0", path,
                           ckpt_catalog_at(plan->targets, i)->name, (double)*out);
}

/* Without any of them it may have them by other names, such as `has`. */
static ckpt_code fail_missing(const job_plan *plan, const weights *missing, size_t all,
                              const char *has, ckpt_error *err)
{
    const char *path = plan->options.input_scales;
    const char *first = ckpt_catalog_at(plan->targets, missing->first)->name;
    const text_counted needed = text_count(all, "weight", "weights");

    if (missing->count == all)
        return ckpt_fail(err, CKPT_E_USAGE, "--input-scale '%s' has no input_scale for any of the "
                         "%s that need one, the first is '%s', but has '%s': rename its tensors, "
                         "or give a number for all", path, needed.text, first, has);
    return ckpt_fail(err, CKPT_E_USAGE, "--input-scale '%s' has no input_scale for %zu of the %s "
                     "that need one, the first is '%s': calibrate them too, or give a number for "
                     "all", path, missing->count, needed.text, first);
}

static ckpt_code take_calibration(job_plan *plan, ckpt_error *err)
{
    const char *path = plan->options.input_scales;
    const char *has = first_scale(plan->calibration->reading.logical);
    weights taken = { 0, 0 };
    weights missing = { 0, 0 };
    ckpt_code code = CKPT_OK;

    if (has == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "--input-scale '%s': no tensor in it is the scale of "
                         "activations, expected X%s as Model-Optimizer writes them; or give a "
                         "number", path, INPUT_SCALE_ENDING);
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets) && code == CKPT_OK; i++) {
        int is_there;

        if (!lacks_scale(plan, i))
            continue;
        code = read_scale(plan, i, &plan->input_scales[i], &is_there, err);
        count_weight(is_there ? &taken : &missing, i);
    }
    if (code != CKPT_OK || (code = checkpoint_check_unchanged(plan->calibration, err)) != CKPT_OK)
        return code;
    if (missing.count > 0)
        return fail_missing(plan, &missing, taken.count + missing.count, has, err);
    return note_add(&plan->notes, err, "%s input_scale from '%s', the first is '%s'",
                    text_count(taken.count, "weight has its", "weights have their").text, path,
                    ckpt_catalog_at(plan->targets, taken.first)->name);
}

/* ---- without one ---- */

static ckpt_code take_original(const job_plan *plan, size_t i, int *is_there, ckpt_error *err)
{
    const ckpt_source *like = plan->like == NULL ? NULL : ckpt_logical(plan->like);
    const int64_t at = like == NULL ? CKPT_NOT_FOUND
                                    : ckpt_catalog_find(like->catalog,
                                                        ckpt_catalog_at(plan->targets, i)->name);

    *is_there = at >= 0 && ckpt_catalog_at(like->catalog, (size_t)at)->has_input_scale;
    return *is_there ? ckpt_source_read(ckpt_logical(plan->like), (size_t)at, CKPT_INPUT_SCALE, 0,
                                        1, &plan->input_scales[i], err)
                     : CKPT_OK;
}

static ckpt_code take_others(job_plan *plan, ckpt_error *err)
{
    weights ones = { 0, 0 };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets) && code == CKPT_OK; i++) {
        int is_there = plan->options.input_scale != 0;

        if (!lacks_scale(plan, i))
            continue;
        plan->input_scales[i] = is_there ? plan->options.input_scale : 1;
        if (!is_there)
            code = take_original(plan, i, &is_there, err);
        if (!is_there)
            count_weight(&ones, i);
    }
    if (code != CKPT_OK || ones.count == 0)
        return code;
    return note_add(&plan->notes, err, "%s an input_scale of 1, the first is '%s': give what a "
                    "calibration found with --input-scale",
                    text_count(ones.count, "weight has", "weights have").text,
                    ckpt_catalog_at(plan->targets, ones.first)->name);
}

ckpt_code convert_take_input_scales(job_plan *plan, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(plan->targets);
    size_t lacking = 0;
    ckpt_code code;

    for (size_t i = 0; i < count; i++)
        lacking += (size_t)lacks_scale(plan, i);
    if (lacking == 0 && (plan->calibration != NULL || plan->options.input_scale != 0))
        return ckpt_fail(err, CKPT_E_USAGE, "--input-scale: no weight of the result needs one: "
                         "they keep those of '%s', or have none%s%s%s: leave it out",
                         plan->options.source, plan->like == NULL ? "" : ", as in '",
                         plan->like == NULL ? "" : plan->options.like,
                         plan->like == NULL ? "" : "'");
    if (lacking == 0)
        return CKPT_OK;
    if ((plan->input_scales = calloc(count, sizeof *plan->input_scales)) == NULL)
        return ckpt_fail_memory(err, "scales", count);
    code = plan->calibration != NULL ? take_calibration(plan, err) : take_others(plan, err);
    ckpt_close(plan->calibration);          /* that of a release takes much memory */
    plan->calibration = NULL;
    return code;
}
