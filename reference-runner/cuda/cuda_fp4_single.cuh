/*
 * cuda_fp4_single.cuh: the products of cuda_fp4.cuh for a single row of x, with the same bits.
 *
 * A warp computes 16 weight rows and then others, without waiting for other warps. It loads steps
 * of FP4_STEP columns into a ring in shared memory, of its next rows, too, so loads never stop.
 *
 * Lane t of four loads 16 bytes of a weight row, which are the FP4_SUM columns of one sum, while
 * the matrix unit adds the columns of four lanes. So each lane gets its own two columns of the
 * result: the row of x that the unit multiplies by is zero in them for all other lanes. The first
 * of the two is the sum with `high`, the second with `low`. Lanes 0 and 1 of four then add the sums
 * of a step to the outputs in ascending order.
 */
#ifndef RUN_CUDA_FP4_SINGLE_CUH
#define RUN_CUDA_FP4_SINGLE_CUH

#include "cuda_fp4.cuh"

constexpr uint32_t FP4_SINGLE_WARPS = 16;
constexpr uint32_t FP4_SINGLE_ROWS = 16;         /* weight rows of a unit of work */
constexpr uint32_t FP4_SINGLE_STAGES = 8;        /* steps of a warp that are loaded or used */
constexpr uint32_t FP4_SINGLE_CODES = FP4_SINGLE_ROWS * FP4_STEP / 2;
constexpr uint32_t FP4_SINGLE_STAGE = FP4_SINGLE_CODES + FP4_SINGLE_ROWS * 4;    /* scales, too */
constexpr uint32_t FP4_SINGLE_ZEROS = 64;

/* Shared memory: the cut row of x, its scales, zeros, the rings of the warps. */
static inline __host__ __device__ uint32_t fp4_single_x(uint32_t depth)
{
    return depth / FP4_SUM * FP4_CUT_BYTES + (depth / FP4_STEP + 3) / 4 * 16;
}

static inline uint64_t fp4_single_memory(uint32_t depth)
{
    return (uint64_t)fp4_single_x(depth) + FP4_SINGLE_ZEROS +
           FP4_SINGLE_WARPS * FP4_SINGLE_STAGES * FP4_SINGLE_STAGE;
}

/* Thread blocks for `rows` weight rows, if there are `most` multiprocessors for them. */
static inline uint32_t fp4_single_blocks(uint32_t rows, uint32_t most)
{
    return static_cast<uint32_t>(
        size_max(size_min(size_div_up(rows, FP4_SINGLE_ROWS), most), 1));
}

struct fp4_place {
    uint32_t unit;
    uint32_t step;
};

/* A lane's view of its warp's work: every `stride`-th unit of weight rows. */
struct fp4_work {
    cuda_weight weight;
    uint32_t rows;
    uint32_t stride;
    uint32_t steps;
    const uint8_t *x;            /* of the first step: this lane's part of the cut row, or zeros */
    uint32_t x_step;             /* from one step to the next */
    const float *x_scales;
    uint8_t *ring;

    __device__ __forceinline__ fp4_place after(fp4_place p) const
    {
        return p.step + 1 < steps ? fp4_place{ p.unit, p.step + 1 }
                                  : fp4_place{ p.unit + stride, 0 };
    }
    __device__ __forceinline__ uint4 *codes(uint32_t stage, uint32_t half) const
    {
        return reinterpret_cast<uint4 *>(ring + stage * FP4_SINGLE_STAGE + half * 512) +
               threadIdx.x % 32;
    }
    /* The scales of row `row` of the unit. */
    __device__ __forceinline__ uint32_t *scales(uint32_t stage, uint32_t row) const
    {
        return reinterpret_cast<uint32_t *>(ring + stage * FP4_SINGLE_STAGE + FP4_SINGLE_CODES) +
               row;
    }
    /* Start loading a step: one group of copies, also past the end. */
    __device__ __forceinline__ void fetch(const fp4_place &p, uint32_t stage) const
    {
        const uint32_t lane = threadIdx.x % 32;
        const uint32_t first = p.unit * FP4_SINGLE_ROWS;
        const uint8_t *from = weight.data + (uint64_t)(first + lane / 4) * weight.row_bytes +
                              p.step * (FP4_STEP / 2) + lane % 4 * 16;

#pragma unroll
        for (uint32_t h = 0; h < 2; h++)
            if (first + lane / 4 + 8 * h < rows)
                cuda_copy16(codes(stage, h), from + 8 * h * weight.row_bytes);
        if (lane < FP4_SINGLE_ROWS && first + lane < rows)
            cuda_copy4(scales(stage, lane),
                       weight.scale + (uint64_t)(first + lane) * weight.scale_row_bytes +
                           p.step * (FP4_STEP / FP4_SUM));
        cuda_copy_commit();
    }
};

/* Copy the cut row of x and its scales, by the whole thread block, as one group of copies. */
static __device__ __forceinline__ void fp4_single_fetch(const fp4_tile &t, uint8_t *memory)
{
    const uint64_t bytes = fp4_cut_bytes(t.depth);
    const uint32_t steps = t.depth / FP4_STEP;

    for (uint32_t i = threadIdx.x * 16; i < bytes; i += FP4_SINGLE_WARPS * 32 * 16)
        cuda_copy16(memory + i, t.x.cut + t.row * bytes + i);
    for (uint32_t i = threadIdx.x; i < steps; i += FP4_SINGLE_WARPS * 32)
        cuda_copy4(memory + bytes + i * sizeof(float), t.x.scales + t.row * steps + i);
    if (threadIdx.x < FP4_SINGLE_ZEROS / 16)
        reinterpret_cast<uint4 *>(memory + fp4_single_x(t.depth))[threadIdx.x] =
            make_uint4(0, 0, 0, 0);
    cuda_copy_commit();
}

