/*
 * kernels.h: pure functions on tiles: element codecs, dequantise, re-encode, quantise, hash.
 *
 * No heap, no I/O, no policy; the only global state is the choice of instruction set. Pointers need
 * no alignment. `src` and `dst` must not overlap. Counts are in elements unless they say bytes.
 * scalar.c defines every function; the other instruction sets must return the same bits.
 *
 * Formats (OCP 8-bit and MX specifications):
 *   E4M3FN  1/4/3, bias 7, max 448 (0x7E), NaN 0x7F and 0xFF, no infinity
 *   E5M2    1/5/2, bias 15, infinities and NaNs as IEEE
 *   E8M0    2^(b-127), b = 0..254; 255 is NaN; no zero, no sign
 *   E2M1    1/2/1, bias 1: 0 .5 1 1.5 2 3 4 6 and negatives; packed two a byte, low nibble first
 *   INT4    a code of 0..15 is -8..7 (offset binary); packed likewise, so that eight codes are a
 *           little-endian word of 32 bits, the first in its low bits
 */
#ifndef CKPT_KERNELS_H
#define CKPT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "quantise_rows.h"
#include "statistics_rows.h"

enum {
    FP8_BLOCK = 128,          /* FP8 weights: one scale per 128 x 128 block */
    FP4_GROUP = 32,           /* FP4 weights: one scale per 1 x 32 group */
    NVFP4_GROUP = 16,         /* NVFP4 weights: one per 1 x 16 group */
    INT4_GROUP = 32,          /* INT4 weights: the same */
    FP4_DISTANCE_EXACT = 14,  /* up to this distance (fp4_row_to_fp8) FP8 holds every code */
    FP4_DISTANCE_COUNT = 20,  /* from this distance on every code becomes 0 */
    HASH_UNIT_COLUMNS = 1024, /* columns of one digest unit */
    MARK_WORDS = 64           /* words of marks, of which each marks 64 bytes */
};

/* 128-bit sum of unit hashes modulo 2^128. */
typedef struct {
    uint64_t low64;
    uint64_t high64;
} hash128;

/* State of an incremental XXH3 128-bit hash. The caller owns it and must not move it between
 * hash_begin and the last hash_end. A copy continues it if both are a multiple of
 * HASH_STREAM_ALIGNMENT apart. */
enum { HASH_STREAM_BYTES = 640, HASH_STREAM_ALIGNMENT = 64 };
typedef struct {
    unsigned char state[HASH_STREAM_BYTES];
} hash_stream;

/* What an encoder with given scales could not keep. */
typedef struct {
    uint64_t inexact_count;   /* elements whose decoded code differs from the source bits */
    uint64_t first_inexact;   /* row * cols + col of the first one; meaningless when count is 0 */
} encode_result;

/* What a XOR found. */
typedef struct {
    uint64_t *marks;          /* the caller's; as nonzero_marks */
    uint64_t byte_count;
    uint64_t element_count;
} xor_found;

