/*
 * cuda_tile.cuh: 32 x 32 outputs of a product by a block of 256 threads, with the sums of
 * plain_product: eight F64 lanes, lane i for the columns i, i + 8, ... of a block of columns; the
 * lanes meet as ((0+4) + (2+6)) + ((1+5) + (3+7)), are rounded to F32 and added in F32.
 *
 * Thread (warp, group, lane) holds lane `lane` of 8 x 4 outputs: rows 8 * (warp / 2) + i, columns
 * 16 * (warp % 2) + 4 * j + group. When the lanes meet they swap halves, so that every sum is made
 * once: thread `lane` ends with the four columns of row i = lane. Rows and columns past the end
 * are zeros, as are those past the end of a block: a sum that began at +0 never is -0, so that
 * adding +0 changes nothing.
 */
#ifndef RUN_CUDA_TILE_CUH
#define RUN_CUDA_TILE_CUH

#include "cuda_private.cuh"

#include "kernels/cuda/codecs.cuh"

constexpr uint32_t TILE = 32;            /* outputs each way, and columns a step */
constexpr uint32_t TILE_THREADS = 256;
constexpr uint32_t TILE_PITCH = 40;      /* doubles: two rows apart are other banks */

struct tile_memory {
    double x[TILE][TILE_PITCH];
    double w[TILE][TILE_PITCH];
};

/* The row of the tile, the first of four columns, that this thread loads. */
static __device__ __forceinline__ uint32_t tile_load_row()
{
    return threadIdx.x / 8;
}

/* The outputs that this thread ends with: this row, columns tile_column(0..3). */
static __device__ __forceinline__ uint32_t tile_row()
{
    return threadIdx.x / 64 * 8 + threadIdx.x % 8;
}

static __device__ __forceinline__ uint32_t tile_column(uint32_t j)
{
    return threadIdx.x / 32 % 2 * 16 + 4 * j + threadIdx.x % 32 / 8;
}

/* Four columns of a row of floats; no row: zeros. */
struct float_loader {
    const float *row;

    __device__ __forceinline__ void load(uint64_t k, uint64_t end, float *out) const
    {
        if (row == nullptr || k >= end) {
            out[0] = out[1] = out[2] = out[3] = 0;
        } else if (k + 4 <= end && (reinterpret_cast<uintptr_t>(row + k) & 15) == 0) {
            const float4 four = *reinterpret_cast<const float4 *>(row + k);

            out[0] = four.x;
            out[1] = four.y;
            out[2] = four.z;
            out[3] = four.w;
        } else {
            for (uint32_t i = 0; i < 4; i++)
                out[i] = k + i < end ? row[k + i] : 0;
        }
    }
};

static __device__ __forceinline__ float weight_scale(const cuda_weight &w, uint64_t row,
                                                     uint64_t col)
{
    const uint8_t *scales = w.scale + row / w.block_rows * w.scale_row_bytes;
    const uint32_t i = (uint32_t)col / w.block_cols;

    if (w.scale_dtype == CKPT_F8_E8M0)
        return cuda_e8m0(scales[i]);
    if (w.scale_dtype == CKPT_BF16)
        return cuda_bf16(reinterpret_cast<const uint16_t *>(scales)[i]);
    return reinterpret_cast<const float *>(scales)[i];
}

/* One element: the F32 product of code and scale, as values_f32 has it. */
static __device__ float weight_value(const cuda_weight &w, uint64_t row, uint64_t col)
{
    const uint8_t *data = w.data + row * w.row_bytes;
    float value;

    switch (w.dtype) {
    case CKPT_F4:
        value = cuda_e2m1(data[col / 2] >> (col % 2 * 4) & 15);
        break;
    case CKPT_F8_E4M3:
        value = cuda_e4m3(data[col]);
        break;
    case CKPT_F8_E5M2:
        return cuda_e5m2(data[col]);
    case CKPT_F8_E8M0:
        return cuda_e8m0(data[col]);
    case CKPT_BF16:
        return cuda_bf16(reinterpret_cast<const uint16_t *>(data)[col]);
    case CKPT_F16:
        return cuda_f16(reinterpret_cast<const uint16_t *>(data)[col]);
    default:
        return reinterpret_cast<const float *>(data)[col];
    }
    return w.scale_dtype == CKPT_NONE ? value : cuda_product(value, weight_scale(w, row, col));
}

