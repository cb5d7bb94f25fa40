/* Expands a family text with the numbers of a config to a catalog of tensors. */
#include "family_expand.h"

#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "memory.h"
#include "tensor_class.h"

/* Limit of the steps of an expansion: every tensor, and as many lines that make none. Lower when
 * fuzzing, where long expansions would take most of the time. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { TENSORS_MAX = 1 << 13, STEPS_MAX = 1 << 15 };
#else
enum { TENSORS_MAX = FAMILY_TENSORS_MAX, STEPS_MAX = 2 * FAMILY_TENSORS_MAX };
#endif

/* The indexes of a name that the surrounding block has not set. They step through all combinations,
 * the last one fastest. */
typedef struct {
    uint32_t count;
    uint32_t symbols[FAMILY_INDEXES_MAX];
    uint64_t from[FAMILY_INDEXES_MAX];
    uint64_t to[FAMILY_INDEXES_MAX];
} odometer;

/* ---- names ---- */

static ckpt_code append(family_expander *x, uint32_t *used, const char *text, size_t length)
{
    if (length >= sizeof x->name - *used)
        return FAIL_TEXT(x, "a name of more than %zu bytes", sizeof x->name - 1);
    memcpy(x->name + *used, text, length);
    *used += (uint32_t)length;
    x->name[*used] = '\0';
    return CKPT_OK;
}

