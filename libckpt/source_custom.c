/* A source whose rows come from the caller's functions. */
#include "source.h"

#include <stdlib.h>

#include "options.h"
#include "values.h"

typedef struct {
    ckpt_source base;
    ckpt_catalog *catalog;
    ckpt_source_functions functions;
} custom_source;

static ckpt_code custom_read(ckpt_source *self, const source_range *range, arena *scratch,
                             ckpt_tile *tile, ckpt_error *err)
{
    const custom_source *s = (const custom_source *)self;
    const ckpt_tensor *t = ckpt_catalog_at(s->catalog, range->tensor);

    for (int i = 0; i < CKPT_PART_COUNT; i++) {
        const ckpt_part part = (ckpt_part)i;
        const uint64_t row_bytes = ckpt_part_row_bytes(t, part);
        uint64_t row;
        uint64_t row_count;
        ckpt_code code;

        if ((range->want & 1u << i) == 0 || row_bytes == 0)
            continue;
        source_part_rows(t, part, range, &row, &row_count);
        tile->part_bytes[i] = row_count * row_bytes;
        if ((tile->part[i] = arena_alloc(scratch, tile->part_bytes[i])) == NULL)
            return ckpt_fail_memory(err, "a tile", tile->part_bytes[i]);
        code = s->functions.read(s->functions.context, range->tensor, part, row, row_count,
                                 tile->part[i], err);
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static uint64_t custom_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const ckpt_tensor *t = ckpt_catalog_at(self->catalog, tensor);
    const source_range range = { .tensor = tensor, .row_count = row_count };
    uint64_t need = 0;

    for (int i = 0; i < CKPT_PART_COUNT; i++) {
        uint64_t row;
        uint64_t rows;

        if (ckpt_part_row_bytes(t, (ckpt_part)i) == 0)
            continue;
        source_part_rows(t, (ckpt_part)i, &range, &row, &rows);
        need += arena_cost(rows * ckpt_part_row_bytes(t, (ckpt_part)i));
    }
    return need;
}

static void custom_free(ckpt_source *self)
{
    custom_source *s = (custom_source *)self;

    if (s->functions.free != NULL)
        s->functions.free(s->functions.context);
    catalog_free(s->catalog);
    free(s);
}

/* Check members that only a caller of the library can set wrongly. catalog_add checks the shape. */
static ckpt_code check_tensor(const ckpt_tensor *t, ckpt_error *err)
{
    if (t->name == NULL || t->name[0] == '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "a tensor of a custom source has no name");
    if (t->dtype <= CKPT_NONE || t->dtype >= CKPT_DTYPE_COUNT)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has no dtype", t->name);
    if (t->scale_dtype != CKPT_NONE && encoding_of(t) == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has an encoding that is not known: %s "
                         "with scales %s for blocks of %u x %u", t->name,
                         ckpt_dtype_name(t->dtype), ckpt_dtype_name(t->scale_dtype),
                         t->block_rows, t->block_cols);
    if (t->shape_dtype != CKPT_NONE &&
        (t->dtype != CKPT_I4 || (t->shape_dtype != CKPT_I32 && t->shape_dtype != CKPT_I64)))
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has a stored shape, expected one of I32 "
                         "or I64 beside codes of I4", t->name);
    return CKPT_OK;
}

ckpt_code ckpt_source_create(const ckpt_tensor *tensors, size_t count,
                             const ckpt_source_functions *functions, ckpt_source **out,
                             ckpt_error *err)
{
    static const source_ops ops = { custom_read, custom_need, custom_free };
    custom_source *s;
    ckpt_code code;

    if ((code = options_check_reserved(functions->reserved, CKPT_RESERVED, err)) != CKPT_OK ||
        (code = kernels_require(err)) != CKPT_OK)
        return code;
    if ((s = calloc(1, sizeof *s)) == NULL || (s->catalog = catalog_create()) == NULL) {
        free(s);
        return ckpt_fail_memory(err, "a source", sizeof *s);
    }
    s->base.ops = &ops;
    s->base.catalog = s->catalog;
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        if ((code = check_tensor(&tensors[i], err)) == CKPT_OK)
            code = catalog_add(s->catalog, &tensors[i], err);
    if (code != CKPT_OK) {
        custom_free(&s->base);          /* s->functions is not set yet: the context is not freed */
        return code;
    }
    s->functions = *functions;
    *out = &s->base;
    return CKPT_OK;
}
