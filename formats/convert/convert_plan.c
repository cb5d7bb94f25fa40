/* Planning a conversion: every tensor, encoding, file and position, before any data. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"
#include "formats/notes.h"
#include "libckpt/pick.h"
#include "libckpt/size.h"
#include "libckpt/values.h"

/* ---- inputs: which tensor comes from where, in the order of the target ---- */

typedef struct {
    pick_entry *entries;
    size_t count;
} inputs;

void convert_inputs(const convert_options *options, const char *paths[CONVERT_INPUTS])
{
    paths[0] = options->source;
    paths[1] = options->like;
    paths[2] = options->fill_from;
    paths[3] = options->open.map_file;
}

static ckpt_code check_apart(const convert_options *o, ckpt_error *err)
{
    const char *paths[CONVERT_INPUTS];
    ckpt_code code = CKPT_OK;

    convert_inputs(o, paths);
    for (size_t i = 0; i < CONVERT_INPUTS && code == CKPT_OK; i++)
        if (paths[i] != NULL)
            code = output_check_apart(o->target, paths[i], err);
    return code;
}

/* The files of an input may be links: those of a hub's cache lead to files in another folder. */
static ckpt_code check_files_apart(const convert_options *o, const ckpt_checkpoint *c,
                                   ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; c != NULL && i < c->store->file_count && code == CKPT_OK; i++)
        code = output_check_apart(o->target, file_path(c->store->files[i].file), err);
    return code;
}

static ckpt_code open_all(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    ckpt_open_options parts = o->open;
    ckpt_code code;

    parts.incomplete |= o->fill_from != NULL;      /* both together are checked: check_filled */
    if ((code = ckpt_open(o->feed == NULL ? o->source : o->feed->shape, &parts, &job->source,
                          err)) != CKPT_OK ||
        (o->feed != NULL && (code = convert_feed_check(job, err)) != CKPT_OK))
        return code;
    if (o->like != NULL && (code = ckpt_open(o->like, &o->open, &job->like, err)) != CKPT_OK)
        return code;
    return o->fill_from == NULL ? CKPT_OK : ckpt_open(o->fill_from, &parts, &job->fill, err);
}

static void add_input(inputs *in, const char **origins, const ckpt_checkpoint *from, size_t i,
                      const char *origin)
{
    in->entries[in->count].source = ckpt_logical(from);
    in->entries[in->count].tensor = i;
    origins[in->count++] = origin;
}

/* The target's layout cannot carry it: the map says why, the report repeats it. */
static int omits(convert_job *job, const char *name)
{
    const char *reason = map_find_omit(job->map, name);

    if (reason == NULL)
        return 0;
    job->drops[job->drop_count].name = name;
    job->drops[job->drop_count++].reason = reason;
    return 1;
}

/* The source's tensors, then what only --fill-from has. */
static void take_all(convert_job *job, inputs *in)
{
    const ckpt_catalog *own = job->source->reading.logical;
    const ckpt_catalog *more = job->fill == NULL ? NULL : job->fill->reading.logical;

    for (size_t i = 0; i < ckpt_catalog_count(own); i++)
        if (!omits(job, ckpt_catalog_at(own, i)->name))
            add_input(in, job->origins, job->source, i, NULL);
    for (size_t i = 0; more != NULL && i < ckpt_catalog_count(more); i++)
        if (ckpt_catalog_find(own, ckpt_catalog_at(more, i)->name) < 0 &&
            !omits(job, ckpt_catalog_at(more, i)->name))
            add_input(in, job->origins, job->fill, i, job->options.fill_from);
}

static ckpt_code check_like_shape(const ckpt_tensor *got, const ckpt_tensor *like,
                                  ckpt_error *err)
{
    char got_shape[256];
    char like_shape[256];

    if (catalog_same_shape(got, like))
        return CKPT_OK;
    catalog_shape_text(got, got_shape, sizeof got_shape);
    catalog_shape_text(like, like_shape, sizeof like_shape);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, but %s in the model to follow",
                     got->name, got_shape, like_shape);
}

