/*
 * synth.c: synthetic weights, computed tile by tile.
 *
 * Every random word is a function of a key (seed and tensor name) and a counter (the position), so
 * that tiles are independent. Decisions use integers only. The only float arithmetic is
 * an 18-bit integer times a power of two, which is exact, plus 1 for norms and gains, which is one
 * IEEE addition.
 */
#include "synth.h"

#include <stdlib.h>
#include <string.h>

#include "encoding.h"
#include "mix.h"
#include "size.h"

enum {
    FP4_CLASSES = 3,
    FP4_TABLE = 4096,
    FP4_WORDS = 5,            /* random words of a group: one for its choices, four for its codes */
    FP4_CENTRE = 120,         /* E8M0: values of about 0.02; every second tensor has 121 */
    FP4_SCALE_ZERO = 1,       /* what DeepSeek's floor gives a group of zeros */
    FP4_ZERO_SHARE = 42950,   /* of 2^32: one group in 10^5 */
    FP8_CENTRE = 116,         /* E8M0: values of about 0.03 */
    FP8_TABLE = 4096,
    FP8_LARGEST = 0x77,       /* to 0x7E: what ceil(amax / 448) leaves as largest code */
    INT4_WORDS = 5,           /* as FP4_WORDS */
    INT4_SCALE = 0x3B80,      /* BF16: 2^-8, to which the mantissa is added */
    FP8_STEP = 56,            /* of the Gaussian sum, in units of 2^-9: sigma is then 65 */
    IDS_MAX = 64              /* columns of an expert table */
};

/* Independent sequences of one tensor. */
enum { STREAM_DATA = 1, STREAM_BLOCK = 2 };

typedef struct {
    ckpt_source base;
    synth_options options;
    uint8_t fp4[FP4_CLASSES][FP4_TABLE];     /* two codes an entry */
    uint8_t int4[FP4_TABLE];
    uint8_t fp8[FP8_TABLE];
} synth;

/* ---- random words ---- */

static inline uint64_t random_word(uint64_t key, uint64_t counter)
{
    const uint64_t state = key + counter * UINT64_C(0xa0761d6478bd642f);

    return mix_words(state, state ^ UINT64_C(0xe7037ed1a0b428db));
}

/* FNV-1a of the name, then mixed with the seed and the stream. */
static uint64_t tensor_key(const synth *s, const ckpt_tensor *tensor, unsigned stream)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *c = tensor->name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    hash = mix_words(hash ^ UINT64_C(0x8ebc6af09c88c6e3),
                         s->options.seed ^ UINT64_C(0x589965cc75374cc3));
    return random_word(hash, stream);
}

/* 1 with probability share / 2^bits; consumes the low bits of a random word. */
static int chance(uint64_t *word, unsigned bits, uint64_t share)
{
    const int hit = (*word & ((UINT64_C(1) << bits) - 1)) < share;

    *word >>= bits;
    return hit;
}

/* -131070 .. 131070, sigma 37837, nearly Gaussian: the sum of four 16-bit numbers. */
static inline int32_t gaussian(uint64_t word)
{
    const uint64_t pairs = (word & UINT64_C(0x0000ffff0000ffff)) +
                           (word >> 16 & UINT64_C(0x0000ffff0000ffff));

    return (int32_t)((pairs & 0xffffffff) + (pairs >> 32)) - 131070;
}

/* ---- tables ---- */

/* How many of 128 codes have magnitude 0 .5 1 1.5 2 3 4 6, for a largest one of 3, 4 or 6. */
static const uint8_t fp4_shares[FP4_CLASSES][8] = {
    { 19, 35, 29, 20, 17, 8, 0, 0 },
    { 15, 28, 24, 20, 21, 15, 5, 0 },
    { 11, 22, 20, 18, 22, 19, 14, 2 },
};

/* How many of 256 codes are -8 .. 7. */
static const uint8_t int4_shares[16] = { 2, 4, 7, 12, 17, 23, 28, 31, 31, 29, 24, 19, 13, 8, 5, 3 };

