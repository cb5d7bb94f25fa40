/* The target of a conversion: files and positions. */
#include <string.h>

#include "convert_plan.h"
#include "formats/notes.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

/* Assign each input's tensors to files: the source's files under their names. */
static ckpt_code keep_files(job_plan *plan, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < plan->source->store->file_count && code == CKPT_OK; i++) {
        const store_file *from = &plan->source->store->files[i];
        uint32_t number;

        if ((code = store_add_file(plan->store, from->name, &number, err)) != CKPT_OK)
            break;
        if (from->metadata != NULL &&
            (plan->store->files[number].metadata = strdup(from->metadata)) == NULL)
            code = ckpt_fail_memory(err, "metadata", strlen(from->metadata));
    }
    return code;
}

/* Files are filled up to this size; 0: as in the source. */
static uint64_t find_limit(const job_plan *plan)
{
    return plan->options.file_bytes_max != 0 ? plan->options.file_bytes_max
                                             : plan->options.format->file_bytes;
}

/* Assign new file numbers: a new file where the source (and its file) changes, or one is full. */
static uint32_t number_files(job_plan *plan)
{
    const uint64_t limit = plan->options.file_bytes_max;
    const size_t count = ckpt_catalog_count(plan->targets);
    uint64_t used_bytes = 0;
    uint32_t file = 0;

    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *from = ckpt_catalog_at(plan->picked->catalog, i);
        const uint64_t bytes = ckpt_tensor_bytes(ckpt_catalog_at(plan->targets, i));
        int fresh = 0;

        if (i > 0 && limit != 0)
            fresh = used_bytes > 0 && bytes > limit - size_min(limit, used_bytes);
        else if (i > 0)
            fresh = from->file != ckpt_catalog_at(plan->picked->catalog, i - 1)->file ||
                    plan->origins[i] != plan->origins[i - 1];
        if (fresh) {
            file++;
            used_bytes = 0;
        }
        used_bytes += bytes;
        catalog_edit(plan->targets, i)->file = file;
    }
    return file + 1;
}

/* Use the files of the official release; 0 if a tensor is not in it. */
static uint32_t number_officially(job_plan *plan)
{
    const ckpt_catalog *official = plan->source->official;
    uint32_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        ckpt_tensor *t = catalog_edit(plan->targets, i);
        const int64_t o = official == NULL ? CKPT_NOT_FOUND : ckpt_catalog_find(official, t->name);

        if (o < 0)
            return 0;
        t->file = ckpt_catalog_at(official, (size_t)o)->file;
        count = t->file >= count ? t->file + 1 : count;
    }
    return count;
}

/* A size meant in GB but given in bytes makes one file per tensor. */
static ckpt_code check_limit(job_plan *plan, uint32_t file_count, ckpt_error *err)
{
    enum { FILES_MAX = 1000 };
    const uint64_t limit = plan->options.file_bytes_max;
    size_t larger = 0;

    if (limit == 0)
        return CKPT_OK;
    if (file_count > FILES_MAX && !plan->options.many_files)
        return ckpt_fail(err, CKPT_E_USAGE, "--max-shard-size %llu makes %u files, more than %d: "
                         "use a larger size or add --many-files", (unsigned long long)limit,
                         file_count, FILES_MAX);
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        larger += ckpt_tensor_bytes(ckpt_catalog_at(plan->targets, i)) > limit;
    if (larger == 0)
        return CKPT_OK;
    return note_add(&plan->notes, err, "%s larger than --max-shard-size: each gets a separate file",
                    text_count(larger, "tensor is", "tensors are").text);
}

static ckpt_code add_numbered_files(job_plan *plan, ckpt_error *err)
{
    uint32_t count = 0;

    if (find_limit(plan) == 0)
        count = number_officially(plan);
    if (count == 0) {
        ckpt_code code;

        if (plan->options.format->file_bytes == 0)
            count = number_files(plan);
        else if ((code = convert_number_blocks(plan->targets, find_limit(plan), &count, err)) !=
                 CKPT_OK)
            return code;
        if ((code = check_limit(plan, count, err)) != CKPT_OK)
            return code;
    }
    return format_add_files(plan->options.format, plan->store, count, err);
}