/* Exactly the tensors of --like, in its order. */
static ckpt_code take_like(convert_job *job, inputs *in, ckpt_error *err)
{
    const ckpt_catalog *like = job->like->reading.logical;
    const ckpt_catalog *own = job->source->reading.logical;
    ckpt_code code;

    for (size_t i = 0; i < ckpt_catalog_count(own); i++)
        if (ckpt_catalog_find(like, ckpt_catalog_at(own, i)->name) < 0)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not in '%s'",
                             ckpt_catalog_at(own, i)->name, job->options.source,
                             job->options.like);
    for (size_t i = 0; i < ckpt_catalog_count(like); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(like, i);
        const ckpt_checkpoint *from = job->source;
        int64_t found = ckpt_catalog_find(own, t->name);

        if (found < 0 && job->fill != NULL) {
            from = job->fill;
            found = ckpt_catalog_find(from->reading.logical, t->name);
        }
        if (found < 0)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is not in '%s'", t->name,
                             job->options.like, job->options.source);
        code = check_like_shape(ckpt_catalog_at(from->reading.logical, (size_t)found), t, err);
        if (code != CKPT_OK)
            return code;
        add_input(in, job->origins, from, (size_t)found,
                  from == job->fill ? job->options.fill_from : NULL);
    }
    return CKPT_OK;
}

/* A tensor of --fill-from must be one that the source's config has room for. */
static ckpt_code check_filling(const convert_job *job, const ckpt_tensor *t, ckpt_error *err)
{
    const ckpt_checkpoint *source = job->source;
    const int64_t o = ckpt_catalog_find(source->official, t->name);
    char where[256];

    if (o < 0 && family_has_optional(source->family, json_root(source->config), t->name))
        return CKPT_OK;
    if (o < 0)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "tensor '%s' of '%s' is not one that config.json of '%s' implies",
                         t->name, job->options.fill_from, job->options.source);
    snprintf(where, sizeof where, " of '%s'", job->options.fill_from);
    return catalog_check_same(t, ckpt_catalog_at(source->official, (size_t)o), where, err);
}

/* Source and --fill-from together are what the source's config implies. */
static ckpt_code check_filled(const convert_job *job, ckpt_error *err)
{
    const ckpt_catalog *official = job->source->official;
    const ckpt_catalog *picked = job->picked->catalog;
    ckpt_code code = CKPT_OK;

    if (job->fill == NULL || official == NULL || job->options.open.lenient)
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(picked) && code == CKPT_OK; i++)
        if (job->origins[i] != NULL)
            code = check_filling(job, ckpt_catalog_at(picked, i), err);
    for (size_t i = 0; i < ckpt_catalog_count(official) && code == CKPT_OK; i++) {
        const char *name = ckpt_catalog_at(official, i)->name;

        if (ckpt_catalog_find(picked, name) < 0)
            code = ckpt_fail(err, CKPT_E_USAGE,
                             "neither '%s' nor '%s' has tensor '%s', which config.json implies",
                             job->options.source, job->options.fill_from, name);
    }
    return code;
}

static ckpt_code pick_inputs(convert_job *job, ckpt_error *err)
{
    const size_t most = ckpt_catalog_count(job->source->reading.logical) +
                        (job->fill == NULL ? 0 : ckpt_catalog_count(job->fill->reading.logical));
    inputs in = { calloc(most + 1, sizeof *in.entries), 0 };
    ckpt_code code = CKPT_OK;

    job->origins = calloc(most + 1, sizeof *job->origins);
    job->drops = calloc(most + 1, sizeof *job->drops);
    if (in.entries == NULL || job->origins == NULL || job->drops == NULL)
        code = ckpt_fail_memory(err, "a plan", most);
    else if (job->like != NULL)
        code = take_like(job, &in, err);
    else
        take_all(job, &in);
    if (code == CKPT_OK)
        code = source_pick(in.entries, in.count, &job->picked, err);
    if (code == CKPT_OK)
        code = check_filled(job, err);
    free(in.entries);
    return code;
}

