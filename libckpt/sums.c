/*
 * Checksums of runs of bytes. To use the tensor loop (ckpt_copy), a run is treated as two tensors:
 * one of rows of ROW_BYTES, and one of a single row for the rest.
 */
#include "sums.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32.h"

enum { ROW_BYTES = 8192 };

typedef struct {
    ckpt_source base;
    const ckpt_store *store;
} run_source;

typedef struct {
    ckpt_sink base;
    const ckpt_store *store;
    uint32_t *crcs;                /* indexed by sum: XOR of the shifted CRCs of its tiles */
} crc_sink;

/* Tensors 2 i and 2 i + 1 are run i. */
static const store_sum *sum_of(const ckpt_store *store, size_t tensor)
{
    return &store->sums[tensor / 2];
}

/* The offset of row `row` of the tensor within its run. */
static uint64_t run_position(const ckpt_store *store, size_t tensor, uint64_t row)
{
    const uint64_t bytes = sum_of(store, tensor)->size_bytes;

    return tensor % 2 == 0 ? row * ROW_BYTES : bytes - bytes % ROW_BYTES;
}

/* ---- the source ---- */

static ckpt_code run_read(ckpt_source *self, const source_range *range, arena *scratch,
                          ckpt_tile *tile, ckpt_error *err)
{
    const ckpt_store *store = ((const run_source *)self)->store;
    const store_sum *sum = sum_of(store, range->tensor);
    const uint64_t size = range->row_count *
                          ckpt_part_row_bytes(ckpt_catalog_at(self->catalog, range->tensor),
                                              CKPT_DATA);

    tile->part_bytes[CKPT_DATA] = size;
    if ((tile->part[CKPT_DATA] = arena_alloc(scratch, (size_t)size)) == NULL)
        return ckpt_fail_memory(err, "a run of bytes", size);
    return file_read_at(store->files[sum->file].file,
                        sum->offset + run_position(store, range->tensor, range->row),
                        tile->part[CKPT_DATA], (size_t)size, err);
}

static uint64_t run_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    return arena_cost(row_count *
                      ckpt_part_row_bytes(ckpt_catalog_at(self->catalog, tensor), CKPT_DATA));
}

static ckpt_code list_runs(const ckpt_store *store, ckpt_catalog *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < 2 * store->sum_count && code == CKPT_OK; i++) {
        const uint64_t bytes = sum_of(store, i)->size_bytes;
        char name[32];
        ckpt_tensor t = { .name = name, .dtype = CKPT_U8, .stored_dtype = CKPT_U8, .rank = 2 };

        snprintf(name, sizeof name, "%zu", i);
        t.shape[0] = i % 2 == 0 ? bytes / ROW_BYTES : 1;
        t.shape[1] = i % 2 == 0 ? ROW_BYTES : bytes % ROW_BYTES;
        code = catalog_add(out, &t, err);
    }
    return code;
}

/* ---- the sink ---- */

static int crc_wants(const ckpt_sink *self, size_t tensor)
{
    return sum_of(((const crc_sink *)self)->store, tensor)->crc != 0;
}

static ckpt_code crc_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                         arena *scratch, ckpt_error *err)
{
    crc_sink *s = (crc_sink *)self;
    const uint64_t size = tile->part_bytes[CKPT_DATA];
    const uint64_t end = run_position(s->store, range->tensor, range->row) + size;
    const uint32_t crc = crc32_add(0, tile->part[CKPT_DATA], (size_t)size);

    (void)scratch;
    (void)err;
    __atomic_fetch_xor(&s->crcs[range->tensor / 2],
                       crc32_shift(crc, sum_of(s->store, range->tensor)->size_bytes - end),
                       __ATOMIC_RELAXED);
    return CKPT_OK;
}

/* ---- the check ---- */

/* An empty run needs no checksum. */
static ckpt_code compare(const crc_sink *s, sums_result *out, ckpt_error *err)
{
    const ckpt_store *store = s->store;

    if ((out->wrong = calloc(store->sum_count + 1, sizeof *out->wrong)) == NULL)
        return ckpt_fail_memory(err, "checksums", store->sum_count);
    for (size_t i = 0; i < store->sum_count; i++) {
        const store_sum *sum = &store->sums[i];

        if (sum->crc == 0 && sum->size_bytes > 0) {
            out->absent_count++;
            continue;
        }
        out->checked_count++;
        out->checked_bytes += sum->size_bytes;
        if (sum->crc != s->crcs[i])
            out->wrong[out->wrong_count++] = (sums_difference){ i, s->crcs[i] };
    }
    return CKPT_OK;
}

ckpt_code sums_check(const ckpt_store *store, const ckpt_run_options *options, sums_result *out,
                     ckpt_error *err)
{
    static const source_ops run_ops = { run_read, run_need, NULL };
    static const sink_ops crc_ops = { crc_wants, crc_put, NULL, NULL };
    ckpt_catalog *catalog = catalog_create();
    run_source source = { { &run_ops, catalog }, store };
    crc_sink sink = { { &crc_ops }, store, NULL };
    ckpt_run_options copy = *options;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    sink.crcs = calloc(store->sum_count + 1, sizeof *sink.crcs);
    if (catalog == NULL || sink.crcs == NULL)
        code = ckpt_fail_memory(err, "checksums", store->sum_count);
    else
        code = list_runs(store, catalog, err);
    if (code == CKPT_OK) {
        copy.fixed_bytes += catalog_bytes(catalog);
        code = ckpt_copy(&source.base, &sink.base, &copy, err);
    }
    if (code == CKPT_OK)
        code = compare(&sink, out, err);
    free(sink.crcs);
    catalog_free(catalog);
    return code;
}

void sums_release(sums_result *result)
{
    free(result->wrong);
    memset(result, 0, sizeof *result);
}
