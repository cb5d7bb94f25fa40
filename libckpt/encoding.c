/* The table of encodings. */
#include "encoding.h"

#include "encoding_rows.h"

#define BIT(dtype) (1u << (dtype))

/*
 * Products are finite up to 1.75 * 2^8 * 2^(246 - 127) (E4M3) and 1.5 * 2^2 * 2^(252 - 127) (E2M1),
 * which are 1.75 and 1.5 times 2^127. They are exact in BF16 from the smallest scale under which
 * the smallest code, subnormals included, keeps all its bits.
 */
#define E4M3 .codes = CKPT_F8_E4M3, .largest = 448, .finite_high = 246, .exact_low = 9,           \
             .exact_high = 245

/* Rows are whole groups. The products of E2M1 codes and scales are exact in F32. */
#define E2M1_GROUPS(columns) .codes = CKPT_F4, .largest = 6, .block_rows = 1,                     \
                             .block_cols = (columns),                                             \
                             .uneven = "its columns are not whole groups of " #columns

#define NVFP4 E2M1_GROUPS(16), .scales = BIT(CKPT_F8_E4M3), .has_zero_scales = 1,                 \
              .rows = &encoding_rows_nvfp4

static const ckpt_encoding scaled[ENCODING_COUNT] = {
    [ENCODING_FP8_128] = { E4M3, .block_rows = FP8_BLOCK, .block_cols = FP8_BLOCK,
                           .scales = BIT(CKPT_F8_E8M0) | BIT(CKPT_F32) | BIT(CKPT_BF16),
                           .quantiser = QUANTISER_FP8_BLOCK, .rows = &encoding_rows_fp8 },
    [ENCODING_FP8_32] = { E4M3, .block_rows = 32, .block_cols = 32,
                          .scales = BIT(CKPT_F8_E8M0) | BIT(CKPT_F32) | BIT(CKPT_BF16),
                          .rows = &encoding_rows_fp8_narrow },
    [ENCODING_FP8_1X32] = { E4M3, .block_rows = 1, .block_cols = 32, .scales = BIT(CKPT_F8_E8M0),
                            .rows = &encoding_rows_fp8_narrow },
    [ENCODING_FP8_ROW] = { E4M3, .block_rows = 1, .block_cols = ENCODING_WHOLE_ROW,
                           .scales = BIT(CKPT_F32) | BIT(CKPT_BF16), .rows = &encoding_rows_fp8 },
    [ENCODING_FP4_32] = { E2M1_GROUPS(32), .scales = BIT(CKPT_F8_E8M0), .finite_high = 252,
                          .exact_low = 2, .exact_high = 251, .quantiser = QUANTISER_FP4_GROUP,
                          .rows = &encoding_rows_fp4 },
    [ENCODING_NVFP4] = { NVFP4, .tensor_scale = CKPT_TENSOR_SCALE_FACTOR },
    [ENCODING_NVFP4_DIVIDED] = { NVFP4, .tensor_scale = CKPT_TENSOR_SCALE_DIVISOR },
    [ENCODING_INT8_32] = { .codes = CKPT_I8, .largest = 128, .block_rows = 1, .block_cols = 32,
                           .uneven = "its columns are not whole groups of 32",
                           .scales = BIT(CKPT_F16), .has_zero_scales = 1, .is_in_blocks = 1,
                           .rows = &encoding_rows_int8 },
    [ENCODING_FP4_16] = { E2M1_GROUPS(16), .scales = BIT(CKPT_F8_E4M3), .has_zero_scales = 1,
                          .is_in_blocks = 1, .rows = &encoding_rows_fp4_16 },
    [ENCODING_INT4_32] = { .codes = CKPT_I4, .largest = 8, .block_rows = 1, .block_cols = 32,
                           .uneven = "its columns are not whole groups of 32",
                           .scales = BIT(CKPT_BF16), .has_zero_scales = 1,
                           .rows = &encoding_rows_int4 },
};

#define PLAIN(dtype, functions) [dtype] = { .codes = (dtype), .rows = &(functions) }

static const ckpt_encoding plain[CKPT_DTYPE_COUNT] = {
    PLAIN(CKPT_F4, encoding_rows_e2m1),
    PLAIN(CKPT_F8_E4M3, encoding_rows_e4m3),
    PLAIN(CKPT_F8_E5M2, encoding_rows_e5m2),
    PLAIN(CKPT_F8_E8M0, encoding_rows_e8m0),
    PLAIN(CKPT_F16, encoding_rows_f16),
    PLAIN(CKPT_BF16, encoding_rows_bf16),
    PLAIN(CKPT_F32, encoding_rows_f32),
    PLAIN(CKPT_BOOL, encoding_rows_int),
    PLAIN(CKPT_U8, encoding_rows_int),
    PLAIN(CKPT_I8, encoding_rows_int),
    PLAIN(CKPT_U16, encoding_rows_int),
    PLAIN(CKPT_I16, encoding_rows_int),
    PLAIN(CKPT_U32, encoding_rows_int),
    PLAIN(CKPT_I32, encoding_rows_int),
    PLAIN(CKPT_U64, encoding_rows_int),
    PLAIN(CKPT_I64, encoding_rows_int),
};