/* Copies go into the files of their originals when files are renumbered. */
static void place_copies(job_plan *plan)
{
    for (size_t i = 0; i < plan->layout->count; i++) {
        const layout_extent *e = &plan->layout->extents[i];

        if (e->copy)
            catalog_edit(plan->store->catalog, e->stored)->file =
                ckpt_catalog_at(plan->targets, e->logical)->file;
    }
}

static ckpt_code lay_out_files(job_plan *plan, const map_write_input *input, ckpt_error *err)
{
    const int anew = plan->fill != NULL || find_limit(plan) != 0 || !convert_keeps_layout(plan);
    ckpt_code code = anew ? add_numbered_files(plan, err) : keep_files(plan, err);

    if (code == CKPT_OK && anew)
        code = convert_keep_metadata(plan, err);
    if (code == CKPT_OK)
        code = map_write(input, plan->store->catalog, &plan->layout, err);
    if (code == CKPT_OK && anew)
        place_copies(plan);
    plan->with_index = plan->source->has_index || anew;
    return code;
}

/* Make keys by the map, pieces by the format, and logical tensors in pieces by both. */
static ckpt_code lay_out_pieces(job_plan *plan, const map_write_input *input, ckpt_error *err)
{
    ckpt_catalog *keys = catalog_create();
    ckpt_layout *outer = NULL;
    ckpt_code code;

    if (keys == NULL)
        return ckpt_fail_memory(err, "a plan", 0);
    if ((code = map_write(input, keys, &outer, err)) != CKPT_OK) {
        catalog_free(keys);
        return code;
    }
    if (plan->source->config != NULL)
        plan->options.sharding.config = json_root(plan->source->config);
    code = plan->options.format->split(plan->store, keys, plan->map, &plan->options.sharding, err);
    if (code == CKPT_OK)
        code = convert_keep_metadata(plan, err);
    if (code == CKPT_OK)
        code = layout_compose(outer, plan->store->pieces, &plan->layout, err);
    if (code == CKPT_OK)
        code = layout_seal(plan->layout, err);
    layout_free(outer);
    return code;
}

format_target job_plan_target(const job_plan *plan)
{
    return (format_target){
        .with_index = plan->with_index,
        .config = plan->source->config == NULL ? NULL : json_root(plan->source->config),
        .config_name = checkpoint_config_name(plan->source),
        .config_text = plan->config_text,
        .map = plan->map,
        .targets = plan->targets,
        .sharding = &plan->options.sharding,
        .folder = plan->source->place.folder,
        .files = &plan->source->extras,
        .will_have_root = !plan->options.no_digest,
        .without_tokenizer = plan->options.without_tokenizer,
    };
}

static ckpt_code lay_out_new(job_plan *plan, ckpt_error *err)
{
    const int same_names = strcmp(plan->map->names, ckpt_names_style(plan->source)) == 0 &&
                           !plan->options.open.keep_copies;
    const map_write_input input = { plan->map, plan->targets,
                                    same_names && plan->source->store->pieces == NULL
                                        ? plan->source->reading.layout
                                        : NULL };
    const ckpt_code code = plan->options.format->split == NULL
                               ? lay_out_files(plan, &input, err)
                               : lay_out_pieces(plan, &input, err);
    const format_target target = job_plan_target(plan);

    return code == CKPT_OK ? plan->options.format->lay_out(plan->store, &target, err) : code;
}

ckpt_code convert_lay_out(job_plan *plan, ckpt_error *err)
{
    return plan->like != NULL ? convert_lay_out_like(plan, err) : lay_out_new(plan, err);
}
