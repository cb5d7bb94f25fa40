/* run_open.c: opens a model: checks its tensors, divides its layers among devices. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

enum {
    CHUNK_MIN = 64,
    CHUNK_DEVICE = RUN_CHUNK_MAX,      /* halved until it takes 1/CHUNK_PART of the memory */
    CHUNK_PART = 16,
    EXPERT_GROUP_MAX = 32
};

/* Check the tensors of all layers. layer_bytes becomes the need of the largest one. */
static ckpt_code check_layers(run_model *m, ckpt_error *err)
{
    for (uint32_t l = m->layer_begin; l < m->layer_end; l++) {
        run_layer layer;
        uint64_t bytes;
        ckpt_code code;

        layer_describe(m, l, &layer);
        if ((code = layer_check(m, &layer, &bytes, err)) != CKPT_OK)
            return code;
        m->layer_bytes = size_max(m->layer_bytes, bytes);
    }
    return CKPT_OK;
}

static ckpt_code check_head(const run_model *m, const char *prefix, ckpt_error *err)
{
    const run_config *c = m->config;
    const struct {
        const char *name;
        uint64_t shape[2];
    } all[] = {
        { "hc_head_fn", { c->stream_count, (uint64_t)c->stream_count * c->dim } },
        { "hc_head_base", { 0, c->stream_count } },
        { "hc_head_scale", { 0, 1 } },
        { "norm.weight", { 0, c->dim } },
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char name[TENSOR_NAME_BYTES];
        uint64_t bytes;
        ckpt_code code;

        snprintf(name, sizeof name, "%s%s", prefix, all[i].name);
        if ((code = run_weights_check(m->weights, name, all[i].shape, &bytes, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code check_model(run_model *m, ckpt_error *err)
{
    const run_config *c = m->config;
    const uint64_t shape[2] = { c->vocab_size, c->dim };
    uint64_t bytes;
    ckpt_code code;

    if (m->options.mtp && c->mtp_count != 1)
        return ckpt_fail(err, CKPT_E_USAGE, "the model has %u MTP blocks, expected one",
                         c->mtp_count);
    if (m->deploy && (c->index_dim & (c->index_dim - 1)) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "index_head_dim is %u: the deployed indexer needs a power of two",
                         c->index_dim);
    if ((code = run_weights_check(m->weights, "embed.weight", shape, &bytes, err)) != CKPT_OK ||
        (code = run_weights_check(m->weights, "head.weight", shape, &bytes, err)) != CKPT_OK ||
        (code = check_head(m, "", err)) != CKPT_OK ||
        (m->options.mtp && (code = check_head(m, "mtp.0.", err)) != CKPT_OK))
        return code;
    m->layer_bytes = size_min(run_weights_slice_rows(m->weights, "head.weight"), c->vocab_size) *
                     (bytes / c->vocab_size + 1);
    return check_layers(m, err);
}

/* The memory that run_head needs in addition to the scratch. */
static uint64_t head_bytes(const run_model *m)
{
    const run_config *c = m->config;
    const uint64_t slice =
        size_min(run_weights_slice_rows(m->weights, "head.weight"), c->vocab_size);

    return sizeof(float) * (HEAD_ROWS * ((uint64_t)c->vocab_size + c->dim) + m->chunk * slice);
}

/* All devices share one array. */
static ckpt_code times_create(run_model *m, ckpt_error *err)
{
    if (!m->options.has_times)
        return CKPT_OK;
    if ((m->times = calloc(block_count(m) + 1, sizeof *m->times)) == NULL)
        return ckpt_fail_memory(err, "times", block_count(m));
    for (run_model *part = m->next; part != NULL; part = part->next)
        part->times = m->times;
    return CKPT_OK;
}

/* The chunk affects speed and memory, but no result. */
static uint32_t default_chunk(const run_config *c, const run_options *options)
{
    const uint64_t row_bytes = 4 * sizeof(float) *
                               size_max((uint64_t)c->head_count * c->head_dim,
                                        (uint64_t)c->stream_count * c->dim);
    uint32_t chunk = CHUNK_DEVICE;

    while (chunk > CHUNK_MIN && (options->backend->free_bytes == NULL ||
                                 chunk * row_bytes > options->memory_bytes / CHUNK_PART))
        chunk /= 2;
    return chunk;
}

/* Open the model of device i, with its share of the layers. */
static ckpt_code open_part(ckpt_source *source, const run_config *config,
                           const run_options *options, unsigned i, run_model **out,
                           ckpt_error *err)
{
    const unsigned parts = options->device_count > 0 ? options->device_count : 1;
    const unsigned device = options->devices == NULL ? 0 : options->devices[i];
    run_model *m = calloc(1, sizeof *m);
    run_weights_options weights = { .source = source, .thread_count = options->thread_count };
    ckpt_code code;

    if (m == NULL)
        return ckpt_fail_memory(err, "a model", sizeof *m);
    m->config = config;
    m->options = *options;
    m->layer_begin = (uint32_t)((uint64_t)block_count(m) * i / parts);
    m->layer_end = (uint32_t)((uint64_t)block_count(m) * (i + 1) / parts);
    m->warm = (run_ahead){ m->layer_begin, 0 };
    m->deploy = options->profile == RUN_DEPLOY;
    m->chunk = options->chunk == 0 ? default_chunk(config, options) : options->chunk;
    m->expert_group = (uint32_t)size_min(EXPERT_GROUP_MAX, config->expert_count);
    if (m->chunk > RUN_CHUNK_MAX) {
        code = ckpt_fail(err, CKPT_E_USAGE, "a chunk of %u rows, at most %d", m->chunk,
                         RUN_CHUNK_MAX);
        goto out;
    }
    if ((code = options->backend->open(options->thread_count, device, &m->backend, err)) != CKPT_OK)
        goto out;
    weights.backend = m->backend;
    weights.host_bytes = options->keeps_weights ? options->host_bytes : 0;
    if ((code = run_weights_open(&weights, &m->weights, err)) != CKPT_OK ||
        (code = check_model(m, err)) != CKPT_OK || (code = rope_tables(m, err)) != CKPT_OK ||
        (code = scratch_create(m, err)) != CKPT_OK)
        goto out;
    m->fixed_bytes += head_bytes(m);
    code = model_limit(m, err);
out:
    if (code != CKPT_OK)
        run_close(m);
    else
        *out = m;
    return code;
}

/* Arguments and results of a thread that opens the model of one device. */
typedef struct {
    pthread_t thread;
    ckpt_source *source;
    const run_config *config;
    const run_options *options;
    unsigned i;
    run_model *model;          /* NULL after a failure */
    ckpt_code code;
    ckpt_error err;
} opening;

static void *open_on_thread(void *context)
{
    opening *o = context;

    o->code = open_part(o->source, o->config, o->options, o->i, &o->model, &o->err);
    return NULL;
}

/* Open all devices at the same time, because each takes a while. Returns the error of the first
 * device that failed, so that it does not depend on timing. */
static ckpt_code open_parts(opening *all, unsigned count, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    unsigned begun = 1;

    for (; begun < count; begun++)
        if (pthread_create(&all[begun].thread, NULL, open_on_thread, &all[begun]) != 0)
            break;
    open_on_thread(&all[0]);
    for (unsigned i = 1; i < count; i++)
        if (i < begun)
            pthread_join(all[i].thread, NULL);
        else
            open_on_thread(&all[i]);
    for (unsigned i = 0; i < count && code == CKPT_OK; i++)
        if ((code = all[i].code) != CKPT_OK && err != NULL)
            *err = all[i].err;
    return code;
}

ckpt_code run_open(ckpt_source *source, const run_config *config, const run_options *options,
                   run_model **out, ckpt_error *err)
{
    const unsigned parts = options->device_count > 0 ? options->device_count : 1;
    opening *all;
    run_model **last = out;
    ckpt_code code;

    *out = NULL;
    if (parts > config->layer_count)
        return ckpt_fail(err, CKPT_E_USAGE, "%s cannot be divided over %u devices",
                         text_count(config->layer_count, "layer", "layers").text, parts);
    if ((all = calloc(parts, sizeof *all)) == NULL)
        return ckpt_fail_memory(err, "a model", parts);
    for (unsigned i = 0; i < parts; i++)
        all[i] = (opening){ .source = source, .config = config, .options = options, .i = i };
    code = open_parts(all, parts, err);
    for (unsigned i = 0; i < parts; i++)
        if ((*last = all[i].model) != NULL)
            last = &(*last)->next;
    free(all);
    if (code == CKPT_OK)
        code = times_create(*out, err);
    if (code != CKPT_OK) {
        run_close(*out);
        *out = NULL;
    }
    return code;
}

static void close_part(run_model *m)
{
    if (m->backend != NULL) {
        batch_free(m, &m->main);
        batch_free(m, &m->mtp);
        scratch_free(m);
        m->backend->ops->buffer_free(m->backend, m->head_rows);
        rope_free(m);
        run_weights_close(m->weights);
        m->backend->ops->close(m->backend);
    }
    free(m->spans);
    free(m->mtp_spans);
    free(m);
}

void run_close(run_model *model)
{
    free(model == NULL ? NULL : model->times);
    while (model != NULL) {
        run_model *next = model->next;

        close_part(model);
        model = next;
    }
}

uint64_t run_need_bytes(const run_model *model)
{
    uint64_t most = 0;

    for (const run_model *part = model; part != NULL; part = part->next)
        most = size_max(most, part->fixed_bytes + part->layer_bytes);
    return most;
}
