/* Notes on a conversion: for the terminal, --json and the report. */
#include <string.h>

#include "convert_plan.h"
#include "libckpt/digest.h"
#include "libckpt/encoding.h"
#include "formats/hf.h"
#include "formats/notes.h"
#include "formats/tokenizer_files.h"
#include "libckpt/text.h"

/* Does --fill-from supply a block that the source lacks? */
static int fills_mtp(const job_plan *plan)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->picked->catalog); i++)
        if (plan->origins[i] != NULL &&
            digest_is_mtp(ckpt_catalog_at(plan->picked->catalog, i)->name))
            return 1;
    return 0;
}

/* Notes from opening the source that are still true. */
static ckpt_code take_source(job_plan *plan, ckpt_error *err)
{
    const file_list *notes = &plan->source->notes;
    const int has_mtp = fills_mtp(plan);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < notes->count && code == CKPT_OK; i++)
        if (!has_mtp || strcmp(notes->names[i], CHECKPOINT_NO_MTP) != 0)
            code = note_add(&plan->notes, err, "%s", notes->names[i]);
    return code;
}

static ckpt_code take_filled(job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *picked = plan->picked->catalog;
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(picked); i++) {
        if (plan->origins[i] == NULL)
            continue;
        count++;
        if (first == NULL)
            first = ckpt_catalog_at(picked, i)->name;
    }
    if (count == 0)
        return note_add(&plan->notes, err, "nothing was taken from '%s': '%s' has all tensors",
                        plan->options.fill_from, plan->options.source);
    return note_add(&plan->notes, err, "%s from '%s', the first is '%s'",
                    text_count(count, "tensor comes", "tensors come").text, plan->options.fill_from,
                    first);
}

/* What trainers store beside the weights; the reason is that of the maps. The report has the rest
 * that is left out by name: states of modules and of the run, which have no values to lose. */
static ckpt_code take_optimizer(job_plan *plan, ckpt_error *err)
{
    const map_reading *reading = &plan->source->reading;
    const ckpt_catalog *stored = store_names(plan->source->store);
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        if (reading->fates[i].kind != FATE_DROPPED ||
            strcmp(reading->fates[i].reason, "optimizer state") != 0)
            continue;
        count++;
        if (first == NULL)
            first = ckpt_catalog_at(stored, i)->name;
    }
    if (count == 0)
        return CKPT_OK;
    return note_add(&plan->notes, err, "%s left out: optimizer state, the first is '%s'",
                    text_count(count, "stored tensor is", "stored tensors are").text, first);
}

/* --dtype concerns quantised weights: F16 tensors are not changed. */
static ckpt_code take_halves(job_plan *plan, ckpt_error *err)
{
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (t->dtype != CKPT_F16)
            continue;
        count++;
        if (first == NULL)
            first = t->name;
    }
    if (count == 0 || plan->like != NULL ||
        (plan->options.policy.dtype == PLAN_KEEP && plan->options.policy.experts == PLAN_KEEP))
        return CKPT_OK;
    return note_add(&plan->notes, err,
                    "%s not converted, the first is '%s': only quantised weights "
                    "and BF16 are",
                    text_count(count, "tensor is F16 and is", "tensors are F16 and are").text,
                    first);
}

/* Experts stacked in one tensor have no number in their name. */
static ckpt_code take_no_experts(job_plan *plan, ckpt_error *err)
{
    if (plan->like != NULL || plan->options.policy.experts == plan->options.policy.dtype)
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        if (plan_is_expert(ckpt_catalog_at(plan->targets, i)->name))
            return CKPT_OK;
    return note_add(&plan->notes, err, "no tensor is a numbered expert ('experts.0.'): --experts "
                    "has no effect, and --dtype applies to all weights");
}

/* A tokenizer in the keys of a GGUF file is not written as files. */
static ckpt_code take_tokenizer(job_plan *plan, ckpt_error *err)
{
    if (!plan->source->has_vocabulary || plan->options.format->read_vocabulary != NULL ||
        file_list_has(&plan->source->extras, TOKENIZER_FILE))
        return CKPT_OK;
    return note_add(&plan->notes, err, "the tokenizer in '%s' is not written: put tokenizer.json "
                    "and what belongs to it beside the weights", plan->options.source);
}

/* Scales beside blocks that the program for which GGUF is written leaves out of its products. */
static ckpt_code take_scaled_blocks(job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (t->stored_form != CKPT_FORM_APART && t->tensor_scale != CKPT_TENSOR_SCALE_NONE)
            return note_add(&plan->notes, err, "weights are NVFP4, the first is '%s': llama.cpp "
                            "of October 2026 loads the scales beside their blocks, but its graph "
                            "of this model does not multiply by them, and its results are wrong; "
                            "FP4 as released (MXFP4) is right", t->name);
    }
    return CKPT_OK;
}

