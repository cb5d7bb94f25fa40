/*
 * cuda_few.cuh: products of a few rows of x, as when tokens are generated one by one.
 *
 * The time is then that of reading the weights. Each warp has eight outputs and passes their codes
 * directly from device memory to the F64 matrix unit, without a tile in shared memory that all
 * threads would wait for; it loads the next codes meanwhile. The sums are those of cuda_tile.cuh.
 * If they are cut into blocks of columns, the warps of a thread block divide these blocks, and the
 * F32 sums of the blocks are added in their order at the end. Without blocks a sum is one chain of
 * additions, and one warp computes all of it.
 */
#ifndef RUN_CUDA_FEW_CUH
#define RUN_CUDA_FEW_CUH

#include "cuda_tile.cuh"

constexpr uint32_t FEW_ROWS = 8;
constexpr uint32_t FEW_OUTPUTS = 8;      /* per warp */
constexpr uint32_t FEW_STEPS = 16;       /* matrix operations of 8 columns between two loads */
constexpr uint32_t FEW_COLUMNS = 8 * FEW_STEPS;
constexpr uint32_t FEW_MEMORY_MAX = 48 << 10;

/* Readers of a weight row: load() returns a stored code, value() converts it. They return zeros for
 * a missing row (NULL): code 0 is zero in every encoding. */
template <typename T> struct few_plain {
    const T *row;

    static __device__ __forceinline__ few_plain at(const cuda_weight *w, uint64_t n)
    {
        return { w == nullptr ? nullptr
                              : reinterpret_cast<const T *>(w->data + n * w->row_bytes) };
    }
    __device__ __forceinline__ uint32_t load(uint64_t k) const
    {
        if (row == nullptr)
            return 0;
        if constexpr (sizeof(T) == sizeof(float))
            return __float_as_uint(row[k]);
        else
            return row[k];
    }
    __device__ __forceinline__ float scale(uint64_t) const
    {
        return 1;
    }
    static __device__ __forceinline__ float value(uint32_t code, float)
    {
        return sizeof(T) == sizeof(float) ? __uint_as_float(code) : cuda_bf16(code);
    }
};

using few_float = few_plain<float>;
using few_bf16 = few_plain<uint16_t>;

/* E4M3 with one scale for a multiple of FEW_COLUMNS columns. */
struct few_fp8 {
    const cuda_weight *weight;
    uint64_t row;

    static __device__ __forceinline__ few_fp8 at(const cuda_weight *w, uint64_t n)
    {
        return { w, n };
    }
    __device__ __forceinline__ uint32_t load(uint64_t k) const
    {
        return weight == nullptr ? 0 : weight->data[row * weight->row_bytes + k];
    }
    __device__ __forceinline__ float scale(uint64_t k) const
    {
        return weight == nullptr ? 0 : weight_scale(*weight, row, k);
    }
    static __device__ __forceinline__ float value(uint32_t code, float scale)
    {
        return cuda_product(cuda_e4m3(code), scale);
    }
};

/* E4M3 with a power-of-two scale for 128 columns, if the rows of x are on the E4M3 grid in the same
 * blocks. Within a block the values of each side are then integers below 2^18 times one unit, so a
 * sum of 128 products is exact in F64 in any order. A lane can load 16 adjacent columns at once. */
struct few_exact {
    const cuda_weight *weight;
    uint64_t row;

    static __device__ __forceinline__ few_exact at(const cuda_weight *w, uint64_t n)
    {
        return { w, n };
    }
};

struct few_any {
    const cuda_weight *weight;
    uint64_t row;

    static __device__ __forceinline__ few_any at(const cuda_weight *w, uint64_t n)
    {
        return { w, n };
    }
    __device__ __forceinline__ uint32_t load(uint64_t k) const
    {
        return weight == nullptr ? 0 : __float_as_uint(weight_value(*weight, row, k));
    }
    __device__ __forceinline__ float scale(uint64_t) const
    {
        return 1;
    }
    static __device__ __forceinline__ float value(uint32_t code, float)
    {
        return __uint_as_float(code);
    }
};

/* The readers above. */
typedef enum { FEW_ANY, FEW_FLOATS, FEW_BF16, FEW_FP8, FEW_EXACT } few_form;

