/* Plans a conversion: every tensor, encoding, file and position, before any data is read. */
#include "convert_plan.h"

#include <stdlib.h>
#include <string.h>

#include "convert_pipeline.h"
#include "formats/hf.h"
#include "formats/notes.h"
#include "libckpt/safetensors_header.h"
#include "libckpt/text.h"

/* ---- inputs ---- */

void convert_inputs(const convert_options *options, const char *paths[CONVERT_INPUTS])
{
    paths[0] = options->source;
    paths[1] = options->like;
    paths[2] = options->fill_from;
    paths[3] = options->open.map_file;
    paths[4] = options->config;
    paths[5] = options->input_scales;
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

/* The files of an input may be links, as in a hub's cache. */
static ckpt_code check_files_apart(const convert_options *o, const ckpt_checkpoint *c,
                                   ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; c != NULL && i < c->store->file_count && code == CKPT_OK; i++)
        code = output_check_apart(o->target, file_path(c->store->files[i].file), err);
    return code;
}

/* Refuse NVFP4 with --feed: its rule reads each tensor twice, with a partner that shares the scale,
 * so all files would have to be present at once. */
static ckpt_code check_whole(const job_plan *plan, ckpt_error *err)
{
    const convert_feed *feed = plan->options.feed;

    for (size_t i = 0; feed != NULL && plan->rules != NULL && i < ckpt_catalog_count(plan->targets);
         i++)
        if (plan->rules[i] != NULL && plan_rule_encoding(plan->rules[i]) == ENCODING_NVFP4)
            return ckpt_fail(err, CKPT_E_USAGE, "--feed cannot be used with --quantize %s, which "
                             "reads tensors twice: download first", plan->rules[i]->name);
    return CKPT_OK;
}

/* Refuse options that are incompatible with a source that arrives file by file. */
static ckpt_code check_feed(const job_plan *plan, ckpt_error *err)
{
    const ckpt_store *store = plan->source->store;

    if (plan->options.no_digest || plan->options.share_count > 1)
        return ckpt_fail(err, CKPT_E_USAGE, "--feed cannot be used with --no-digest or --part");
    for (size_t i = 0; i < store->file_count; i++)
        if (!text_ends_with(store->files[i].name, SAFETENSORS_SUFFIX))
            return ckpt_fail(err, CKPT_E_USAGE,
                             "'%s': only safetensors files can be converted one by one",
                             store->files[i].name);
    return CKPT_OK;
}

static ckpt_code open_all(job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    ckpt_open_options parts = o->open;
    ckpt_code code;

    parts.incomplete |= o->fill_from != NULL;      /* check_filled checks both inputs together */
    parts.config = o->config;
    code =
        ckpt_open(o->feed == NULL ? o->source : o->feed->headers_dir, &parts, &plan->source, err);
    if (code == CKPT_E_IO && err != NULL && !file_exists(o->source) && file_exists(o->target))
        return ckpt_fail(err, code, "%s, but '%s' does: SRC comes first, then DST", err->text,
                         o->target);
    if (code != CKPT_OK || (o->feed != NULL && (code = check_feed(plan, err)) != CKPT_OK))
        return code;
    checkpoint_give_up_stored(plan->source);
    parts.config = NULL;
    if (o->like != NULL && (code = ckpt_open(o->like, &o->open, &plan->like, err)) != CKPT_OK)
        return code;
    if (o->like != NULL)
        checkpoint_give_up_stored(plan->like);
    if (o->fill_from == NULL)
        return CKPT_OK;
    if ((code = ckpt_open(o->fill_from, &parts, &plan->fill, err)) == CKPT_OK)
        checkpoint_give_up_stored(plan->fill);
    return code;
}

/* Of a calibration only the scales of activations are read: it need be neither whole nor known. */
static ckpt_code open_calibration(job_plan *plan, ckpt_error *err)
{
    const ckpt_open_options any = { .lenient = 1, .incomplete = 1,
                                    .places = plan->options.open.places };
    const char *path = plan->options.input_scales;
    ckpt_code code;

    if (path == NULL || (code = ckpt_open(path, &any, &plan->calibration, err)) != CKPT_OK)
        return path == NULL ? CKPT_OK : code;
    checkpoint_give_up_stored(plan->calibration);
    return CKPT_OK;
}