/* Fill a table of pairs of codes. All 256 first codes occur equally often, and with each of them
 * the second codes are spread evenly. */
static void fill_pairs(const uint8_t codes[256], uint8_t pairs[FP4_TABLE])
{
    for (unsigned i = 0; i < FP4_TABLE; i++) {
        const unsigned second = (i & 255) * 37 + (i >> 8) * 16;

        pairs[i] = (uint8_t)(codes[i & 255] | codes[second & 255] << 4);
    }
}

static void fill_int4(synth *s)
{
    uint8_t codes[256];
    size_t count = 0;

    for (unsigned code = 0; code < 16; code++)
        for (unsigned i = 0; i < int4_shares[code]; i++)
            codes[count++] = (uint8_t)code;
    fill_pairs(codes, s->int4);
}

static void fill_fp4(synth *s)
{
    for (int k = 0; k < FP4_CLASSES; k++) {
        uint8_t codes[256];
        size_t count = 0;

        for (unsigned code = 0; code < 8; code++) {
            for (unsigned i = 0; i < fp4_shares[k][code]; i++) {
                codes[count++] = (uint8_t)code;
                codes[count++] = (uint8_t)(code | 8);
            }
        }
        fill_pairs(codes, s->fp4[k]);
    }
}

/* Round `units` x 2^-9 to an E4M3 code; ties are rounded up. */
static uint8_t e4m3_code(uint32_t units)
{
    unsigned shift = 0;

    while (units >> shift >= 16)
        shift++;
    if (shift > 0)
        units += UINT32_C(1) << (shift - 1);
    if (units >> shift >= 16)
        shift++;
    /* 8..15 in units of 2^(shift-9): exponent field shift + 1. Below 8 the number is subnormal
     * and is its own code. */
    return (uint8_t)(units < 8 ? units : (shift << 3) + (units >> shift));
}

/* The quantiles of the sum of four numbers of 0..1023, counted exactly, as E4M3 codes. */
static void fill_fp8(synth *s)
{
    enum { LEVELS = 1024, SUMS = 4 * (LEVELS - 1) + 1 };
    static const uint64_t total = (uint64_t)1 << 40;
    uint64_t count[SUMS + 1] = { 1 };
    uint64_t below = 0;
    uint32_t sum = 0;

    for (int round = 0; round < 4; round++) {
        uint64_t before[SUMS + 1] = { 0 };     /* before[i]: sum of count[0 .. i-1] */

        for (int i = 0; i < SUMS; i++)
            before[i + 1] = before[i] + count[i];
        for (int i = 0; i < SUMS; i++)
            count[i] = before[i + 1] - before[i + 1 > LEVELS ? i + 1 - LEVELS : 0];
    }
    for (uint32_t i = 0; i < FP8_TABLE; i++) {
        const uint32_t middle = SUMS / 2;

        while (below + count[sum] <= (2 * (uint64_t)i + 1) * (total / FP8_TABLE / 2))
            below += count[sum++];
        if (sum >= middle)
            s->fp8[i] = e4m3_code((sum - middle) * FP8_STEP);
        else
            s->fp8[i] = e4m3_code((middle - sum) * FP8_STEP) | 0x80;
    }
}

/* ---- FP4 ---- */

typedef struct {
    int zero;
    int class;                /* 0, 1, 2: largest magnitude 3, 4, 6 */
    unsigned position;        /* of the largest */
    unsigned sign;            /* of the largest, 0 or 8 */
    int jitter;               /* of the exponent */
} fp4_choice;

static fp4_choice fp4_choose(uint64_t word)
{
    fp4_choice c;
    uint64_t pick;

    c.zero = chance(&word, 32, FP4_ZERO_SHARE);
    pick = word & 0xffff;
    c.class = (pick >= 18350) + (pick >= 42336);     /* 28 %, 36.6 %, 35.4 % of 2^16 */
    c.position = word >> 16 & 31;
    c.sign = word >> 18 & 8;
    pick = word >> 22 & 1023;
    c.jitter = (pick >= 16) + (pick >= 256) + (pick >= 816) + (pick >= 1016) - 2;
    return c;
}

