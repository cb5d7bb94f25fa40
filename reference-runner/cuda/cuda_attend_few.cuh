/*
 * cuda_attend_few.cuh: attention of so few rows that tiles of 64 heads would leave most processors
 * idle. A thread block computes 16 heads by 32 vectors, or by 32 columns, in sums of the same
 * order, and has all that it needs on the way to shared memory before it computes.
 */
#ifndef RUN_CUDA_ATTEND_FEW_CUH
#define RUN_CUDA_ATTEND_FEW_CUH

#include "cuda_attend.cuh"

constexpr uint32_t ATTEND_HEADS = 16;
constexpr uint32_t ATTEND_PART = 32;             /* vectors or columns of a thread block */
constexpr uint32_t ATTEND_STEP = 8;              /* columns of an operation of the matrix unit */
constexpr uint32_t ATTEND_MIX = 640;             /* vectors in shared memory at a time */
constexpr uint32_t ATTEND_MIX_PITCH = ATTEND_MIX + 4;    /* these avoid bank conflicts */
constexpr uint32_t ATTEND_COLUMN_PITCH = ATTEND_PART + 8;

static inline __host__ __device__ uint32_t attend_pitch(uint32_t head_dim)
{
    return head_dim + 4;
}

static inline uint64_t attend_score_memory(uint32_t head_dim)
{
    return (uint64_t)(ATTEND_HEADS + ATTEND_PART) * attend_pitch(head_dim) * sizeof(float);
}

static inline uint64_t attend_mix_memory()
{
    return (uint64_t)(ATTEND_HEADS * ATTEND_MIX_PITCH + ATTEND_MIX * ATTEND_COLUMN_PITCH) *
           sizeof(float);
}

/* Start copying 16 bytes; zeros if `from` is NULL. */
static __device__ __forceinline__ void attend_copy(float *to, const float *from)
{
    if (from != nullptr)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         (uint32_t)__cvta_generic_to_shared(to)),
                     "l"(from));
    else
        *reinterpret_cast<float4 *>(to) = make_float4(0, 0, 0, 0);
}

static __device__ __forceinline__ void attend_arrive()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
}

/* Scores of ATTEND_HEADS heads and ATTEND_PART vectors, eight for each warp. */
static __global__ void __launch_bounds__(TILE_THREADS)
    attend_score_few_kernel(const __grid_constant__ attend_job j)
{
    extern __shared__ __align__(16) float attend_memory[];
    const uint64_t t = j.first + blockIdx.z;
    const attend_list list = list_of(j, t);
    const uint32_t first = blockIdx.x * ATTEND_PART;
    const uint32_t head = blockIdx.y * ATTEND_HEADS;
    const uint32_t pitch = attend_pitch(j.op.head_dim);
    const uint32_t pieces = j.op.head_dim / 4;
    const uint32_t g = threadIdx.x % 32 / 4;
    const uint32_t k = threadIdx.x % 4;
    const uint32_t vector = threadIdx.x / 32 * 8;
    double sum[4] = {};

    if (first >= list.count)
        return;
    for (uint32_t row = threadIdx.x / 32; row < ATTEND_HEADS + ATTEND_PART; row += TILE_WARPS) {
        const float *from = row >= ATTEND_HEADS ? list_row(j, list, first + row - ATTEND_HEADS)
                            : head + row < j.op.head_count
                                ? j.q.row(t) + (uint64_t)(head + row) * j.op.head_dim
                                : nullptr;

        for (uint32_t i = threadIdx.x % 32; i < pieces; i += 32)
            attend_copy(attend_memory + row * pitch + 4 * i,
                        from == nullptr ? nullptr : from + 4 * i);
    }
    attend_arrive();
    const float *q = attend_memory + g * pitch + k;
    const float *v = attend_memory + (ATTEND_HEADS + vector + g) * pitch + k;

#pragma unroll 8
    for (uint32_t i = 0; i < j.op.head_dim; i += ATTEND_STEP) {
        const double a[4] = { q[i], q[i + 8 * pitch], q[i + 4], q[i + 8 * pitch + 4] };
        const double b[2] = { v[i], v[i + 4] };

        tile_multiply(sum, a, b);
    }
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t at_head = head + g + i / 2 * 8;
        const uint32_t at = first + vector + 2 * k + i % 2;

        if (at_head < j.op.head_count && at < list.count)
            j.scores[(blockIdx.z * (uint64_t)j.op.head_count + at_head) * j.pitch + at] =
                (0.0f + (float)sum[i]) * j.op.scale;
    }
}

