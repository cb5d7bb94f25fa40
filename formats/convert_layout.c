/* The target of a conversion: encodings, names, files, positions. */
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"
#include "hf.h"
#include "size.h"
#include "text.h"

/* ---- targets: encodings and names ---- */

static ckpt_code copy_catalog(const ckpt_catalog *from, ckpt_catalog **out, ckpt_error *err)
{
    ckpt_catalog *copy = catalog_create();
    ckpt_code code = CKPT_OK;

    if (copy == NULL)
        return ckpt_fail_memory(err, "a catalog", ckpt_catalog_count(from));
    for (size_t i = 0; i < ckpt_catalog_count(from) && code == CKPT_OK; i++)
        code = catalog_add(copy, ckpt_catalog_at(from, i), err);
    if (code != CKPT_OK)
        catalog_free(copy);
    else
        *out = copy;
    return code;
}

/* How names as in the source spell a scale: as the map does, unless the source never does. */
static const char *find_scale_suffix(const ckpt_checkpoint *from, const char *own)
{
    static const char *const suffixes[] = { ".scale", ".weight_scale_inv" };
    const ckpt_catalog *stored = store_names(from->store);
    const char *found = own;

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;

        if (from->reading.fates[i].kind != FATE_SCALE)
            continue;
        if (text_ends_with(name, own))
            return own;
        for (size_t s = 0; s < sizeof suffixes / sizeof *suffixes; s++)
            if (text_ends_with(name, suffixes[s]))
                found = suffixes[s];
    }
    return found;
}

/* The map of the target: told, or as in the source where the layout stays. */
static const char *choose_names(const convert_job *job)
{
    const convert_options *o = &job->options;

    if (o->names != NULL)
        return o->names;
    if (o->format->map_names != NULL)
        return o->format->map_names[0];
    return job->source->format->map_names == NULL ? ckpt_names_style(job->source) : "native";
}

/* One file alone is a part of an HF directory. */
static int keeps_layout(const convert_job *job)
{
    const ckpt_format *source = job->source->format;

    return job->options.format == (source == &format_safetensors_file ? &format_hf : source);
}

/* What a layout wants that the policy leaves open: plain dtypes by its map, the word for FP4, and
 * in HF files the integers of the official form. */
static void suit_tensor(const convert_job *job, ckpt_tensor *t)
{
    const ckpt_catalog *official = job->source->official;
    const ckpt_dtype plain = map_find_encode(job->map, t->name);
    const int sharded = job->options.format->map_names != NULL;
    const int64_t o = official == NULL ? CKPT_NOT_FOUND : ckpt_catalog_find(official, t->name);

    if (plain != CKPT_NONE &&
        (ckpt_tensor_is_int(t) || job->options.policy.dtype == PLAN_KEEP)) {
        catalog_set_plain(t, plain);
    } else if (t->dtype == CKPT_F4 && t->scale_dtype != CKPT_NONE) {
        t->stored_dtype = sharded ? CKPT_F4 : CKPT_I8;
    } else if (!sharded && o >= 0 && ckpt_tensor_is_int(t)) {
        t->dtype = ckpt_catalog_at(official, (size_t)o)->dtype;
        t->stored_dtype = t->dtype;
    }
}

static void suit_layout(convert_job *job)
{
    if (keeps_layout(job) && job->map->encode_count == 0)
        return;
    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++)
        suit_tensor(job, catalog_edit(job->targets, i));
}

