/*
 * cuda_fp8_single.cuh: products of a single row of x on the E4M3 grid with FP8 weights, in sums of
 * 128 columns, on the F16 matrix unit, with the bits of plain_product.
 *
 * As in cuda_fp4.cuh, values of x are split into high + low, relative to a power of two that 128
 * columns share: |high| <= 448 is an integer, and |low| <= 1/2 a multiple of 2^-9. E4M3 codes of
 * the weight are split alike. Sums of 64 products of high with high, and of 128 of the other three
 * kinds, are integers below 2^24 times one unit, so the F32 sums of the matrix unit are exact. All
 * four add up exactly in F64, which is rounded to F32 once.
 *
 * The unit multiplies 16 weight rows by eight columns. Two of these are the high and low x of a
 * block of 128 columns; for a warp's next block it is the next two. So after four blocks lane t of
 * four has the sums of one of them. Warps share 16 weight rows if there are too few; the F32 sums
 * of blocks are added in their order at the end.
 */
#ifndef RUN_CUDA_FP8_SINGLE_CUH
#define RUN_CUDA_FP8_SINGLE_CUH

#include "cuda_fp4.cuh"
#include "cuda_single.cuh"

constexpr uint32_t FP8_WARPS = 16;
constexpr uint32_t FP8_ROWS = 16;            /* weight rows of a unit of work */
constexpr uint32_t FP8_BLOCK = 128;          /* columns of a sum */
constexpr uint32_t FP8_GROUP = 4;            /* blocks whose sums the matrix unit keeps apart */
constexpr uint32_t FP8_STAGES = 3;           /* blocks of a warp that are loaded or used */
constexpr uint32_t FP8_STAGE_BYTES = FP8_ROWS * FP8_BLOCK;
constexpr uint32_t FP8_ZERO_BYTES = 256;
constexpr uint32_t FP8_SUMS_MAX = 128;       /* blocks of all units of a thread block */
constexpr uint32_t FP8_X_AHEAD = FP8_STAGE_BYTES / 512;      /* blocks of x in a stage */

static_assert(FP8_BLOCK == FEW_COLUMNS, "blocks of few_exact");

/* How a launch divides the work: thread blocks, and warps that share a unit. */
struct fp8_share {
    uint32_t blocks;
    uint32_t split;
};

/* Shared memory: x as F16 (high, 16 bytes, low: that avoids bank conflicts), zeros, a scale for
 * each block of x, two sets of sums, the rings of the warps. */
static inline __host__ __device__ uint32_t fp8_x_bytes(uint32_t cols)
{
    return cols * 4 + 16;
}

static inline __host__ __device__ uint32_t fp8_sums_of(uint32_t cols, uint32_t split)
{
    return FP8_WARPS / split * (cols / FP8_BLOCK) * FP8_ROWS;
}

static inline __host__ __device__ uint32_t fp8_scales_bytes(uint32_t cols)
{
    return (cols / FP8_BLOCK + 3) / 4 * 16;
}

static inline uint64_t fp8_memory(uint32_t cols, uint32_t split)
{
    return (uint64_t)fp8_x_bytes(cols) + FP8_ZERO_BYTES + fp8_scales_bytes(cols) +
           (uint64_t)2 * fp8_sums_of(cols, split) * sizeof(float) +
           FP8_WARPS * FP8_STAGES * FP8_STAGE_BYTES;
}

/* For `rows` weight rows on `processors` multiprocessors: warps share units if these are few, or if
 * the sums of many would need much shared memory. */
static inline fp8_share fp8_divide(uint64_t rows, uint32_t cols, uint32_t processors)
{
    const uint64_t units = size_div_up(rows, FP8_ROWS);
    const uint64_t most = size_max(processors, 1);
    uint32_t split = 1;

    while (split < FP8_WARPS && 2 * split <= cols / FP8_BLOCK &&
           (units * split < most * FP8_WARPS * 3 / 4 ||
            cols / FP8_BLOCK * (FP8_WARPS / split) > FP8_SUMS_MAX))
        split *= 2;
    return { static_cast<uint32_t>(size_min(size_div_up(units, FP8_WARPS / split), most)), split };
}

struct fp8_place {
    uint32_t unit;
    uint32_t block;
};

/* A lane's view of its warp's work: every `split`-th block from `first` on, each `step`-th unit. */
struct fp8_work {
    single_block b;
    uint32_t units;
    uint32_t step;
    uint32_t first;
    uint32_t split;
    uint32_t blocks;
    const uint8_t *x;
    const uint8_t *zero;
    const float *x_scales;
    uint8_t *ring;