/* The 16 bytes of a group of pairs, from four random words. */
static void fill_group(const uint8_t *pairs, uint64_t key, uint64_t counter, uint8_t *out)
{
    for (unsigned i = 0; i < 4; i++, out += 4) {
        const uint64_t word = random_word(key, counter + i);

        out[0] = pairs[word & (FP4_TABLE - 1)];
        out[1] = pairs[word >> 16 & (FP4_TABLE - 1)];
        out[2] = pairs[word >> 32 & (FP4_TABLE - 1)];
        out[3] = pairs[word >> 48 & (FP4_TABLE - 1)];
    }
}

/* The 16 bytes of one group; `counter` is where its random words start. */
static void fp4_group(const synth *s, uint64_t key, uint64_t counter, uint8_t *out)
{
    const fp4_choice choice = fp4_choose(random_word(key, counter));
    const uint8_t *pairs = s->fp4[choice.class];
    const unsigned shift = choice.position % 2 * 4;
    uint8_t *largest = &out[choice.position / 2];

    if (choice.zero) {
        memset(out, 0, FP4_GROUP / 2);
        return;
    }
    fill_group(pairs, key, counter + 1, out);
    *largest = (uint8_t)((*largest & 0xf0u >> shift) |
                         ((unsigned)(choice.class + 5) | choice.sign) << shift);
}

static void fp4_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                     uint8_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t groups = ckpt_tensor_cols(tensor) / FP4_GROUP;
    const uint64_t first = range->row * groups;

    for (uint64_t i = 0; i < range->row_count * groups; i++, out += FP4_GROUP / 2)
        fp4_group(s, key, (first + i) * FP4_WORDS, out);
}

/* E8M0 codes of groups [first, first + count), in the tensor's order. */
static void fp4_scales(const synth *s, const ckpt_tensor *tensor, uint64_t first, uint64_t count,
                       uint8_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const int centre = FP4_CENTRE + (int)(tensor_key(s, tensor, STREAM_BLOCK) & 1);

    for (uint64_t i = 0; i < count; i++) {
        const fp4_choice choice = fp4_choose(random_word(key, (first + i) * FP4_WORDS));

        out[i] = (uint8_t)(choice.zero ? FP4_SCALE_ZERO : centre + choice.jitter);
    }
}

/* ---- INT4 ---- */

/* As quantisers leave them: each group has -8 or 7. */
static void int4_group(const synth *s, uint64_t key, uint64_t counter, uint8_t *out)
{
    const uint64_t choice = random_word(key, counter);
    const unsigned shift = (unsigned)choice % 2 * 4;
    uint8_t *largest = &out[(choice >> 1) % (INT4_GROUP / 2)];

    fill_group(s->int4, key, counter + 1, out);
    *largest = (uint8_t)((*largest & 0xf0u >> shift) | (choice >> 8 & 1 ? 15u : 0u) << shift);
}

static void int4_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                      uint8_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t groups = ckpt_tensor_cols(tensor) / INT4_GROUP;
    const uint64_t first = range->row * groups;

    for (uint64_t i = 0; i < range->row_count * groups; i++, out += INT4_GROUP / 2)
        int4_group(s, key, (first + i) * INT4_WORDS, out);
}

/* Of 2^-8 to 2^-7, so that values are about 0.02. */
static void int4_scales(const synth *s, const ckpt_tensor *tensor, uint64_t first, uint64_t count,
                        uint16_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_BLOCK);

    for (uint64_t i = 0; i < count; i++)
        out[i] = (uint16_t)(INT4_SCALE + (random_word(key, first + i) >> 40 & 127));
}