ckpt_code convert_choose_map(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    ckpt_code code;

    if (o->like != NULL)
        return CKPT_OK;
    if (o->open.map_file != NULL && o->names == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--map needs --names: which names to write");
    code = checkpoint_find_map(ckpt_family_name(job->source), choose_names(job), &job->map, err);
    if (code == CKPT_OK && o->names == NULL && keeps_layout(job))
        job->map->scale_suffix = find_scale_suffix(job->source, job->map->scale_suffix);
    return code;
}

ckpt_code convert_choose_targets(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    ckpt_code code;

    if (job->like != NULL) {
        if (o->format != &format_hf)
            return ckpt_fail(err, CKPT_E_USAGE, "--like goes with the layout hf, not %s",
                             o->format->name);
        if (o->names != NULL || o->policy.dtype != PLAN_KEEP || o->policy.experts != PLAN_KEEP ||
            o->policy.scale_dtype != CKPT_NONE || o->file_bytes_max != 0)
            return ckpt_fail(err, CKPT_E_USAGE,
                             "--like decides names, encodings and files: leave out --names, "
                             "--dtype, --experts, --scale-dtype and --max-shard-size");
        return copy_catalog(job->like->reading.logical, &job->targets, err);
    }
    code = plan_targets(job->picked->catalog, job->source->official, &o->policy, &job->targets,
                        err);
    if (code != CKPT_OK)
        return code;
    suit_layout(job);
    return CKPT_OK;
}

/* ---- files ---- */

/* Where each input's tensors go: the source's files under their names. */
static ckpt_code keep_files(convert_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < job->source->store->file_count && code == CKPT_OK; i++) {
        const store_file *from = &job->source->store->files[i];
        uint32_t number;

        if ((code = store_add_file(job->store, from->name, &number, err)) != CKPT_OK)
            break;
        if (from->metadata != NULL &&
            (job->store->files[number].metadata = strdup(from->metadata)) == NULL)
            code = ckpt_fail_memory(err, "metadata", strlen(from->metadata));
    }
    return code;
}

/* Number the files anew: a new one where the source (and its file) changes, or one is full. */
static uint32_t number_files(convert_job *job)
{
    const uint64_t limit = job->options.file_bytes_max;
    const size_t count = ckpt_catalog_count(job->targets);
    uint64_t used_bytes = 0;
    uint32_t file = 0;

    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *from = ckpt_catalog_at(job->picked->catalog, i);
        const uint64_t bytes = ckpt_tensor_bytes(ckpt_catalog_at(job->targets, i));
        int fresh = 0;

        if (i > 0 && limit != 0)
            fresh = used_bytes > 0 && bytes > limit - size_min(limit, used_bytes);
        else if (i > 0)
            fresh = from->file != ckpt_catalog_at(job->picked->catalog, i - 1)->file ||
                    job->origins[i] != job->origins[i - 1];
        if (fresh) {
            file++;
            used_bytes = 0;
        }
        used_bytes += bytes;
        catalog_edit(job->targets, i)->file = file;
    }
    return file + 1;
}

/* The files of the official release; 0 when a tensor is not of it. */
static uint32_t number_officially(convert_job *job)
{
    const ckpt_catalog *official = job->source->official;
    uint32_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        ckpt_tensor *t = catalog_edit(job->targets, i);
        const int64_t o = official == NULL ? CKPT_NOT_FOUND : ckpt_catalog_find(official, t->name);

        if (o < 0)
            return 0;
        t->file = ckpt_catalog_at(official, (size_t)o)->file;
        count = t->file >= count ? t->file + 1 : count;
    }
    return count;
}

static ckpt_code add_numbered_files(convert_job *job, ckpt_error *err)
{
    uint32_t count = 0;

    if (job->options.file_bytes_max == 0)
        count = number_officially(job);
    if (count == 0)
        count = number_files(job);
    return format_add_files(job->options.format, job->store, count, err);
}

/* Copies go where their originals go when files are numbered anew. */
static void place_copies(convert_job *job)
{
    for (size_t i = 0; i < job->layout->count; i++) {
        const layout_extent *e = &job->layout->extents[i];

        if (e->copy)
            catalog_edit(job->store->catalog, e->stored)->file =
                ckpt_catalog_at(job->targets, e->logical)->file;
    }
}

