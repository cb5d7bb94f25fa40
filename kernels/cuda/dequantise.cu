/*
 * dequantise.cu: dequantise at memory bandwidth. A thread decodes 8 codes per step, so that their
 * BF16 values are one 16-byte store and a warp writes 512 consecutive bytes; it loads several steps
 * at once. Threads share nothing, so the result cannot depend on how the work is divided.
 *
 * NaN needs extra instructions only where it can occur: if the scale is finite and no code is NaN,
 * no product is NaN, and the hardware's conversion to BF16 returns the bits of scalar.c.
 */
#include "dequantise.h"

#include "codecs.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t STEP = 8;             /* codes per step */
constexpr uint32_t STEPS = 4;            /* steps per thread */

/* Two values to BF16, nearest even. Neither may be NaN. */
__device__ __forceinline__ uint32_t pair_to_bf16(float low, float high)
{
    uint32_t pair;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <typename Out> struct packed_out;

template <> struct packed_out<uint16_t> {
    static __device__ __forceinline__ void store(void *out, uint64_t i, const float *v)
    {
        static_cast<uint4 *>(out)[i] = make_uint4(pair_to_bf16(v[0], v[1]),
                                                  pair_to_bf16(v[2], v[3]),
                                                  pair_to_bf16(v[4], v[5]),
                                                  pair_to_bf16(v[6], v[7]));
    }
    static __device__ void store_any(void *out, uint64_t i, const float *v)
    {
        for (uint32_t k = 0; k < STEP; k++)
            static_cast<uint16_t *>(out)[i * STEP + k] = (uint16_t)cuda_to_bf16(v[k]);
    }
};

template <> struct packed_out<float> {
    static __device__ __forceinline__ void store(void *out, uint64_t i, const float *v)
    {
        float4 *to = static_cast<float4 *>(out) + 2 * i;

        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
    static __device__ void store_any(void *out, uint64_t i, const float *v)
    {
        for (uint32_t k = 0; k < STEP; k++)
            static_cast<float *>(out)[i * STEP + k] = cuda_product(v[k], 1);
    }
};

__device__ __forceinline__ int is_finite(float scale)
{
    return (cuda_bits(scale) & 0x7F800000u) != 0x7F800000u;
}

/* Not 0 if one of four E4M3 codes is NaN: only the magnitude 0x7F carries into the sign bit. */
__device__ __forceinline__ uint32_t has_nan(uint32_t codes)
{
    return ((codes & 0x7F7F7F7Fu) + 0x01010101u) & 0x80808080u;
}

template <typename Out>
__device__ __forceinline__ void fp8_step(void *out, uint64_t i, uint2 codes, float scale)
{
    float v[STEP];

    if (is_finite(scale) && (has_nan(codes.x) | has_nan(codes.y)) == 0) {
#pragma unroll
        for (uint32_t k = 0; k < STEP; k++)
            v[k] = cuda_e4m3_top((k < 4 ? codes.x : codes.y) << (24 - k % 4 * 8)) * scale;
        packed_out<Out>::store(out, i, v);
        return;
    }
    for (uint32_t k = 0; k < STEP; k++)
        v[k] = cuda_e4m3((k < 4 ? codes.x : codes.y) >> (k % 4 * 8) & 0xFF) * scale;
    packed_out<Out>::store_any(out, i, v);
}

template <typename Out>
__device__ __forceinline__ void fp4_step(void *out, uint64_t i, uint32_t codes, float scale)
{
    float v[STEP];

#pragma unroll
    for (uint32_t k = 0; k < STEP; k++)
        v[k] = cuda_e2m1_top(codes << (28 - 4 * k)) * scale;
    if (is_finite(scale))
        packed_out<Out>::store(out, i, v);
    else
        packed_out<Out>::store_any(out, i, v);
}

template <typename Out>
__global__ void __launch_bounds__(THREADS) fp8_kernel(const __grid_constant__ cuda_dequantise_job j)
{
    const uint32_t row_steps = (uint32_t)(j.col_count / STEP);
    const uint64_t total = j.row_count * row_steps;
    const uint64_t blocks = (j.col_count + 127) / 128;
    const uint64_t base = (uint64_t)blockIdx.x * (THREADS * STEPS);
    const uint64_t first_row = base / row_steps;
    const uint32_t first_step = (uint32_t)(base - first_row * row_steps);
    uint2 codes[STEPS];
    float scale[STEPS];

#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++) {
        const uint32_t ahead = k * THREADS + threadIdx.x;
        const uint32_t step = first_step + ahead;
        const uint64_t row = first_row + step / row_steps;

        if (base + ahead >= total)
            break;
        codes[k] = reinterpret_cast<const uint2 *>(j.codes)[base + ahead];
        const uint64_t place = row / 128 * blocks + step % row_steps / (128 / STEP);

        scale[k] = j.has_e8m0_scale ? cuda_e8m0(static_cast<const uint8_t *>(j.scale)[place])
                                    : static_cast<const float *>(j.scale)[place];
    }
#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++)
        if (base + k * THREADS + threadIdx.x < total)
            fp8_step<Out>(j.out, base + k * THREADS + threadIdx.x, codes[k], scale[k]);
}

/* Rows are whole groups, so group i, counted over all rows, has scale i. */
template <typename Out>
__global__ void __launch_bounds__(THREADS) fp4_kernel(const __grid_constant__ cuda_dequantise_job j)
{
    const uint64_t total = j.row_count * j.col_count / STEP;
    const uint64_t base = (uint64_t)blockIdx.x * (THREADS * STEPS) + threadIdx.x;
    uint32_t codes[STEPS];
    uint32_t scale[STEPS];

#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++)
        if (base + k * THREADS < total) {
            codes[k] = reinterpret_cast<const uint32_t *>(j.codes)[base + k * THREADS];
            scale[k] = static_cast<const uint8_t *>(j.scale)[(base + k * THREADS) / 4];
        }
#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++)
        if (base + k * THREADS < total)
            fp4_step<Out>(j.out, base + k * THREADS, codes[k], cuda_e8m0(scale[k]));
}

int launch(void (*kernel)(cuda_dequantise_job), const cuda_dequantise_job *job, void *stream)
{
    const uint64_t total = job->row_count * job->col_count / STEP;
    const uint64_t grid = (total + THREADS * STEPS - 1) / (THREADS * STEPS);

    if (total == 0)
        return cudaSuccess;
    if (grid > INT32_MAX)
        return cudaErrorInvalidValue;
    kernel<<<(uint32_t)grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(*job);
    return cudaGetLastError();
}

} // namespace

int cuda_fp8_to_bf16(const cuda_dequantise_job *job, void *stream)
{
    return launch(fp8_kernel<uint16_t>, job, stream);
}

int cuda_fp8_to_f32(const cuda_dequantise_job *job, void *stream)
{
    return launch(fp8_kernel<float>, job, stream);
}

int cuda_fp4_to_bf16(const cuda_dequantise_job *job, void *stream)
{
    return launch(fp4_kernel<uint16_t>, job, stream);
}

int cuda_fp4_to_f32(const cuda_dequantise_job *job, void *stream)
{
    return launch(fp4_kernel<float>, job, stream);
}
