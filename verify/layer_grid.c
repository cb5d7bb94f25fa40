/* Groups the tensors of a model by layer and kind. */
#include "layer_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "digest_compare.h"
#include "libckpt/array.h"
#include "libckpt/table.h"
#include "median.h"
#include "tensor_group.h"

static const char rest[] = "rest";

static int compare_names(const void *left, const void *right)
{
    const char *a = *(char *const *)left;
    const char *b = *(char *const *)right;
    const int is_rest = (strcmp(a, rest) == 0) - (strcmp(b, rest) == 0);
    const int natural = strverscmp(a, b);

    return is_rest != 0 ? is_rest : natural != 0 ? natural : strcmp(a, b);
}

/* The name without its layer, with numbers replaced by '*'. */
static void inner_kind(const char *name, char *out)
{
    const size_t layer = tensor_layer_bytes(name);

    tensor_kind(name + layer + (layer > 0 && name[layer] == '.'), out);
}

/* Add `word` to the list if it is new. */
static ckpt_code add_word(table *t, char ***words, size_t *count, const char *word,
                          ckpt_error *err)
{
    uint64_t known;
    char **room;
    char *copy;

    if (table_find(t, word, &known))
        return CKPT_OK;
    if ((room = array_room(*words, *count, sizeof *room, "layers", err)) == NULL)
        return CKPT_E_MEMORY;
    *words = room;
    if ((copy = strdup(word)) == NULL)
        return ckpt_fail_memory(err, "layers", strlen(word));
    room[(*count)++] = copy;
    return table_add(t, copy, 0) == TABLE_NO_MEMORY ? ckpt_fail_memory(err, "layers", *count)
                                                    : CKPT_OK;
}

/* Names of layers and kinds while a grid is made. */
typedef struct {
    table layers;
    table kinds;
    layer_grid *out;
} collecting;

static ckpt_code collect_catalog(collecting *c, const ckpt_catalog *catalog, ckpt_error *err)
{
    layer_grid *out = c->out;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(catalog) && code == CKPT_OK; i++) {
        const char *name = ckpt_catalog_at(catalog, i)->name;
        char *word = malloc(tensor_group_bytes(name));

        if (word == NULL)
            return ckpt_fail_memory(err, "layers", strlen(name));
        tensor_layer(name, word);
        code = add_word(&c->layers, &out->layers, &out->layer_count, word, err);
        inner_kind(name, word);
        if (code == CKPT_OK)
            code = add_word(&c->kinds, &out->kinds, &out->kind_count, word, err);
        free(word);
    }
    return code;
}

/* Find rows and columns for one or two catalogs (b may be NULL) and allocate the cells. */
static ckpt_code collect(const ckpt_catalog *a, const ckpt_catalog *b, layer_grid *out,
                         ckpt_error *err)
{
    collecting c = { .out = out };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    table_init(&c.layers);
    table_init(&c.kinds);
    code = collect_catalog(&c, a, err);
    if (code == CKPT_OK && b != NULL)
        code = collect_catalog(&c, b, err);
    table_release(&c.layers);
    table_release(&c.kinds);
    if (code == CKPT_OK && out->layer_count > 0) {
        qsort(out->layers, out->layer_count, sizeof *out->layers, compare_names);
        qsort(out->kinds, out->kind_count, sizeof *out->kinds, compare_names);
    }
    if (code != CKPT_OK ||
        (out->layer_count > 0 && out->kind_count > GRID_CELLS_MAX / out->layer_count))
        return code;
    out->cells = calloc(out->layer_count * out->kind_count + 1, sizeof *out->cells);
    return out->cells == NULL ? ckpt_fail_memory(err, "layers", GRID_CELLS_MAX) : CKPT_OK;
}

static size_t place_of(char *const *words, size_t count, const char *word)
{
    const char *const key = word;
    char *const *found = bsearch(&key, words, count, sizeof *words, compare_names);

    return (size_t)(found - words);
}

/* The cell of a tensor; its layer and kind must be in the grid. `room` is scratch for a name. */
static grid_cell *cell_of(const layer_grid *g, const char *name, char *room)
{
    size_t layer;

    tensor_layer(name, room);
    layer = place_of(g->layers, g->layer_count, room);
    inner_kind(name, room);
    return &g->cells[place_of(g->kinds, g->kind_count, room) * g->layer_count + layer];
}

static void add_tensor(grid_cell *cell, const ckpt_tensor *t, const tensor_statistics *s)
{
    if (cell->tensor_count++ == 0)
        ckpt_tensor_encoding(t, cell->encoding, sizeof cell->encoding);
    if (s == NULL || ckpt_tensor_is_int(t))
        return;
    cell->value_count += s->count - s->nans - s->infinities;
    cell->squares += exact_sum_value(&s->squares);
}