/* The stored numbers of the shape, little endian. */
static void fill_shape(const ckpt_tensor *tensor, uint8_t *out)
{
    const size_t bytes = ckpt_dtype_bits((ckpt_dtype)tensor->shape_dtype) / 8;

    for (uint32_t i = 0; i < tensor->rank; i++)
        memcpy(out + i * bytes, &tensor->shape[i], bytes);
}

/* ---- FP8 ---- */

static void fp8_row(const synth *s, uint64_t key, uint64_t counter, uint64_t cols, uint8_t *out)
{
    uint64_t col = 0;
    uint64_t word;

    for (; col + 4 <= cols; col += 4) {
        word = random_word(key, counter++);
        out[col] = s->fp8[word & (FP8_TABLE - 1)];
        out[col + 1] = s->fp8[word >> 16 & (FP8_TABLE - 1)];
        out[col + 2] = s->fp8[word >> 32 & (FP8_TABLE - 1)];
        out[col + 3] = s->fp8[word >> 48 & (FP8_TABLE - 1)];
    }
    word = random_word(key, counter);
    for (; col < cols; col++, word >>= 16)
        out[col] = s->fp8[word & (FP8_TABLE - 1)];
}

/* Set the largest code of each block. Bands consist of whole blocks. */
static void fp8_force_largest(uint64_t key, const ckpt_tensor *tensor, const source_range *range,
                              uint8_t *out)
{
    const uint64_t rows = ckpt_tensor_rows(tensor);
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const uint64_t block_rows = tensor->block_rows;
    const uint64_t block_cols = tensor->block_cols;
    const uint64_t blocks = size_div_up(cols, block_cols);

    for (uint64_t row = range->row; row < range->row + range->row_count; row += block_rows) {
        for (uint64_t block = 0; block < blocks; block++) {
            const uint64_t col = block * block_cols;
            const uint64_t word = random_word(key, row / block_rows * blocks + block);
            const uint64_t i = (word & 0xffff) % size_min(block_rows, rows - row);
            const uint64_t j = (word >> 16 & 0xffff) % size_min(block_cols, cols - col);

            out[(row - range->row + i) * cols + col + j] =
                (uint8_t)((FP8_LARGEST + (word >> 32 & 7)) | (word >> 28 & 0x80));
        }
    }
}

static void fp8_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                     uint8_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const uint64_t words = size_div_up(cols, 4);

    for (uint64_t i = 0; i < range->row_count; i++)
        fp8_row(s, key, (range->row + i) * words, cols, out + i * cols);
    fp8_force_largest(tensor_key(s, tensor, STREAM_BLOCK), tensor, range, out);
}

/* E8M0 codes of blocks [first, first + count), in the tensor's order. */
static void fp8_scales(const synth *s, const ckpt_tensor *tensor, uint64_t first, uint64_t count,
                       uint8_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_BLOCK);

    for (uint64_t i = 0; i < count; i++) {
        const uint64_t pick = random_word(key, first + i) >> 40 & 1023;

        out[i] = (uint8_t)(FP8_CENTRE - 1 + (pick >= 256) + (pick >= 819) + (pick >= 1014));
    }
}

/* ---- floats and ids ---- */

/* The distribution of a tensor's values, by the end of its name; the first match is used. */
typedef struct {
    const char *suffix;
    float step;               /* sigma is 37837 steps */
    float mean;
} float_kind;

static float_kind find_kind(const ckpt_tensor *tensor)
{
    static const float_kind kinds[] = {
        { "norm.weight", 0x1p-19f, 1.0f },       /* sigma 0.07 */
        { "_scale", 0x1p-19f, 1.0f },
        { "_fn", 0x1p-21f, 0.0f },               /* 0.018 */
        { "_base", 0x1p-16f, 0.0f },             /* 0.58 */
        { "ape", 0x1p-16f, 0.0f },
        { "attn_sink", 0x1p-15f, 0.0f },         /* 1.2 */
        { "gate.bias", 0x1p-19f, 0.0f },
        { "", 0x1p-20f, 0.0f },                  /* 0.036 */
    };
    const size_t length = strlen(tensor->name);
    size_t i = 0;

    for (;; i++) {
        const size_t suffix = strlen(kinds[i].suffix);

        if (suffix <= length && strcmp(tensor->name + length - suffix, kinds[i].suffix) == 0)
            return kinds[i];
    }
}

