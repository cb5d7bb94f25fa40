/* Changes tiles while they are read. */
#include "mutation_source.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"
#include "libckpt/values.h"

typedef struct {
    ckpt_source base;
    ckpt_source *from;
    ckpt_catalog *catalog;
    mutation_edit *edits;
    size_t edit_count;
    size_t *sources;               /* by tensor: index of the tensor of `from` to read */
    size_t *edit_of;               /* by tensor: edit + 1; 0: none */
} mutated;

/* One tile that is being edited. */
typedef struct {
    const mutated *view;
    const mutation_edit *edit;
    const ckpt_tensor *tensor;     /* the tensor that is read */
    const source_range *range;     /* of that tensor */
    ckpt_tile *tile;
    arena *scratch;
    ckpt_error *err;
} passing;

/* Row `row` of a part if the tile has it, else NULL. */
static uint8_t *find_row(const passing *p, ckpt_part part, uint64_t row)
{
    uint64_t first;
    uint64_t count;

    if (p->tile->part[part] == NULL || ckpt_part_row_bytes(p->tensor, part) == 0)
        return NULL;
    source_part_rows(p->tensor, part, p->range, &first, &count);
    if (row < first || row >= first + count)
        return NULL;
    return (uint8_t *)p->tile->part[part] +
           (row - first) * ckpt_part_row_bytes(p->tensor, part);
}

static uint64_t element_bytes(const ckpt_tensor *t)
{
    return ckpt_dtype_bits(t->dtype) / 8;
}

static void swap_bytes(uint8_t *a, uint8_t *b, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t byte = a[i];

        a[i] = b[i];
        b[i] = byte;
    }
}

/* ---- edits of a place ---- */

static void edit_xor(const passing *p)
{
    uint8_t *row = find_row(p, p->edit->part, p->edit->row);

    if (row != NULL)
        row[p->edit->byte] ^= p->edit->mask;
}

static void edit_set(const passing *p)
{
    uint8_t *row = find_row(p, CKPT_DATA, p->edit->row);
    const uint64_t bytes = element_bytes(p->tensor);

    if (row != NULL)
        memcpy(row + p->edit->col * bytes, &p->edit->bits, bytes);      /* little endian */
}

static void edit_swap_rows(const passing *p)
{
    for (int part = 0; part < CKPT_PART_COUNT; part++) {
        uint8_t *row = find_row(p, (ckpt_part)part, p->edit->row);
        uint8_t *next = find_row(p, (ckpt_part)part, p->edit->row + 1);
        const int is_shared = part == CKPT_SCALE && p->tensor->block_rows != 1;

        if (row != NULL && next != NULL && !is_shared)
            swap_bytes(row, next, ckpt_part_row_bytes(p->tensor, (ckpt_part)part));
    }
}

static void edit_zero_row(const passing *p)
{
    uint8_t *row = find_row(p, CKPT_DATA, p->edit->row);

    if (row != NULL)
        memset(row, 0, ckpt_part_row_bytes(p->tensor, CKPT_DATA));
}

static void edit_swap_scales(const passing *p)
{
    uint8_t *row = find_row(p, CKPT_SCALE, p->edit->row);
    const uint64_t bytes = ckpt_dtype_bits(p->tensor->scale_dtype) / 8;

    if (row != NULL)
        swap_bytes(row + p->edit->col * bytes, row + (p->edit->col + 1) * bytes, bytes);
}

/* ---- edits of all data ---- */

static void rotate(uint8_t *rows, uint64_t row_bytes, uint64_t count)
{
    for (uint64_t r = 0; r + 1 < count; r++)
        swap_bytes(rows + r * row_bytes, rows + (r + 1) * row_bytes, row_bytes);
}

static void edit_rotate_rows(const passing *p)
{
    for (uint64_t r = 0; r < p->range->row_count; r += SOURCE_BAND_ROWS) {
        const uint64_t count = size_min(SOURCE_BAND_ROWS, p->range->row_count - r);
        uint8_t *data = find_row(p, CKPT_DATA, p->range->row + r);
        uint8_t *scales = p->tensor->block_rows == 1
                              ? find_row(p, CKPT_SCALE, p->range->row + r)
                              : NULL;

        if (data != NULL)
            rotate(data, ckpt_part_row_bytes(p->tensor, CKPT_DATA), count);
        if (scales != NULL)
            rotate(scales, ckpt_part_row_bytes(p->tensor, CKPT_SCALE), count);
    }
}

static void edit_swap_columns(const passing *p)
{
    const uint64_t bytes = element_bytes(p->tensor);

    for (uint64_t r = 0; r < p->range->row_count; r++) {
        uint8_t *row = find_row(p, CKPT_DATA, p->range->row + r);

        if (row != NULL)
            swap_bytes(row + p->edit->col * bytes, row + (p->edit->col + 1) * bytes, bytes);
    }
}

