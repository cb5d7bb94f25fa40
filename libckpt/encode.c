/* The view: which conversion a tensor takes, its buffers, its statistics. */
#include "encode.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "encode_job.h"
#include "size.h"
#include "whole_maxima.h"

typedef enum {
    KIND_COPY, KIND_SCALES, KIND_PLAIN, KIND_FP4_FP8, KIND_FP8, KIND_FP4, KIND_QUANTISE, KIND_NVFP4
} kind;

typedef struct {
    ckpt_source base;
    ckpt_source *from;
    encode_options options;
    int8_t fp4_offsets[256];   /* fp4_canonical_offset, indexed by set of codes */
    uint8_t *kinds;
    int64_t *scales;           /* the tensor of options.scales with the scale grid, or -1 */
    encode_stats *stats;
    quantise_loss *losses;     /* with options.rules, else NULL */
    whole_maxima *maxima;      /* with options.whole, else NULL */
    pthread_mutex_t lock;
} encode_view;

static int same_codes(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return a->dtype == b->dtype && a->block_rows == b->block_rows &&
           a->block_cols == b->block_cols && a->tensor_scale == b->tensor_scale;
}

static const quantise_rule *rule_of(const encode_view *v, size_t tensor)
{
    return v->options.rules == NULL ? NULL : v->options.rules[tensor];
}

/* The conversion between two encodings, or -1 when there is none. */
static int find_kind(const ckpt_tensor *from, const ckpt_tensor *to, int has_given_scales)
{
    const int from_scaled = from->scale_dtype != CKPT_NONE;
    const int to_scaled = to->scale_dtype != CKPT_NONE;

    if (ckpt_tensor_is_int(from) != ckpt_tensor_is_int(to))
        return -1;
    if (same_codes(from, to) && from_scaled == to_scaled && !(to_scaled && has_given_scales))
        return from->scale_dtype == to->scale_dtype ? KIND_COPY : KIND_SCALES;
    if (!to_scaled)
        return to->dtype == CKPT_BF16 || to->dtype == CKPT_F16 || to->dtype == CKPT_F32 ||
                       (ckpt_tensor_is_int(to) && to->dtype != CKPT_U64 && to->dtype != CKPT_BOOL)
                   ? KIND_PLAIN
                   : -1;
    switch (encoding_of(to)->quantiser) {
    case QUANTISER_FP8_BLOCK:
        return encoding_is(from, ENCODING_FP4_32) && !has_given_scales ? KIND_FP4_FP8 : KIND_FP8;
    case QUANTISER_FP4_GROUP:
        return KIND_FP4;
    default:
        return -1;
    }
}

static ckpt_code plan_tensor(encode_view *v, size_t i, ckpt_error *err)
{
    const ckpt_tensor *from = ckpt_catalog_at(v->from->catalog, i);
    const ckpt_tensor *to = ckpt_catalog_at(v->base.catalog, i);
    char from_text[64];
    char to_text[64];
    int found;

    v->scales[i] = CKPT_NOT_FOUND;
    if (v->options.scales != NULL && to->scale_dtype != CKPT_NONE) {
        const ckpt_catalog *given = v->options.scales->catalog;
        const int64_t g = ckpt_catalog_find(given, to->name);

        if (g >= 0 && catalog_same_encoding(ckpt_catalog_at(given, (size_t)g), to) &&
            catalog_same_shape(ckpt_catalog_at(given, (size_t)g), to))
            v->scales[i] = g;
    }
    found = find_kind(from, to, v->scales[i] >= 0);
    if (catalog_same_encoding(from, to)) {
        v->scales[i] = found < 0 ? CKPT_NOT_FOUND : v->scales[i];
        found = KIND_COPY;
    }
    if (rule_of(v, i) != NULL)
        found = rule_of(v, i)->from_fp4 ? KIND_NVFP4 : KIND_QUANTISE;
    if (found >= 0) {
        v->kinds[i] = (uint8_t)found;
        return CKPT_OK;
    }
    ckpt_tensor_encoding(from, from_text, sizeof from_text);
    ckpt_tensor_encoding(to, to_text, sizeof to_text);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' cannot be converted from %s to %s", from->name,
                     from_text, to_text);
}