/* Refused before a byte is read, with the way out. */
static ckpt_code check_digests(const convert_job *job, ckpt_error *err)
{
    const ckpt_catalog *picked = job->picked->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(picked) && !job->options.no_digest; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(picked, i);
        const ckpt_checkpoint *from = job->origins[i] == NULL ? job->source : job->fill;

        if (encoding_of(t) == NULL)
            return ckpt_fail(err, CKPT_E_USAGE,
                             "'%s': tensor '%s' is %s, which has no value digest: only "
                             "--no-digest converts it", ckpt_file_name(from, t->file), t->name,
                             ckpt_dtype_name(t->dtype));
    }
    return CKPT_OK;
}

/* ---- side data ---- */

/* The values of FP4 come back without side data, their bytes perhaps not: that is told. */
static ckpt_code note_side_data(convert_job *job, ckpt_error *err)
{
    const char *const source = job->options.source;

    if (job->source->is_partial)
        return note_add(&job->notes, err,
                        "'%s' is one file: '%s' is not looked for, and FP4 scales are chosen by "
                        "rule, which may give other bytes than the original's", source,
                        SIDE_DATA_FILE);
    if (job->side == NULL)
        return note_add(&job->notes, err,
                        "'%s' has no '%s': FP4 scales are chosen by rule, which may give other "
                        "bytes than the original's", source, SIDE_DATA_FILE);
    if (job->options.no_digest || !side_data_has_roots(job->side))
        return note_add(&job->notes, err, "'%s' is used, but not checked against the values: %s",
                        SIDE_DATA_FILE, job->options.no_digest
                                            ? "--no-digest" : "it has no digest of them");
    return CKPT_OK;
}

static ckpt_code plan_side_data(convert_job *job, ckpt_error *err)
{
    int reads = 0;
    ckpt_code code;

    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        const ckpt_tensor *from = ckpt_catalog_at(job->picked->catalog, i);
        const ckpt_tensor *to = ckpt_catalog_at(job->targets, i);

        reads |= to->dtype == CKPT_F4 && from->dtype != CKPT_F4;
        job->writes_side_data |= from->dtype == CKPT_F4 && from->scale_dtype != CKPT_NONE &&
                                 to->dtype == CKPT_F8_E4M3 && job->like == NULL;
    }
    if (!reads || job->like != NULL)
        return CKPT_OK;
    if (!job->source->is_partial &&
        ((code = side_data_read(job->options.source, job->options.copy.memory_bytes, &job->side,
                                err)) != CKPT_OK ||
         (job->side != NULL &&
          (code = side_data_check(job->side, job->targets, err)) != CKPT_OK)))
        return code;
    return note_side_data(job, err);
}

/* ---- what tells this conversion from any other ---- */

static void mix(hash128 *sum, const void *bytes, size_t size)
{
    *sum = kernels_get()->hash_bytes(bytes, size, sum->low64 ^ sum->high64);
}

static void mix_catalog(hash128 *sum, const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const uint64_t numbers[] = { t->dtype, t->stored_dtype, t->scale_dtype, t->file,
                                     t->offset };

        mix(sum, t->name, strlen(t->name));
        mix(sum, numbers, sizeof numbers);
        mix(sum, t->shape, t->rank * sizeof t->shape[0]);
    }
}

static void mix_checkpoint(hash128 *sum, const ckpt_checkpoint *c)
{
    if (c != NULL)
        mix_catalog(sum, c->store->catalog);        /* which of several files has a tensor */
    for (size_t i = 0; c != NULL && i < c->store->file_count; i++) {
        const store_file *f = &c->store->files[i];
        const int64_t numbers[] = { (int64_t)f->size_bytes, file_mtime_ns(f->file),
                                    (int64_t)f->header_hash };

        mix(sum, f->name, strlen(f->name));
        mix(sum, numbers, sizeof numbers);
    }
}

