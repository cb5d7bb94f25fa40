/* Weights and their scales: derives the encoding of stored tensors, and the stored tensors of an
 * encoding. */
#include "map.h"

#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "size.h"
#include "stored_form.h"
#include "text.h"

/* The text in place of ".weight" in the names of the parts; NULL: as the map says, or no such part.
 * In the order of ckpt_part_names. */
static const struct {
    const char *data;
    const char *scale;
    const char *tensor_scale;
    ckpt_tensor_scale what;          /* how the tensor scale is applied */
    const char *input_scale;
    const char *shape;
} spellings[] = {
    [CKPT_NAMES_OF_MAP] = { ".weight", NULL, NULL, CKPT_TENSOR_SCALE_NONE, NULL, NULL },
    [CKPT_NAMES_MODELOPT] = { ".weight", ".weight_scale", ".weight_scale_2",
                              CKPT_TENSOR_SCALE_FACTOR, ".input_scale", NULL },
    [CKPT_NAMES_PACKED] = { ".weight_packed", ".weight_scale", ".weight_global_scale",
                            CKPT_TENSOR_SCALE_DIVISOR, ".input_global_scale", ".weight_shape" },
    /* The scales of blocks are in the blocks. The names are those of other things elsewhere, so
     * that they count only beside blocks that allow a tensor scale. */
    [CKPT_NAMES_BLOCKS] = { ".weight", NULL, ".scale", CKPT_TENSOR_SCALE_FACTOR, ".input_scale",
                            NULL },
    /* Only read: these names are added to that of the weight. */
    [CKPT_NAMES_BLOCKS + 1] = { "", NULL, ".scale", CKPT_TENSOR_SCALE_FACTOR, ".input_scale",
                                NULL },
};

enum { SPELLING_COUNT = sizeof spellings / sizeof *spellings };

/* The naming conventions of scales: the scale's name is the weight's, with `end` replaced by
 * `scale`. `suffix`: the name of the convention in a map's `scale` line; NULL: such scales are only
 * described (codes.h), never paired. */
static const struct {
    const char *end;
    const char *scale;
    const char *suffix;
} scale_names[] = {
    { ".weight", ".weight_scale", ".weight_scale" },
    { "", "_scale", NULL },
    { "", "_scale_inv", ".weight_scale_inv" },
    { ".weight", ".scale", ".scale" },
    { "", ".scale", NULL },              /* X.weight.scale, of NVFP4 in some GGUF files */
    { "_packed", "_scale", NULL },
    { "_blocks", "_scales", NULL },
    { ".qweight", ".scales", NULL },
    { ".weight", ".scales", NULL },      /* MLX */
    { "", "_scales", NULL },
};

enum { SCALE_NAME_COUNT = sizeof scale_names / sizeof *scale_names };

/* `name` with `end` (which it has) replaced. */
static int respell(const char *name, const char *end, const char *by, char out[MAP_NAME_BYTES])
{
    return snprintf(out, MAP_NAME_BYTES, "%.*s%s", (int)(strlen(name) - strlen(end)), name, by) <
           MAP_NAME_BYTES;
}

int map_weight_of_scale(const char *name, char weight[MAP_NAME_BYTES])
{
    for (int s = 0; s < SCALE_NAME_COUNT; s++)
        if (scale_names[s].suffix != NULL && text_ends_with(name, scale_names[s].scale))
            return respell(name, scale_names[s].scale, scale_names[s].end, weight);
    return 0;
}

const char *pair_scale_suffix(const char *scale)
{
    for (int s = 0; s < SCALE_NAME_COUNT; s++)
        if (scale_names[s].suffix != NULL && text_ends_with(scale, scale_names[s].suffix))
            return scale_names[s].suffix;
    return NULL;
}

/* 1 for a naming convention of weights in interleaved blocks. */
static int is_of_blocks(int s)
{
    return spellings[s].tensor_scale != NULL && spellings[s].scale == NULL;
}

