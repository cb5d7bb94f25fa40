/* Receives the tiles of a pass, and keeps the statistics of each tensor. */
#include "statistics.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/encoding.h"
#include "libckpt/values.h"
#include "statistics_tile.h"

int statistics_wants(const source_statistics *statistics, size_t tensor)
{
    return (statistics->wanted == NULL || statistics->wanted[tensor]) &&
           encoding_of(ckpt_catalog_at(statistics->catalog, tensor)) != NULL;
}

static void add_totals(statistics_totals *totals, const ckpt_tensor *t,
                       const tensor_statistics *found)
{
    if (t->dtype == CKPT_F4)
        statistics_merge_counters(totals->fp4, found->codes, 16);
    if (t->dtype == CKPT_F8_E4M3)
        statistics_merge_counters(totals->fp8, found->codes, STATISTICS_CODES);
    statistics_merge_counters(totals->exponents, found->exponents, STATISTICS_EXPONENTS);
}

ckpt_code statistics_put_tile(source_statistics *statistics, const source_range *range,
                              const ckpt_tile *tile, arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(statistics->catalog, range->tensor);
    tensor_statistics *all = &statistics->tensors[range->tensor];
    uint64_t codes[STATISTICS_CODES] = { 0 };
    uint64_t exponents[STATISTICS_EXPONENTS] = { 0 };
    tensor_statistics found;
    ckpt_code code;

    statistics_init(&found);
    found.codes = all->codes == NULL && statistics->totals == NULL ? NULL : codes;
    found.exponents = all->exponents == NULL && statistics->totals == NULL ? NULL : exponents;
    found.is_brief = statistics->is_brief;
    if ((code = values_check_shape(t, tile, err)) != CKPT_OK ||
        (code = statistics_add(&found, t, range, tile, scratch, err)) != CKPT_OK)
        return code;
    pthread_mutex_lock(&statistics->lock);
    statistics_merge(all, &found, statistics_code_count(t));
    if (statistics->totals != NULL)
        add_totals(statistics->totals, t, &found);
    pthread_mutex_unlock(&statistics->lock);
    return CKPT_OK;
}

static size_t counters_of(const source_statistics *s, const statistics_options *options,
                          size_t tensor)
{
    const ckpt_tensor *t = ckpt_catalog_at(s->catalog, tensor);

    if (!statistics_wants(s, tensor))
        return 0;
    return (options->codes ? statistics_code_count(t) : 0) +
           (options->exponents && !ckpt_tensor_is_int(t) ? STATISTICS_EXPONENTS : 0);
}

static void share_counters(source_statistics *s, const statistics_options *options)
{
    uint64_t *next = s->counters;

    for (size_t i = 0; i < s->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(s->catalog, i);
        const size_t code_count = options->codes ? statistics_code_count(t) : 0;
        const size_t counters = counters_of(s, options, i);

        statistics_init(&s->tensors[i]);
        s->tensors[i].codes = counters > 0 && code_count > 0 ? next : NULL;
        s->tensors[i].exponents = counters > code_count ? next + code_count : NULL;
        next += counters;
    }
}

ckpt_code statistics_begin(const ckpt_catalog *catalog, const statistics_options *options,
                           source_statistics *out, ckpt_error *err)
{
    size_t total = 0;

    memset(out, 0, sizeof *out);
    pthread_mutex_init(&out->lock, NULL);
    out->catalog = catalog;
    out->wanted = options->wanted;
    out->totals = options->totals;
    out->is_brief = options->brief && options->totals == NULL && !options->codes &&
                    !options->exponents;
    out->count = ckpt_catalog_count(catalog);
    for (size_t i = 0; i < out->count; i++)
        total += counters_of(out, options, i);
    out->bytes = out->count * sizeof *out->tensors + total * sizeof *out->counters;
    out->tensors = calloc(out->count + 1, sizeof *out->tensors);
    out->counters = calloc(total + 1, sizeof *out->counters);
    if (out->tensors == NULL || out->counters == NULL)
        return ckpt_fail_memory(err, "statistics", out->bytes);
    share_counters(out, options);
    return CKPT_OK;
}

typedef struct {
    ckpt_sink base;
    source_statistics *out;
} statistics_sink;

static int sink_wants(const ckpt_sink *self, size_t tensor)
{
    return statistics_wants(((const statistics_sink *)self)->out, tensor);
}

static ckpt_code sink_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    return statistics_put_tile(((statistics_sink *)self)->out, range, tile, scratch, err);
}

static uint64_t sink_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    (void)row_count;
    return statistics_need(
        ckpt_catalog_at(((const statistics_sink *)self)->out->catalog, tensor));
}

ckpt_code statistics_of_source(ckpt_source *source, const statistics_options *options,
                               source_statistics *out, ckpt_error *err)
{
    static const sink_ops ops = { sink_wants, sink_put, sink_need, NULL };
    statistics_sink sink = { .base = { &ops }, .out = out };
    ckpt_run_options run = options->run;
    ckpt_code code = statistics_begin(source->catalog, options, out, err);

    if (code == CKPT_OK) {
        run.fixed_bytes += out->bytes;
        code = ckpt_copy(source, &sink.base, &run, err);
    }
    if (code != CKPT_OK)
        statistics_release(out);
    return code;
}

void statistics_release(source_statistics *statistics)
{
    if (statistics->catalog == NULL)
        return;
    pthread_mutex_destroy(&statistics->lock);
    free(statistics->tensors);
    free(statistics->counters);
    memset(statistics, 0, sizeof *statistics);
}