/* ---- reading ---- */

static ckpt_code allocate_out(const ckpt_tensor *to, const source_range *range, arena *scratch,
                              ckpt_tile *tile, ckpt_error *err)
{
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        uint64_t row;
        uint64_t rows;

        if (catalog_part_dtype(to, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(to, (ckpt_part)part, range, &row, &rows);
        tile->part_bytes[part] = rows * ckpt_part_row_bytes(to, (ckpt_part)part);
        tile->part[part] = arena_alloc(scratch, tile->part_bytes[part]);
        if (tile->part[part] == NULL)
            return ckpt_fail_memory(err, "a tile", tile->part_bytes[part]);
    }
    return CKPT_OK;
}

static ckpt_code convert(encode_job *job, kind k, const quantise_rule *rule, quantise_loss *loss)
{
    switch (k) {
    case KIND_QUANTISE:
        return encode_quantise(job, rule, loss);
    case KIND_NVFP4:
        return encode_nvfp4(job, loss);
    case KIND_SCALES:
        return encode_scales(job);
    case KIND_PLAIN:
        return encode_plain(job);
    case KIND_FP4_FP8:
        return encode_fp4_to_fp8(job);
    case KIND_FP8:
        return encode_fp8(job);
    default:
        return encode_fp4(job);
    }
}

/* The input scale is that of the source, or the one given in the options, or 1. */
static ckpt_code put_input_scale(const encode_job *job)
{
    void **to = &job->out->part[CKPT_INPUT_SCALE];
    const void *from = job->in->part[CKPT_INPUT_SCALE];
    const float *given = job->options->input_scales;
    const float scale = given == NULL ? 1 : given[job->range->tensor];

    if (!job->to->has_input_scale)
        return CKPT_OK;
    if (*to == NULL && (*to = arena_alloc(job->scratch, sizeof(float))) == NULL)
        return ckpt_fail_memory(job->err, "a scale", sizeof(float));
    job->out->part_bytes[CKPT_INPUT_SCALE] = sizeof(float);
    memmove(*to, from != NULL ? from : &scale, sizeof scale);
    return CKPT_OK;
}

/*
 * Source and target have the same encoding, and scales are given. If the given scales represent all
 * values of the tile exactly, use them: the values were made with them. Else keep the tile's own.
 */
static ckpt_code follow_scales(const encode_job *job)
{
    const kind k = job->to->dtype == CKPT_F4 ? KIND_FP4 : KIND_FP8;
    encode_options exactly = *job->options;
    ckpt_error why = { .text = "" };
    encode_job attempt = *job;
    ckpt_code code = CKPT_OK;

    exactly.allow_lossy = 0;
    attempt.options = &exactly;
    attempt.err = &why;
    if (memcmp(job->given_scales, job->in->part[CKPT_SCALE], job->in->part_bytes[CKPT_SCALE]) == 0)
        *job->out = *job->in;
    else if ((code = allocate_out(job->to, job->range, job->scratch, job->out, &why)) == CKPT_OK &&
             (code = convert(&attempt, k, NULL, NULL)) == CKPT_OK)
        code = values_check(job->to, job->range, job->out, &why);
    if (code != CKPT_E_INEXACT && code != CKPT_E_FORMAT)
        return code == CKPT_OK ? code : ckpt_fail(job->err, code, "%s", why.text);
    *job->out = *job->in;
    return CKPT_OK;
}

static void add_stats(encode_view *v, size_t tensor, const encode_stats *seen,
                      const quantise_loss *loss)
{
    encode_stats *stats = &v->stats[tensor];

    pthread_mutex_lock(&v->lock);
    stats->spread = size_max(stats->spread, seen->spread);
    stats->inexact += seen->inexact;
    stats->returned += seen->returned;
    stats->exceptions += seen->exceptions;
    stats->zero_groups += seen->zero_groups;
    stats->replaced += seen->replaced;
    if (v->losses != NULL)
        quantise_loss_merge(&v->losses[tensor], loss);
    pthread_mutex_unlock(&v->lock);
}

static ckpt_code encode_read(ckpt_source *self, const source_range *range, arena *scratch,
                             ckpt_tile *tile, ckpt_error *err)
{
    encode_view *v = (encode_view *)self;
    const kind k = (kind)v->kinds[range->tensor];
    const source_range all = { range->tensor, range->row, range->row_count, SOURCE_WANT_ALL };
    ckpt_tile in;
    ckpt_tile given = { .part = { NULL, NULL } };
    quantise_loss loss = { .elements = 0 };
    encode_job job = {
        .options = &v->options,
        .kernels = kernels_get(),
        .fp4_offsets = v->fp4_offsets,
        .from = ckpt_catalog_at(v->from->catalog, range->tensor),
        .to = ckpt_catalog_at(self->catalog, range->tensor),
        .range = range,
        .in = &in,
        .out = tile,
        .scratch = scratch,
        .err = err,
    };
    ckpt_code code;

    if ((code = source_read_tile(v->from, &all, scratch, &in, err)) != CKPT_OK ||
        (code = encode_check_source(&job)) != CKPT_OK)
        return code;
    if (v->scales[range->tensor] >= 0) {
        const source_range scales = { (size_t)v->scales[range->tensor], range->row,
                                      range->row_count, k == KIND_QUANTISE ? SOURCE_WANT_ALL
                                                                           : SOURCE_WANT_SCALE };

        if ((code = source_read_tile(v->options.scales, &scales, scratch, &given, err)) != CKPT_OK)
            return code;
        job.given_scales = given.part[CKPT_SCALE];
        job.original = &given;
    }
    if (k == KIND_COPY && job.given_scales != NULL)
        return follow_scales(&job);
    if (k == KIND_COPY) {
        *tile = in;
        return put_input_scale(&job);
    }
    if ((v->maxima != NULL && (code = whole_maxima_get(v->maxima, range->tensor, scratch,
                                                       &job.whole_maximum, err)) != CKPT_OK) ||
        (code = allocate_out(job.to, range, scratch, tile, err)) != CKPT_OK ||
        (code = convert(&job, k, rule_of(v, range->tensor), &loss)) != CKPT_OK ||
        (code = put_input_scale(&job)) != CKPT_OK ||
        (code = values_check(job.to, range, tile, err)) != CKPT_OK)
        return code;
    add_stats(v, range->tensor, &job.stats, &loss);
    return CKPT_OK;
}

/* Bytes of scratch that a conversion needs in addition to its input and output. */
static uint64_t kind_need(const encode_view *v, size_t tensor, uint64_t row_count)
{
    const ckpt_tensor *from = ckpt_catalog_at(v->from->catalog, tensor);
    const ckpt_tensor *to = ckpt_catalog_at(v->base.catalog, tensor);

    switch ((kind)v->kinds[tensor]) {
    case KIND_PLAIN:
        return encode_plain_need(from);
    case KIND_FP4_FP8:
        return encode_fp4_to_fp8_need(from, row_count);
    case KIND_FP8:
        return encode_fp8_need(from, to);
    case KIND_FP4:
        return encode_fp4_need(from);
    case KIND_QUANTISE:
        return encode_quantise_need(from, to, v->scales[tensor] >= 0);
    case KIND_NVFP4:
        return encode_nvfp4_need(from);
    case KIND_COPY:
        return size_max(encode_fp8_need(from, to), encode_fp4_need(from));
    default:
        return values_need(from);
    }
}

static uint64_t encode_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const encode_view *v = (const encode_view *)self;
    const ckpt_tensor *to = ckpt_catalog_at(self->catalog, tensor);
    uint64_t need = source_need(v->from, tensor, row_count);
    uint64_t rest = 0;

    if (v->scales[tensor] >= 0)
        need += source_need(v->options.scales, (size_t)v->scales[tensor], row_count);
    if (v->kinds[tensor] == KIND_COPY && v->scales[tensor] < 0)
        return need + arena_cost(sizeof(float));
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        rest += arena_cost((catalog_is_of_whole((ckpt_part)part) ? 1 : row_count) *
                           ckpt_part_row_bytes(to, (ckpt_part)part));
    rest += kind_need(v, tensor, row_count);
    return need + (v->maxima == NULL ? rest : size_max(rest, whole_maxima_need(v->maxima, tensor)));
}

