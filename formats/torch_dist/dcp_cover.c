/*
 * dcp_cover.c: proves that chunks tile a tensor. First it checks that they lie inside it and that
 * their volumes add up to its volume. Then it shows that no two overlap, by one of two methods:
 *
 *   Grid    The cuts of all chunks divide the tensor into cells; each chunk marks the cells that it
 *           covers, and a cell may be marked once. Linear in the number of cells, which is close to
 *           that of chunks if the tensor was cut regularly.
 *   Sweep   Used if irregular cuts would give too many cells. Chunks are sorted by one dimension,
 *           and each is compared with those that begin before it ends, up to a limit.
 */
#include "dcp_metadata.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"

enum { CELLS_A_CHUNK = 64, CELLS_MIN = 4096 };

static const uint64_t COMPARISONS_MAX = 100 * 1000 * 1000;

typedef struct {
    const dcp_entry *entry;
    const dcp_chunk *first;          /* the entry's chunks */
    size_t *boxes;                   /* numbers of the chunks with elements */
    size_t box_count;
    uint64_t *cuts[CKPT_RANK_MAX];   /* begins and ends of boxes, sorted, unique */
    size_t cut_count[CKPT_RANK_MAX];
    unsigned char *taken;            /* by cell */
    ckpt_error *err;
} cover;

static ckpt_code fail_box(const cover *c, size_t box, const char *what)
{
    const dcp_chunk *chunk = &c->first[box];
    char text[CKPT_RANK_MAX * 21 + 1] = "";
    size_t used = 0;

    for (uint32_t d = 0; d < c->entry->rank; d++)
        used += (size_t)snprintf(text + used, sizeof text - used, d == 0 ? "%llu" : ",%llu",
                                 (unsigned long long)chunk->offsets[d]);
    return ckpt_fail(c->err, CKPT_E_FORMAT, "tensor '%s': the chunk at [%s] %s", c->entry->key,
                     text, what);
}

/* Collect the boxes; check that they lie inside and that their volumes add up. */
static ckpt_code check_volumes(cover *c)
{
    const dcp_entry *e = c->entry;
    uint64_t total = 1;
    uint64_t sum = 0;

    for (uint32_t d = 0; d < e->rank; d++)
        if (!size_mul(total, e->size[d], &total))
            return ckpt_fail(c->err, CKPT_E_FORMAT, "tensor '%s' has too many elements", e->key);
    for (size_t i = 0; i < e->chunk_count; i++) {
        const dcp_chunk *chunk = &c->first[i];
        uint64_t volume = 1;

        for (uint32_t d = 0; d < e->rank; d++) {
            if (chunk->offsets[d] > e->size[d] ||
                chunk->sizes[d] > e->size[d] - chunk->offsets[d])
                return fail_box(c, i, "goes beyond the tensor");
            volume *= chunk->sizes[d];           /* at most total */
        }
        if (volume > 0)
            c->boxes[c->box_count++] = i;
        if (!size_add(sum, volume, &sum) || sum > total)
            return fail_box(c, i, "makes the chunks larger than the tensor in total");
    }
    if (sum != total)
        return ckpt_fail(c->err, CKPT_E_FORMAT,
                         "tensor '%s': its chunks have %llu of %llu elements", e->key,
                         (unsigned long long)sum, (unsigned long long)total);
    return CKPT_OK;
}