    /* `count` of this warp's blocks later, or the first block of its next unit. */
    __device__ __forceinline__ fp8_place after(fp8_place p, uint32_t count) const
    {
        return p.block + count * split < blocks ? fp8_place{ p.unit, p.block + count * split }
                                                : fp8_place{ p.unit + step, first };
    }
    __device__ __forceinline__ uint32_t row(uint32_t unit, uint32_t half) const
    {
        return unit * FP8_ROWS + half * 8 + threadIdx.x % 32 / 4;
    }
    /* Index 2 * i + h: columns 64 * i + 16 * t .. + 15 of the row of half h. */
    __device__ __forceinline__ uint4 *slot(uint32_t stage, uint32_t i) const
    {
        return reinterpret_cast<uint4 *>(ring + stage * FP8_STAGE_BYTES + i * 512);
    }
    /* Start loading a block: one group of copies, also past the end. */
    __device__ __forceinline__ void fetch(const fp8_place &p, uint32_t stage) const
    {
        const uint8_t *from = b.weight->data + (b.row + row(p.unit, 0)) * b.weight->row_bytes +
                              p.block * FP8_BLOCK + threadIdx.x % 4 * 16;

#pragma unroll
        for (uint32_t h = 0; h < 2; h++)
#pragma unroll
            for (uint32_t i = 0; i < 2; i++)
                if (row(p.unit, h) < b.count)
                    cuda_copy16(slot(stage, 2 * i + h),
                                from + h * 8 * b.weight->row_bytes + i * 64);
                else
                    *slot(stage, 2 * i + h) = make_uint4(0, 0, 0, 0);
        cuda_copy_commit();
    }
};

/* Cut 128 columns of x, by a warp: lane l has the columns 4 l .. 4 l + 3. Returns the scale. */
static __device__ __forceinline__ float fp8_cut(const float4 &four, uint8_t *high, uint8_t *low)
{
    const float values[4] = { four.x, four.y, four.z, four.w };
    float amax = 0;
    __half2 cut[2][2];

#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        amax = fmaxf(amax, fabsf(values[i]));
    for (uint32_t step = 16; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
    const float scale = cuda_fp8_scale(amax);
    const float inverse = cuda_float(0x7F000000u - cuda_bits(scale));    /* of a power of two */

#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const float a = values[2 * i] * inverse;
        const float c = values[2 * i + 1] * inverse;

        cut[0][i] = __floats2half2_rn(rintf(a), rintf(c));
        cut[1][i] = __floats2half2_rn(a - rintf(a), c - rintf(c));
    }
    memcpy(high + threadIdx.x % 32 * 8, cut[0], sizeof cut[0]);
    memcpy(low + threadIdx.x % 32 * 8, cut[1], sizeof cut[1]);
    return scale;
}

/* Cut block number `block` of x to shared memory, by a warp. */
static __device__ __forceinline__ void fp8_put_x(const fp8_work &work, uint8_t *x, float *scales,
                                                 uint32_t block, const float4 &four)
{
    uint8_t *high = x + block * FP8_BLOCK * 2;
    const float scale = fp8_cut(four, high, high + work.b.weight->cols * 2 + 16);

    if (threadIdx.x % 32 == 0)
        scales[block] = scale;
}

/* Cut x by the whole thread block, and call fetch() while it is on its way. Its copies begin first:
 * behind those of weights, x would arrive late. They go to the last stage, which is free. */
template <typename Fetch>
static __device__ __forceinline__ void fp8_fill(const fp8_work &work, uint8_t *x, float *scales,
                                                const Fetch &fetch)
{
    const float *mine = work.b.x + threadIdx.x % 32 * 4;
    uint32_t block = threadIdx.x / 32;

    for (uint32_t i = 0; i < FP8_X_AHEAD; i++)
        if (block + i * FP8_WARPS < work.blocks)
            cuda_copy16(work.slot(FP8_STAGES - 1, i), mine + (block + i * FP8_WARPS) * FP8_BLOCK);
    cuda_copy_commit();
    fetch();
    cuda_copy_wait<FP8_STAGES - 1>();
#pragma unroll 1                 /* instructions that run once take as long to load as to run */
    for (uint32_t i = 0; i < FP8_X_AHEAD; i++, block += FP8_WARPS)
        if (block < work.blocks)
            fp8_put_x(work, x, scales, block,
                      *reinterpret_cast<const float4 *>(work.slot(FP8_STAGES - 1, i)));
    for (; block < work.blocks; block += FP8_WARPS)
        fp8_put_x(work, x, scales, block,
                  *reinterpret_cast<const float4 *>(mine + block * FP8_BLOCK));
}