/* 1 for a weight in interleaved blocks that a tensor scale may be beside. */
static int may_have_tensor_scale(const ckpt_tensor *weight)
{
    const stored_form *form = stored_form_of(weight);

    return form != NULL && form->scaled != ENCODING_COUNT;
}

int pair_is_scale_name(const char *name)
{
    char weight[MAP_NAME_BYTES];

    for (int s = 0; s < SPELLING_COUNT; s++)
        if (spellings[s].tensor_scale != NULL && !is_of_blocks(s) &&
            text_ends_with(name, spellings[s].tensor_scale))
            return 1;
    return map_weight_of_scale(name, weight);
}

const ckpt_tensor *pair_find_scale(const ckpt_catalog *stored, const char *codes)
{
    char name[MAP_NAME_BYTES];
    int64_t found;

    for (int s = 0; s < SCALE_NAME_COUNT; s++)
        if (text_ends_with(codes, scale_names[s].end) &&
            respell(codes, scale_names[s].end, scale_names[s].scale, name) &&
            (found = ckpt_catalog_find(stored, name)) >= 0)
            return ckpt_catalog_at(stored, (size_t)found);
    return NULL;
}

int64_t pair_find_weight(const ckpt_catalog *stored, const char *name, char weight[MAP_NAME_BYTES])
{
    int64_t found;

    if (map_weight_of_scale(name, weight) && (found = ckpt_catalog_find(stored, weight)) >= 0)
        return found;
    for (int s = 0; s < SPELLING_COUNT; s++) {
        const char *ends[] = { spellings[s].scale, spellings[s].tensor_scale };

        for (int e = 0; e < 2; e++)
            if (ends[e] != NULL && text_ends_with(name, ends[e]) &&
                respell(name, ends[e], spellings[s].data, weight) &&
                (found = ckpt_catalog_find(stored, weight)) >= 0 &&
                (!is_of_blocks(s) ||
                 may_have_tensor_scale(ckpt_catalog_at(stored, (size_t)found))))
                return found;
    }
    return CKPT_NOT_FOUND;
}

/* 1 for F32 numbers of shape [] or [n]. */
static int is_numbers(const ckpt_tensor *t, uint64_t count)
{
    return t->dtype == CKPT_F32 && t->rank <= 1 && ckpt_tensor_cols(t) == count;
}

/* The tensor scale of blocks, under either name. */
static int64_t find_scale_of_blocks(const ckpt_catalog *stored, const char *weight)
{
    char name[MAP_NAME_BYTES];
    int64_t found;

    for (int s = 0; s < SPELLING_COUNT; s++)
        if (is_of_blocks(s) && text_ends_with(weight, spellings[s].data) &&
            respell(weight, spellings[s].data, spellings[s].tensor_scale, name) &&
            (found = ckpt_catalog_find(stored, name)) >= 0)
            return found;
    return CKPT_NOT_FOUND;
}

int64_t pair_find_tensor_scale(const ckpt_catalog *stored, const char *weight, const char *scale)
{
    const int64_t codes = ckpt_catalog_find(stored, weight);
    char name[MAP_NAME_BYTES];
    int64_t found;

    if (codes >= 0 && may_have_tensor_scale(ckpt_catalog_at(stored, (size_t)codes)))
        return find_scale_of_blocks(stored, weight);
    for (int s = 0; s < SPELLING_COUNT; s++)
        if (spellings[s].tensor_scale != NULL && !is_of_blocks(s) &&
            text_ends_with(weight, spellings[s].data) &&
            (text_ends_with(scale, spellings[s].scale) ||
             text_ends_with(scale, spellings[s].tensor_scale)) &&
            respell(weight, spellings[s].data, spellings[s].tensor_scale, name) &&
            (found = ckpt_catalog_find(stored, name)) >= 0)
            return found;
    return CKPT_NOT_FOUND;
}