/* The formats that are large, four columns at once; k is a multiple of 4. */
static __device__ __forceinline__ int weight_four(const cuda_weight &w, uint64_t row, uint64_t k,
                                                  float *out)
{
    const uint8_t *data = w.data + row * w.row_bytes;

    if (w.dtype == CKPT_F4 && w.scale_dtype != CKPT_NONE) {
        const uint32_t codes = *reinterpret_cast<const uint16_t *>(data + k / 2);
        const float scale = weight_scale(w, row, k);

#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            out[i] = cuda_product(cuda_e2m1_top(codes << (28 - 4 * i)), scale);
        return 1;
    }
    if (w.dtype == CKPT_F8_E4M3 && w.scale_dtype != CKPT_NONE) {
        const uint32_t codes = *reinterpret_cast<const uint32_t *>(data + k);
        const float scale = weight_scale(w, row, k);

#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            out[i] = cuda_product(cuda_e4m3(codes >> (8 * i) & 0xFF), scale);
        return 1;
    }
    if (w.dtype == CKPT_BF16) {
        const uint2 codes = *reinterpret_cast<const uint2 *>(data + 2 * k);

        out[0] = cuda_bf16(codes.x & 0xFFFF);
        out[1] = cuda_bf16(codes.x >> 16);
        out[2] = cuda_bf16(codes.y & 0xFFFF);
        out[3] = cuda_bf16(codes.y >> 16);
        return 1;
    }
    return 0;
}

/* Four columns of a row of a stored weight; no weight: zeros. */
struct weight_loader {
    const cuda_weight *weight;
    uint64_t row;

    __device__ __forceinline__ void load(uint64_t k, uint64_t end, float *out) const
    {
        if (weight == nullptr || k >= end) {
            out[0] = out[1] = out[2] = out[3] = 0;
            return;
        }
        if (weight->by_four && weight_four(*weight, row, k, out)) {
#pragma unroll
            for (uint32_t i = 1; i < 4; i++)
                out[i] = k + i < end ? out[i] : 0;
            return;
        }
        for (uint32_t i = 0; i < 4; i++)
            out[i] = k + i < end ? weight_value(*weight, row, k + i) : 0;
    }
};

static __device__ __forceinline__ void tile_store(double (*to)[TILE_PITCH], const float *four)
{
    double2 *at = reinterpret_cast<double2 *>(&to[tile_load_row()][threadIdx.x % 8 * 4]);

    at[0] = make_double2(four[0], four[1]);
    at[1] = make_double2(four[2], four[3]);
}

/* One step of TILE columns: every lane takes four of them, ascending. */
static __device__ __forceinline__ void tile_step(const tile_memory &m, double (*sum)[4])
{
    const uint32_t lane = threadIdx.x % 8;
    const uint32_t row = threadIdx.x / 64 * 8;
    const uint32_t column = tile_column(0);

#pragma unroll
    for (uint32_t k = 0; k < TILE; k += 8) {
        double w[4];

#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            w[j] = m.w[column + 4 * j][k + lane];
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const double x = m.x[row + i][k + lane];

#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
                sum[i][j] = fma(x, w[j], sum[i][j]);
        }
    }
}

/* Half of the rows go to the thread `step` lanes away, the other half stay and get its sums. */
template <uint32_t rows> static __device__ __forceinline__ void tile_meet(double (*sum)[4])
{
    const int upper = (threadIdx.x & rows) != 0;

#pragma unroll
    for (uint32_t i = 0; i < rows; i++)
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const double gone = upper ? sum[i][j] : sum[i + rows][j];
            const double kept = upper ? sum[i + rows][j] : sum[i][j];

            sum[i][j] = kept + __shfl_xor_sync(0xFFFFFFFFu, gone, rows);
        }
}

/*
 * acc[j] = output (tile_row(), tile_column(j)). x and w load for row tile_load_row() of their side.
 * All threads of the block take part. block: a multiple of TILE, or 0.
 */
template <typename X, typename W>
static __device__ void tile_product(const X &x, const W &w, uint64_t depth, uint64_t block,
                                    tile_memory &m, float *acc)
{
    const uint64_t step = block == 0 ? depth : block;
    const uint32_t col = threadIdx.x % 8 * 4;
    float left[4];
    float right[4];

    acc[0] = acc[1] = acc[2] = acc[3] = 0;
    x.load(col, min(step, depth), left);
    w.load(col, min(step, depth), right);
    for (uint64_t first = 0; first < depth; first += step) {
        const uint64_t end = min(first + step, depth);
        double sum[8][4] = { { 0 } };

        for (uint64_t k = first; k < end; k += TILE) {
            const uint64_t next_end = k + TILE < end ? end : min(end + step, depth);
            const uint64_t next = k + TILE < end ? k + TILE : end;

            __syncthreads();
            tile_store(m.x, left);
            tile_store(m.w, right);
            __syncthreads();
            x.load(next + col, next_end, left);     /* on its way while this step computes */
            w.load(next + col, next_end, right);
            tile_step(m, sum);
        }
        tile_meet<4>(sum);
        tile_meet<2>(sum);
        tile_meet<1>(sum);
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            acc[j] += (float)sum[0][j];
    }
}

#endif