static ckpt_code fill(const certificate *c, size_t i, const source_statistics *statistics,
                      layer_grid *g, ckpt_error *err)
{
    const ckpt_catalog *catalog = c->checkpoints[i].tensors;
    ckpt_code code = CKPT_OK;

    for (size_t t = 0; t < ckpt_catalog_count(catalog) && code == CKPT_OK; t++) {
        const ckpt_tensor *tensor = ckpt_catalog_at(catalog, t);
        char *room = malloc(tensor_group_bytes(tensor->name));

        if (room == NULL)
            code = ckpt_fail_memory(err, "layers", 0);
        else
            add_tensor(cell_of(g, tensor->name, room), tensor,
                       statistics == NULL ? NULL : &statistics->tensors[t]);
        free(room);
    }
    for (size_t f = 0; f < c->finding_count && code == CKPT_OK; f++) {
        const char *name = c->findings[f].subject;
        char *room;

        if (!c->findings[f].fails || c->findings[f].checkpoint != i ||
            ckpt_catalog_find(catalog, name) == CKPT_NOT_FOUND)
            continue;
        if ((room = malloc(tensor_group_bytes(name))) == NULL)
            code = ckpt_fail_memory(err, "layers", 0);
        else
            cell_of(g, name, room)->finding_count++;
        free(room);
    }
    return code;
}

/* log2(rms) of a row's cells against their median. */
static void judge_row(grid_cell *row, size_t count, double *room)
{
    size_t known = 0;
    double middle;

    for (size_t i = 0; i < count; i++) {
        row[i].deviation = row[i].value_count == 0 || row[i].squares == 0
                               ? NAN
                               : log2(row[i].squares / (double)row[i].value_count) / 2;
        if (!isnan(row[i].deviation))
            room[known++] = row[i].deviation;
    }
    if (known == 0)
        return;
    middle = median(room, known);
    for (size_t i = 0; i < count; i++)
        row[i].deviation -= middle;
}

ckpt_code layer_grid_make(const certificate *c, size_t i, const source_statistics *statistics,
                          layer_grid *out, ckpt_error *err)
{
    double *room;
    ckpt_code code;

    if ((code = collect(c->checkpoints[i].tensors, NULL, out, err)) != CKPT_OK ||
        out->cells == NULL)
        return code;
    if ((room = calloc(out->layer_count + 1, sizeof *room)) == NULL)
        code = ckpt_fail_memory(err, "layers", out->layer_count);
    else
        code = fill(c, i, statistics, out, err);
    for (size_t k = 0; k < out->kind_count && code == CKPT_OK; k++)
        judge_row(&out->cells[k * out->layer_count], out->layer_count, room);
    free(room);
    return code;
}

/* ---- two checkpoints ---- */

typedef struct {
    layer_grid *grid;
    ckpt_code code;                /* the first error of counting */
    ckpt_error error;
} comparing;

/* Count a tensor in its cell and return the cell; NULL: out of memory. */
static grid_cell *count_in(comparing *c, const char *name)
{
    char *room = malloc(tensor_group_bytes(name));
    grid_cell *cell = room == NULL ? NULL : cell_of(c->grid, name, room);

    if (room == NULL)
        c->code = ckpt_fail_memory(&c->error, "layers", strlen(name));
    free(room);
    return cell;
}

/* A digest_difference_fn. */
static void count_difference(void *context, digest_difference kind, const char *name,
                             const char *expected, const char *got)
{
    grid_cell *cell = count_in(context, name);

    (void)expected;
    (void)got;
    if (cell == NULL)
        return;
    cell->differing_count++;
    cell->lone_count += kind == DIGEST_MISSING || kind == DIGEST_EXTRA;
    cell->tensor_count += kind == DIGEST_EXTRA;
}

ckpt_code layer_grid_compare(const certificate *c, size_t i, layer_grid *out, ckpt_error *err)
{
    const certificate_checkpoint *a = &c->checkpoints[0];
    const certificate_checkpoint *b = &c->checkpoints[i];
    const digest_side sides[] = { { a->tensors, a->digest }, { b->tensors, b->digest } };
    comparing counts = { .grid = out };
    ckpt_code code = collect(a->tensors, b->tensors, out, err);

    if (code != CKPT_OK || out->cells == NULL)
        return code;
    for (size_t t = 0; t < ckpt_catalog_count(a->tensors); t++) {
        const ckpt_tensor *tensor = ckpt_catalog_at(a->tensors, t);
        grid_cell *cell = count_in(&counts, tensor->name);

        if (cell != NULL)
            add_tensor(cell, tensor, NULL);
    }
    digest_compare(&sides[0], &sides[1], 0, count_difference, &counts);
    if (counts.code != CKPT_OK)
        *err = counts.error;
    return counts.code;
}

void layer_grid_release(layer_grid *grid)
{
    for (size_t i = 0; i < grid->layer_count; i++)
        free(grid->layers[i]);
    for (size_t i = 0; i < grid->kind_count; i++)
        free(grid->kinds[i]);
    free(grid->layers);
    free(grid->kinds);
    free(grid->cells);
    memset(grid, 0, sizeof *grid);
}