/* Refuse before reading data, with a hint, what cannot be digested. */
static ckpt_code check_digests(const job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *picked = plan->picked->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(picked) && !plan->options.no_digest; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(picked, i);
        const ckpt_checkpoint *from = plan->origins[i] == NULL ? plan->source : plan->fill;

        if (encoding_of(t) == NULL)
            return ckpt_fail(err, CKPT_E_USAGE,
                             "'%s': tensor '%s' is %s, which has no value digest: use "
                             "--no-digest", ckpt_file_name(from, t->file), t->name,
                             ckpt_dtype_name(t->dtype));
    }
    return CKPT_OK;
}

/* ---- side data ---- */

/* Without side data FP4 values are restored but perhaps not their bytes: add a note. */
static ckpt_code note_side_data(job_plan *plan, ckpt_error *err)
{
    const char *const source = plan->options.source;

    if (plan->source->is_partial)
        return note_add(&plan->notes, err,
                        "'%s' is a single file, '%s' is not used: FP4 scales are chosen by rule "
                        "and may differ from the original bytes", source,
                        SIDE_DATA_FILE);
    if (plan->side == NULL)
        return note_add(&plan->notes, err,
                        "'%s' has no '%s': FP4 scales are chosen by rule and may differ from the "
                        "original bytes", source, SIDE_DATA_FILE);
    if (plan->options.no_digest || !side_data_has_roots(plan->side))
        return note_add(&plan->notes, err, "'%s' is used but not verified against the values: %s",
                        SIDE_DATA_FILE, plan->options.no_digest
                                            ? "--no-digest" : "it has no digest of them");
    return CKPT_OK;
}

static ckpt_code plan_side_data(job_plan *plan, ckpt_error *err)
{
    int reads = 0;
    ckpt_code code;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *from = ckpt_catalog_at(plan->picked->catalog, i);
        const ckpt_tensor *to = ckpt_catalog_at(plan->targets, i);

        reads |= to->dtype == CKPT_F4 && from->dtype != CKPT_F4 &&
                 (plan->rules == NULL || plan->rules[i] == NULL);
        plan->writes_side_data |= from->dtype == CKPT_F4 && from->scale_dtype != CKPT_NONE &&
                                  to->dtype == CKPT_F8_E4M3 && plan->like == NULL;
    }
    if (!reads || plan->like != NULL)
        return CKPT_OK;
    if (!plan->source->is_partial &&
        ((code = side_data_read(plan->source->place.folder, plan->options.copy.memory_bytes,
                                &plan->side, err)) != CKPT_OK ||
         (plan->side != NULL &&
          (code = side_data_check(plan->side, plan->targets, err)) != CKPT_OK)))
        return code;
    return note_side_data(plan, err);
}

/* ---- identification of this conversion ---- */

static void mix_catalog(hash128 *sum, const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const uint64_t numbers[] = { t->dtype, t->stored_dtype, t->scale_dtype, t->file,
                                     t->offset };

        hash128_mix(sum, t->name, strlen(t->name));
        hash128_mix(sum, numbers, sizeof numbers);
        hash128_mix(sum, t->shape, t->rank * sizeof t->shape[0]);
    }
}

static void mix_checkpoint(hash128 *sum, const ckpt_checkpoint *c)
{
    if (c == NULL)
        return;
    mix_catalog(sum, c->store->catalog);        /* includes which file has each tensor */
    store_mix_files(c->store, sum);
}

/* Names, sizes and headers of the files to write, and options of ranks that appear in a format's
 * own files. */
static void mix_target(hash128 *sum, const job_plan *plan)
{
    const format_sharding *s = &plan->options.sharding;
    const uint32_t numbers[] = { s->mp, s->tp, s->pp, s->ep, s->etp };

    hash128_mix(sum, numbers, sizeof numbers);
    for (size_t i = 0; i < plan->store->file_count; i++) {
        const store_file *f = &plan->store->files[i];

        hash128_mix(sum, f->name, strlen(f->name));
        hash128_mix(sum, &f->size_bytes, sizeof f->size_bytes);
        if (f->header != NULL)
            hash128_mix(sum, f->header, f->header_bytes);
    }
}

