/*
 * cuda_fp4.cuh: products of rows on the E4M3 grid with FP4 weights, in sums of 32 columns, on the
 * F16 matrix unit, with the bits of plain_product.
 *
 * A value of such a row is an integer below 2^18 times a power of two that 128 columns share. Split
 * the integer into high * 2^9 + low, |high| <= 448, |low| <= 256. The sum of 32 products of either
 * half with E2M1 values is an integer below 2^24 times one unit, so the F32 sums of the matrix unit
 * are exact in any order. One fused multiply-add combines the sums of both halves and rounds once,
 * as plain_product rounds the F64 sum of the block; a second one scales it by a power of two and
 * adds it to the output.
 *
 * Since the order within 32 columns is free, lane t of four takes columns 8 t .. 8 t + 7 of each
 * weight row, which are one word of codes, as the pairs (i, i + 4), which shifts and masks convert
 * to F16. "Cut" rows are rows of x split into halves and stored in that order: for every 32 columns
 * 64 bytes of high, then 64 bytes of low.
 */
#ifndef RUN_CUDA_FP4_CUH
#define RUN_CUDA_FP4_CUH

#include "cuda_copy.cuh"
#include "cuda_private.cuh"

#include <cuda_fp16.h>

#include "kernels/cuda/codecs.cuh"

constexpr uint32_t FP4_THREADS = 256;
constexpr uint32_t FP4_ROWS = 64;            /* rows of x in a tile */
constexpr uint32_t FP4_OUTPUTS = 256;        /* weight rows in a tile: 32 per warp */
constexpr uint32_t FP4_STEP = 128;           /* columns in shared memory at a time */
constexpr uint32_t FP4_SUM = 32;             /* columns of one sum */
constexpr uint32_t FP4_CUT_BYTES = 128;      /* size of FP4_SUM columns of a cut row */
constexpr uint32_t FP4_CODE_PITCH = 80;      /* 64 bytes of codes; avoids bank conflicts */
constexpr float FP4_LOW = 512;               /* the unit of `high` in units of `low` */
/* fp4_pairs moves a code's exponent and mantissa bits to the lowest exponent bits and the highest
 * mantissa bit of F16, which gives 2^-14 times its value. The integers count 2^-9 of a row's scale.
 */
constexpr float FP4_UNIT = 0x1p14f / 512;

struct fp4_memory {
    uint8_t x[2][FP4_STEP / FP4_SUM][FP4_ROWS][FP4_CUT_BYTES];
    uint8_t codes[2][FP4_OUTPUTS][FP4_CODE_PITCH];
    uint32_t scales[2][FP4_OUTPUTS];         /* four E8M0 codes each */
    float x_scales[2][FP4_ROWS];
};

/* Rows of x that fp4_cut has split into high and low, with one scale for each FP4_STEP columns. */
struct fp4_rows {
    const uint8_t *cut;
    const float *scales;
};

static __device__ __forceinline__ uint64_t fp4_cut_bytes(uint64_t depth)
{
    return depth / FP4_SUM * FP4_CUT_BYTES;
}

/*
 * Split 128 columns of a row on the E4M3 grid into high and low, and write them to `to`. A warp
 * must call it together: this lane passes columns 4 * lane .. 4 * lane + 3. Returns the scale.
 */
