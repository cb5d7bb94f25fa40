/*
 * internal.h: declarations that the files of this room share. Not for files outside kernels/.
 */
#ifndef CKPT_KERNELS_INTERNAL_H
#define CKPT_KERNELS_INTERNAL_H

#include <string.h>

#include "kernels.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the digest hashes little-endian bytes in place"
#endif

/* One table per instruction set; dispatch.c chooses one. */
extern const ckpt_kernels kernels_scalar;
extern const ckpt_kernels kernels_avx2;
extern const ckpt_kernels kernels_avx512;

/* hash.c, compiled once per instruction set. */
hash128 hash_bytes_scalar(const void *src, size_t size, uint64_t seed);
hash128 hash_bytes_avx2(const void *src, size_t size, uint64_t seed);
hash128 hash_bytes_avx512(const void *src, size_t size, uint64_t seed);
void hash_begin_scalar(hash_stream *stream);
void hash_add_scalar(hash_stream *stream, const void *src, size_t size);
hash128 hash_end_scalar(const hash_stream *stream);
void hash_begin_avx2(hash_stream *stream);
void hash_add_avx2(hash_stream *stream, const void *src, size_t size);
hash128 hash_end_avx2(const hash_stream *stream);
void hash_begin_avx512(hash_stream *stream);
void hash_add_avx512(hash_stream *stream, const void *src, size_t size);
hash128 hash_end_avx512(const hash_stream *stream);
void digest_row_i64_scalar(const int64_t *src, size_t cols, uint64_t first_unit, hash128 *sum);
void digest_row_i64_avx2(const int64_t *src, size_t cols, uint64_t first_unit, hash128 *sum);
void digest_row_i64_avx512(const int64_t *src, size_t cols, uint64_t first_unit, hash128 *sum);

/* quantise_rows.c, compiled once per instruction set. */
#define QUANTISE_ROWS(isa)                                                                         \
    void f32_group_amax_##isa(const float *src, size_t group_count, size_t group, float *amax);    \
    float bf16_block_amax_##isa(const uint16_t *src, size_t rows, size_t cols, size_t pitch);      \
    void bf16_group_amax_##isa(const uint16_t *src, size_t group_count, size_t group,              \
                               float *amax);                                                       \
    void amax_to_scale_##isa(scale_rule rule, const float *amax, size_t count,                     \
                             float tensor_scale, const block_scales *out);                         \
    void quantise_e4m3_##isa(const quantise_input *in, uint8_t *codes, size_t codes_pitch,         \
                             quantise_sums *sums);                                                 \
    void quantise_e2m1_##isa(const quantise_input *in, uint8_t *codes, size_t codes_pitch,         \
                             quantise_sums *sums);                                                 \
    void quantise_int8_##isa(const quantise_input *in, uint8_t *codes, size_t codes_pitch,         \
                             quantise_sums *sums)
QUANTISE_ROWS(scalar);
QUANTISE_ROWS(avx2);
QUANTISE_ROWS(avx512);
#undef QUANTISE_ROWS

/* statistics_rows.c, compiled once per instruction set. */
#define STATISTICS_ROWS(isa)                                                                       \
    void f32_row_statistics_##isa(const float *src, size_t count, row_statistics *out);            \
    void f32_row_squares_##isa(const float *src, size_t count, row_statistics *out);               \
    void f32_row_difference_##isa(const float *a, const float *b, size_t count,                    \
                                  row_difference *out);                                            \
    void f32_row_distances_##isa(const float *a, const float *b, size_t count, int is_bf16,        \
                                 uint8_t *bucket)
STATISTICS_ROWS(scalar);
STATISTICS_ROWS(avx2);
STATISTICS_ROWS(avx512);
#undef STATISTICS_ROWS

/* hash_rows.c: the sum of the unit hashes of a row of codes: decodes units with the functions of
 * set `k`, then hashes them. For units that a vector set has no faster way for. */
hash128 digest_decoded_fp8(const ckpt_kernels *k, const uint8_t *codes, const float *scale,
                           size_t cols, uint64_t first_unit);