static void take_fingerprint(job_plan *plan)
{
    /* These options decide what is refused. A refusal removes the output, so a run with other ones
     * must not resume it. */
    const convert_options *o = &plan->options;
    const int flags[] = { o->match_reference, o->allow_lossy, o->open.lenient, o->no_digest,
                          plan->side != NULL, o->sticky_scale, o->zero_nonfinite,
                          o->quantise_f32 };

    hash128_mix(&plan->fingerprint, CKPT_VERSION, sizeof CKPT_VERSION);
    hash128_mix(&plan->fingerprint, flags, sizeof flags);
    if (plan->input_scales != NULL)
        hash128_mix(&plan->fingerprint, plan->input_scales,
                    ckpt_catalog_count(plan->targets) * sizeof *plan->input_scales);
    mix_checkpoint(&plan->fingerprint, plan->source);
    checkpoint_mix_beside(plan->source, &plan->fingerprint);
    if (plan->config_text != NULL)
        hash128_mix(&plan->fingerprint, plan->config_text, strlen(plan->config_text));
    if (plan->side != NULL || convert_carries_side_data(plan))
        checkpoint_mix_file(plan->source->place.folder, SIDE_DATA_FILE, &plan->fingerprint);
    mix_checkpoint(&plan->fingerprint, plan->like);
    if (plan->like != NULL && plan->like->has_index)
        checkpoint_mix_file(plan->like->store->folder, HF_INDEX_FILE, &plan->fingerprint);
    mix_checkpoint(&plan->fingerprint, plan->fill);
    hash128_mix(&plan->fingerprint, &plan->options.share_count, sizeof plan->options.share_count);
    mix_catalog(&plan->fingerprint, plan->targets);
    for (size_t i = 0; plan->rules != NULL && i < ckpt_catalog_count(plan->targets); i++)
        if (plan->rules[i] != NULL)
            hash128_mix(&plan->fingerprint, plan->rules[i]->name, strlen(plan->rules[i]->name));
    mix_catalog(&plan->fingerprint, plan->store->catalog);
    mix_target(&plan->fingerprint, plan);
}

static void count_bytes(job_plan *plan)
{
    enum { PER_TENSOR_BYTES = 256 };        /* digests, statistics, journal, picks */

    plan->fixed_bytes = ckpt_checkpoint_bytes(plan->source) + ckpt_checkpoint_bytes(plan->like) +
                        ckpt_checkpoint_bytes(plan->fill) + catalog_bytes(plan->picked->catalog) +
                        catalog_bytes(plan->targets) + catalog_bytes(plan->store->catalog) +
                        layout_bytes(plan->layout) +
                        ckpt_catalog_count(plan->targets) *
                            (PER_TENSOR_BYTES +
                             (plan->rules == NULL ? 0 : 2 * sizeof(quantise_loss)) +
                             (plan->input_scales == NULL ? 0 : sizeof(float))) +
                        (plan->side == NULL ? 0 : side_data_bytes(plan->side));
    for (size_t i = 0; i < plan->store->file_count; i++) {
        plan->fixed_bytes += plan->store->files[i].header_bytes;
        plan->out_bytes += plan->store->files[i].size_bytes;
    }
    for (size_t i = 0; i < ckpt_catalog_count(plan->picked->catalog); i++)
        plan->in_bytes += ckpt_tensor_bytes(ckpt_catalog_at(plan->picked->catalog, i));
}

/* A limit that cannot be honoured is refused before anything is written. */
static ckpt_code check_memory(job_plan *plan, ckpt_error *err)
{
    const ckpt_run_options copy = pipeline_run_options(plan);
    const ckpt_code code = pipeline_tile_bytes(plan, &plan->tile_bytes, err);

    return code == CKPT_OK ? copy_check_memory(plan->tile_bytes, &copy, err) : code;
}