typedef struct ckpt_kernels {
    const char *name;         /* "scalar", "avx2", "avx512" */

    /* Element codecs, decode: exact. BF16 NaNs keep their payload; F16 NaNs do, but become quiet;
     * E4M3/E5M2/E8M0 NaNs become the quiet NaN 0x7FC00000 with the sign of the code. */
    void (*e4m3_to_f32)(const uint8_t *src, float *dst, size_t count);
    void (*e5m2_to_f32)(const uint8_t *src, float *dst, size_t count);
    void (*e8m0_to_f32)(const uint8_t *src, float *dst, size_t count);
    void (*e2m1_to_f32)(const uint8_t *packed, float *dst, size_t count);   /* count is even */
    void (*bf16_to_f32)(const uint16_t *src, float *dst, size_t count);
    void (*f16_to_f32)(const uint16_t *src, float *dst, size_t count);

    /* Element codecs, encode: round to nearest even, as torch .to() on a CPU does.
     * bf16: NaN becomes 0x7FC0. f16: NaN keeps its sign and upper payload and becomes quiet.
     * e4m3: does not saturate; |x| > 464 and NaN become 0x7F | sign. torch does the same up to
     * 2.11 and saturates at 448 from 2.12 on: clamp first if both must agree, as the quantisers
     * here do. e5m2: overflows to infinity, NaN becomes 0x7F | sign.
     * e8m0: torch's rounding, sign ignored (a mantissa of 1.5 or more rounds up).
     * e2m1: saturates at 6, keeps the sign also of zero (as the hardware's cvt); NaN becomes 7. */
    void (*f32_to_bf16)(const float *src, uint16_t *dst, size_t count);
    void (*f32_to_f16)(const float *src, uint16_t *dst, size_t count);
    void (*f32_to_e4m3)(const float *src, uint8_t *dst, size_t count);
    void (*f32_to_e5m2)(const float *src, uint8_t *dst, size_t count);
    void (*f32_to_e8m0)(const float *src, uint8_t *dst, size_t count);
    void (*f32_to_e2m1)(const float *src, uint8_t *packed, size_t count);   /* count is even */

    /*
     * Dequantise one row. FP8: scale[c / 128] multiplies column c, any F32 value.
     * FP4: scale[c / 32] is an E8M0 code; cols is a multiple of 32.
     * to_f32: the F32 product, NaN as 0x7FC00000. to_bf16: that product, then rounded to BF16
     * (nearest even, subnormals kept, NaN becomes 0x7FC0 with the sign dropped). -0 stays -0.
     */
    void (*fp8_row_to_bf16)(const uint8_t *codes, const float *scale, size_t cols, uint16_t *dst);
    void (*fp8_row_to_f32)(const uint8_t *codes, const float *scale, size_t cols, float *dst);
    void (*fp4_row_to_bf16)(const uint8_t *packed, const uint8_t *scale, size_t cols,
                            uint16_t *dst);
    void (*fp4_row_to_f32)(const uint8_t *packed, const uint8_t *scale, size_t cols, float *dst);

    /* The same for INT4: (code - 8) * scale[c / 32], where scale is BF16 of any value. Code 8 times
     * a negative scale is -0. cols is a multiple of 32. */
    void (*int4_row_to_f32)(const uint8_t *packed, const uint16_t *scale, size_t cols,
                            float *dst);

    /* The same for NVFP4: scale[c / 16], of any value, multiplies column c, and then factor, the
     * tensor's scale, that product; each rounds. cols is a multiple of 16. */
    void (*nvfp4_row_to_f32)(const uint8_t *packed, const float *scale, float factor, size_t cols,
                             float *dst);

    /* For each of group_count groups of 32 codes (16 bytes): bit c is set when a code of
     * magnitude c (0..7) occurs in the group. */
    void (*fp4_group_masks)(const uint8_t *packed, size_t group_count, uint8_t *masks);

    /*
     * FP4 -> FP8, one row. With E the E8M0 scale code of group g and Emax the largest one of its
     * FP8 block, distance[g] = Emax - E, and the FP8 scale is 2^(Emax - 127 - 6). Elements round
     * to nearest even in E4M3 (exact for distance <= 14, see fp4_exact_mask). Code 8 (-0) becomes
     * 0x80, or 0x00 if `positive_zero` is set, as in DeepSeek's table. cols is a multiple of 32.
     */
    void (*fp4_row_to_fp8)(const uint8_t *packed, const uint8_t *distance, size_t cols,
                           int positive_zero, uint8_t *codes);

    /* Largest magnitude of a rows x cols block (pitch in elements); 0 if the block is empty,
     * 0x7FC00000 if any element is NaN. */
    float (*f32_block_amax)(const float *src, size_t rows, size_t cols, size_t pitch);

    /*
     * Quantise a block with one given F32 scale: E4M3 of clamp(x / scale, +-448), rounded to
     * nearest even. Counts the elements whose code * scale differs from the source in any bit
     * (the sign of zero included). NaN inputs count as inexact. Pitches are in elements.
     * A quotient that is NaN becomes code 0x7F (E2M1 below: 7) without a sign.
     */
    encode_result (*f32_block_to_fp8)(const float *src, size_t rows, size_t cols, size_t pitch,
                                      float scale, uint8_t *codes, size_t codes_pitch);

    /* The same for one row of FP4 groups with given E8M0 scales s: E2M1 of clamp(x / s, +-6). */
    encode_result (*f32_row_to_fp4)(const float *src, const uint8_t *scale, size_t cols,
                                    uint8_t *packed);

    /*
     * Quantise by a named rule and count the loss; quantise_rows.h defines the structures.
     * f32_group_amax: f32_block_amax of each of `group_count` groups of consecutive elements.
     * bf16_*_amax: the same of BF16 values.
     * amax_to_scale: `count` scales. amax is finite and >= 0; tensor_scale (> 0) is for NVFP4 only.
     * quantise_*: codes of clamp(fl(x / divisor), +-largest), to nearest even. Divisors must be
     * finite and > 0, values finite. codes_pitch is in bytes.
     * E4M3: block_cols is 32 (cols is then a multiple of 32), a multiple of 128, or >= cols.
     * A quotient of -0 keeps its sign.
     * E2M1: two codes a byte, low nibble first. cols is a multiple of block_cols, which is 32, or
     * 16 for NVFP4. In NVFP4 a quotient of -0 becomes code 0, and a negative quotient that rounds
     * to 0 becomes code 8.
     * int8, of Q8_0: codes of fl(x * fl(1 / divisor)) to nearest, halves away from 0, at most 127
     * in magnitude; nothing counts as saturated, as no block's own maximum is beyond that. cols is
     * a multiple of block_cols, which is 32. The divisor is not the scale, which is rounded to F16.
     * A block whose divisor would have no finite inverse has divisor 1 and scale 0, so that its
     * codes are 0 like those of a block of zeros.
     */
    void (*f32_group_amax)(const float *src, size_t group_count, size_t group, float *amax);
    float (*bf16_block_amax)(const uint16_t *src, size_t rows, size_t cols, size_t pitch);
    void (*bf16_group_amax)(const uint16_t *src, size_t group_count, size_t group, float *amax);
    void (*amax_to_scale)(scale_rule rule, const float *amax, size_t count, float tensor_scale,
                          const block_scales *out);
    void (*quantise_e4m3)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                          quantise_sums *sums);
    void (*quantise_e2m1)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                          quantise_sums *sums);
    void (*quantise_int8)(const quantise_input *in, uint8_t *codes, size_t codes_pitch,
                          quantise_sums *sums);

    /*
     * Canonical E8M0 scale of one group of 32 F32 values that are exact in FP4: the largest power
     * of two with which all of them are exact and the largest has magnitude 3, 4 or 6; if there is
     * none, the scale that makes the codes largest. Scale code 0x00, which many readers treat as
     * 0, is returned only if code 1 does not fit. All zeros: code 1. No scale fits all: -1.
     */
    int (*fp4_group_scale_exact)(const float *src);

    /*
     * Add the unit hashes of one row to *sum, as the digest defines them: units of 1024 columns,
     * canonical values (-0 is +0, NaN is 0x7FC0 / 0x7FC00000; BF16 codes when all of the unit's
     * elements are exact in BF16, else F32 codes; integers as 8-byte two's complement), XXH3
     * 128-bit with seed first_unit + unit, where first_unit = row * ceil(cols / 1024).
     * fp8 and fp4: the digest of the values that fp8_row_to_f32 and fp4_row_to_f32 return.
     */
    void (*digest_row_bf16)(const uint16_t *src, size_t cols, uint64_t first_unit, hash128 *sum);
    void (*digest_row_f32)(const float *src, size_t cols, uint64_t first_unit, hash128 *sum);
    void (*digest_row_fp8)(const uint8_t *codes, const float *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum);
    void (*digest_row_fp4)(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           uint64_t first_unit, hash128 *sum);
    void (*digest_row_i64)(const int64_t *src, size_t cols, uint64_t first_unit, hash128 *sum);

    /* Sums over one row, and over a pair of rows; statistics_rows.h defines them. count < 2^34. */
    void (*f32_row_statistics)(const float *src, size_t count, row_statistics *out);
    /* The same, but min, max and sum are left as for a row without finite values. */
    void (*f32_row_squares)(const float *src, size_t count, row_statistics *out);
    void (*f32_row_difference)(const float *a, const float *b, size_t count, row_difference *out);
    /* The bucket of each pair's distance in units of BF16 (of the values to nearest even) or F32;
     * ROW_DISTANCE_NONE if the values are equal, or one is not finite. */
    void (*f32_row_distances)(const float *a, const float *b, size_t count, int is_bf16,
                              uint8_t *bucket);
    /* Add a row to *counts; cols is a multiple of FP4_GROUP. */
    void (*fp4_row_counts)(const uint8_t *packed, const uint8_t *scale, size_t cols,
                           fp4_counts *counts);

    /* Which bytes are not zero: bit i % 64 of marks[i / 64] is that of byte i. The bits of the last
     * of the ceil(size / 64) words past `size` are 0. */
    void (*nonzero_marks)(const void *src, size_t size, uint64_t *marks);

    /* The positions of the bytes that MARK_WORDS words mark, in order; that of the first bit is
     * `first`. One more than there are may be written. Returns how many. */
    size_t (*mark_positions)(const uint64_t *marks, uint32_t first, uint32_t *positions);

    /* into[i] ^= from[i]; then the marks of `into`. Adds to *out how many bytes, and how many
     * elements of element_bytes (1, 2, 4 or 8), are not zero; size is a multiple of that. */
    void (*xor_marks)(void *into, const void *from, size_t size, unsigned element_bytes,
                      xor_found *out);

    /* XXH3 128-bit of raw bytes. */
    hash128 (*hash_bytes)(const void *src, size_t size, uint64_t seed);

    /* The same with seed 0 for data that arrives in several calls. hash_end does not change the
     * state: it may be called at any time, and hash_add again after it. */
    void (*hash_begin)(hash_stream *stream);
    void (*hash_add)(hash_stream *stream, const void *src, size_t size);
    hash128 (*hash_end)(const hash_stream *stream);
} ckpt_kernels;