/* Size and time of a file that is read whole; nothing when there is none. */
static void mix_file(hash128 *sum, const char *directory, const char *name)
{
    char *path = file_join(directory, name);
    ckpt_file *file = NULL;

    if (path != NULL && file_open(path, &file, NULL) == CKPT_OK) {
        const int64_t numbers[] = { (int64_t)file_size(file), file_mtime_ns(file) };

        mix(sum, numbers, sizeof numbers);
    }
    file_close(file, NULL);
    free(path);
}

/* Names and sizes of the files to write, and what a format's own files tell of the ranks. */
static void mix_target(hash128 *sum, const convert_job *job)
{
    const format_sharding *s = &job->options.sharding;
    const uint32_t numbers[] = { s->mp, s->tp, s->pp, s->ep, s->etp };

    mix(sum, numbers, sizeof numbers);
    for (size_t i = 0; i < job->store->file_count; i++) {
        const store_file *f = &job->store->files[i];

        mix(sum, f->name, strlen(f->name));
        mix(sum, &f->size_bytes, sizeof f->size_bytes);
    }
}

static void take_fingerprint(convert_job *job)
{
    /* What one of these lets pass, the other refuses, and a refusal removes what is there. */
    const int flags[] = { job->options.match_reference, job->options.allow_lossy,
                          job->options.open.lenient, job->options.no_digest, job->side != NULL };

    mix(&job->fingerprint, CKPT_VERSION, sizeof CKPT_VERSION);
    mix(&job->fingerprint, flags, sizeof flags);
    mix_checkpoint(&job->fingerprint, job->source);
    if (job->config_text != NULL)
        mix(&job->fingerprint, job->config_text, strlen(job->config_text));
    if (job->side != NULL)
        mix_file(&job->fingerprint, job->options.source, SIDE_DATA_FILE);
    mix_checkpoint(&job->fingerprint, job->like);
    mix_checkpoint(&job->fingerprint, job->fill);
    mix(&job->fingerprint, &job->options.part_count, sizeof job->options.part_count);
    mix_catalog(&job->fingerprint, job->targets);
    mix_catalog(&job->fingerprint, job->store->catalog);
    mix_target(&job->fingerprint, job);
}

static void count_bytes(convert_job *job)
{
    enum { PER_TENSOR_BYTES = 256 };        /* digests, statistics, journal, picks */

    job->fixed_bytes = ckpt_checkpoint_bytes(job->source) + ckpt_checkpoint_bytes(job->like) +
                       ckpt_checkpoint_bytes(job->fill) + catalog_bytes(job->picked->catalog) +
                       catalog_bytes(job->targets) + catalog_bytes(job->store->catalog) +
                       layout_bytes(job->layout) +
                       ckpt_catalog_count(job->targets) * PER_TENSOR_BYTES +
                       (job->side == NULL ? 0 : side_data_bytes(job->side));
    for (size_t i = 0; i < job->store->file_count; i++) {
        job->fixed_bytes += job->store->files[i].header_bytes;
        job->out_bytes += job->store->files[i].size_bytes;
    }
    for (size_t i = 0; i < ckpt_catalog_count(job->picked->catalog); i++)
        job->in_bytes += ckpt_tensor_bytes(ckpt_catalog_at(job->picked->catalog, i));
}

/* A limit that cannot be honoured is refused before anything is written. */
static ckpt_code check_memory(convert_job *job, ckpt_error *err)
{
    ckpt_run_options copy = job->options.copy;
    uint64_t tile_bytes = 0;
    const ckpt_code code = convert_tile_bytes(job, &tile_bytes, err);

    copy.fixed_bytes = job->fixed_bytes;
    return code == CKPT_OK ? copy_check_memory(tile_bytes, &copy, err) : code;
}