/* Load P and the columns of the vectors [base, base + ATTEND_MIX); zeros past the end. */
static __device__ __forceinline__ void attend_mix_load(const attend_job &j,
                                                       const attend_list &list, uint32_t base,
                                                       float *p, float *v)
{
    const uint32_t count = (uint32_t)min((uint64_t)ATTEND_MIX, list.count - base);
    const uint32_t end = (count + ATTEND_STEP - 1) / ATTEND_STEP * ATTEND_STEP;
    const uint32_t head = blockIdx.y * ATTEND_HEADS;
    const uint32_t column = blockIdx.x * ATTEND_PART;

    for (uint32_t i = threadIdx.x; i < end * (ATTEND_PART / 4); i += TILE_THREADS) {
        const float *row = list_row(j, list, base + i / (ATTEND_PART / 4));
        const uint32_t at = i % (ATTEND_PART / 4) * 4;

        attend_copy(v + i / (ATTEND_PART / 4) * ATTEND_COLUMN_PITCH + at,
                    row != nullptr && column + at < j.op.head_dim ? row + column + at : nullptr);
    }
    for (uint32_t row = threadIdx.x / 32; row < ATTEND_HEADS; row += TILE_WARPS) {
        const int is_there = head + row < j.op.head_count;
        const float *from =
            j.scores + (blockIdx.z * (uint64_t)j.op.head_count + head + row) * j.pitch + base;

#pragma unroll 8
        for (uint32_t i = threadIdx.x % 32; i < end; i += 32)
            p[row * ATTEND_MIX_PITCH + i] = is_there && i < count ? from[i] : 0;
    }
    attend_arrive();
}

/* mix_kernel for ATTEND_HEADS heads and ATTEND_PART columns, eight for each warp. */
static __global__ void __launch_bounds__(TILE_THREADS)
    attend_mix_few_kernel(const __grid_constant__ attend_job j)
{
    extern __shared__ __align__(16) float attend_memory[];
    float *p = attend_memory;
    float *v = attend_memory + ATTEND_HEADS * ATTEND_MIX_PITCH;
    const attend_list list = list_of(j, j.first + blockIdx.z);
    const uint32_t g = threadIdx.x % 32 / 4;
    const uint32_t k = threadIdx.x % 4;
    const uint32_t own = threadIdx.x / 32 * 8;
    double sum[4] = {};

    for (uint32_t base = 0; base < list.count; base += ATTEND_MIX) {
        const uint32_t count = (uint32_t)min((uint64_t)ATTEND_MIX, list.count - base);
        const float *at_p = p + g * ATTEND_MIX_PITCH + k;
        const float *at_v = v + k * ATTEND_COLUMN_PITCH + own + g;

        __syncthreads();         /* other threads may still read the last vectors */
        attend_mix_load(j, list, base, p, v);
#pragma unroll 8
        for (uint32_t i = 0; i < count; i += ATTEND_STEP) {
            const double a[4] = { at_p[i], at_p[i + 8 * ATTEND_MIX_PITCH], at_p[i + 4],
                                  at_p[i + 8 * ATTEND_MIX_PITCH + 4] };
            const double b[2] = { at_v[i * ATTEND_COLUMN_PITCH],
                                  at_v[(i + 4) * ATTEND_COLUMN_PITCH] };

            tile_multiply(sum, a, b);
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t head = blockIdx.y * ATTEND_HEADS + g + i / 2 * 8;
        const uint32_t column = blockIdx.x * ATTEND_PART + own + 2 * k + i % 2;
        const uint64_t unit = blockIdx.z * (uint64_t)j.op.head_count + head;

        if (head < j.op.head_count && column < j.op.head_dim)
            j.y.row(j.first + blockIdx.z)[(uint64_t)head * j.op.head_dim + column] =
                run_round((float)sum[i] / j.denominators[unit], j.op.round);
    }
}

#endif