hash128 digest_decoded_fp4(const ckpt_kernels *k, const uint8_t *packed, const uint8_t *scale,
                           size_t cols, uint64_t first_unit);

/* rules.c */
int fp4_group_scale_exact_scalar(const float *src);

/* E4M3 code of each E2M1 magnitude at each distance; the last row is for all larger distances. */
extern const uint8_t fp4_fp8_codes[FP4_DISTANCE_COUNT + 1][8];

/* By E8M0 scale: the BF16 values of the 16 E2M1 codes with -0 as +0, stored twice to fill a 64-byte
 * register. Valid only for scales from FP4_BF16_LOW to FP4_BF16_HIGH, where products are normal. */
extern _Alignas(64) const uint16_t fp4_bf16[256][2 * 16];

enum {
    BF16_NAN = 0x7FC0,
    E4M3_NAN = 0x7F,
    E8M0_NAN = 0xFF,
    /* Range of E8M0 scale codes with which every nonzero E4M3 value is a normal number in BF16:
     * E4M3 spans 2^-9 .. 1.75 * 2^8. */
    FP8_BF16_LOW = 10,
    FP8_BF16_HIGH = 246,
    /* The same for E2M1, which spans 2^-1 .. 1.5 * 2^2. */
    FP4_BF16_LOW = 2,
    FP4_BF16_HIGH = 252
};
#define F32_NAN_BITS 0x7FC00000u
#define F32_INF_BITS 0x7F800000u
#define F32_SIGN_BIT 0x80000000u

/* Of marks of bytes, those of elements: that of the first byte is set if any of its bytes is. */
static inline uint64_t element_marks(uint64_t marks, unsigned element_bytes)
{
    static const uint64_t first[] = { 0, UINT64_MAX, 0x5555555555555555, 0, 0x1111111111111111,
                                      0, 0, 0, 0x0101010101010101 };

    for (unsigned step = 1; step < element_bytes; step *= 2)
        marks |= marks >> step;
    return marks & first[element_bytes];
}

static inline uint32_t f32_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float f32_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The i-th of an array of BF16, of any alignment. */
static inline float bf16_at(const uint16_t *src, size_t i)
{
    uint16_t bits;

    memcpy(&bits, (const char *)src + i * sizeof bits, sizeof bits);
    return f32_from_bits((uint32_t)bits << 16);
}

/* 2^-127 (code 0) is the only E8M0 value that is subnormal in F32; `code << 23` would give 0. */
static inline float e8m0_value(uint8_t code)
{
    if (code == 0)
        return 0x1p-127f;
    return f32_from_bits(code == E8M0_NAN ? F32_NAN_BITS : (uint32_t)code << 23);
}

/* e8m0_from_f32_exact, inline: a call in a row kernel would spill its vector registers. */
static inline int e8m0_exact(float scale)
{
    const uint32_t bits = f32_bits(scale);
    const uint32_t exponent = bits >> 23;     /* a set sign bit makes it 256 or more */

    if (bits == f32_bits(0x1p-127f))
        return 0;
    if ((bits & 0x7FFFFFu) != 0 || exponent == 0 || exponent >= 255)
        return -1;
    return (int)exponent;
}

static inline int f32_is_finite(float value)
{
    return (f32_bits(value) & F32_INF_BITS) != F32_INF_BITS;
}

static inline float f32_load(const float *src, size_t i)
{
    float value;

    memcpy(&value, (const unsigned char *)src + i * sizeof value, sizeof value);
    return value;
}

/* Note the lanes of `inexact`, a bit for each element from `index` on. */
static inline void encode_result_note_lanes(encode_result *result, unsigned inexact, uint64_t index)
{
    if (inexact == 0)
        return;
    if (result->inexact_count == 0)
        result->first_inexact = index + (unsigned)__builtin_ctz(inexact);
    result->inexact_count += (unsigned)__builtin_popcount(inexact);
}

static inline size_t size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
