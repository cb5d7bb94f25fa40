/* Layers and kinds of a model. */
#include "layer_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/table.h"
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

/* The name without its layer; numbers are '*'. */
static void inner_kind(const char *name, char *out)
{
    const size_t layer = tensor_layer_bytes(name);

    tensor_kind(name + layer + (layer > 0 && name[layer] == '.'), out);
}

/* Keep `word` if it is new. */
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

static ckpt_code collect(const ckpt_catalog *catalog, layer_grid *out, ckpt_error *err)
{
    table layers;
    table kinds;
    ckpt_code code = CKPT_OK;

    table_init(&layers);
    table_init(&kinds);
    for (size_t i = 0; i < ckpt_catalog_count(catalog) && code == CKPT_OK; i++) {
        const char *name = ckpt_catalog_at(catalog, i)->name;
        char *word = malloc(tensor_group_bytes(name));

        if (word == NULL) {
            code = ckpt_fail_memory(err, "layers", strlen(name));
            break;
        }
        tensor_layer(name, word);
        code = add_word(&layers, &out->layers, &out->layer_count, word, err);
        inner_kind(name, word);
        if (code == CKPT_OK)
            code = add_word(&kinds, &out->kinds, &out->kind_count, word, err);
        free(word);
    }
    table_release(&layers);
    table_release(&kinds);
    if (code == CKPT_OK && out->layer_count > 0) {
        qsort(out->layers, out->layer_count, sizeof *out->layers, compare_names);
        qsort(out->kinds, out->kind_count, sizeof *out->kinds, compare_names);
    }
    return code;
}

static size_t place_of(char *const *words, size_t count, const char *word)
{
    const char *const key = word;
    char *const *found = bsearch(&key, words, count, sizeof *words, compare_names);

    return (size_t)(found - words);
}

/* The cell of a tensor whose name is in the grid; `room` holds a word of it. */
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

static int compare_doubles(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* log2(rms) of a row's cells against their median. */
static void judge_row(grid_cell *row, size_t count, double *room)
{
    size_t known = 0;

    for (size_t i = 0; i < count; i++) {
        row[i].deviation = row[i].value_count == 0 || row[i].squares == 0
                               ? NAN
                               : log2(row[i].squares / (double)row[i].value_count) / 2;
        if (!isnan(row[i].deviation))
            room[known++] = row[i].deviation;
    }
    if (known > 0)
        qsort(room, known, sizeof *room, compare_doubles);
    for (size_t i = 0; i < count && known > 0; i++)
        row[i].deviation -= (room[(known - 1) / 2] + room[known / 2]) / 2;
}

ckpt_code layer_grid_make(const certificate *c, size_t i, const source_statistics *statistics,
                          layer_grid *out, ckpt_error *err)
{
    double *room;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = collect(c->checkpoints[i].tensors, out, err)) != CKPT_OK)
        return code;
    if (out->layer_count > 0 && out->kind_count > GRID_CELLS_MAX / out->layer_count)
        return CKPT_OK;
    out->cells = calloc(out->layer_count * out->kind_count + 1, sizeof *out->cells);
    room = calloc(out->layer_count + 1, sizeof *room);
    if (out->cells == NULL || room == NULL)
        code = ckpt_fail_memory(err, "layers", out->layer_count * out->kind_count);
    else
        code = fill(c, i, statistics, out, err);
    for (size_t k = 0; k < out->kind_count && code == CKPT_OK; k++)
        judge_row(&out->cells[k * out->layer_count], out->layer_count, room);
    free(room);
    return code;
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