/* Share I of N: the tensors whose first byte is in the I-th of N equal ranges of all bytes. */
static ckpt_code take_share(job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    const size_t count = ckpt_catalog_count(plan->targets);
    uint64_t share_bytes = 0;
    uint64_t at = 0;

    if (o->share_count <= 1)
        return CKPT_OK;
    if ((plan->share = calloc(count + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "a share", count);
    for (size_t i = 0; i < count; i++)
        share_bytes += ckpt_tensor_bytes(ckpt_catalog_at(plan->targets, i));
    share_bytes = share_bytes / o->share_count + 1;
    for (size_t i = 0; i < count; i++) {
        plan->share[i] = at / share_bytes + 1 == o->share;
        at += ckpt_tensor_bytes(ckpt_catalog_at(plan->targets, i));
    }
    return CKPT_OK;
}

ckpt_code convert_check_target(const convert_options *options, ckpt_error *err)
{
    const ckpt_code code = check_apart(options, err);

    /* An existing DST may have been made by other shares of this job: it is compared later. */
    if (code != CKPT_OK || (options->share_count > 1 && file_is_directory(options->target)))
        return code;
    return output_check(options->target, options->format->name, options->overwrite, err);
}

static ckpt_code fill_plan(job_plan *plan, ckpt_error *err)
{
    ckpt_code code;

    /* Check the source first: if it does not exist, the two paths may be swapped. */
    if ((code = open_all(plan, err)) != CKPT_OK ||
        (code = open_calibration(plan, err)) != CKPT_OK ||
        (code = convert_check_target(&plan->options, err)) != CKPT_OK ||
        (code = check_files_apart(&plan->options, plan->source, err)) != CKPT_OK ||
        (code = check_files_apart(&plan->options, plan->like, err)) != CKPT_OK ||
        (code = check_files_apart(&plan->options, plan->fill, err)) != CKPT_OK ||
        (code = check_files_apart(&plan->options, plan->calibration, err)) != CKPT_OK ||
        (code = convert_choose_map(plan, err)) != CKPT_OK ||
        (code = convert_check_method(plan, err)) != CKPT_OK ||
        (code = convert_pick_inputs(plan, err)) != CKPT_OK ||
        (code = convert_choose_targets(plan, err)) != CKPT_OK ||
        (code = check_whole(plan, err)) != CKPT_OK ||
        (code = check_digests(plan, err)) != CKPT_OK ||
        (code = convert_take_notes(plan, err)) != CKPT_OK)
        return code;
    if ((plan->store = store_create(plan->options.target)) == NULL)
        return ckpt_fail_memory(err, "a plan", sizeof *plan->store);
    /* The config comes first, because some formats put it into the headers that they lay out. */
    if ((code = convert_plan_config(plan, err)) != CKPT_OK ||
        (code = convert_lay_out(plan, err)) != CKPT_OK ||
        (code = convert_note_names(plan, err)) != CKPT_OK ||
        (code = convert_take_input_scales(plan, err)) != CKPT_OK ||
        (code = plan_side_data(plan, err)) != CKPT_OK)
        return code;
    if ((code = convert_check_files(plan, err)) != CKPT_OK ||
        (code = take_share(plan, err)) != CKPT_OK)
        return code;
    take_fingerprint(plan);
    checkpoint_give_up_official(plan->source);
    count_bytes(plan);
    return check_memory(plan, err);
}

ckpt_code job_plan_make(const convert_options *options, job_plan **out, ckpt_error *err)
{
    job_plan *plan = calloc(1, sizeof *plan);
    ckpt_code code;

    if (plan == NULL)
        return ckpt_fail_memory(err, "a plan", sizeof *plan);
    plan->options = *options;
    code = fill_plan(plan, err);
    if (code != CKPT_OK)
        job_plan_free(plan);
    else
        *out = plan;
    return code;
}

void job_plan_free(job_plan *plan)
{
    if (plan == NULL)
        return;
    ckpt_source_free(plan->picked);
    free(plan->origins);
    free(plan->drops);
    free(plan->share);
    free(plan->rules);
    free(plan->input_scales);
    catalog_free(plan->targets);
    map_free(plan->map);
    layout_free(plan->layout);
    store_free(plan->store);
    side_data_free(plan->side);
    free(plan->config_text);
    free(plan->inference_text);
    free(plan->modelopt_text);
    file_list_free(&plan->notes);
    ckpt_close(plan->source);
    ckpt_close(plan->like);
    ckpt_close(plan->fill);
    ckpt_close(plan->calibration);
    free(plan);
}
