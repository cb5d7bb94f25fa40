/*
 * side_data_sort.c: sorts the spill and removes duplicate groups.
 *
 * Memory is bounded, whatever the spill holds: each pass reads all of it and keeps the lowest
 * records after those of the previous pass, as many as fit. In the file, counts precede the lines
 * that they count, so all passes are done twice: to count, then to write.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/json.h"
#include "side_data_private.h"
#include "libckpt/size.h"
#include "libckpt/zfile.h"

/* Sorting needs a second copy of the entries. At least ENTRIES_MIN are sorted at a time. */
enum { ENTRY_COPIES = 2, ENTRIES_MIN = 64 };

typedef struct {
    uint64_t group;
    uint32_t rank;                 /* of the tensor, by name */
    uint8_t scale;
} sort_entry;

typedef struct {
    const side_data_writer *writer;
    uint32_t *order;               /* tensors by name */
    uint32_t *ranks;               /* by tensor */
    uint64_t *counts;              /* by rank: groups, each counted once */
    sort_entry *entries;
    size_t entry_count;
    size_t capacity;
    sort_entry first;              /* this pass takes entries after this one, */
    int has_first;
    sort_entry last;               /* up to and including this one */
    int has_last;
    zfile_writer *out;             /* NULL: counting */
    uint32_t writing;              /* 1 + the rank of the tensor whose groups are being written */
} side_sorter;

static int compare_entries(const void *left, const void *right)
{
    const sort_entry *a = left;
    const sort_entry *b = right;

    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return (a->group > b->group) - (a->group < b->group);
}

static const char *name_of(const side_sorter *s, uint32_t rank)
{
    return ckpt_catalog_at(s->writer->options.catalog, s->order[rank])->name;
}

/* Sort the records in memory and emit each group once: repeated tiles give equal records. */
static ckpt_code sort_entries(side_sorter *s, ckpt_error *err)
{
    sort_entry *e = s->entries;
    size_t kept = 0;

    qsort(e, s->entry_count, sizeof *e, compare_entries);
    for (size_t i = 0; i < s->entry_count; i++) {
        if (kept == 0 || compare_entries(&e[i], &e[kept - 1]) != 0)
            e[kept++] = e[i];
        else if (e[i].scale != e[kept - 1].scale)
            return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' group %" PRIu64 " had scale %u in "
                             "one run and %u in another: the source has changed",
                             name_of(s, e[i].rank), e[i].group, e[kept - 1].scale, e[i].scale);
    }
    s->entry_count = kept;
    return CKPT_OK;
}

/* Make space: the highest quarter is left for the next pass. */
static ckpt_code make_room(side_sorter *s, ckpt_error *err)
{
    const size_t most = s->capacity - s->capacity / 4;
    const ckpt_code code = sort_entries(s, err);

    if (code != CKPT_OK || s->entry_count <= most)
        return code;
    s->entry_count = most;
    s->last = s->entries[most - 1];
    s->has_last = 1;
    return CKPT_OK;
}

static ckpt_code gather_record(void *context, const spill_record *record, ckpt_error *err)
{
    side_sorter *s = context;
    const sort_entry e = { record->group, s->ranks[record->tensor], record->scale };
    ckpt_code code;

    if ((s->has_first && compare_entries(&e, &s->first) <= 0) ||
        (s->has_last && compare_entries(&e, &s->last) > 0))
        return CKPT_OK;
    if (s->entry_count == s->capacity && (code = make_room(s, err)) != CKPT_OK)
        return code;
    if (s->has_last && compare_entries(&e, &s->last) > 0)
        return CKPT_OK;
    s->entries[s->entry_count++] = e;
    return CKPT_OK;
}

static void write_name(side_sorter *s, uint32_t rank)
{
    char count[32];
    json_writer name;

    zfile_write(s->out, "tensor ", 7);
    json_writer_begin(&name, zfile_write, s->out, 0);
    json_put_string(&name, name_of(s, rank));
    json_writer_end(&name);
    zfile_write(s->out, count,
                (size_t)snprintf(count, sizeof count, " %" PRIu64 "\n", s->counts[rank]));
    s->writing = rank + 1;
}