int64_t pair_find_input_scale(const ckpt_catalog *stored, const char *tensor_scale)
{
    const int64_t whole = ckpt_catalog_find(stored, tensor_scale);
    const uint64_t count =
        whole < 0 ? 1 : ckpt_tensor_cols(ckpt_catalog_at(stored, (size_t)whole));
    char name[MAP_NAME_BYTES];
    int64_t found;

    for (int s = 0; s < SPELLING_COUNT; s++)
        if (spellings[s].tensor_scale != NULL &&
            text_ends_with(tensor_scale, spellings[s].tensor_scale) &&
            respell(tensor_scale, spellings[s].tensor_scale, spellings[s].input_scale, name) &&
            (found = ckpt_catalog_find(stored, name)) >= 0 &&
            is_numbers(ckpt_catalog_at(stored, (size_t)found), is_of_blocks(s) ? count : 1))
            return found;
    return CKPT_NOT_FOUND;
}

/* The tensor whose name is that of codes in words with another ending. */
static int64_t find_beside(const ckpt_catalog *stored, const ckpt_tensor *codes, const char *ending)
{
    const char *packed = spellings[CKPT_NAMES_PACKED].data;
    char name[MAP_NAME_BYTES];

    return codes->dtype == CKPT_I32 && text_ends_with(codes->name, packed) &&
                   respell(codes->name, packed, ending, name)
               ? ckpt_catalog_find(stored, name)
               : CKPT_NOT_FOUND;
}

int64_t pair_find_shape(const ckpt_catalog *stored, const ckpt_tensor *codes)
{
    return find_beside(stored, codes, spellings[CKPT_NAMES_PACKED].shape);
}

const ckpt_tensor *pair_find_unknown(const ckpt_catalog *stored, const ckpt_tensor *codes)
{
    static const char *const endings[] = { ".weight_zero_point", ".weight_g_idx" };

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const int64_t found = find_beside(stored, codes, endings[i]);

        if (found >= 0)
            return ckpt_catalog_at(stored, (size_t)found);
    }
    return NULL;
}

/* The naming convention of the parts of a pair; that of the map if no other one matches. */
static ckpt_part_names find_names(const pair_parts *parts)
{
    for (int s = SPELLING_COUNT - 1; s > 0; s--)
        if (!is_of_blocks(s) && text_ends_with(parts->data->name, spellings[s].data) &&
            text_ends_with(parts->scale->name, spellings[s].scale) &&
            (parts->tensor_scale != NULL ? text_ends_with(parts->tensor_scale->name,
                                                          spellings[s].tensor_scale)
                                         : s == CKPT_NAMES_PACKED))
            return (ckpt_part_names)s;
    return CKPT_NAMES_OF_MAP;
}

const char *pair_name(const ckpt_tensor *t, ckpt_part part, const char *map_scale, char *name)
{
    static const char too_long[] = "the name is too long";
    const char *weight = spellings[CKPT_NAMES_OF_MAP].data;
    const char *end = part == CKPT_DATA    ? spellings[t->part_names].data
                      : part == CKPT_SCALE ? spellings[t->part_names].scale
                      : part == CKPT_TENSOR_SCALE ? spellings[t->part_names].tensor_scale
                      : part == CKPT_SHAPE        ? spellings[t->part_names].shape
                                                  : spellings[t->part_names].input_scale;
    char whole[MAP_NAME_BYTES];

    snprintf(whole, sizeof whole, "%s", name);
    if (!text_ends_with(whole, weight)) {        /* this convention has no other spelling */
        if (part == CKPT_DATA)
            return NULL;
        if (part != CKPT_SCALE)
            return "the name does not end in '.weight', from which the names of its tensor scale "
                   "and input scale are made";
        return respell(whole, "", "_scale_inv", name) ? NULL : too_long;
    }
    if (end == NULL && part == CKPT_SCALE)
        end = map_scale;
    if (end == NULL)
        return "one of its parts has no name in this convention";
    return respell(whole, weight, end, name) ? NULL : too_long;
}

int pair_logical_name(const char *stored, char out[MAP_NAME_BYTES])
{
    const char *packed = spellings[CKPT_NAMES_PACKED].data;

    return text_ends_with(stored, packed) &&
           respell(stored, packed, spellings[CKPT_NAMES_OF_MAP].data, out);
}

