/* Collecting the FP4 scales that the canonical rule does not recover, and writing them sorted. */
#include "side_data.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "kernels.h"
#include "side_data_private.h"
#include "size.h"
#include "values.h"
#include "zfile.h"

#define SPILL_FILE ".fp4_scales.spill"

/* ---- the spill ---- */

/* In this machine's byte order: a spill does not travel. */
typedef struct {
    uint64_t group;
    uint32_t tensor;
    uint8_t scale;
    uint8_t check[3];
} spill_record;

enum { SPILL_BATCH = 512, CHECKED_BYTES = offsetof(spill_record, check) };

struct side_data_writer {
    encode_exception_sink base;
    const ckpt_catalog *catalog;
    char *path;                    /* of the result */
    char *spill_path;
    ckpt_file *spill;
    uint64_t spill_bytes;
    uint64_t synced_bytes;
    pthread_mutex_t lock;          /* of spill_bytes */
};

typedef void spill_visit(void *context, const spill_record *record);

static void make_check(const spill_record *record, uint8_t check[3])
{
    const uint64_t hash = kernels_get()->hash_bytes(record, CHECKED_BYTES, 0).low64;

    for (int i = 0; i < 3; i++)
        check[i] = (uint8_t)(hash >> 8 * i);
}

static int is_good(const side_data_writer *w, const spill_record *record)
{
    uint8_t check[3];

    make_check(record, check);
    return memcmp(check, record->check, sizeof check) == 0 &&
           record->tensor < ckpt_catalog_count(w->catalog);
}

/* Look at the records up to the first that is damaged; *good_bytes: where that is, or the end. */
static ckpt_code scan_spill(const side_data_writer *w, spill_visit *visit, void *context,
                            uint64_t *good_bytes, ckpt_error *err)
{
    spill_record batch[SPILL_BATCH];
    ckpt_code code;

    for (*good_bytes = 0; *good_bytes < w->spill_bytes;) {
        const size_t size = size_min(sizeof batch, w->spill_bytes - *good_bytes);

        if ((code = file_read_at(w->spill, *good_bytes, batch, size, err)) != CKPT_OK)
            return code;
        for (size_t i = 0; i < size / sizeof *batch; i++) {
            if (!is_good(w, &batch[i]))
                return CKPT_OK;
            if (visit != NULL)
                visit(context, &batch[i]);
            *good_bytes += sizeof *batch;
        }
    }
    return CKPT_OK;
}

static ckpt_code fail_damaged(const side_data_writer *w, uint64_t offset, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged at offset %" PRIu64
                     "; remove its folder and start over", w->spill_path, offset);
}

/* All records, which were good when they were written or when the spill was opened. */
static ckpt_code visit_spill(const side_data_writer *w, spill_visit *visit, void *context,
                             ckpt_error *err)
{
    uint64_t good_bytes;
    const ckpt_code code = scan_spill(w, visit, context, &good_bytes, err);

    if (code == CKPT_OK && good_bytes < w->spill_bytes)
        return fail_damaged(w, good_bytes, err);
    return code;
}

/*
 * Cut the spill at the first record that is not whole. Tensors that are done rely on what was
 * synced: if that is damaged or gone there is nothing to go on from, unless the result is there.
 */
static ckpt_code cut_spill(side_data_writer *w, uint64_t synced_bytes, ckpt_error *err)
{
    uint64_t good_bytes;
    ckpt_code code;

    w->spill_bytes = file_size(w->spill) / sizeof(spill_record) * sizeof(spill_record);
    if ((code = scan_spill(w, NULL, NULL, &good_bytes, err)) != CKPT_OK)
        return code;
    if (good_bytes < synced_bytes && !file_exists(w->path))
        return fail_damaged(w, good_bytes, err);
    w->spill_bytes = good_bytes;
    return file_set_size(w->spill, good_bytes, err);
}

static ckpt_code append_records(side_data_writer *w, size_t tensor,
                                const encode_exception *exceptions, size_t count, ckpt_error *err)
{
    spill_record batch[SPILL_BATCH];
    ckpt_code code = CKPT_OK;

    while (count > 0 && code == CKPT_OK) {
        const size_t step = size_min(count, SPILL_BATCH);

        for (size_t i = 0; i < step; i++) {
            batch[i].group = exceptions[i].group;
            batch[i].tensor = (uint32_t)tensor;
            batch[i].scale = exceptions[i].scale;
            make_check(&batch[i], batch[i].check);
        }
        pthread_mutex_lock(&w->lock);
        code = file_write_at(w->spill, w->spill_bytes, batch, step * sizeof *batch, err);
        if (code == CKPT_OK)
            w->spill_bytes += step * sizeof *batch;
        pthread_mutex_unlock(&w->lock);
        exceptions += step;
        count -= step;
    }
    return code;
}

static ckpt_code spill_put(encode_exception_sink *self, const source_range *range,
                           const encode_exception *exceptions, size_t count, ckpt_error *err)
{
    return append_records((side_data_writer *)self, range->tensor, exceptions, count, err);
}