static void bf16_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                      uint16_t *out)
{
    const float_kind kind = find_kind(tensor);
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const uint64_t count = range->row_count * cols;

    for (uint64_t i = 0; i < count; i++) {
        const int32_t number = gaussian(random_word(key, range->row * cols + i));
        const float value = (float)number * kind.step + kind.mean;
        uint32_t bits;

        memcpy(&bits, &value, sizeof bits);
        out[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);     /* to nearest even */
    }
}

/* Use odd numbers of steps, nearly all of which need more bits than BF16 has. */
static void f32_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                     float *out)
{
    const float_kind kind = find_kind(tensor);
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const uint64_t count = range->row_count * cols;

    for (uint64_t i = 0; i < count; i++) {
        const int32_t number = gaussian(random_word(key, range->row * cols + i)) | 1;

        out[i] = (float)number * kind.step + kind.mean;
    }
}

/* Floyd's sampling: draws `cols` distinct ids below expert_count without a table of used ids. */
static void id_row(const synth *s, uint64_t key, uint64_t counter, uint64_t cols, int64_t *out)
{
    for (uint64_t i = 0; i < cols; i++) {
        const uint64_t last = s->options.expert_count - cols + i;
        const uint64_t word = random_word(key, counter + i);
        int64_t id = (int64_t)((word >> 32) % (last + 1));

        for (uint64_t j = 0; j < i; j++) {
            if (out[j] == id) {
                id = (int64_t)last;
                break;
            }
        }
        out[i] = id;
    }
}

static void id_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                    int64_t *out)
{
    const uint64_t key = tensor_key(s, tensor, STREAM_DATA);
    const uint64_t cols = ckpt_tensor_cols(tensor);

    for (uint64_t i = 0; i < range->row_count; i++)
        id_row(s, key, (range->row + i) * cols, cols, out + i * cols);
}

/* ---- the source ---- */

static void fill_data(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                      void *out)
{
    switch (tensor->dtype) {
    case CKPT_F4:
        fp4_data(s, tensor, range, out);
        break;
    case CKPT_I4:
        int4_data(s, tensor, range, out);
        break;
    case CKPT_F8_E4M3:
        fp8_data(s, tensor, range, out);
        break;
    case CKPT_BF16:
        bf16_data(s, tensor, range, out);
        break;
    case CKPT_F32:
        f32_data(s, tensor, range, out);
        break;
    default:
        id_data(s, tensor, range, out);
    }
}

static void fill_scales(const synth *s, const ckpt_tensor *tensor, const source_range *range,
                        void *out)
{
    const uint64_t cols = ckpt_part_cols(tensor, CKPT_SCALE);
    uint8_t *codes = out;
    uint64_t row;
    uint64_t row_count;

    source_scale_rows(tensor, range, &row, &row_count);
    if (tensor->dtype == CKPT_I4)
        int4_scales(s, tensor, row * cols, row_count * cols, out);
    else if (tensor->dtype == CKPT_F4)
        fp4_scales(s, tensor, row * cols, row_count * cols, codes);
    else
        fp8_scales(s, tensor, row * cols, row_count * cols, codes);
    if (tensor->scale_dtype != CKPT_F32)
        return;
    /* Codes of 1..254 are F32 exponents. Converted in place, so backwards. */
    for (uint64_t i = row_count * cols; i-- > 0;) {
        const uint32_t bits = (uint32_t)codes[i] << 23;

        memcpy(codes + i * sizeof bits, &bits, sizeof bits);
    }
}