static __device__ __forceinline__ float fp4_cut(const float *four, uint8_t *to)
{
    const uint32_t lane = threadIdx.x % 32;
    float amax = 0;
    __half2 high[2];
    __half2 low[2];
    uint32_t mine[4];
    uint32_t other[2];

    for (uint32_t i = 0; i < 4; i++)
        amax = fmaxf(amax, fabsf(four[i]));
    for (uint32_t step = 16; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
    const float scale = cuda_fp8_scale(amax);

#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const float a = four[2 * i] / scale;
        const float b = four[2 * i + 1] / scale;

        high[i] = __floats2half2_rn(rintf(a), rintf(b));
        low[i] = __floats2half2_rn((a - rintf(a)) * FP4_LOW, (b - rintf(b)) * FP4_LOW);
    }
    memcpy(&mine[0], high, sizeof high);
    memcpy(&mine[2], low, sizeof low);
    /* Of eight columns, an even lane has 0..3 and the odd lane after it 4..7. They exchange: the
     * even lane writes all eight `high`, the odd one all eight `low`, as pairs (i, i + 4). */
    const uint32_t odd = lane % 2;

    other[0] = __shfl_xor_sync(0xFFFFFFFFu, odd ? mine[0] : mine[2], 1);
    other[1] = __shfl_xor_sync(0xFFFFFFFFu, odd ? mine[1] : mine[3], 1);
    const uint32_t first[2] = { odd ? other[0] : mine[0], odd ? other[1] : mine[1] };
    const uint32_t second[2] = { odd ? mine[2] : other[0], odd ? mine[3] : other[1] };
    const uint4 pairs = make_uint4(
        __byte_perm(first[0], second[0], 0x5410), __byte_perm(first[0], second[0], 0x7632),
        __byte_perm(first[1], second[1], 0x5410), __byte_perm(first[1], second[1], 0x7632));

    *reinterpret_cast<uint4 *>(to + lane / 8 * FP4_CUT_BYTES + odd * 64 + lane % 8 / 2 * 16) =
        pairs;
    return scale;
}

/* The inputs of a tile: `count` rows of x from `row` on, weight rows from `output` on. */
struct fp4_tile {
    fp4_rows x;
    cuda_weight weight;
    uint64_t row;
    uint32_t count;
    uint32_t output;
    uint32_t output_count;       /* rows of the weight */
    uint32_t depth;
};

/* Start copying columns [k, k + FP4_STEP) to shared memory. In odd rows of x, low and high are
 * swapped, so that reads of two rows have no bank conflicts. */
static __device__ __forceinline__ void fp4_fetch(const fp4_tile &t, fp4_memory &m, uint32_t half,
                                                 uint32_t k)
{
    const uint64_t cut_bytes = fp4_cut_bytes(t.depth);
    const uint32_t pieces = FP4_STEP / FP4_SUM * FP4_CUT_BYTES / 16;

    for (uint32_t i = threadIdx.x; i < t.count * pieces; i += FP4_THREADS) {
        const uint32_t row = i / pieces;
        const uint32_t piece = i % 8 ^ row % 2 * 4;

        cuda_copy16(&m.x[half][i % pieces / 8][row][piece * 16],
                   t.x.cut + (t.row + row) * cut_bytes + k / FP4_SUM * FP4_CUT_BYTES +
                       i % pieces * 16);
    }
    for (uint32_t i = threadIdx.x; i < FP4_OUTPUTS * 4; i += FP4_THREADS)
        if (t.output + i / 4 < t.output_count)
            cuda_copy16(&m.codes[half][i / 4][i % 4 * 16],
                       t.weight.data + (uint64_t)(t.output + i / 4) * t.weight.row_bytes + k / 2 +
                           i % 4 * 16);
    if (t.output + threadIdx.x < t.output_count)
        cuda_copy4(&m.scales[half][threadIdx.x],
                  t.weight.scale + (uint64_t)(t.output + threadIdx.x) * t.weight.scale_row_bytes +
                      k / FP4_SUM);
    if (threadIdx.x < t.count)
        cuda_copy4(&m.x_scales[half][threadIdx.x],
                  t.x.scales + (t.row + threadIdx.x) * (t.depth / FP4_STEP) + k / FP4_STEP);
    cuda_copy_commit();
}

/* Convert eight codes to F16 (times 2^-14), as the four pairs (i, i + 4). */
static __device__ __forceinline__ void fp4_pairs(uint32_t codes, uint32_t *pairs)
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t pair = codes >> (4 * i);

        pairs[i] = (pair << 9 & 0x0E000E00u) | (pair << 12 & 0x80008000u);
    }
}

/* sum += the products of two pairs of columns: 16 weight rows (a: row g, a8: row g + 8) by 8 rows
 * of x. */
static __device__ __forceinline__ void fp4_multiply(float *sum, const uint32_t *a,
                                                    const uint32_t *a8, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a8[0]), "r"(a[1]), "r"(a8[1]), "r"(b0), "r"(b1));
}

/* The sums over 32 columns; a[0] has the pairs of row g, a[1] those of row g + 8. */
static __device__ __forceinline__ void fp4_sum(float *sum, const uint32_t (*a)[4], uint4 b)
{
    sum[0] = sum[1] = sum[2] = sum[3] = 0;
    fp4_multiply(sum, a[0], a[1], b.x, b.y);
    fp4_multiply(sum, a[0] + 2, a[1] + 2, b.z, b.w);
}