/* Codes 2 * half and 2 * half + 1 of a word as F16. */
static __device__ __forceinline__ __half2 fp8_pair(uint32_t word, uint32_t half)
{
    __half2 pair;
#if __CUDA_ARCH__ >= 890
    uint32_t bits;

    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(bits) : "h"((uint16_t)(word >> (16 * half))));
    memcpy(&pair, &bits, sizeof pair);
    return pair;
#else
    /* Exponent and mantissa in those of F16 are 2^-8 times the value. */
    const uint32_t two = __byte_perm(word, 0, half == 0 ? 0x1404 : 0x3424);
    const uint32_t bits = (two & 0x80008000u) | (two >> 1 & 0x3F803F80u);

    memcpy(&pair, &bits, sizeof pair);
    return __hmul2(pair, __float2half2_rn(256));
#endif
}

/* The sums of a group of blocks: high and low of the weight, see above. */
struct fp8_sums {
    float high[2][4];            /* of each half of the columns */
    float low[4];
};

/* Add the products of four codes of each of a lane's two rows. */
static __device__ __forceinline__ void fp8_multiply(const uint32_t *words, uint32_t x0, uint32_t x1,
                                                    float *high_sum, float *low_sum)
{
    const __half2 whole = __float2half2_rn(1536);    /* F16 near it are integers */
    uint32_t high[2][2];
    uint32_t low[2][2];

#pragma unroll
    for (uint32_t h = 0; h < 2; h++)
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            const __half2 pair = fp8_pair(words[h], i);
            const __half2 integer = __hsub2(__hadd2(pair, whole), whole);
            const __half2 rest = __hsub2(pair, integer);

            memcpy(&high[h][i], &integer, sizeof integer);
            memcpy(&low[h][i], &rest, sizeof rest);
        }
    fp4_multiply(high_sum, high[0], high[1], x0, x1);
    fp4_multiply(low_sum, low[0], low[1], x0, x1);
}

/* Add block number `number` of a group, which is in a stage of the ring. */
static __device__ __forceinline__ void fp8_add(const fp8_work &work, uint32_t stage,
                                               uint32_t block, uint32_t number, fp8_sums &sums)
{
    const uint32_t g = threadIdx.x % 32 / 4;
    const uint8_t *x = g / 2 == number
                           ? work.x + block * FP8_BLOCK * 2 +
                                 g % 2 * (work.b.weight->cols * 2 + 16) + threadIdx.x % 4 * 32
                           : work.zero;

#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint4 codes[2] = { *work.slot(stage, 2 * i), *work.slot(stage, 2 * i + 1) };
        const uint4 x0 = *reinterpret_cast<const uint4 *>(x + i * 128);
        const uint4 x1 = *reinterpret_cast<const uint4 *>(x + i * 128 + 16);
        const uint32_t words[4][2] = { { codes[0].x, codes[1].x }, { codes[0].y, codes[1].y },
                                       { codes[0].z, codes[1].z }, { codes[0].w, codes[1].w } };

        fp8_multiply(words[0], x0.x, x0.y, sums.high[i], sums.low);
        fp8_multiply(words[1], x0.z, x0.w, sums.high[i], sums.low);
        fp8_multiply(words[2], x1.x, x1.y, sums.high[i], sums.low);
        fp8_multiply(words[3], x1.z, x1.w, sums.high[i], sums.low);
    }
}

/* The sum of this lane's block for the row of half h. */
static __device__ __forceinline__ float fp8_total(const fp8_sums &s, uint32_t h, uint32_t scale,
                                                  float x_scale)
{
    double2 sum = make_double2((double)s.high[0][2 * h] + (double)s.high[1][2 * h] +
                                   (double)(s.high[0][2 * h + 1] + s.high[1][2 * h + 1]) +
                                   (double)s.low[2 * h] + (double)s.low[2 * h + 1],
                               0);

    single_fp8::weigh(scale, &sum);
    return (float)(sum.x * (double)x_scale);
}

/* The scales of a group of blocks that begins at p: of this lane's block and two rows. */
static __device__ __forceinline__ uint2 fp8_scales(const fp8_work &work, const fp8_place &p)
{
    const cuda_weight &w = *work.b.weight;
    const uint32_t block = min(p.block + threadIdx.x % 4 * work.split, work.blocks - 1);
    uint32_t codes[2];

#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t row = min(work.row(p.unit, h), work.b.count - 1);

        codes[h] = single_fp8::scale_at(w, single_fp8::scale_row(w, work.b.row + row),
                                        block * FP8_BLOCK);
    }
    return make_uint2(codes[0], codes[1]);
}