/* The best set that this CPU supports, or the one named in CKPT_KERNELS (scalar|avx2|avx512).
 * NULL if CKPT_KERNELS names an unknown set or one that this CPU lacks. Thread-safe. */
const ckpt_kernels *kernels_get(void);

/* One set by name; NULL if it is unknown or not supported by this CPU or build. */
const ckpt_kernels *kernels_find(const char *name);

/* Extend a fingerprint: *sum becomes the hash of `bytes`, seeded with both halves of *sum. */
static inline void hash128_mix(hash128 *sum, const void *bytes, size_t size)
{
    *sum = kernels_get()->hash_bytes(bytes, size, sum->low64 ^ sum->high64);
}

/* *sum += term modulo 2^128. */
static inline void hash128_add(hash128 *sum, hash128 term)
{
    sum->low64 += term.low64;
    sum->high64 += term.high64 + (sum->low64 < term.low64);
}

/* Scale rules of DeepSeek's quantisers (inference/kernel.py); amax is finite and >= 0.
 * FP8: 2^ceil(log2(fl(max(amax, 1e-4) * fl(1/448)))).
 * FP4: E8M0 code of 2^ceil(log2(fl(max(amax, 6 * 2^-126) * fl(1/6)))). */
float fp8_scale_pow2(float amax);
uint8_t fp4_scale_code(float amax);

/* E8M0 code of a positive power of two in 2^-127..2^127; -1 if `scale` is anything else. */
int e8m0_from_f32_exact(float scale);

/* Magnitudes (bit c = E2M1 magnitude c) that FP4 -> FP8 keeps exactly at `distance`. */
uint8_t fp4_exact_mask(unsigned distance);

/*
 * Whether FP8 -> FP4 will recover a group's original scale. `mask` is the set of magnitudes in the
 * group under that scale (bit c = E2M1 magnitude c). The canonical rule, the largest scale whose
 * largest code is 3, 4 or 6, finds the original scale times 2^k; returns k, so 0 means recovered.
 * An all-zero group returns FP4_SCALE_LOST.
 */
enum { FP4_SCALE_LOST = 127 };
int fp4_canonical_offset(uint8_t mask);

#endif