/* The sums of this lane's columns of a step for the rows of both halves, as in fp4_block. */
static __device__ __forceinline__ void fp4_single_step(const fp4_work &work, uint32_t stage,
                                                       uint32_t step, float *sums)
{
    const uint4 codes[2] = { *work.codes(stage, 0), *work.codes(stage, 1) };
    const uint32_t words[2][4] = { { codes[0].x, codes[0].y, codes[0].z, codes[0].w },
                                   { codes[1].x, codes[1].y, codes[1].z, codes[1].w } };
    const uint4 *x = reinterpret_cast<const uint4 *>(work.x + step * work.x_step);
    float sum[4] = { 0, 0, 0, 0 };

#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint4 mine = x[i];
        uint32_t a[2][4];

        fp4_pairs(words[0][i], a[0]);
        fp4_pairs(words[1][i], a[1]);
        fp4_multiply(sum, a[0], a[1], mine.x, mine.y);
        fp4_multiply(sum, a[0] + 2, a[1] + 2, mine.z, mine.w);
    }
    sums[0] = fmaf(sum[0], FP4_LOW, sum[1]);
    sums[1] = fmaf(sum[2], FP4_LOW, sum[3]);
}

/* Four lanes have two values each: of the rows of both halves. Lane 0 gets the first values of the
 * lanes 0, 1, 2, 3, and lane 1 the second ones; what the others get has no use. */
static __device__ __forceinline__ void fp4_single_turn(const float *values, float *out)
{
    const int is_odd = threadIdx.x % 2;
    const float other = __shfl_xor_sync(0xFFFFFFFFu, is_odd ? values[0] : values[1], 1);

    out[0] = is_odd ? other : values[0];
    out[1] = is_odd ? values[1] : other;
    out[2] = __shfl_xor_sync(0xFFFFFFFFu, out[0], 2);
    out[3] = __shfl_xor_sync(0xFFFFFFFFu, out[1], 2);
}

/* Add a step to the output of a row: that of half 0 in lane 0 of four, of half 1 in lane 1. */
static __device__ __forceinline__ float fp4_single_add(const fp4_work &work, uint32_t stage,
                                                       uint32_t step, float value)
{
    const float x_scale = work.x_scales[step];
    float sums[2];
    float scales[2];
    float sum[4];
    float scale[4];

    fp4_single_step(work, stage, step, sums);
#pragma unroll
    for (uint32_t h = 0; h < 2; h++)
        scales[h] = cuda_e8m0(*work.scales(stage, threadIdx.x % 32 / 4 + 8 * h) >>
                                  (8 * (threadIdx.x % 4)) & 0xFF) *
                    FP4_UNIT * x_scale;
    fp4_single_turn(sums, sum);
    fp4_single_turn(scales, scale);
#pragma unroll
    for (uint32_t i = 0; i < FP4_STEP / FP4_SUM; i++)
        value = fmaf(sum[i], scale[i], value);
    return value;
}

/* Compute the outputs of row t.row with the other thread blocks along x of the grid, and call
 * out(weight row, value) for those of this one. All its threads must call it. */
template <typename Out>
static __device__ __forceinline__ void fp4_single(const fp4_tile &t, uint8_t *memory,
                                                  const Out &out)
{
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    const int is_mine = lane / 8 == lane % 4;
    uint8_t *zeros = memory + fp4_single_x(t.depth);
    const fp4_work work = {
        t.weight, t.output_count, gridDim.x * FP4_SINGLE_WARPS, t.depth / FP4_STEP,
        is_mine ? memory + lane % 4 * FP4_CUT_BYTES + lane / 4 % 2 * 64 : zeros,
        is_mine ? FP4_STEP / FP4_SUM * FP4_CUT_BYTES : 0,
        reinterpret_cast<const float *>(memory + fp4_cut_bytes(t.depth)),
        zeros + FP4_SINGLE_ZEROS + warp * (FP4_SINGLE_STAGES * FP4_SINGLE_STAGE)
    };
    fp4_place at = { warp * gridDim.x + blockIdx.x, 0 };
    fp4_place ahead = at;
    uint32_t stage = 0;
    float value = 0;

    fp4_single_fetch(t, memory);
    for (uint32_t i = 0; i + 1 < FP4_SINGLE_STAGES; i++) {
        work.fetch(ahead, i);
        ahead = work.after(ahead);
    }
    cuda_copy_wait<FP4_SINGLE_STAGES - 1>();
    __syncthreads();
    while (at.unit * FP4_SINGLE_ROWS < t.output_count) {
        const uint32_t row = at.unit * FP4_SINGLE_ROWS + lane / 4 + 8 * (lane % 4);

        /* The warp has read the stage that is filled next, and lanes read scales of others. */
        cuda_copy_wait<FP4_SINGLE_STAGES - 2>();
        __syncwarp();
        work.fetch(ahead, (stage + FP4_SINGLE_STAGES - 1) % FP4_SINGLE_STAGES);
        ahead = work.after(ahead);
        value = fp4_single_add(work, stage, at.step, value);
        stage = (stage + 1) % FP4_SINGLE_STAGES;
        if (at.step + 1 == work.steps) {
            if (lane % 4 < 2 && row < t.output_count)
                out(row, value);
            value = 0;
        }
        at = work.after(at);
    }
}

#endif