/* Matrices in a stack of them; 1 for a matrix. */
static uint64_t matrices_of(const ckpt_tensor *t)
{
    uint64_t count = 1;

    for (uint32_t i = 0; i + 2 < t->rank; i++)
        count *= t->shape[i];
    return count;
}

/* The scale grid of a matrix, or of each matrix in a stack of them. */
static int grid_fits(const ckpt_tensor *logical, const ckpt_tensor *scale)
{
    const uint32_t last = logical->rank - 1;

    if (logical->has_scale_vector)
        return logical->rank == 2 && encoding_of(logical)->block_cols == ENCODING_WHOLE_ROW &&
               scale->shape[0] == logical->shape[0];
    if (scale->rank != logical->rank)
        return 0;
    for (uint32_t i = 0; i + 2 < logical->rank; i++)
        if (scale->shape[i] != logical->shape[i])
            return 0;
    return scale->shape[last - 1] == size_div_up(logical->shape[last - 1], logical->block_rows) &&
           scale->shape[last] == size_div_up(logical->shape[last], logical->block_cols);
}

static ckpt_code scale_dtype(const ckpt_tensor *scale, const map_read_options *options,
                             ckpt_dtype *out, ckpt_error *err)
{
    *out = scale->dtype == CKPT_U8 && options->u8_scales ? CKPT_F8_E8M0 : scale->dtype;
    if (encoding_has_scales_of(*out))
        return CKPT_OK;
    if (*out == CKPT_U8)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "scale '%s' is U8: use --u8-scales if its bytes are E8M0 exponents",
                         scale->name);
    return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' has dtype %s, expected F8_E8M0, F8_E4M3, "
                     "F32 or BF16", scale->name, ckpt_dtype_name(scale->dtype));
}

/* One F32. */
static ckpt_code take_tensor_scale(const ckpt_tensor *scale, ckpt_tensor *out, ckpt_error *err)
{
    char shape[256];

    if (scale == NULL)
        return CKPT_OK;
    out->has_tensor_scale_vector = scale->rank == 1;
    if (is_numbers(scale, 1))
        return CKPT_OK;
    catalog_shape_text(scale, shape, sizeof shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' is %s %s, expected one F32 for the tensor",
                     scale->name, ckpt_dtype_name(scale->dtype), shape);
}

/* The numbers of the shape; values_check compares them. */
static ckpt_code take_shape(const ckpt_tensor *numbers, ckpt_tensor *out, ckpt_error *err)
{
    char shape[256];

    if (numbers == NULL)
        return CKPT_OK;
    out->shape_dtype = (uint8_t)numbers->dtype;
    if ((numbers->dtype == CKPT_I32 || numbers->dtype == CKPT_I64) && numbers->rank == 1 &&
        numbers->shape[0] == out->rank)
        return CKPT_OK;
    catalog_shape_text(numbers, shape, sizeof shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is %s %s, expected %u numbers, I32 or I64: the "
                     "shape of the weight", numbers->name, ckpt_dtype_name(numbers->dtype), shape,
                     out->rank);
}

static ckpt_code fail_shapes(const ckpt_tensor *weight, const ckpt_tensor *scale, ckpt_error *err)
{
    char weight_shape[256];
    char scale_shape[256];

    catalog_shape_text(weight, weight_shape, sizeof weight_shape);
    catalog_shape_text(scale, scale_shape, sizeof scale_shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' %s does not fit weight '%s' %s %s",
                     scale->name, scale_shape, weight->name, ckpt_dtype_name(weight->dtype),
                     weight_shape);
}

/* Find the first encoding allowed by the config that fits. *out has the dtypes of codes and scales,
 * and the logical shape. */