static void take_entries(side_sorter *s)
{
    for (size_t i = 0; i < s->entry_count; i++) {
        const sort_entry *e = &s->entries[i];
        char line[32];

        if (s->out == NULL) {
            s->counts[e->rank]++;
            continue;
        }
        if (s->writing != e->rank + 1)
            write_name(s, e->rank);
        zfile_write(s->out, line, (size_t)snprintf(line, sizeof line, "%" PRIu64 " %u\n",
                                                   e->group, e->scale));
    }
}

/* All passes. */
static ckpt_code sweep(side_sorter *s, ckpt_error *err)
{
    ckpt_code code;

    s->has_first = 0;
    do {
        s->entry_count = 0;
        s->has_last = 0;
        if ((code = side_data_visit_spill(s->writer, gather_record, s, err)) != CKPT_OK ||
            (code = sort_entries(s, err)) != CKPT_OK)
            return code;
        take_entries(s);
        s->first = s->last;
        s->has_first = s->has_last;
    } while (s->has_last);
    return CKPT_OK;
}

static int compare_tensors(const void *left, const void *right, void *context)
{
    const ckpt_catalog *catalog = context;
    const uint32_t *a = left;
    const uint32_t *b = right;

    return strcmp(ckpt_catalog_at(catalog, *a)->name, ckpt_catalog_at(catalog, *b)->name);
}

static ckpt_code begin_sorting(side_sorter *s, uint64_t memory_bytes, ckpt_error *err)
{
    const ckpt_catalog *catalog = s->writer->options.catalog;
    const size_t count = ckpt_catalog_count(catalog);
    const uint64_t records = s->writer->spill_bytes / sizeof(spill_record);

    s->capacity = size_min(size_max(memory_bytes / (ENTRY_COPIES * sizeof *s->entries),
                                    ENTRIES_MIN),
                           records + 1);
    s->order = calloc(count + 1, sizeof *s->order);
    s->ranks = calloc(count + 1, sizeof *s->ranks);
    s->counts = calloc(count + 1, sizeof *s->counts);
    s->entries = calloc(s->capacity, sizeof *s->entries);
    if (s->order == NULL || s->ranks == NULL || s->counts == NULL || s->entries == NULL)
        return ckpt_fail_memory(err, "sorting FP4 scales", s->capacity * sizeof *s->entries);
    for (size_t i = 0; i < count; i++)
        s->order[i] = (uint32_t)i;
    qsort_r(s->order, count, sizeof *s->order, compare_tensors, (void *)(uintptr_t)catalog);
    for (size_t rank = 0; rank < count; rank++)
        s->ranks[s->order[rank]] = (uint32_t)rank;
    return CKPT_OK;
}

static void write_head(side_sorter *s, const char *const roots[2])
{
    const size_t tensor_count = ckpt_catalog_count(s->writer->options.catalog);
    char line[sizeof side_data_magic + 2 * CKPT_ROOT_HEX + 32];
    uint64_t entry_count = 0;

    for (size_t rank = 0; rank < tensor_count; rank++)
        entry_count += s->counts[rank];
    zfile_write(s->out, line,
                (size_t)snprintf(line, sizeof line, "%s%s %s %" PRIu64 "\n", side_data_magic,
                                 roots == NULL ? "-" : roots[0], roots == NULL ? "-" : roots[1],
                                 entry_count));
}

static ckpt_code write_result(side_sorter *s, const char *const roots[2], ckpt_error *err)
{
    ckpt_code code;

    if ((code = sweep(s, err)) != CKPT_OK ||
        (code = zfile_create(s->writer->path, &s->out, err)) != CKPT_OK)
        return code;
    write_head(s, roots);
    if ((code = sweep(s, err)) == CKPT_OK)
        return zfile_commit(s->out, err);
    zfile_abort(s->out);
    return code;
}

ckpt_code side_data_finish(side_data_writer *writer, const char *const roots[2],
                           uint64_t memory_bytes, ckpt_error *err)
{
    side_sorter s = { .writer = writer };
    ckpt_code code;

    if ((code = begin_sorting(&s, memory_bytes, err)) == CKPT_OK &&
        (code = write_result(&s, roots, err)) == CKPT_OK)
        code = file_remove(writer->spill_path, err);
    free(s.order);
    free(s.ranks);
    free(s.counts);
    free(s.entries);
    side_data_close(writer);
    return code;
}