static ckpt_code lay_out_files(convert_job *job, const map_write_input *input, ckpt_error *err)
{
    const int anew = job->fill != NULL || job->options.file_bytes_max != 0 || !keeps_layout(job);
    ckpt_code code = anew ? add_numbered_files(job, err) : keep_files(job, err);

    if (code == CKPT_OK)
        code = map_write(input, job->store->catalog, &job->layout, err);
    if (code == CKPT_OK && anew)
        place_copies(job);
    job->with_index = job->source->has_index || anew;
    return code;
}

/* Keys by the map, pieces by the format, logical tensors in pieces by both. */
static ckpt_code lay_out_pieces(convert_job *job, const map_write_input *input, ckpt_error *err)
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
    if (job->source->config != NULL)
        job->options.sharding.config = json_root(job->source->config);
    code = job->options.format->split(job->store, keys, job->map, &job->options.sharding, err);
    if (code == CKPT_OK)
        code = layout_compose(outer, job->store->pieces, &job->layout, err);
    if (code == CKPT_OK)
        code = layout_seal(job->layout, err);
    layout_free(outer);
    return code;
}

static ckpt_code lay_out(convert_job *job, ckpt_error *err)
{
    const int same_names = strcmp(job->map->names, ckpt_names_style(job->source)) == 0 &&
                           !job->options.open.keep_copies;
    const map_write_input input = { job->map, job->targets,
                                    same_names && job->source->store->pieces == NULL
                                        ? job->source->reading.layout
                                        : NULL };
    const ckpt_code code = job->options.format->split == NULL
                               ? lay_out_files(job, &input, err)
                               : lay_out_pieces(job, &input, err);

    return code == CKPT_OK ? job->options.format->lay_out(job->store, err) : code;
}

/* ---- --like: the same files, headers and extents ---- */

static ckpt_code copy_header(const store_file *from, store_file *to, ckpt_error *err)
{
    to->size_bytes = from->size_bytes;
    to->header_bytes = from->header_bytes;
    if ((to->header = malloc(from->header_bytes + 1)) == NULL)
        return ckpt_fail_memory(err, "a header", from->header_bytes);
    return file_read_at(from->file, 0, to->header, from->header_bytes, err);
}

static ckpt_code lay_out_like(convert_job *job, ckpt_error *err)
{
    const ckpt_store *like = job->like->store;
    const ckpt_layout *layout = job->like->reading.layout;
    ckpt_code code = CKPT_OK;

    if (job->like->format != &format_hf)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a %s checkpoint, expected an HF directory",
                         job->options.like, ckpt_layout_name(job->like));
    for (size_t i = 0; i < like->file_count && code == CKPT_OK; i++) {
        uint32_t number;

        if ((code = store_add_file(job->store, like->files[i].name, &number, err)) == CKPT_OK)
            code = copy_header(&like->files[i], &job->store->files[number], err);
    }
    for (size_t i = 0; i < ckpt_catalog_count(like->catalog) && code == CKPT_OK; i++)
        code = job->like->reading.fates[i].kind == FATE_DROPPED
                   ? ckpt_fail(err, CKPT_E_USAGE, "'%s' has a tensor '%s' that nothing can fill",
                               job->options.like, ckpt_catalog_at(like->catalog, i)->name)
                   : catalog_add(job->store->catalog, ckpt_catalog_at(like->catalog, i), err);
    if (code != CKPT_OK)
        return code;
    if ((job->layout = layout_create(job->targets, job->store->catalog)) == NULL)
        return ckpt_fail_memory(err, "a layout", layout->count);
    for (size_t i = 0; i < layout->count && code == CKPT_OK; i++)
        code = layout_add(job->layout, &layout->extents[i], err);
    job->with_index = job->like->has_index;
    return code == CKPT_OK ? layout_seal(job->layout, err) : code;
}

ckpt_code convert_lay_out(convert_job *job, ckpt_error *err)
{
    return job->like != NULL ? lay_out_like(job, err) : lay_out(job, err);
}
