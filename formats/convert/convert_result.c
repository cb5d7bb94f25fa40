/* What a conversion did, as plain data for its report. */
#include <stdlib.h>
#include <string.h>

#include "config_rewrite.h"
#include "convert_private.h"
#include "libckpt/digest.h"

static uint64_t store_bytes(const ckpt_store *store)
{
    uint64_t total = 0;

    for (size_t i = 0; i < store->file_count; i++)
        total += store->files[i].size_bytes;
    return total;
}

/* Values that were rounded, as far as this run wrote them. */
static uint64_t count_rounded(const convert_job *job)
{
    uint64_t total = 0;

    for (size_t i = 0; job->stats != NULL && i < ckpt_catalog_count(job->targets); i++)
        total += job->stats[i].inexact;
    return total;
}

/* Tensors with other values than the source's, whoever wrote them. */
static size_t count_changed(const convert_job *job)
{
    size_t total = 0;

    for (size_t i = 0; job->written_digest != NULL && i < ckpt_catalog_count(job->targets); i++) {
        const hash128 before = digest_get(job->digest, i);
        const hash128 after = digest_get(job->written_digest, i);

        total += memcmp(&before, &after, sizeof after) != 0;
    }
    return total;
}

static const char *file_action(const convert_job *job, const char *name)
{
    if (strcmp(name, CONFIG_INFERENCE_FILE) == 0)
        return job->inference_text != NULL ? "written" : job->like != NULL ? "copied" : "edited";
    return strcmp(name, "config.json") == 0 ? "edited" : "copied";
}

static ckpt_code fill_files(convert_job *job, ckpt_outcome *out, ckpt_error *err)
{
    const ckpt_checkpoint *source = job->source;
    const size_t name_count = source->store->file_count;
    const size_t file_count = job->written.count + source->unread.count;

    free(job->source_names);
    free(job->other_files);
    job->source_names = calloc(name_count + 1, sizeof *job->source_names);
    job->other_files = calloc(file_count + 1, sizeof *job->other_files);
    if (job->source_names == NULL || job->other_files == NULL)
        return ckpt_fail_memory(err, "an outcome", name_count + file_count);
    for (size_t i = 0; i < name_count; i++)
        job->source_names[i] = source->store->files[i].name;
    for (size_t i = 0; i < job->written.count; i++) {
        job->other_files[i].name = job->written.names[i];
        job->other_files[i].action = file_action(job, job->written.names[i]);
    }
    for (size_t i = 0; i < source->unread.count; i++)
        job->other_files[job->written.count + i] =
            (outcome_file){ source->unread.names[i], "left out" };
    out->file_names = job->source_names;
    out->file_name_count = name_count;
    out->files = job->other_files;
    out->file_count = file_count;
    return CKPT_OK;
}

static void fill_sides(const convert_job *job, ckpt_outcome *out)
{
    const ckpt_checkpoint *source = job->source;

    out->family = ckpt_family_name(source);
    out->source = (outcome_side){ job->options.source, ckpt_layout_name(source),
                                  ckpt_names_style(source), source->store->file_count,
                                  store_bytes(source->store) };
    out->target = (outcome_side){ job->options.target, job->options.format->name,
                                  ckpt_names_style(job->like != NULL ? job->like : source),
                                  job->store->file_count, job->out_bytes };
    if (job->map != NULL)
        out->target.names = job->map->names;
    out->tensor_bytes = job->in_bytes;
    out->stored = store_names(source->store);
    out->fates = source->reading.fates;
    out->source_logical = source->reading.logical;
    out->drops = job->drops;
    out->drop_count = job->drop_count;
    out->target_logical = job->targets;
    out->origins = job->origins;
    out->config = job->config_text;
    out->notes = (const char *const *)job->notes.names;
    out->note_count = job->notes.count;
}

static void fill_values(const convert_job *job, ckpt_outcome *out)
{
    const int is_known = job->root[0] != '\0';

    out->seconds = job->seconds;
    out->stats = job->stats;
    out->kept = job->kept;
    out->kept_count = job->kept_count;
    out->repaired_count = job->repaired_count;
    out->has_others = job->kept_count > 0 || job->share != NULL;
    out->rounded = count_rounded(job);
    out->changed_count = count_changed(job);
    out->digest = job->written_digest != NULL ? job->written_digest : job->digest;
    out->root = is_known ? job->root : NULL;
    out->main_root = is_known ? job->main_root : NULL;
    out->source_root = is_known ? job->source_root : NULL;
    out->source_main_root = is_known ? job->source_main_root : NULL;
}

ckpt_code convert_outcome(convert_job *job, ckpt_outcome *out, ckpt_error *err)
{
    *out = (ckpt_outcome){ .version = CKPT_VERSION };
    fill_sides(job, out);
    fill_values(job, out);
    return fill_files(job, out, err);
}