/* on_grid: the rows of x are on the E4M3 grid in blocks of 128 columns, and sums have such blocks.
 */
static inline few_form few_form_of(const cuda_weight *w, int on_grid)
{
    if (w->scale_dtype == CKPT_NONE)
        return w->dtype == CKPT_F32 ? FEW_FLOATS : w->dtype == CKPT_BF16 ? FEW_BF16 : FEW_ANY;
    if (w->dtype != CKPT_F8_E4M3 || w->block_cols % FEW_COLUMNS != 0)
        return FEW_ANY;
    return on_grid && w->scale_dtype == CKPT_F8_E8M0 && w->cols % FEW_COLUMNS == 0 &&
                   reinterpret_cast<uintptr_t>(w->data) % 16 == 0 && w->row_bytes % 16 == 0
               ? FEW_EXACT
               : FEW_FP8;
}

/* Bytes of shared memory that a thread block needs for the sums of blocks of columns, if any. */
static inline uint64_t few_memory(uint64_t depth, uint32_t block, uint64_t rows)
{
    return block == 0 ? 0 : size_div_up(depth, block) * rows * FEW_OUTPUTS * sizeof(float);
}

/* 1 if few_product supports this shape. */
static inline int few_fits(uint64_t depth, uint32_t block, uint64_t rows)
{
    return rows <= FEW_ROWS && (block == 0 || block == 32 || block == FEW_COLUMNS) &&
           few_memory(depth, block, rows) <= FEW_MEMORY_MAX;
}

/* Outputs of a thread block: its warps divide either outputs or blocks of columns. */
static inline __host__ __device__ uint32_t few_outputs(uint32_t block)
{
    return block == 0 ? FEW_OUTPUTS * TILE_WARPS : FEW_OUTPUTS;
}

/* The first output of this warp, relative to that of its thread block. */
static __device__ __forceinline__ uint32_t few_first(uint32_t block)
{
    return block == 0 ? threadIdx.x / 32 * FEW_OUTPUTS : 0;
}

/* The number of both the row of x and the output whose values this lane loads. */
static __device__ __forceinline__ uint32_t few_lane_row()
{
    return threadIdx.x % 32 / 4;
}

struct few_shape {
    uint32_t row_count;
    uint32_t depth;
    uint32_t block;
};

/* The arguments of a product for one lane. */
struct few_lane {
    few_shape f;
    const float *x;              /* this lane's row, or NULL */
    float *sums;                 /* few_memory */
};

template <typename W> struct few_ahead {
    uint32_t codes[FEW_STEPS][2];
    float x[FEW_STEPS][2];
    float scale;
};

template <typename W>
static __device__ __forceinline__ void few_load(const few_lane &lane, const W &w, uint64_t k,
                                                few_ahead<W> &to)
{
    const uint64_t mine = k + threadIdx.x % 4;

    to.scale = w.scale(k);
#pragma unroll
    for (uint32_t s = 0; s < FEW_STEPS; s++)
#pragma unroll
        for (uint32_t h = 0; h < 2; h++) {
            const uint64_t at = mine + 8 * s + 4 * h;

            to.codes[s][h] = at < lane.f.depth ? w.load(at) : 0;
            to.x[s][h] = lane.x != nullptr && at < lane.f.depth ? lane.x[at] : 0;
        }
}

/* Index i: 16 columns from 64 * i + 16 * (lane % 4) on. */
template <> struct few_ahead<few_exact> {
    uint4 codes[2];
    float4 x[2][4];
    float scale;
};

static __device__ __forceinline__ void few_load(const few_lane &lane, const few_exact &w,
                                                uint64_t k, few_ahead<few_exact> &to)
{
    const uint64_t mine = k + threadIdx.x % 4 * 16;

    to.scale = w.weight == nullptr ? 0 : weight_scale(*w.weight, w.row, k);
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        to.codes[i] = w.weight == nullptr
                          ? make_uint4(0, 0, 0, 0)
                          : *reinterpret_cast<const uint4 *>(
                                w.weight->data + w.row * w.weight->row_bytes + mine + 64 * i);
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            to.x[i][j] = lane.x == nullptr
                             ? make_float4(0, 0, 0, 0)
                             : *reinterpret_cast<const float4 *>(lane.x + mine + 64 * i + 4 * j);
    }
}