ckpt_code side_data_sync(side_data_writer *writer, uint64_t *synced_bytes, ckpt_error *err)
{
    ckpt_code code;

    pthread_mutex_lock(&writer->lock);
    *synced_bytes = writer->spill_bytes;
    pthread_mutex_unlock(&writer->lock);
    if (*synced_bytes == writer->synced_bytes)
        return CKPT_OK;
    if ((code = file_sync(writer->spill, err)) == CKPT_OK)
        writer->synced_bytes = *synced_bytes;       /* called by one thread at a time */
    return code;
}

/* A run that was stopped after side_data_finish has left the result and no spill to add to. What
 * is in both does no harm. */
static ckpt_code restore_spill(side_data_writer *w, const char *directory, ckpt_error *err)
{
    side_data *data;
    ckpt_code code = side_data_read(directory, UINT64_MAX, &data, err);

    if (code != CKPT_OK || data == NULL)
        return code;
    for (size_t i = 0; i < data->tensor_count && code == CKPT_OK; i++) {
        const side_tensor *t = &data->tensors[i];
        const int64_t tensor = ckpt_catalog_find(w->catalog, t->name);

        if (tensor == CKPT_NOT_FOUND)
            code = ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' lists tensor '%s', which this conversion does not have",
                             w->path, t->name);
        else
            code = append_records(w, (size_t)tensor, data->entries + t->first, t->count, err);
    }
    side_data_free(data);
    return code;
}

ckpt_code side_data_begin(const char *directory, const ckpt_catalog *catalog,
                          uint64_t synced_bytes, side_data_writer **out, ckpt_error *err)
{
    side_data_writer *w;
    ckpt_code code;

    *out = NULL;
    if ((code = kernels_require(err)) != CKPT_OK)
        return code;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return ckpt_fail_memory(err, "side data", sizeof *w);
    w->base.put = spill_put;
    w->catalog = catalog;
    pthread_mutex_init(&w->lock, NULL);
    w->path = file_join(directory, SIDE_DATA_FILE);
    w->spill_path = file_join(directory, SPILL_FILE);
    if (w->path == NULL || w->spill_path == NULL) {
        code = ckpt_fail_memory(err, "a path", strlen(directory));
        goto out;
    }
    if ((code = file_open_rw(w->spill_path, &w->spill, err)) != CKPT_OK ||
        (code = cut_spill(w, synced_bytes, err)) != CKPT_OK)
        goto out;
    code = restore_spill(w, directory, err);
out:
    if (code == CKPT_OK)
        *out = w;
    else
        side_data_close(w);
    return code;
}

encode_exception_sink *side_data_sink(side_data_writer *writer)
{
    return &writer->base;
}

void side_data_close(side_data_writer *writer)
{
    if (writer == NULL)
        return;
    file_close(writer->spill, NULL);
    pthread_mutex_destroy(&writer->lock);
    free(writer->spill_path);
    free(writer->path);
    free(writer);
}

/* ---- sorting ---- */

/*
 * Tensors are done in the order of their names, as many at a time as SORT_MAX records hold; each
 * time the spill is read once more. Bounded memory, whatever the spill holds.
 */
enum { SORT_MAX = 1 << 22 };

typedef struct {
    const char *name;
    uint32_t tensor;
    uint64_t count;                /* records, repeated ones included */
} sort_tensor;

typedef struct {
    uint64_t group;
    uint32_t rank;                 /* of the tensor, by name */
    uint8_t scale;
} sort_entry;

typedef struct {
    uint64_t *counts;              /* by tensor */
    uint32_t *ranks;               /* by tensor */
    sort_tensor *tensors;          /* by rank; those that have records */
    size_t tensor_count;
    sort_entry *entries;
    size_t entry_count;
    size_t first;                  /* ranks [first, last) are in hand */
    size_t last;
} side_sorter;

static void count_record(void *context, const spill_record *record)
{
    ((side_sorter *)context)->counts[record->tensor]++;
}

static void gather_record(void *context, const spill_record *record)
{
    side_sorter *s = context;
    const uint32_t rank = s->ranks[record->tensor];

    if (rank < s->first || rank >= s->last)
        return;
    s->entries[s->entry_count].group = record->group;
    s->entries[s->entry_count].rank = rank;
    s->entries[s->entry_count].scale = record->scale;
    s->entry_count++;
}

static int compare_tensors(const void *left, const void *right)
{
    const sort_tensor *a = left;
    const sort_tensor *b = right;

    return strcmp(a->name, b->name);
}

static int compare_entries(const void *left, const void *right)
{
    const sort_entry *a = left;
    const sort_entry *b = right;

    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return (a->group > b->group) - (a->group < b->group);
}

/* The entries of one tensor, each once: tiles that were done again said the same again. */
static ckpt_code unite_entries(const sort_tensor *t, sort_entry *entries, size_t *count,
                               ckpt_error *err)
{
    size_t kept = 1;

    for (size_t i = 1; i < *count; i++) {
        if (entries[i].group != entries[kept - 1].group)
            entries[kept++] = entries[i];
        else if (entries[i].scale != entries[kept - 1].scale)
            return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' group %" PRIu64 " had scale %u in "
                             "one run and %u in another: the source has changed", t->name,
                             entries[i].group, entries[kept - 1].scale, entries[i].scale);
    }
    *count = kept;
    return CKPT_OK;
}