constexpr uint32_t FP4_WARP_PARTS = 2;                   /* 16 weight rows each */
constexpr uint32_t FP4_ROW_PARTS = FP4_ROWS / 8;

typedef float fp4_sums[FP4_WARP_PARTS][FP4_ROW_PARTS][4];

/* Add sum number `block` of a step (FP4_SUM columns) to all outputs of this warp. */
static __device__ __forceinline__ void fp4_block(const fp4_tile &t, const fp4_memory &m,
                                                 uint32_t half, uint32_t block, fp4_sums &acc)
{
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t first = threadIdx.x / 32 * 32 + lane / 4;
    uint32_t a[FP4_WARP_PARTS][2][4];
    float scale[FP4_WARP_PARTS][2];

#pragma unroll
    for (uint32_t i = 0; i < FP4_WARP_PARTS * 2; i++) {
        const uint32_t row = first + 8 * i;

        fp4_pairs(*reinterpret_cast<const uint32_t *>(
                      &m.codes[half][row][block * 16 + lane % 4 * 4]), a[i / 2][i % 2]);
        scale[i / 2][i % 2] = cuda_e8m0(m.scales[half][row] >> (8 * block) & 0xFF) * FP4_UNIT;
    }
#pragma unroll
    for (uint32_t n = 0; n < FP4_ROW_PARTS; n++) {
        if (n * 8 >= t.count)
            break;
        const uint32_t row = n * 8 + lane / 4;
        const uint8_t *cut = &m.x[half][block][row][lane % 4 * 16];
        const uint4 high = *reinterpret_cast<const uint4 *>(cut + row % 2 * 64);
        const uint4 low = *reinterpret_cast<const uint4 *>(cut + (1 - row % 2) * 64);
        const float2 x_scale =
            *reinterpret_cast<const float2 *>(&m.x_scales[half][n * 8 + lane % 4 * 2]);

#pragma unroll
        for (uint32_t i = 0; i < FP4_WARP_PARTS; i++) {
            float high_sum[4];
            float low_sum[4];

            fp4_sum(high_sum, a[i], high);
            fp4_sum(low_sum, a[i], low);
#pragma unroll
            for (uint32_t c = 0; c < 4; c++)
                acc[i][n][c] = fmaf(fmaf(high_sum[c], FP4_LOW, low_sum[c]),
                                    scale[i][c / 2] * (c % 2 == 0 ? x_scale.x : x_scale.y),
                                    acc[i][n][c]);
        }
    }
}

/* Compute a tile and call out(row of the tile, weight row, value) for all outputs. All threads of
 * the thread block must call it. */
template <typename Out>
static __device__ __forceinline__ void fp4_product(const fp4_tile &t, fp4_memory &m, const Out &out)
{
    const uint32_t lane = threadIdx.x % 32;
    fp4_sums acc = {};
    uint32_t half = 0;

    fp4_fetch(t, m, 0, 0);
    for (uint32_t k = 0; k < t.depth; k += FP4_STEP) {
        if (k + FP4_STEP < t.depth) {
            fp4_fetch(t, m, half ^ 1, k + FP4_STEP);
            cuda_copy_wait<1>();
        } else {
            cuda_copy_wait<0>();
        }
        __syncthreads();
        for (uint32_t block = 0; block < FP4_STEP / FP4_SUM; block++)
            fp4_block(t, m, half, block, acc);
        __syncthreads();
        half ^= 1;
    }
#pragma unroll
    for (uint32_t i = 0; i < FP4_WARP_PARTS; i++)
#pragma unroll
        for (uint32_t n = 0; n < FP4_ROW_PARTS; n++)
#pragma unroll
            for (uint32_t c = 0; c < 4; c++) {
                const uint32_t row = n * 8 + lane % 4 * 2 + c % 2;
                const uint32_t output =
                    t.output + threadIdx.x / 32 * 32 + 16 * i + lane / 4 + 8 * (c / 2);

                if (row < t.count && output < t.output_count)
                    out(row, output, acc[i][n][c]);
            }
}

#endif