static int compare_u64(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left;
    const uint64_t b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

static ckpt_code find_cuts(cover *c, uint32_t d)
{
    uint64_t *cuts = malloc(2 * c->box_count * sizeof *cuts);
    size_t count = 0;

    c->cuts[d] = cuts;
    if (cuts == NULL)
        return ckpt_fail_memory(c->err, "chunks", c->box_count);
    for (size_t i = 0; i < c->box_count; i++) {
        const dcp_chunk *chunk = &c->first[c->boxes[i]];

        cuts[2 * i] = chunk->offsets[d];
        cuts[2 * i + 1] = chunk->offsets[d] + chunk->sizes[d];
    }
    qsort(cuts, 2 * c->box_count, sizeof *cuts, compare_u64);
    for (size_t i = 0; i < 2 * c->box_count; i++)
        if (count == 0 || cuts[count - 1] != cuts[i])
            cuts[count++] = cuts[i];
    c->cut_count[d] = count;
    return CKPT_OK;
}

/* Index of an existing cut. */
static size_t find_cut(const cover *c, uint32_t d, uint64_t at)
{
    const uint64_t *found = bsearch(&at, c->cuts[d], c->cut_count[d], sizeof at, compare_u64);

    return (size_t)(found - c->cuts[d]);
}

/* Mark all cells of a box; iterates over them with the last dimension fastest. */
static ckpt_code mark_box(cover *c, size_t box)
{
    const dcp_chunk *chunk = &c->first[box];
    const uint32_t rank = c->entry->rank;
    size_t begin[CKPT_RANK_MAX];
    size_t end[CKPT_RANK_MAX];
    size_t at[CKPT_RANK_MAX];
    uint32_t d = 0;

    for (uint32_t k = 0; k < rank; k++) {
        begin[k] = find_cut(c, k, chunk->offsets[k]);
        end[k] = find_cut(c, k, chunk->offsets[k] + chunk->sizes[k]);
        at[k] = begin[k];
    }
    do {
        size_t cell = 0;

        for (uint32_t k = 0; k < rank; k++)
            cell = cell * (c->cut_count[k] - 1) + at[k];
        if (c->taken[cell])
            return fail_box(c, box, "overlaps another one");
        c->taken[cell] = 1;
        for (d = rank; d > 0; d--) {
            if (++at[d - 1] < end[d - 1])
                break;
            at[d - 1] = begin[d - 1];
        }
    } while (d > 0);
    return CKPT_OK;
}

static ckpt_code check_grid(cover *c, uint64_t cells)
{
    ckpt_code code = CKPT_OK;

    c->taken = calloc((size_t)cells, 1);
    if (c->taken == NULL)
        return ckpt_fail_memory(c->err, "chunks", cells);
    for (size_t i = 0; i < c->box_count && code == CKPT_OK; i++)
        code = mark_box(c, c->boxes[i]);
    return code;
}

typedef struct {
    uint64_t begin;
    size_t box;
} sweep_start;

static int compare_starts(const void *left, const void *right)
{
    const sweep_start *a = left;
    const sweep_start *b = right;

    return compare_u64(&a->begin, &b->begin);
}

static int overlap(const cover *c, size_t left, size_t right)
{
    const dcp_chunk *a = &c->first[left];
    const dcp_chunk *b = &c->first[right];

    for (uint32_t d = 0; d < c->entry->rank; d++)
        if (a->offsets[d] >= b->offsets[d] + b->sizes[d] ||
            b->offsets[d] >= a->offsets[d] + a->sizes[d])
            return 0;
    return 1;
}

static ckpt_code sweep(const cover *c, const sweep_start *starts, uint32_t along)
{
    uint64_t comparisons = 0;

    for (size_t i = 0; i < c->box_count; i++) {
        const dcp_chunk *chunk = &c->first[starts[i].box];
        const uint64_t end = chunk->offsets[along] + chunk->sizes[along];

        for (size_t k = i + 1; k < c->box_count && starts[k].begin < end; k++) {
            if (++comparisons > COMPARISONS_MAX)
                return ckpt_fail(c->err, CKPT_E_USAGE,
                                 "tensor '%s': %zu chunks are cut too irregularly to be checked",
                                 c->entry->key, c->box_count);
            if (overlap(c, starts[i].box, starts[k].box))
                return fail_box(c, starts[k].box, "overlaps another one");
        }
    }
    return CKPT_OK;
}

/* Sweep along the dimension with the most cuts: there the fewest chunks overlap in that
 * dimension. */
static ckpt_code check_sweep(const cover *c)
{
    sweep_start *starts = malloc(c->box_count * sizeof *starts);
    uint32_t along = 0;
    ckpt_code code;

    if (starts == NULL)
        return ckpt_fail_memory(c->err, "chunks", c->box_count);
    for (uint32_t d = 1; d < c->entry->rank; d++)
        if (c->cut_count[d] > c->cut_count[along])
            along = d;
    for (size_t i = 0; i < c->box_count; i++)
        starts[i] = (sweep_start){ c->first[c->boxes[i]].offsets[along], c->boxes[i] };
    qsort(starts, c->box_count, sizeof *starts, compare_starts);
    code = sweep(c, starts, along);
    free(starts);
    return code;
}

static ckpt_code check_overlaps(cover *c)
{
    const uint64_t cells_max = CELLS_MIN + CELLS_A_CHUNK * (uint64_t)c->box_count;
    uint64_t cells = 1;
    ckpt_code code;

    for (uint32_t d = 0; d < c->entry->rank; d++) {
        if ((code = find_cuts(c, d)) != CKPT_OK)
            return code;
        if (!size_mul(cells, c->cut_count[d] - 1, &cells))
            cells = UINT64_MAX;
    }
    return cells <= cells_max ? check_grid(c, cells) : check_sweep(c);
}

ckpt_code dcp_check_cover(const dcp_metadata *m, size_t i, ckpt_error *err)
{
    cover c = { .entry = &m->entries[i], .err = err };
    ckpt_code code;

    if (c.entry->is_bytes)
        return CKPT_OK;
    c.first = m->chunks + c.entry->first_chunk;
    c.boxes = calloc(c.entry->chunk_count + 1, sizeof *c.boxes);
    if (c.boxes == NULL)
        return ckpt_fail_memory(err, "chunks", c.entry->chunk_count);
    code = check_volumes(&c);
    if (code == CKPT_OK && c.box_count > 1)
        code = check_overlaps(&c);
    for (uint32_t d = 0; d < CKPT_RANK_MAX; d++)
        free(c.cuts[d]);
    free(c.taken);
    free(c.boxes);
    return code;
}