static ckpt_code synth_read(ckpt_source *self, const source_range *range, arena *scratch,
                            ckpt_tile *tile, ckpt_error *err)
{
    const synth *s = (const synth *)self;
    const ckpt_tensor *tensor = ckpt_catalog_at(self->catalog, range->tensor);

    for (int part = CKPT_DATA; part < CKPT_PART_COUNT; part++) {
        const uint64_t row_bytes = ckpt_part_row_bytes(tensor, (ckpt_part)part);
        uint64_t row_count;
        uint64_t row;

        if ((range->want & 1u << part) == 0 ||
            catalog_part_dtype(tensor, (ckpt_part)part) == CKPT_NONE)
            continue;
        source_part_rows(tensor, (ckpt_part)part, range, &row, &row_count);
        tile->part_bytes[part] = row_count * row_bytes;
        tile->part[part] = arena_alloc(scratch, (size_t)tile->part_bytes[part]);
        if (tile->part[part] == NULL)
            return ckpt_fail_memory(err, "a tile of synthetic weights", tile->part_bytes[part]);
        if (part == CKPT_DATA)
            fill_data(s, tensor, range, tile->part[part]);
        else if (part == CKPT_SHAPE)
            fill_shape(tensor, tile->part[part]);
        else
            fill_scales(s, tensor, range, tile->part[part]);
    }
    return CKPT_OK;
}

static uint64_t synth_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const ckpt_tensor *t = ckpt_catalog_at(self->catalog, tensor);
    uint64_t need = arena_cost(row_count * ckpt_part_row_bytes(t, CKPT_DATA));

    if (t->shape_dtype != CKPT_NONE)
        need += arena_cost(ckpt_part_row_bytes(t, CKPT_SHAPE));
    if (t->scale_dtype != CKPT_NONE)
        need += arena_cost(size_div_up(row_count, t->block_rows) *
                           ckpt_part_row_bytes(t, CKPT_SCALE));
    return need;
}

static void synth_free(ckpt_source *self)
{
    free(self);
}

static int can_make(const ckpt_tensor *tensor, const synth_options *options)
{
    const uint64_t cols = ckpt_tensor_cols(tensor);

    switch (tensor->dtype) {
    case CKPT_F4:
        return encoding_is(tensor, ENCODING_FP4_32);
    case CKPT_I4:
        return encoding_is(tensor, ENCODING_INT4_32);
    case CKPT_F8_E4M3:
        return tensor->scale_dtype != CKPT_NONE && tensor->scale_dtype != CKPT_BF16 &&
               !encoding_is(tensor, ENCODING_FP8_ROW);
    case CKPT_I64:
        return tensor->scale_dtype == CKPT_NONE && cols <= IDS_MAX &&
               cols <= options->expert_count && options->expert_count <= UINT32_MAX;
    default:
        return tensor->scale_dtype == CKPT_NONE &&
               (tensor->dtype == CKPT_BF16 || tensor->dtype == CKPT_F32);
    }
}

ckpt_code source_synth(const ckpt_catalog *catalog, const synth_options *options,
                       ckpt_source **out, ckpt_error *err)
{
    static const source_ops ops = { synth_read, synth_need, synth_free };
    synth *s;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *tensor = ckpt_catalog_at(catalog, i);
        char encoding[64];
        char shape[256];

        if (can_make(tensor, options))
            continue;
        ckpt_tensor_encoding(tensor, encoding, sizeof encoding);
        catalog_shape_text(tensor, shape, sizeof shape);
        return ckpt_fail(err, CKPT_E_USAGE,
                         "no synthetic values for tensor '%s', %s %s, with %llu experts",
                         tensor->name, encoding, shape, (unsigned long long)options->expert_count);
    }
    if ((s = calloc(1, sizeof *s)) == NULL)
        return ckpt_fail_memory(err, "a source of synthetic weights", sizeof *s);
    s->base.ops = &ops;
    s->base.catalog = catalog;
    s->options = *options;
    fill_fp4(s);
    fill_int4(s);
    fill_fp8(s);
    *out = &s->base;
    return CKPT_OK;
}