static void edit_swap_nibbles(const passing *p)
{
    uint8_t *data = p->tile->part[CKPT_DATA];

    for (uint64_t i = 0; data != NULL && i < p->tile->part_bytes[CKPT_DATA]; i++)
        data[i] = (uint8_t)(data[i] << 4 | data[i] >> 4);
}

static void edit_negate(const passing *p)
{
    const uint64_t step = size_max(element_bytes(p->tensor), 1);
    const uint8_t mask = p->tensor->dtype == CKPT_F4 ? 0x88 : 0x80;
    uint8_t *data = p->tile->part[CKPT_DATA];

    for (uint64_t i = step - 1; data != NULL && i < p->tile->part_bytes[CKPT_DATA]; i += step)
        data[i] ^= mask;
}

static void edit_zero(const passing *p)
{
    if (p->tile->part[CKPT_DATA] != NULL)
        memset(p->tile->part[CKPT_DATA], 0, p->tile->part_bytes[CKPT_DATA]);
}

/* Doubles scales by incrementing their exponents: bits from 23 in F32, from 7 in BF16, all in
 * E8M0. */
static void edit_scale_up(const passing *p)
{
    const uint64_t bytes = ckpt_dtype_bits(p->tensor->scale_dtype) / 8;
    uint8_t *scales = p->tile->part[CKPT_SCALE];

    for (uint64_t i = 0; scales != NULL && i < p->tile->part_bytes[CKPT_SCALE]; i += bytes) {
        uint32_t bits = 0;

        memcpy(&bits, scales + i, bytes);
        if (bytes == 1)
            bits += bits < 0xFE;
        else
            bits += bytes == 2 ? 1u << 7 : 1u << 23;
        memcpy(scales + i, &bits, bytes);
    }
}

/* ---- edits that replace a tile ---- */

static ckpt_code edit_narrow(const passing *p)
{
    const float *from = p->tile->part[CKPT_DATA];
    const uint64_t count = p->tile->part_bytes[CKPT_DATA] / sizeof *from;
    uint16_t *out;

    if (from == NULL)
        return CKPT_OK;
    if ((out = arena_alloc(p->scratch, count * sizeof *out)) == NULL)
        return ckpt_fail_memory(p->err, "a tile", count * sizeof *out);
    kernels_get()->f32_to_bf16(from, out, count);
    p->tile->part[CKPT_DATA] = out;
    p->tile->part_bytes[CKPT_DATA] = count * sizeof *out;
    return CKPT_OK;
}

/* Rows [row, row + count) of the transpose of a part, by bands of the original. */
static ckpt_code transpose_part(const passing *p, ckpt_part part, uint64_t bytes)
{
    const uint64_t side = ckpt_part_rows(p->tensor, part);
    const uint64_t row_bytes = side * bytes;
    uint8_t *out = p->tile->part[part];
    uint64_t row;
    uint64_t count;
    uint8_t *band = arena_alloc(p->scratch, SOURCE_BAND_ROWS * row_bytes);

    if (band == NULL)
        return ckpt_fail_memory(p->err, "a band", SOURCE_BAND_ROWS * row_bytes);
    source_part_rows(p->tensor, part, p->range, &row, &count);
    for (uint64_t k = 0; k < side; k += SOURCE_BAND_ROWS) {
        const uint64_t rows = size_min(SOURCE_BAND_ROWS, side - k);
        const ckpt_code code = ckpt_source_read(p->view->from, p->edit->from, part, k, rows, band,
                                                p->err);

        if (code != CKPT_OK)
            return code;
        for (uint64_t r = 0; r < count; r++)
            for (uint64_t c = 0; c < rows; c++)
                memcpy(out + r * row_bytes + (k + c) * bytes,
                       band + c * row_bytes + (row + r) * bytes, bytes);
    }
    return CKPT_OK;
}

static ckpt_code edit_transpose(const passing *p)
{
    ckpt_code code = CKPT_OK;

    if (p->tile->part[CKPT_DATA] != NULL)
        code = transpose_part(p, CKPT_DATA, element_bytes(p->tensor));
    if (code == CKPT_OK && p->tile->part[CKPT_SCALE] != NULL)
        code = transpose_part(p, CKPT_SCALE, ckpt_dtype_bits(p->tensor->scale_dtype) / 8);
    return code;
}

static ckpt_code apply(const passing *p)
{
    static void (*const edits[])(const passing *) = {
        [EDIT_XOR] = edit_xor,
        [EDIT_SET] = edit_set,
        [EDIT_SWAP_ROWS] = edit_swap_rows,
        [EDIT_ROTATE_ROWS] = edit_rotate_rows,
        [EDIT_SWAP_COLUMNS] = edit_swap_columns,
        [EDIT_SWAP_NIBBLES] = edit_swap_nibbles,
        [EDIT_NEGATE] = edit_negate,
        [EDIT_ZERO_ROW] = edit_zero_row,
        [EDIT_ZERO] = edit_zero,
        [EDIT_SCALE_UP] = edit_scale_up,
        [EDIT_SWAP_SCALES] = edit_swap_scales,
    };

    if (p->edit->kind == EDIT_NARROW)
        return edit_narrow(p);
    if (p->edit->kind == EDIT_TRANSPOSE)
        return edit_transpose(p);
    if (p->edit->kind != EDIT_REPLACE)
        edits[p->edit->kind](p);
    return CKPT_OK;
}