const ckpt_encoding *encoding_at(encoding_id id)
{
    return &scaled[id];
}

/* The encoding of plain elements; NULL when they are not decoded. */
static const ckpt_encoding *plain_encoding(ckpt_dtype dtype)
{
    return plain[dtype].rows == NULL ? NULL : &plain[dtype];
}

const ckpt_encoding *encoding_codes(ckpt_dtype dtype)
{
    static const ckpt_encoding int8 = { .codes = CKPT_I8, .rows = &encoding_rows_int8_codes };
    static const ckpt_encoding int4 = { .codes = CKPT_I4, .rows = &encoding_rows_int4_codes };

    return dtype == CKPT_I8 ? &int8 : dtype == CKPT_I4 ? &int4 : plain_encoding(dtype);
}

static encoding_id find(ckpt_dtype codes, uint64_t block_rows, uint64_t block_cols,
                        ckpt_tensor_scale tensor_scale)
{
    int id = 0;

    while (id < ENCODING_COUNT &&
           (scaled[id].codes != codes || scaled[id].block_rows != block_rows ||
            scaled[id].block_cols != block_cols || scaled[id].tensor_scale != tensor_scale))
        id++;
    return (encoding_id)id;
}

encoding_id encoding_find(ckpt_dtype codes, uint64_t block_rows, uint64_t block_cols)
{
    return find(codes, block_rows, block_cols, CKPT_TENSOR_SCALE_NONE);
}

encoding_id encoding_id_of(const ckpt_tensor *t)
{
    return t->scale_dtype == CKPT_NONE
               ? ENCODING_COUNT
               : find(t->dtype, t->block_rows, t->block_cols, t->tensor_scale);
}

const ckpt_encoding *encoding_of(const ckpt_tensor *t)
{
    const encoding_id id = encoding_id_of(t);

    if (t->scale_dtype == CKPT_NONE)
        return t->tensor_scale == CKPT_TENSOR_SCALE_NONE ? plain_encoding(t->dtype) : NULL;
    return id == ENCODING_COUNT || (scaled[id].scales & BIT(t->scale_dtype)) == 0 ? NULL
                                                                                 : &scaled[id];
}

int encoding_has_codes_of(ckpt_dtype dtype)
{
    int id = 0;

    while (id < ENCODING_COUNT && (scaled[id].is_in_blocks || scaled[id].codes != dtype))
        id++;
    return id < ENCODING_COUNT;
}

int encoding_has_scales_of(ckpt_dtype dtype)
{
    unsigned all = 0;

    for (int id = 0; id < ENCODING_COUNT; id++)
        all |= scaled[id].is_in_blocks ? 0 : scaled[id].scales;
    return (all & BIT(dtype)) != 0;
}

void encoding_set(ckpt_tensor *tensor, encoding_id id, ckpt_dtype scale_dtype)
{
    tensor->dtype = scaled[id].codes;
    tensor->scale_dtype = scale_dtype;
    tensor->block_rows = scaled[id].block_rows;
    tensor->block_cols = scaled[id].block_cols;
    tensor->tensor_scale = scaled[id].tensor_scale;
    tensor->part_names = CKPT_NAMES_OF_MAP;
    tensor->stored_form = CKPT_FORM_APART;
    if (tensor->tensor_scale == CKPT_TENSOR_SCALE_NONE)
        tensor->has_input_scale = 0;
    if (tensor->dtype != CKPT_I4)
        tensor->shape_dtype = CKPT_NONE;
}

int encoding_is(const ckpt_tensor *tensor, encoding_id id)
{
    return tensor->scale_dtype != CKPT_NONE && encoding_of(tensor) == &scaled[id];
}

/*
 * The kernels rely on this: they process FP4 rows in whole groups. Tiles divide a tensor by its row
 * view, so that in a stack of matrices no block may extend from one matrix into the next.
 */
const char *encoding_problem(const ckpt_tensor *t)
{
    const ckpt_encoding *e = encoding_of(t);

    if (t->scale_dtype == CKPT_NONE)
        return NULL;
    if (e == NULL)
        return "there is no such encoding";
    if (t->rank < 2)
        return "only matrices have blocks";
    if (ckpt_tensor_cols(t) > ENCODING_WHOLE_ROW)
        return "its rows are too long";
    if (e->uneven != NULL && t->shape[t->rank - 1] % e->block_cols != 0)
        return e->uneven;
    if (t->rank > 2 && t->shape[t->rank - 2] % e->block_rows != 0)
        return "blocks would cross its matrices";
    return NULL;
}