/* Store the complete sums of block i of columns: two outputs of this lane's row. */
static __device__ __forceinline__ void few_put(const few_lane &lane, uint32_t i, double *sum)
{
    const few_shape &f = lane.f;
    const uint32_t row = few_lane_row();

    if (row < f.row_count && (uint64_t)i * f.block < f.depth) {
        float *at = lane.sums + ((uint64_t)i * f.row_count + row) * FEW_OUTPUTS +
                    threadIdx.x % 4 * 2;

        at[0] = (float)sum[0];
        at[1] = (float)sum[1];
    }
    sum[0] = sum[1] = sum[2] = sum[3] = 0;
}

/* Add the products of FEW_COLUMNS columns from k on. */
template <typename W>
static __device__ __forceinline__ void few_multiply(const few_lane &lane, uint64_t k,
                                                    const few_ahead<W> &now, double *sum)
{
    const few_shape &f = lane.f;

#pragma unroll
    for (uint32_t s = 0; s < FEW_STEPS; s++) {
        const double a[4] = { now.x[s][0], 0, now.x[s][1], 0 };
        const double b[2] = { W::value(now.codes[s][0], now.scale),
                              W::value(now.codes[s][1], now.scale) };

        tile_multiply(sum, a, b);
        if (f.block != 0 && 8 * (s + 1) % f.block == 0)
            few_put(lane, (uint32_t)((k + 8 * s) / f.block), sum);
    }
}

static __device__ __forceinline__ void few_multiply(const few_lane &lane, uint64_t k,
                                                    const few_ahead<few_exact> &now, double *sum)
{
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t words[4] = { now.codes[i].x, now.codes[i].y, now.codes[i].z,
                                    now.codes[i].w };

#pragma unroll
        for (uint32_t s = 0; s < 8; s++) {
            const float4 four = now.x[i][s / 2];
            const uint32_t two = words[s / 2] >> (16 * (s % 2));
            const double a[4] = { s % 2 == 0 ? four.x : four.z, 0, s % 2 == 0 ? four.y : four.w,
                                  0 };
            const double b[2] = { cuda_e4m3_top(two << 24), cuda_e4m3_top(two << 16) };

            tile_multiply(sum, a, b);
        }
    }
    sum[0] *= (double)now.scale;
    sum[1] *= (double)now.scale;
    few_put(lane, (uint32_t)(k / FEW_COLUMNS), sum);
}

/*
 * Compute a product and call out(row, output, value) for the rows of x and this warp's outputs. w
 * reads the output of this lane. All threads of the thread block must call it.
 */
template <typename W, typename Out>
static __device__ __forceinline__ void few_product(const few_lane &lane, const W &w,
                                                   const Out &out)
{
    const few_shape &f = lane.f;
    const uint32_t warps = f.block == 0 ? 1 : TILE_WARPS;
    const uint64_t step = (uint64_t)warps * FEW_COLUMNS;
    double sum[4] = {};
    few_ahead<W> ahead = {};
    uint64_t k = f.block == 0 ? 0 : (uint64_t)(threadIdx.x / 32) * FEW_COLUMNS;

    if (k < f.depth)
        few_load(lane, w, k, ahead);
    for (; k < f.depth; k += step) {
        const few_ahead<W> now = ahead;

        if (k + step < f.depth)
            few_load(lane, w, k + step, ahead);
        few_multiply(lane, k, now, sum);
    }
    if (f.block == 0) {
        if (few_lane_row() < f.row_count) {
            out(few_lane_row(), threadIdx.x % 4 * 2, 0.0f + (float)sum[0]);
            out(few_lane_row(), threadIdx.x % 4 * 2 + 1, 0.0f + (float)sum[1]);
        }
        return;
    }
    __syncthreads();
    if (threadIdx.x < f.row_count * FEW_OUTPUTS) {
        float value = 0;

        for (uint32_t i = 0; (uint64_t)i * f.block < f.depth; i++)
            value += lane.sums[(uint64_t)i * f.row_count * FEW_OUTPUTS + threadIdx.x];
        out(threadIdx.x / FEW_OUTPUTS, threadIdx.x % FEW_OUTPUTS, value);
    }
}

#endif