/* Part I of N: the tensors whose first byte lies in the I-th N-th of all bytes. */
static ckpt_code take_share(convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->options;
    const size_t count = ckpt_catalog_count(job->targets);
    uint64_t share_bytes = 0;
    uint64_t at = 0;

    if (o->part_count <= 1)
        return CKPT_OK;
    if ((job->share = calloc(count + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "a share", count);
    for (size_t i = 0; i < count; i++)
        share_bytes += ckpt_tensor_bytes(ckpt_catalog_at(job->targets, i));
    share_bytes = share_bytes / o->part_count + 1;
    for (size_t i = 0; i < count; i++) {
        job->share[i] = at / share_bytes + 1 == o->part;
        at += ckpt_tensor_bytes(ckpt_catalog_at(job->targets, i));
    }
    return CKPT_OK;
}

/* Whether a DST that is there was made by other parts of this job shows when it is compared. */
static ckpt_code check_target(const convert_options *o, ckpt_error *err)
{
    if (o->part_count > 1 && file_is_directory(o->target))
        return CKPT_OK;
    return output_check(o->target, o->overwrite, err);
}

static ckpt_code plan_job(convert_job *job, ckpt_error *err)
{
    ckpt_code code;

    /* The source first: where it is not there, the two paths may be in the wrong order. */
    if ((code = open_all(job, err)) != CKPT_OK ||
        (code = check_apart(&job->options, err)) != CKPT_OK ||
        (code = check_target(&job->options, err)) != CKPT_OK ||
        (code = check_files_apart(&job->options, job->source, err)) != CKPT_OK ||
        (code = check_files_apart(&job->options, job->like, err)) != CKPT_OK ||
        (code = check_files_apart(&job->options, job->fill, err)) != CKPT_OK ||
        (code = convert_choose_map(job, err)) != CKPT_OK ||
        (code = convert_check_method(job, err)) != CKPT_OK ||
        (code = pick_inputs(job, err)) != CKPT_OK ||
        (code = convert_choose_targets(job, err)) != CKPT_OK ||
        (code = check_digests(job, err)) != CKPT_OK ||
        (code = convert_take_notes(job, err)) != CKPT_OK)
        return code;
    if ((job->store = store_create(job->options.target)) == NULL)
        return ckpt_fail_memory(err, "a plan", sizeof *job->store);
    code = convert_lay_out(job, err);
    if (code != CKPT_OK || (code = convert_plan_config(job, err)) != CKPT_OK ||
        (code = plan_side_data(job, err)) != CKPT_OK)
        return code;
    if ((code = convert_check_files(job, err)) != CKPT_OK ||
        (code = take_share(job, err)) != CKPT_OK)
        return code;
    take_fingerprint(job);
    count_bytes(job);
    return check_memory(job, err);
}

ckpt_code convert_plan(const convert_options *options, convert_job **out, ckpt_error *err)
{
    convert_job *job = calloc(1, sizeof *job);
    ckpt_code code;

    if (job == NULL)
        return ckpt_fail_memory(err, "a plan", sizeof *job);
    job->options = *options;
    code = plan_job(job, err);
    if (code != CKPT_OK)
        convert_free(job);
    else
        *out = job;
    return code;
}

void convert_free(convert_job *job)
{
    if (job == NULL)
        return;
    output_close(job->output);
    ckpt_digest_free(job->digest);
    ckpt_digest_free(job->written_digest);
    ckpt_digest_free(job->encoded_digest);
    ckpt_source_free(job->picked);
    free(job->origins);
    free(job->drops);
    free(job->stats);
    free(job->share);
    free(job->kept);
    catalog_free(job->targets);
    map_free(job->map);
    layout_free(job->layout);
    store_free(job->store);
    side_data_free(job->side);
    free(job->config_text);
    free(job->inference_text);
    free(job->source_names);
    free(job->other_files);
    file_list_free(&job->written);
    file_list_free(&job->notes);
    ckpt_close(job->source);
    ckpt_close(job->like);
    ckpt_close(job->fill);
    free(job);
}