/* ---- the view ---- */

static ckpt_code mutated_read(ckpt_source *self, const source_range *range, arena *scratch,
                              ckpt_tile *tile, ckpt_error *err)
{
    const mutated *m = (const mutated *)self;
    const size_t edit = m->edit_of[range->tensor];
    source_range inner = *range;
    ckpt_code code;

    inner.tensor = m->sources[range->tensor];
    if ((code = source_read_tile(m->from, &inner, scratch, tile, err)) != CKPT_OK || edit == 0)
        return code;
    return apply(&(passing){ m, &m->edits[edit - 1],
                             ckpt_catalog_at(m->from->catalog, inner.tensor), &inner, tile,
                             scratch, err });
}

static uint64_t mutated_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const mutated *m = (const mutated *)self;
    const ckpt_tensor *t = ckpt_catalog_at(m->from->catalog, m->sources[tensor]);
    const uint64_t need = source_need(m->from, m->sources[tensor], row_count);

    if (m->edit_of[tensor] == 0)
        return need;
    if (m->edits[m->edit_of[tensor] - 1].kind == EDIT_NARROW)
        return need + arena_cost(row_count * ckpt_tensor_cols(t) * sizeof(uint16_t));
    if (m->edits[m->edit_of[tensor] - 1].kind == EDIT_TRANSPOSE)
        return need + arena_cost(SOURCE_BAND_ROWS * ckpt_part_row_bytes(t, CKPT_DATA)) +
               arena_cost(SOURCE_BAND_ROWS * ckpt_part_row_bytes(t, CKPT_SCALE));
    return need;
}

static void mutated_free(ckpt_source *self)
{
    mutated *m = (mutated *)self;

    catalog_free(m->catalog);
    free(m->edits);
    free(m->sources);
    free(m->edit_of);
    free(m);
}

static ckpt_code add_tensor(mutated *m, ckpt_tensor tensor, size_t source, size_t edit,
                            ckpt_error *err)
{
    const size_t i = ckpt_catalog_count(m->catalog);

    if (edit > 0 && m->edits[edit - 1].kind == EDIT_NARROW)
        catalog_set_plain(&tensor, CKPT_BF16);
    m->sources[i] = source;
    m->edit_of[i] = edit;
    return catalog_add(m->catalog, &tensor, err);
}

static ckpt_code add_tensors(mutated *m, const mutation_changes *changes, uint8_t *touched,
                             ckpt_error *err)
{
    const ckpt_catalog *from = m->from->catalog;
    ckpt_tensor extra;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(from) && code == CKPT_OK; i++) {
        size_t edit = 0;

        if (i == changes->dropped)
            continue;
        for (size_t e = 0; e < m->edit_count; e++)
            edit = m->edits[e].tensor == i ? e + 1 : edit;
        touched[ckpt_catalog_count(m->catalog)] = edit > 0;
        code = add_tensor(m, *ckpt_catalog_at(from, i), edit > 0 ? m->edits[edit - 1].from : i,
                          edit, err);
    }
    if (code != CKPT_OK || changes->added == NULL)
        return code;
    extra = *ckpt_catalog_at(from, changes->added_like);
    extra.name = changes->added;
    touched[ckpt_catalog_count(m->catalog)] = 1;
    return add_tensor(m, extra, changes->added_like, 0, err);
}

ckpt_code source_mutate(ckpt_source *from, const mutation_changes *changes, ckpt_source **out,
                        uint8_t **touched, ckpt_error *err)
{
    static const source_ops ops = { mutated_read, mutated_need, mutated_free };
    const size_t count = ckpt_catalog_count(from->catalog) + 2;
    mutated *m = calloc(1, sizeof *m);
    ckpt_code code;

    if (m == NULL)
        return ckpt_fail_memory(err, "a view", sizeof *m);
    m->base.ops = &ops;
    m->from = from;
    m->catalog = catalog_create();
    m->base.catalog = m->catalog;
    m->edit_count = changes->edit_count;
    m->edits = calloc(m->edit_count + 1, sizeof *m->edits);
    m->sources = calloc(count, sizeof *m->sources);
    m->edit_of = calloc(count, sizeof *m->edit_of);
    *touched = calloc(count, 1);
    if (m->catalog == NULL || m->edits == NULL || m->sources == NULL || m->edit_of == NULL ||
        *touched == NULL) {
        code = ckpt_fail_memory(err, "a view", count * sizeof *m->sources);
    } else {
        if (m->edit_count > 0)
            memcpy(m->edits, changes->edits, m->edit_count * sizeof *m->edits);
        code = add_tensors(m, changes, *touched, err);
    }
    if (code != CKPT_OK) {
        free(*touched);
        *touched = NULL;
        mutated_free(&m->base);
    } else {
        *out = &m->base;
    }
    return code;
}