static ckpt_code fit(const pair_parts *parts, ckpt_dtype codes, const map_read_options *options,
                     ckpt_tensor *out, ckpt_error *err)
{
    const ckpt_part_names names = find_names(parts);
    const ckpt_tensor_scale what =
        parts->tensor_scale == NULL ? CKPT_TENSOR_SCALE_NONE : spellings[names].what;
    ckpt_code code = CKPT_E_USAGE;

    for (int id = 0; id < ENCODING_COUNT; id++) {
        const ckpt_encoding *e = encoding_at((encoding_id)id);

        if ((options->encodings >> id & 1) == 0 || e->codes != codes || e->tensor_scale != what)
            continue;
        encoding_set(out, (encoding_id)id, out->scale_dtype);
        out->part_names = names;
        if ((code = catalog_check_shape(out, err)) == CKPT_OK && grid_fits(out, parts->scale))
            return CKPT_OK;
    }
    if (code == CKPT_E_USAGE)
        return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' has an unsupported block size",
                         out->name);
    return code == CKPT_OK ? fail_shapes(parts->data, parts->scale, err) : code;
}

/* Stored dtypes of packed codes, and how many are in an element. */
typedef struct {
    ckpt_dtype stored;
    ckpt_dtype codes;
    uint32_t count;
} code_word;

/* NULL: a dtype whose elements are single codes. */
static const code_word *find_word(ckpt_dtype stored)
{
    static const code_word words[] = {
        { CKPT_I8, CKPT_F4, 2 }, { CKPT_U8, CKPT_F4, 2 }, { CKPT_I32, CKPT_I4, 8 },
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i].stored == stored)
            return &words[i];
    return NULL;
}

static ckpt_code fail_unknown(const pair_parts *parts, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' has '%s' beside it, expected symmetric codes "
                     "in the order of columns: this form is not decoded", parts->data->name,
                     parts->unknown->name);
}

static int is_byte(const ckpt_tensor *t)
{
    return t->dtype == CKPT_I8 || t->dtype == CKPT_U8;
}

static ckpt_code take_bare(const ckpt_tensor *weight, const map_read_options *options,
                           ckpt_error *err)
{
    if (options->lenient || options->bare_codes != BARE_CODES_NONE ||
        (weight->dtype != CKPT_F8_E4M3 && weight->dtype != CKPT_F4 &&
         !(is_byte(weight) && text_ends_with(weight->name, ".weight"))))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' (%s) has no scale", weight->name,
                     ckpt_dtype_name(weight->dtype));
}

/* Interleaved blocks contain their scales: refuse additional ones. */
static ckpt_code fail_blocks(const ckpt_tensor *weight, const ckpt_tensor *scale, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' is stored as %s, which holds its scales, but "
                     "there is a scale '%s', too", weight->name, stored_form_name(weight),
                     scale->name);
}

/* Blocks with a tensor scale beside them: one, or one for each matrix of a stack. */
static ckpt_code take_scaled_blocks(const pair_parts *parts, ckpt_tensor *out, ckpt_error *err)
{
    const ckpt_tensor *scale = parts->tensor_scale;
    const uint64_t matrices = matrices_of(out);
    char shape[256];

    if (!is_numbers(scale, 1) && !is_numbers(scale, matrices)) {
        catalog_shape_text(scale, shape, sizeof shape);
        return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' is %s %s, expected one F32, or %llu for "
                         "the matrices of '%s'", scale->name, ckpt_dtype_name(scale->dtype), shape,
                         (unsigned long long)matrices, parts->data->name);
    }
    out->tensor_scale = CKPT_TENSOR_SCALE_FACTOR;
    out->has_tensor_scale_vector = 1;
    out->has_input_scale = parts->input_scale != NULL;
    out->has_input_scale_vector = out->has_input_scale;
    out->part_names = CKPT_NAMES_BLOCKS;
    return CKPT_OK;
}