static void encode_free(ckpt_source *self)
{
    encode_view *v = (encode_view *)self;

    pthread_mutex_destroy(&v->lock);
    free(v->kinds);
    free(v->scales);
    free(v->stats);
    free(v->losses);
    whole_maxima_free(v->maxima);
    free(v);
}

static ckpt_code make_maxima(encode_view *v, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(v->base.catalog);
    maximum_kind *kinds = calloc(count + 1, sizeof *kinds);
    ckpt_code code;

    if (kinds == NULL)
        return ckpt_fail_memory(err, "a view", count);
    for (size_t i = 0; i < count; i++) {
        const quantise_rule *rule = rule_of(v, i);

        if (rule != NULL && rule->from_fp4)
            kinds[i] = MAXIMUM_SCALE;
        else if (rule != NULL && rule->has_tensor_scale)
            kinds[i] = v->options.quantise_f32 ? MAXIMUM_EXACT_VALUE : MAXIMUM_VALUE;
    }
    code = whole_maxima_create(v->options.whole, kinds, &v->maxima, err);
    free(kinds);
    return code;
}

ckpt_code source_encode(ckpt_source *from, const ckpt_catalog *targets,
                        const encode_options *options, ckpt_source **out, ckpt_error *err)
{
    static const source_ops ops = { encode_read, encode_need, encode_free };
    const size_t count = ckpt_catalog_count(targets);
    encode_view *v = calloc(1, sizeof *v);
    ckpt_code code = CKPT_OK;

    if (v == NULL)
        return ckpt_fail_memory(err, "a view", sizeof *v);
    v->base.ops = &ops;
    v->base.catalog = targets;
    v->from = from;
    v->options = *options;
    for (int mask = 0; mask < 256; mask++)
        v->fp4_offsets[mask] = (int8_t)fp4_canonical_offset((uint8_t)mask);
    pthread_mutex_init(&v->lock, NULL);
    v->kinds = calloc(count + 1, 1);
    v->scales = calloc(count + 1, sizeof *v->scales);
    v->stats = calloc(count + 1, sizeof *v->stats);
    if (options->rules != NULL)
        v->losses = calloc(count + 1, sizeof *v->losses);
    if (v->kinds == NULL || v->scales == NULL || v->stats == NULL ||
        (options->rules != NULL && v->losses == NULL))
        code = ckpt_fail_memory(err, "a view", count);
    else
        code = kernels_require(err);
    if (code == CKPT_OK && options->rules != NULL && options->whole != NULL)
        code = make_maxima(v, err);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = plan_tensor(v, i, err);
    if (code != CKPT_OK)
        encode_free(&v->base);
    else
        *out = &v->base;
    return code;
}

encode_stats source_encode_stats(ckpt_source *self, size_t tensor)
{
    encode_view *v = (encode_view *)self;

    return v->stats[tensor];
}

const quantise_loss *source_encode_loss(ckpt_source *self, size_t tensor)
{
    encode_view *v = (encode_view *)self;

    return v->losses == NULL ? NULL : &v->losses[tensor];
}