static void write_tensor(const sort_tensor *t, const sort_entry *entries, size_t count,
                         zfile_writer *out)
{
    char line[64];
    json_writer name;

    zfile_write(out, "tensor ", 7);
    json_writer_begin(&name, zfile_write, out, 0);
    json_put_string(&name, t->name);
    json_writer_end(&name);
    zfile_write(out, line, (size_t)snprintf(line, sizeof line, " %zu\n", count));
    for (size_t i = 0; i < count; i++)
        zfile_write(out, line, (size_t)snprintf(line, sizeof line, "%" PRIu64 " %u\n",
                                                entries[i].group, entries[i].scale));
}

static ckpt_code write_gathered(side_sorter *s, zfile_writer *out, ckpt_error *err)
{
    size_t begin = 0;
    ckpt_code code;

    qsort(s->entries, s->entry_count, sizeof *s->entries, compare_entries);
    for (size_t rank = s->first; rank < s->last; rank++) {
        const sort_tensor *t = &s->tensors[rank];
        size_t count = t->count;

        if ((code = unite_entries(t, s->entries + begin, &count, err)) != CKPT_OK)
            return code;
        write_tensor(t, s->entries + begin, count, out);
        begin += t->count;
    }
    return CKPT_OK;
}

static ckpt_code write_sorted(const side_data_writer *w, side_sorter *s, zfile_writer *out,
                              ckpt_error *err)
{
    ckpt_code code;

    for (s->first = 0; s->first < s->tensor_count; s->first = s->last) {
        uint64_t count = 0;

        for (s->last = s->first; s->last < s->tensor_count &&
             count + s->tensors[s->last].count <= SORT_MAX; s->last++)
            count += s->tensors[s->last].count;
        if (s->last == s->first)
            return ckpt_fail(err, CKPT_E_MEMORY, "tensor '%s' has too many FP4 scales to list: "
                             "expected at most %d, got %" PRIu64, s->tensors[s->first].name,
                             SORT_MAX, s->tensors[s->first].count);
        free(s->entries);
        s->entries = calloc(count, sizeof *s->entries);
        s->entry_count = 0;
        if (s->entries == NULL)
            return ckpt_fail_memory(err, "sorting FP4 scales", count * sizeof *s->entries);
        if ((code = visit_spill(w, gather_record, s, err)) != CKPT_OK ||
            (code = write_gathered(s, out, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* Count the records of every tensor and put those that have some in order. */
static ckpt_code begin_sorting(const side_data_writer *w, side_sorter *s, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(w->catalog);
    ckpt_code code;

    s->counts = calloc(count + 1, sizeof *s->counts);
    s->ranks = calloc(count + 1, sizeof *s->ranks);
    s->tensors = calloc(count + 1, sizeof *s->tensors);
    if (s->counts == NULL || s->ranks == NULL || s->tensors == NULL)
        return ckpt_fail_memory(err, "sorting FP4 scales", count);
    if ((code = visit_spill(w, count_record, s, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < count; i++)
        if (s->counts[i] > 0) {
            const sort_tensor t = { ckpt_catalog_at(w->catalog, i)->name, (uint32_t)i,
                                    s->counts[i] };

            s->tensors[s->tensor_count++] = t;
        }
    qsort(s->tensors, s->tensor_count, sizeof *s->tensors, compare_tensors);
    for (size_t rank = 0; rank < s->tensor_count; rank++)
        s->ranks[s->tensors[rank].tensor] = (uint32_t)rank;
    return CKPT_OK;
}

static ckpt_code write_result(const side_data_writer *w, side_sorter *s, const char *root,
                              ckpt_error *err)
{
    zfile_writer *out;
    ckpt_code code;

    if (s->tensor_count == 0)
        return CKPT_OK;
    if ((code = zfile_create(w->path, &out, err)) != CKPT_OK)
        return code;
    zfile_write(out, side_data_magic, sizeof side_data_magic - 1);
    zfile_write(out, root, strlen(root));
    zfile_write(out, "\n", 1);
    if ((code = write_sorted(w, s, out, err)) == CKPT_OK)
        return zfile_commit(out, err);
    zfile_abort(out);
    return code;
}

ckpt_code side_data_finish(side_data_writer *writer, const char *root, ckpt_error *err)
{
    side_sorter s = { 0 };
    ckpt_code code;

    if ((code = begin_sorting(writer, &s, err)) != CKPT_OK)
        goto out;
    if ((code = write_result(writer, &s, root == NULL ? "-" : root, err)) != CKPT_OK)
        goto out;
    code = file_remove(writer->spill_path, err);
out:
    free(s.counts);
    free(s.ranks);
    free(s.tensors);
    free(s.entries);
    side_data_close(writer);
    return code;
}