/* Append a name to the first `used` bytes of x->name. */
static ckpt_code write_name(family_expander *x, const family_template *name, uint32_t *used)
{
    char digits[24];
    ckpt_code code;

    for (uint32_t i = 0; i < name->piece_count; i++) {
        const family_piece *piece = &name->pieces[i];
        char *digit = digits + sizeof digits;
        uint64_t number;

        if ((code = append(x, used, piece->literal, piece->literal_bytes)) != CKPT_OK)
            return code;
        if (piece->index < 0)
            continue;
        number = x->value[piece->index];
        do
            *--digit = (char)('0' + number % 10);
        while ((number /= 10) != 0);
        if ((code = append(x, used, digit, (size_t)(digits + sizeof digits - digit))) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static int odometer_has(const odometer *o, uint32_t symbol)
{
    for (uint32_t i = 0; i < o->count; i++)
        if (o->symbols[i] == symbol)
            return 1;
    return 0;
}

/* Start the indexes of a name that have no value yet; *some is 0 when one of them has an empty
 * range. All ranges are computed before an index gets its first value, so that no range can depend
 * on another index of the same name. */
static ckpt_code odometer_begin(family_expander *x, const family_template *name, odometer *o,
                                int *some)
{
    ckpt_code code;

    o->count = 0;
    *some = 1;
    for (uint32_t i = 0; i < name->piece_count; i++) {
        const int32_t index = name->pieces[i].index;
        const uint32_t symbol = (uint32_t)index;
        const uint32_t at = o->count;

        if (index < 0 || x->set[symbol] != UNSET || odometer_has(o, symbol))
            continue;
        if (at == FAMILY_INDEXES_MAX)
            return FAIL_TEXT(x, "a name with more than %d indexes", FAMILY_INDEXES_MAX);
        if ((code = family_index_range(x, &x->family->symbols[symbol], &o->from[at], &o->to[at])) !=
            CKPT_OK)
            return code;
        o->symbols[at] = symbol;
        o->count++;
        *some &= o->from[at] < o->to[at];
    }
    for (uint32_t i = 0; i < o->count; i++) {
        x->set[o->symbols[i]] = SET_FOR_ALL;
        x->value[o->symbols[i]] = o->from[i];
    }
    return CKPT_OK;
}

/* Advance to the next combination of indexes; 0 after the last. */
static int odometer_step(family_expander *x, const odometer *o)
{
    for (uint32_t i = o->count; i-- > 0;) {
        const uint32_t symbol = o->symbols[i];

        if (++x->value[symbol] < o->to[i])
            return 1;
        x->value[symbol] = o->from[i];
    }
    return 0;
}

static void odometer_end(family_expander *x, const odometer *o)
{
    for (uint32_t i = 0; i < o->count; i++)
        x->set[o->symbols[i]] = UNSET;
}

/* ---- lines ---- */

/* Weights of a model of which only experts have codes. */
static void set_int4(ckpt_tensor *tensor)
{
    size_t digits;

    if (tensor_expert_number(tensor->name, &digits) == NULL) {
        tensor->dtype = CKPT_BF16;
        return;
    }
    encoding_set(tensor, ENCODING_INT4_32, CKPT_BF16);
    tensor->part_names = CKPT_NAMES_PACKED;
    tensor->shape_dtype = CKPT_I32;
    tensor->stored_dtype = CKPT_I32;
}

static void set_encoding(family_expander *x, ckpt_tensor *tensor)
{
    const family_encoding *encoding = &x->line->encoding;
    const encoding_id fp8 = x->family->fp8 == ENCODING_COUNT ? ENCODING_FP8_128 : x->family->fp8;

    tensor->is_linear = (uint8_t)encoding->is_linear;
    if (x->has_int4 && encoding->is_linear) {
        set_int4(tensor);
    } else if (encoding->dtype != CKPT_NONE) {
        tensor->dtype = encoding->dtype;
    } else if (encoding->scaled == ENCODING_FP4_32 && !x->experts_fp8) {
        encoding_set(tensor, ENCODING_FP4_32, CKPT_F8_E8M0);
        tensor->stored_dtype = CKPT_I8;
    } else if (encoding->scaled == ENCODING_FP4_32 || encoding->is_usual) {
        encoding_set(tensor, fp8, x->scale_dtype);
    } else {
        encoding_set(tensor, encoding->scaled, x->scale_dtype);
    }
}

/* Add one tensor; all indexes have values. */
static ckpt_code add_tensor(family_expander *x, const ckpt_tensor *shape)
{
    ckpt_tensor tensor = *shape;
    uint32_t used = x->prefix_bytes;
    ckpt_code code;

    if ((code = write_name(x, &x->line->name, &used)) != CKPT_OK)
        return code;
    tensor.name = x->name;
    set_encoding(x, &tensor);
    if ((code = catalog_check_shape(&tensor, x->err)) != CKPT_OK) /* due to the config */
        return code;
    code = catalog_add(x->catalog, &tensor, x->err);
    return code == CKPT_E_FORMAT ? family_expand_fail_at(x, code) : code;
}

/* The first pass: count one tensor. */
static ckpt_code look_at_groups(family_expander *x)
{
    const family_line *line = x->line;
    uint64_t cols;
    ckpt_code code;

    if (line->encoding.dtype != CKPT_NONE || line->encoding.scaled != ENCODING_FP4_32 ||
        line->rank == 0)
        return CKPT_OK;
    if ((code = family_expr_value(x, &line->dims[line->rank - 1], &cols)) == CKPT_OK)
        x->broken_groups |= cols % encoding_at(ENCODING_FP4_32)->block_cols != 0;
    return code;
}

static ckpt_code expand_tensor(family_expander *x)
{
    const family_line *line = x->line;
    ckpt_tensor shape = { .file = x->file, .rank = line->rank };
    odometer o;
    ckpt_code code;
    int some;

    if ((line->kind == LINE_OPTIONAL) != (x->want_optional != 0))
        return CKPT_OK;
    if ((code = odometer_begin(x, &line->name, &o, &some)) != CKPT_OK)
        return code;
    for (int more = some; more; more = odometer_step(x, &o)) {
        int holds;

        if (++x->step_count > STEPS_MAX)
            return FAIL(x, "more than %d steps", STEPS_MAX);
        if ((code = family_conditions_hold(x, &holds)) != CKPT_OK)
            return code;
        if (!holds)
            continue;
        if (++x->tensor_count > TENSORS_MAX)
            return ckpt_fail(x->err, CKPT_E_FORMAT, "the config requires more than %d tensors",
                             TENSORS_MAX);
        if (x->catalog == NULL) {
            if ((code = look_at_groups(x)) != CKPT_OK)
                return code;
            continue;
        }
        for (uint32_t i = 0; i < line->rank; i++)
            if ((code = family_expr_value(x, &line->dims[i], &shape.shape[i])) != CKPT_OK)
                return code;
        if (line->has_file && (code = family_file_number(x, &line->file, &shape.file)) != CKPT_OK)
            return code;
        if ((code = add_tensor(x, &shape)) != CKPT_OK)
            return code;
    }
    odometer_end(x, &o);
    return CKPT_OK;
}

/* Process any line except block and use. */
static ckpt_code expand_line(family_expander *x, const family_line *line)
{
    x->line = line;
    if (++x->step_count > STEPS_MAX)
        return FAIL(x, "more than %d steps", STEPS_MAX);
    switch (line->kind) {
    case LINE_LIST:
    case LINE_COUNT:
    case LINE_LET_MEMBER:
    case LINE_LET_EXPR:
    case LINE_POSITION:
        return family_define(x);
    case LINE_TENSOR:
    case LINE_OPTIONAL:
        return expand_tensor(x);
    default:
        return CKPT_OK;
    }
}

/* Process the lines of a block for one step of its indexes. A part has no block and no use, so this
 * does not recurse. */
static ckpt_code expand_body(family_expander *x, const family_line *block)
{
    const family_line *lines = x->family->lines;
    ckpt_code code;

    for (uint32_t i = block->body_first; i < block->body_end; i++) {
        if (lines[i].kind != LINE_USE) {
            if ((code = expand_line(x, &lines[i])) != CKPT_OK)
                return code;
            continue;
        }
        for (uint32_t j = lines[i].body_first; j < lines[i].body_end; j++)
            if ((code = expand_line(x, &lines[j])) != CKPT_OK)
                return code;
    }
    return CKPT_OK;
}

static ckpt_code expand_block(family_expander *x, const family_line *block)
{
    odometer o;
    int some;
    ckpt_code code;

    x->line = block;
    if (x->want_optional && !block->has_optional)
        return CKPT_OK;
    if ((code = odometer_begin(x, &block->name, &o, &some)) != CKPT_OK)
        return code;
    x->now = SET_FOR_STEP;
    for (int more = some; more; more = odometer_step(x, &o)) {
        x->line = block;
        x->prefix_bytes = 0;
        if (++x->step_count > STEPS_MAX)
            return FAIL(x, "more than %d steps", STEPS_MAX);
        if ((code = write_name(x, &block->name, &x->prefix_bytes)) != CKPT_OK ||
            (code = family_file_number(x, &block->file, &x->file)) != CKPT_OK ||
            (code = expand_body(x, block)) != CKPT_OK)
            return code;
        for (uint32_t i = 0; i < x->family->symbol_count; i++)
            if (x->set[i] == SET_FOR_STEP)
                x->set[i] = UNSET;
    }
    x->now = SET_FOR_ALL;
    x->prefix_bytes = 0;
    odometer_end(x, &o);
    return CKPT_OK;
}

static ckpt_code expand_all(family_expander *x)
{
    const ckpt_family *f = x->family;
    ckpt_code code;

    if ((code = family_read_encodings(x)) != CKPT_OK)
        return code;
    x->now = SET_FOR_ALL;
    for (uint32_t i = 0; i < f->line_count; i++) {
        const family_line *line = &f->lines[i];

        if (line->kind == LINE_BLOCK || line->kind == LINE_PART) {
            if (line->kind == LINE_BLOCK && (code = expand_block(x, line)) != CKPT_OK)
                return code;
            i = line->body_end - 1;
            continue;
        }
        if ((code = expand_line(x, line)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* The first pass. A small config may describe millions of tensors: count them before allocating. */
static ckpt_code check_count(family_expander *from)
{
    enum { SLOT_BYTES = 24, NAME_BYTES = 40 };
    family_expander x = *from;
    uint64_t bytes;
    char what[80];
    ckpt_code code;

    arena_init(&x.memory);
    code = expand_all(&x);
    arena_release(&x.memory);
    from->broken_groups = x.broken_groups;
    bytes = (uint64_t)x.tensor_count * (sizeof(ckpt_tensor) + 2 * SLOT_BYTES + NAME_BYTES);
    if (code != CKPT_OK || memory_has(bytes))
        return code;
    snprintf(what, sizeof what, "the %u tensors that config.json requires", x.tensor_count);
    return ckpt_fail_memory(x.err, what, bytes);
}

static ckpt_code expand(family_expander *x, ckpt_catalog **out)
{
    ckpt_code code;

    if (!json_is_object(x->config))
        return ckpt_fail(x->err, CKPT_E_FORMAT, "the config is not a JSON object");
    if ((code = check_count(x)) != CKPT_OK)
        return code;
    if ((x->catalog = catalog_create()) == NULL)
        return ckpt_fail_memory(x->err, "a catalog", sizeof *x->catalog);
    arena_init(&x->memory);
    code = expand_all(x);
    arena_release(&x->memory);
    if (code != CKPT_OK) {
        catalog_free(x->catalog);
        return code;
    }
    *out = x->catalog;
    return CKPT_OK;
}

ckpt_code family_expand(const ckpt_family *family, const json_value *config, ckpt_catalog **out,
                        ckpt_error *err)
{
    family_expander x = { .family = family, .config = config, .err = err };

    return expand(&x, out);
}

ckpt_code family_expand_optional(const ckpt_family *family, const json_value *config,
                                 ckpt_catalog **out, ckpt_error *err)
{
    family_expander x = { .family = family, .config = config, .err = err, .want_optional = 1 };

    return expand(&x, out);
}

int family_has_optional(const ckpt_family *family, const json_value *config, const char *name)
{
    ckpt_catalog *catalog;
    int found;

    if (family_expand_optional(family, config, &catalog, NULL) != CKPT_OK)
        return 0;
    found = ckpt_catalog_find(catalog, name) != CKPT_NOT_FOUND;
    catalog_free(catalog);
    return found;
}