/* Where a warp is: the block that it adds next, the one that it loads next and their stage, and the
 * scales of the next group of blocks. */
struct fp8_state {
    fp8_place at;
    fp8_place ahead;
    uint32_t stage;
    uint2 scales;
};

/* The sums of all of this warp's blocks of a unit, to sums[block][row]. */
static __device__ __forceinline__ void fp8_unit(const fp8_work &work, fp8_state &s, float *to)
{
    const uint32_t unit = s.at.unit;

    while (s.at.unit == unit) {
        const uint32_t block = s.at.block + threadIdx.x % 4 * work.split;
        const uint2 scales = s.scales;
        const fp8_place next = work.after(s.at, FP8_GROUP);
        fp8_sums sums = {};

        s.scales = fp8_scales(work, next);
        for (uint32_t i = 0; s.at.unit != next.unit || s.at.block != next.block; i++) {
            work.fetch(s.ahead, s.stage == 0 ? FP8_STAGES - 1 : s.stage - 1);
            s.ahead = work.after(s.ahead, 1);
            cuda_copy_wait<FP8_STAGES - 1>();
            fp8_add(work, s.stage, s.at.block, i, sums);
            s.stage = s.stage + 1 == FP8_STAGES ? 0 : s.stage + 1;
            s.at = work.after(s.at, 1);
        }
        if (block < work.blocks) {
            float *mine = to + block * FP8_ROWS + threadIdx.x % 32 / 4;

            mine[0] = fp8_total(sums, 0, scales.x, work.x_scales[block]);
            mine[8] = fp8_total(sums, 1, scales.y, work.x_scales[block]);
        }
    }
}

/* Compute all rows of b with the other thread blocks along x of the grid, and call out(row, sum)
 * for those of this one. All its threads must call it. */
template <typename Out>
static __device__ __forceinline__ void fp8_single(const single_block &b, uint32_t split,
                                                  uint8_t *memory, const Out &out)
{
    const uint32_t cols = b.weight->cols;
    const uint32_t blocks = cols / FP8_BLOCK;
    const uint32_t slots = FP8_WARPS / split;
    const uint32_t slot = threadIdx.x / 32 / split;
    const uint32_t part = threadIdx.x / 32 % split;
    uint8_t *zero = memory + fp8_x_bytes(cols);
    float *x_scales = reinterpret_cast<float *>(zero + FP8_ZERO_BYTES);
    float *sums = x_scales + fp8_scales_bytes(cols) / sizeof(float);
    uint8_t *rings = reinterpret_cast<uint8_t *>(sums + 2 * fp8_sums_of(cols, split));
    const fp8_work work = { b, (b.count + FP8_ROWS - 1) / FP8_ROWS, gridDim.x * slots, part, split,
                            blocks, memory, zero, x_scales,
                            rings + threadIdx.x / 32 * (FP8_STAGES * FP8_STAGE_BYTES) +
                                threadIdx.x % 32 * 16 };
    fp8_state s = { { slot * gridDim.x + blockIdx.x, part }, {}, 0, {} };

    s.ahead = s.at;
    s.scales = fp8_scales(work, s.at);
    fp8_fill(work, memory, x_scales, [&]() {
#pragma unroll 1
        for (uint32_t i = 0; i + 1 < FP8_STAGES; i++) {
            work.fetch(s.ahead, i);
            s.ahead = work.after(s.ahead, 1);
        }
    });
    if (threadIdx.x < FP8_ZERO_BYTES / 4)
        reinterpret_cast<uint32_t *>(zero)[threadIdx.x] = 0;
    __syncthreads();
    /* Sums of the next unit go to the other set, while one warp adds those of this unit. */
    for (uint32_t round = 0; s.at.unit < work.units; round++) {
        const uint32_t row = s.at.unit * FP8_ROWS + threadIdx.x % 32;
        float *mine = sums + (round % 2 * slots + slot) * (blocks * FP8_ROWS);

        fp8_unit(work, s, mine);
        asm volatile("bar.sync %0, %1;" ::"r"(slot), "r"(split * 32) : "memory");
        if (part != round % split || threadIdx.x % 32 >= FP8_ROWS || row >= b.count)
            continue;
        float value = 0;

#pragma unroll 8
        for (uint32_t i = 0; i < blocks; i++)
            value += mine[i * FP8_ROWS + threadIdx.x % 32];
        out(row, value);
    }
}

#endif