/* Of a model without a known family nothing says what its config may tell (config_rewrite.c). */
static ckpt_code take_untold_fp4(job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; plan->rules != NULL && plan->source->family == NULL &&
                       plan->options.format == &format_hf && plan->like == NULL &&
                       i < ckpt_catalog_count(plan->targets); i++)
        if (plan->rules[i] != NULL &&
            encoding_is(ckpt_catalog_at(plan->targets, i), ENCODING_FP4_32))
            return note_add(&plan->notes, err, "weights are FP4, the first is '%s': quantization_"
                            "config has no words for it, and servers take its codes for FP8",
                            ckpt_catalog_at(plan->targets, i)->name);
    return CKPT_OK;
}

const char *convert_stored_name(const ckpt_layout *layout, size_t tensor)
{
    const layout_extent *e;
    const layout_extent *end;

    layout_extents(layout, tensor, CKPT_DATA, &e, &end);
    return e < end ? ckpt_catalog_at(layout->stored, e->stored)->name : NULL;
}

static int is_same_map(const ckpt_map *a, const ckpt_map *b)
{
    return strcmp(a->family, b->family) == 0 && strcmp(a->names, b->names) == 0 &&
           strcmp(a->prefix == NULL ? "" : a->prefix, b->prefix == NULL ? "" : b->prefix) == 0;
}

/* Refuse a tensor whose new name stands for another one: the copy would have another value root. */
static ckpt_code check_new_name(const job_plan *plan, const char *name, const char *was,
                                const char *is, ckpt_error *err)
{
    char read[MAP_NAME_BYTES] = "";
    map_captures captures;
    const map_rule *rule = map_find_stored(plan->map, is, &captures);

    if (rule != NULL && rule->kind == MAP_TENSOR && rule->piece_count == 1 &&
        (!map_expand(rule->pieces[0].logical, &captures, read) || strcmp(read, name) != 0))
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not of the language model, but "
                         "called as if: it would be written as '%s', which is '%s'; rename it",
                         was, plan->options.source, is, read);
    return CKPT_OK;
}

/* Tensors beside a language model whose names look as if they were inside it get its prefix. */
ckpt_code convert_note_names(job_plan *plan, ckpt_error *err)
{
    const ckpt_checkpoint *source = plan->source;
    const ckpt_catalog *logical = source->layout->logical;
    const char *first[2] = { NULL, NULL };
    size_t count = 0;
    ckpt_code code;

    if (plan->map == NULL || source->format->map_names != NULL ||
        plan->options.format->map_names != NULL || !is_same_map(source->map, plan->map))
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *to = ckpt_catalog_at(plan->targets, i);
        const int64_t from = ckpt_catalog_find(logical, to->name);
        const char *was = from < 0 ? NULL : convert_stored_name(source->layout, (size_t)from);
        const char *is = convert_stored_name(plan->layout, i);

        if (plan->origins[i] != NULL || was == NULL || is == NULL || strcmp(was, is) == 0 ||
            ckpt_catalog_at(logical, (size_t)from)->part_names != to->part_names)
            continue;
        if ((code = check_new_name(plan, to->name, was, is, err)) != CKPT_OK)
            return code;
        if (count++ == 0) {
            first[0] = was;
            first[1] = is;
        }
    }
    return count == 0 ? CKPT_OK
                      : note_add(&plan->notes, err,
                                 "%s written under another name: '%s' became "
                                 "'%s'",
                                 text_count(count, "tensor is", "tensors are each").text, first[0],
                                 first[1]);
}

ckpt_code convert_take_notes(job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    ckpt_code code;

    if ((code = take_source(plan, err)) != CKPT_OK ||
        (plan->like != NULL &&
         (code = note_add_all(&plan->notes, &plan->like->notes, o->like, err)) != CKPT_OK) ||
        (plan->fill != NULL &&
         ((code = note_add_all(&plan->notes, &plan->fill->notes, o->fill_from, err)) != CKPT_OK ||
          (code = take_filled(plan, err)) != CKPT_OK)))
        return code;
    if ((code = take_optimizer(plan, err)) != CKPT_OK ||
        (code = take_no_experts(plan, err)) != CKPT_OK ||
        (code = take_tokenizer(plan, err)) != CKPT_OK ||
        (code = take_scaled_blocks(plan, err)) != CKPT_OK ||
        (code = take_untold_fp4(plan, err)) != CKPT_OK ||
        (code = convert_note_root(plan, err)) != CKPT_OK)
        return code;
    return take_halves(plan, err);
}
