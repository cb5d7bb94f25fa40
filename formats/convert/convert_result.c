/* The result of a conversion as plain data for its report. */
#include "convert_result.h"

#include <stdlib.h>
#include <string.h>

#include "config_rewrite.h"
#include "formats/config_scheme.h"
#include "libckpt/digest.h"

static uint64_t store_bytes(const ckpt_store *store)
{
    uint64_t total = 0;

    for (size_t i = 0; i < store->file_count; i++)
        total += store->files[i].size_bytes;
    return total;
}

/* Number of rounded values written by this run. */
static uint64_t count_rounded(const job_result *result, const job_plan *plan)
{
    uint64_t total = 0;

    for (size_t i = 0; result->stats != NULL && i < ckpt_catalog_count(plan->targets); i++)
        total += result->stats[i].inexact;
    return total;
}

/* Number of tensors whose values differ from the source's, written by any run. */
static size_t count_changed(const job_result *result, const job_plan *plan)
{
    size_t total = 0;

    if (result->written_digest == NULL)
        return 0;
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const hash128 before = digest_get(result->digest, i);
        const hash128 after = digest_get(result->written_digest, i);

        total += memcmp(&before, &after, sizeof after) != 0;
    }
    return total;
}

static const char *file_action(const job_plan *plan, const char *name)
{
    if (strcmp(name, CONFIG_INFERENCE_FILE) == 0)
        return plan->inference_text != NULL ? "written" : plan->like != NULL ? "copied" : "edited";
    if (strcmp(name, CONFIG_MODELOPT_FILE) == 0 && plan->modelopt_text != NULL)
        return "written";
    return strcmp(name, "config.json") == 0 ? "edited" : "copied";
}

static ckpt_code fill_files(job_result *result, const job_plan *plan, const file_list *others,
                            ckpt_outcome *out, ckpt_error *err)
{
    const ckpt_checkpoint *source = plan->source;
    const size_t name_count = source->store->file_count;
    const size_t file_count = others->count + source->unread.count;

    free(result->source_names);
    free(result->other_files);
    result->source_names = calloc(name_count + 1, sizeof *result->source_names);
    result->other_files = calloc(file_count + 1, sizeof *result->other_files);
    if (result->source_names == NULL || result->other_files == NULL)
        return ckpt_fail_memory(err, "an outcome", name_count + file_count);
    for (size_t i = 0; i < name_count; i++)
        result->source_names[i] = source->store->files[i].name;
    for (size_t i = 0; i < others->count; i++) {
        result->other_files[i].name = others->names[i];
        result->other_files[i].action = file_action(plan, others->names[i]);
    }
    for (size_t i = 0; i < source->unread.count; i++)
        result->other_files[others->count + i] =
            (outcome_file){ source->unread.names[i], "left out" };
    out->file_names = result->source_names;
    out->file_name_count = name_count;
    out->files = result->other_files;
    out->file_count = file_count;
    return CKPT_OK;
}

static void fill_sides(const job_plan *plan, ckpt_outcome *out)
{
    const ckpt_checkpoint *source = plan->source;

    out->family = ckpt_family_name(source);
    out->source = (outcome_side){ plan->options.source, ckpt_layout_name(source),
                                  ckpt_names_style(source), source->store->file_count,
                                  store_bytes(source->store) };
    out->target = (outcome_side){ plan->options.target, plan->options.format->name,
                                  ckpt_names_style(plan->like != NULL ? plan->like : source),
                                  plan->store->file_count, plan->out_bytes };
    if (plan->map != NULL)
        out->target.names = plan->map->names;
    out->tensor_bytes = plan->in_bytes;
    out->stored = store_names(source->store);
    out->fates = source->reading.fates;
    out->source_logical = source->reading.logical;
    out->drops = plan->drops;
    out->drop_count = plan->drop_count;
    out->target_logical = plan->targets;
    out->origins = plan->origins;
    out->config = plan->config_text;
    out->notes = (const char *const *)plan->notes.names;
    out->note_count = plan->notes.count;
}

static void fill_values(const job_result *result, const job_plan *plan, ckpt_outcome *out)
{
    const int is_known = result->root[0] != '\0';

    out->seconds = result->seconds;
    out->stats = result->stats;
    out->rules = plan->rules;
    out->losses = result->losses;
    out->kept = result->kept;
    out->kept_count = result->kept_count;
    out->repaired_count = result->repaired_count;
    /* What rules rounded in an earlier run was measured again: convert_losses.c. */
    out->has_others = plan->share != NULL ||
                      (result->kept_count > 0 &&
                       (plan->rules == NULL || plan->options.allow_lossy));
    out->rounded = count_rounded(result, plan);
    out->changed_count = count_changed(result, plan);
    out->digest = result->written_digest != NULL ? result->written_digest : result->digest;
    out->root = is_known ? result->root : NULL;
    out->main_root = is_known ? result->main_root : NULL;
    out->source_root = is_known ? result->source_root : NULL;
    out->source_main_root = is_known ? result->source_main_root : NULL;
}

ckpt_code job_result_tell(job_result *result, const job_plan *plan, const file_list *others,
                          ckpt_outcome *out, ckpt_error *err)
{
    *out = (ckpt_outcome){ .version = CKPT_VERSION };
    fill_sides(plan, out);
    fill_values(result, plan, out);
    return fill_files(result, plan, others, out, err);
}

ckpt_code job_result_take_roots(job_result *result, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (result->digest != NULL &&
        (code = ckpt_digest_root(result->digest, 0, result->root, err)) == CKPT_OK)
        code = ckpt_digest_root(result->digest, 1, result->main_root, err);
    memcpy(result->source_root, result->root, sizeof result->root);
    memcpy(result->source_main_root, result->main_root, sizeof result->main_root);
    return code;
}

void job_result_release(job_result *result)
{
    ckpt_digest_free(result->digest);
    ckpt_digest_free(result->written_digest);
    ckpt_digest_free(result->encoded_digest);
    free(result->stats);
    free(result->losses);
    free(result->kept);
    free(result->source_names);
    free(result->other_files);
}