ckpt_code pair_encoding(const pair_parts *parts, const map_read_options *options,
                        ckpt_tensor *out, ckpt_error *err)
{
    const ckpt_tensor *weight = parts->data;
    const ckpt_tensor *scale = parts->scale;
    const code_word *word = find_word(weight->dtype);
    const ckpt_dtype codes = word == NULL ? weight->dtype : word->codes;
    ckpt_dtype scales;
    ckpt_code code;

    *out = *weight;
    out->stored_dtype = weight->dtype;
    if ((weight->stored_form != CKPT_FORM_APART || weight->codes_name != NULL) && scale != NULL)
        return fail_blocks(weight, scale, err);
    if (weight->stored_form != CKPT_FORM_APART)
        return parts->tensor_scale == NULL ? CKPT_OK : take_scaled_blocks(parts, out, err);
    if (weight->codes_name != NULL)
        return CKPT_OK;                    /* the blocks contain the scales */
    if (scale == NULL)
        return take_bare(weight, options, err);
    if (parts->unknown != NULL)
        return fail_unknown(parts, err);
    if ((code = scale_dtype(scale, options, &scales, err)) != CKPT_OK ||
        (code = take_tensor_scale(parts->tensor_scale, out, err)) != CKPT_OK ||
        (code = take_shape(parts->shape, out, err)) != CKPT_OK)
        return code;
    out->scale_dtype = scales;
    if (options->bare_codes != BARE_CODES_NONE && scale->dtype != out->scale_dtype)
        out->stored_scale_dtype = scale->dtype;
    out->has_scale_vector = scale->rank == 1;
    out->has_input_scale = parts->input_scale != NULL;
    out->has_input_scale_vector = parts->input_scale != NULL && parts->input_scale->rank == 1;
    if (weight->rank < 2 ||
        (word != NULL && !size_mul(weight->shape[weight->rank - 1], word->count,
                                   &out->shape[weight->rank - 1])))
        return fail_shapes(weight, scale, err);
    if (!encoding_has_codes_of(codes))
        return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' has a scale, but dtype %s",
                         weight->name, ckpt_dtype_name(weight->dtype));
    return fit(parts, codes, options, out, err);
}

static ckpt_tensor stored_data(const ckpt_tensor *logical)
{
    const code_word *word = find_word(logical->stored_dtype);
    ckpt_tensor stored = *logical;

    if (logical->stored_form != CKPT_FORM_APART) {
        stored_form_set(&stored, (ckpt_stored_form)logical->stored_form);
        stored.stored_dtype = CKPT_NONE;
        stored.has_tensor_scale_vector = 0;
        stored.has_input_scale_vector = 0;
        return stored;
    }
    catalog_set_plain(&stored, logical->dtype);
    stored.stored_dtype = CKPT_NONE;
    if (word != NULL && word->codes == logical->dtype) {
        stored.dtype = logical->stored_dtype;
        stored.shape[logical->rank - 1] /= word->count;
    }
    return stored;
}

static ckpt_tensor stored_scale(const ckpt_tensor *logical)
{
    ckpt_tensor stored = *logical;
    const uint32_t last = logical->rank - 1;

    catalog_set_plain(&stored, logical->scale_dtype == CKPT_F8_E8M0 &&
                                       logical->stored_scale_dtype != CKPT_NONE
                                   ? logical->stored_scale_dtype
                                   : logical->scale_dtype);
    stored.stored_dtype = CKPT_NONE;
    if (logical->has_scale_vector) {
        stored.rank = last;
        return stored;
    }
    stored.shape[last] = size_div_up(logical->shape[last], logical->block_cols);
    stored.shape[last - 1] = size_div_up(logical->shape[last - 1], logical->block_rows);
    return stored;
}

ckpt_tensor pair_stored_part(const ckpt_tensor *logical, ckpt_part part)
{
    ckpt_tensor stored = *logical;

    if (part == CKPT_DATA)
        return stored_data(logical);
    if (part == CKPT_SCALE)
        return stored_scale(logical);
    catalog_set_plain(&stored, catalog_part_dtype(logical, part));
    stored.stored_dtype = CKPT_NONE;
    if (part == CKPT_SHAPE) {
        stored.rank = 1;
        stored.shape[0] = logical->rank;
        return stored;
    }
    stored.rank = part == CKPT_TENSOR_SCALE ? logical->has_tensor_scale_vector
                                            : logical->has_input_scale_vector;
    stored.shape[0] = logical->stored_form == CKPT_FORM_APART ? 1 : matrices_of(logical);
    return stored;
}
