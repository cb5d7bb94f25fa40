/*
 * Dequantise at memory bandwidth: a thread takes 8 codes, so that BF16 leaves as one 16-byte store
 * and a warp writes 512 bytes in a row. Nothing is shared between threads, so that the result
 * cannot depend on how the work is cut.
 */
#include "dequantise.h"

#include "codecs.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t STEP = 8;             /* codes a thread takes at once */

template <typename Out> struct packed_out;

template <> struct packed_out<uint16_t> {
    static __device__ void store(void *out, uint64_t i, const float *values)
    {
        uint4 word;
        uint32_t *part = &word.x;

        for (uint32_t k = 0; k < 4; k++)
            part[k] = cuda_to_bf16(values[2 * k]) | cuda_to_bf16(values[2 * k + 1]) << 16;
        static_cast<uint4 *>(out)[i] = word;
    }
};

template <> struct packed_out<float> {
    static __device__ void store(void *out, uint64_t i, const float *values)
    {
        float4 *to = static_cast<float4 *>(out) + 2 * i;

        to[0] = make_float4(cuda_product(values[0], 1), cuda_product(values[1], 1),
                            cuda_product(values[2], 1), cuda_product(values[3], 1));
        to[1] = make_float4(cuda_product(values[4], 1), cuda_product(values[5], 1),
                            cuda_product(values[6], 1), cuda_product(values[7], 1));
    }
};

template <typename Out>
__global__ void __launch_bounds__(THREADS) fp8_kernel(cuda_dequantise_job job)
{
    const uint64_t steps = job.col_count / STEP;
    const uint64_t total = job.row_count * steps;
    const uint64_t blocks = (job.col_count + 127) / 128;
    const float *scales = static_cast<const float *>(job.scale);

    for (uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x; i < total;
         i += (uint64_t)gridDim.x * THREADS) {
        const uint64_t row = i / steps;
        const uint64_t col = (i - row * steps) * STEP;
        const float scale = scales[row / 128 * blocks + col / 128];
        const uint2 codes = reinterpret_cast<const uint2 *>(job.codes)[i];
        float values[STEP];

#pragma unroll
        for (uint32_t k = 0; k < STEP; k++)
            values[k] = cuda_e4m3((k < 4 ? codes.x : codes.y) >> (k % 4 * 8) & 0xFF) * scale;
        packed_out<Out>::store(job.out, i, values);
    }
}

/* Rows are multiples of a group, so that group i of all is group i of the scales. */
template <typename Out>
__global__ void __launch_bounds__(THREADS) fp4_kernel(cuda_dequantise_job job)
{
    const uint64_t total = job.row_count * job.col_count / STEP;
    const uint8_t *scales = static_cast<const uint8_t *>(job.scale);

    for (uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x; i < total;
         i += (uint64_t)gridDim.x * THREADS) {
        const float scale = cuda_e8m0(scales[i / 4]);
        const uint32_t codes = reinterpret_cast<const uint32_t *>(job.codes)[i];
        float values[STEP];

#pragma unroll
        for (uint32_t k = 0; k < STEP; k++)
            values[k] = cuda_e2m1(codes >> (k * 4) & 15) * scale;
        packed_out<Out>::store(job.out, i, values);
    }
}

int launch(void (*kernel)(cuda_dequantise_job), const cuda_dequantise_job *job, void *stream)
{
    const uint64_t total = job->row_count * job->col_count / STEP;
    const uint64_t wanted = (total + THREADS - 1) / THREADS;
    const uint32_t grid = (uint32_t)(wanted < (1u << 20) ? wanted : (1u << 20));

    if (total == 0)
        return cudaSuccess;
    kernel<<<grid, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(*job);
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
