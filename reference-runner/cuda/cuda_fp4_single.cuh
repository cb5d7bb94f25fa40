/*
 * cuda_fp4_single.cuh: the products of cuda_fp4.cuh for a single row of x, with the same bits.
 *
 * The warps of a thread block divide the columns of 16 weight rows, and all codes that a warp needs
 * are on their way before it uses the first. Lane t of four loads 16 bytes of a weight row, which
 * are the FP4_SUM columns of one sum, while the matrix unit adds the columns of four lanes. So each
 * lane gets its own two columns of the result: the row of x that the unit multiplies by is zero in
 * them for all other lanes. The first of the two is the sum with `high`, the second with `low`.
 */
#ifndef RUN_CUDA_FP4_SINGLE_CUH
#define RUN_CUDA_FP4_SINGLE_CUH

#include "cuda_fp4.cuh"

constexpr uint32_t FP4_SINGLE_WARPS = 8;
constexpr uint32_t FP4_SINGLE_OUTPUTS = 16;      /* weight rows of a thread block */
constexpr uint32_t FP4_SINGLE_AHEAD = 4;         /* steps of FP4_STEP columns that are loaded */
constexpr uint32_t FP4_SINGLE_MEMORY_MAX = 96 << 10;

/* A sum of FP4_SUM columns, and the power of two by which it is multiplied. */
struct fp4_part {
    float sum;
    float scale;
};

/* Sums of a weight row in shared memory; one more than there are, to avoid bank conflicts. */
static inline __host__ __device__ uint32_t fp4_single_pitch(uint32_t depth)
{
    return depth / FP4_SUM + 1;
}

static inline uint64_t fp4_single_memory(uint32_t depth)
{
    return (uint64_t)depth / FP4_SUM * FP4_CUT_BYTES +
           (uint64_t)FP4_SINGLE_OUTPUTS * fp4_single_pitch(depth) * sizeof(fp4_part);
}

/* What a lane loads of a step: codes and scales of rows g and g + 8, and the scale of x. */
struct fp4_single_codes {
    uint4 codes[2];
    uint32_t scales[2];
    float x_scale;
};

static __device__ __forceinline__ void fp4_single_load(const fp4_tile &t, uint32_t step,
                                                       fp4_single_codes &to)
{
    const uint32_t lane = threadIdx.x % 32;
    const int is_there = step * FP4_STEP < t.depth;

#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint64_t row = t.output + lane / 4 + 8 * i;
        const int is_row = is_there && row < t.output_count;

        to.codes[i] = is_row ? __ldg(reinterpret_cast<const uint4 *>(
                                   t.weight.data + row * t.weight.row_bytes +
                                   step * (FP4_STEP / 2) + lane % 4 * 16))
                             : make_uint4(0, 0, 0, 0);
        to.scales[i] = is_row ? __ldg(t.weight.scale + row * t.weight.scale_row_bytes +
                                      step * (FP4_STEP / FP4_SUM) + lane % 4)
                              : 0;
    }
    to.x_scale = is_there ? t.x.scales[t.row * (t.depth / FP4_STEP) + step] : 0;
}

/* The sums of a step, from the cut row of x in shared memory. */
static __device__ __forceinline__ void fp4_single_step(const uint8_t *cut, uint32_t step,
                                                       const fp4_single_codes &c, float *sum)
{
    const uint32_t t = threadIdx.x % 4;
    const uint32_t g = threadIdx.x % 32 / 4;
    const uint32_t words[2][4] = { { c.codes[0].x, c.codes[0].y, c.codes[0].z, c.codes[0].w },
                                   { c.codes[1].x, c.codes[1].y, c.codes[1].z, c.codes[1].w } };
    const uint4 *mine = reinterpret_cast<const uint4 *>(
        cut + (step * (FP4_STEP / FP4_SUM) + t) * FP4_CUT_BYTES + g % 2 * 64);

    sum[0] = sum[1] = sum[2] = sum[3] = 0;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint4 x = g / 2 == t ? mine[i] : make_uint4(0, 0, 0, 0);
        uint32_t a[2][4];

        fp4_pairs(words[0][i], a[0]);
        fp4_pairs(words[1][i], a[1]);
        fp4_multiply(sum, a[0], a[1], x.x, x.y);
        fp4_multiply(sum, a[0] + 2, a[1] + 2, x.z, x.w);
    }
}

/* Copy the row of x, whose cut_bytes are a multiple of 512. */
static __device__ __forceinline__ void fp4_single_fetch(const fp4_tile &t, uint8_t *cut)
{
    const uint64_t bytes = fp4_cut_bytes(t.depth);

    for (uint32_t i = threadIdx.x * 16; i < bytes; i += FP4_SINGLE_WARPS * 32 * 16)
        fp4_copy16(cut + i, t.x.cut + t.row * bytes + i);
    asm volatile("cp.async.commit_group;");
}

/* Compute FP4_SINGLE_OUTPUTS outputs of row t.row and call out(weight row, value) for those that
 * exist. `memory` is fp4_single_memory. All threads of the thread block must call it. */
template <typename Out>
static __device__ __forceinline__ void fp4_single(const fp4_tile &t, uint8_t *memory,
                                                  const Out &out)
{
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t pitch = fp4_single_pitch(t.depth);
    const uint32_t steps = t.depth / FP4_STEP;
    fp4_part *parts = reinterpret_cast<fp4_part *>(memory + fp4_cut_bytes(t.depth));

    fp4_single_fetch(t, memory);
    for (uint32_t first = 0; first < steps; first += FP4_SINGLE_WARPS * FP4_SINGLE_AHEAD) {
        fp4_single_codes ahead[FP4_SINGLE_AHEAD];

#pragma unroll
        for (uint32_t i = 0; i < FP4_SINGLE_AHEAD; i++)
            fp4_single_load(t, first + i * FP4_SINGLE_WARPS + warp, ahead[i]);
        if (first == 0) {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
            __syncthreads();
        }
#pragma unroll
        for (uint32_t i = 0; i < FP4_SINGLE_AHEAD; i++) {
            const uint32_t step = first + i * FP4_SINGLE_WARPS + warp;
            float sum[4];

            if (step >= steps)
                break;
            fp4_single_step(memory, step, ahead[i], sum);
#pragma unroll
            for (uint32_t j = 0; j < 2; j++)
                parts[(lane / 4 + 8 * j) * pitch + step * (FP4_STEP / FP4_SUM) + lane % 4] = {
                    fmaf(sum[2 * j], FP4_LOW, sum[2 * j + 1]),
                    cuda_e8m0(ahead[i].scales[j]) * FP4_UNIT * ahead[i].x_scale
                };
        }
    }
    __syncthreads();
    if (threadIdx.x >= FP4_SINGLE_OUTPUTS || t.output + threadIdx.x >= t.output_count)
        return;
    float value = 0;

#pragma unroll 8
    for (uint32_t i = 0; i < t.depth / FP4_SUM; i++) {
        const fp4_part part = parts[threadIdx.x * pitch + i];

        value = fmaf(part.sum, part.scale, value);
    }
    out(t.output + threadIdx.x, value);
}

#endif
