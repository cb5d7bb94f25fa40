/*
 * cuda_tile.cuh: a block of 128 threads computes a tile of outputs of a product on the F64 matrix
 * unit, with the bits of plain_product. The unit adds products to an output one by one in ascending
 * order, each as a fused multiply-add. Products of F32 are exact in F64, so the result is plain_dot
 * bit for bit (tests/cuda/test_cuda.cu checks this on the device). The sum of a block of columns is
 * rounded to F32 and added in F32.
 *
 * Rows and columns past the end, and past the end of a block, are filled with zeros. That changes
 * no sum: a sum that begins at +0 is never -0, and adding +0 to anything else has no effect.
 */
#ifndef RUN_CUDA_TILE_CUH
#define RUN_CUDA_TILE_CUH

#include "cuda_private.cuh"

#include "kernels/cuda/codecs.cuh"

constexpr uint32_t TILE_THREADS = 128;
constexpr uint32_t TILE_WARPS = TILE_THREADS / 32;
constexpr uint32_t TILE_STEP = 16;       /* columns of x and w in shared memory at a time */
constexpr uint32_t TILE_PITCH = 20;      /* in doubles; avoids bank conflicts between rows */

/* x_warps warps divide the rows of x, TILE_WARPS / x_warps those of w. Each warp has 16 * x_parts
 * rows of x and 8 * w_parts rows of w. */
template <uint32_t x_warps, uint32_t x_parts, uint32_t w_parts> struct tile_shape {
    static constexpr uint32_t X_PARTS = x_parts;
    static constexpr uint32_t W_PARTS = w_parts;
    static constexpr uint32_t X_WARPS = x_warps;
    static constexpr uint32_t X = x_warps * x_parts * 16;
    static constexpr uint32_t W = TILE_WARPS / x_warps * w_parts * 8;
};

typedef tile_shape<2, 2, 4> tile_large;  /* 64 x 64 */
typedef tile_shape<1, 1, 2> tile_small;  /* 16 x 64: for few rows, or too few tiles of 64 x 64 */

template <typename S> struct tile_memory {
    double x[2][S::X][TILE_PITCH];
    double w[2][S::W][TILE_PITCH];
};

/* sum (16 x 8) += a (16 x 8) * b (8 x 8). The fragments of lane 4 g + t are: a: rows g and g + 8 at
 * column t, then at t + 4; b: columns t and t + 4 of output g; sum: outputs 2 t and 2 t + 1 of row
 * g, then of row g + 8. */
static __device__ __forceinline__ void tile_multiply(double *sum, const double *a, const double *b)
{
#if __CUDA_ARCH__ >= 900
    asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+d"(sum[0]), "+d"(sum[1]), "+d"(sum[2]), "+d"(sum[3])
        : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
#else
#pragma unroll
    for (int i = 0; i < 4; i++)
        asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 "
            "{%0, %1}, {%2}, {%3}, {%0, %1};"
            : "+d"(sum[i % 2 * 2]), "+d"(sum[i % 2 * 2 + 1])
            : "d"(a[i]), "d"(b[i / 2]));
#endif
}

/* Loads four columns of a row of floats; zeros if `row` is NULL. */
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

/* The same for a row of BF16 whose number of columns is a multiple of four. */
struct bf16_loader {
    const uint16_t *row;

    __device__ __forceinline__ void load(uint64_t k, uint64_t end, float *out) const
    {
        uint2 codes = make_uint2(0, 0);

        if (row != nullptr && k < end)
            codes = *reinterpret_cast<const uint2 *>(row + k);
        out[0] = cuda_bf16(codes.x & 0xFFFF);
        out[1] = cuda_bf16(codes.x >> 16);
        out[2] = cuda_bf16(codes.y & 0xFFFF);
        out[3] = cuda_bf16(codes.y >> 16);
    }
};

static __device__ __forceinline__ float weight_scale(const cuda_weight &w, uint64_t row,
                                                     uint64_t col)
{
    const uint8_t *scales = w.scale + row / w.block_rows * w.scale_row_bytes;
    const uint32_t i = (uint32_t)col / w.block_cols;

    if (w.scale_dtype == CKPT_F8_E8M0)
        return cuda_e8m0(scales[i]);
    if (w.scale_dtype == CKPT_F8_E4M3)
        return cuda_e4m3(scales[i]);
    if (w.scale_dtype == CKPT_BF16)
        return cuda_bf16(reinterpret_cast<const uint16_t *>(scales)[i]);
    return reinterpret_cast<const float *>(scales)[i];
}

/* Apply the scale of the tensor, if it has one, as in values_f32. */
static __device__ __forceinline__ float weight_whole(const cuda_weight &w, float value)
{
    if (w.tensor_scale_use == CKPT_TENSOR_SCALE_NONE)
        return value;
    return w.tensor_scale_use == CKPT_TENSOR_SCALE_FACTOR ? value * w.tensor_scale
                                                          : value / w.tensor_scale;
}

/* One element: the F32 product of code and scale, as in values_f32. */
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
    return w.scale_dtype == CKPT_NONE
               ? value
               : weight_whole(w, cuda_product(value, weight_scale(w, row, col)));
}

/* Four columns at once for the encodings of large weights; k is a multiple of 4. Returns 0 if the
 * encoding is not one of them. */
static __device__ __forceinline__ int weight_four(const cuda_weight &w, uint64_t row, uint64_t k,
                                                  float *out)
{
    const uint8_t *data = w.data + row * w.row_bytes;

    if (w.dtype == CKPT_F4 && w.scale_dtype != CKPT_NONE) {
        const uint32_t codes = *reinterpret_cast<const uint16_t *>(data + k / 2);
        const float scale = weight_scale(w, row, k);

#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            out[i] = weight_whole(w, cuda_product(cuda_e2m1_top(codes << (28 - 4 * i)), scale));
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

/* Loads four columns of a row of a stored weight; zeros if `weight` is NULL. */
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

/* For each kind of storage: row() returns a loader for a row of the weight, or for zeros if w is
 * NULL. */
struct any_weights {
    static __device__ __forceinline__ weight_loader row(const cuda_weight *w, uint64_t row)
    {
        return { w, row };
    }
};

struct float_weights {
    static __device__ __forceinline__ float_loader row(const cuda_weight *w, uint64_t row)
    {
        return { w == nullptr ? nullptr
                              : reinterpret_cast<const float *>(w->data + row * w->row_bytes) };
    }
};

struct bf16_weights {
    static __device__ __forceinline__ bf16_loader row(const cuda_weight *w, uint64_t row)
    {
        return { w == nullptr ? nullptr
                              : reinterpret_cast<const uint16_t *>(w->data + row * w->row_bytes) };
    }
};

/* How threads divide the loads of a step: this thread makes COUNT loads of four columns; load i is
 * from row(i). */
template <uint32_t rows> struct tile_loads {
    static constexpr uint32_t COUNT = (rows * (TILE_STEP / 4) + TILE_THREADS - 1) / TILE_THREADS;

    static __device__ __forceinline__ uint32_t row(uint32_t i)
    {
        return (i * TILE_THREADS + threadIdx.x) / (TILE_STEP / 4);
    }
};

static __device__ __forceinline__ uint32_t tile_load_column()
{
    return threadIdx.x % (TILE_STEP / 4) * 4;
}

/* Odd rows store their two halves in the other order in time, not in place, so that a quarter of a
 * warp has no bank conflicts. */
static __device__ __forceinline__ void tile_store(double (*to)[TILE_PITCH], uint32_t row,
                                                  const float *four)
{
    double2 *at = reinterpret_cast<double2 *>(&to[row][tile_load_column()]);
    const double2 low = make_double2(four[0], four[1]);
    const double2 high = make_double2(four[2], four[3]);
    const uint32_t odd = row % 2;

    at[odd] = odd ? high : low;
    at[1 - odd] = odd ? low : high;
}

/* What one thread loads for the next step, kept in registers. */
template <typename S> struct tile_ahead {
    float x[tile_loads<S::X>::COUNT][4];
    float w[tile_loads<S::W>::COUNT][4];
};

template <typename S, typename X, typename W>
static __device__ __forceinline__ void tile_load(const X *x, const W *w, uint64_t k, uint64_t end,
                                                 tile_ahead<S> &to)
{
#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::X>::COUNT; i++)
        x[i].load(k + tile_load_column(), end, to.x[i]);
#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::W>::COUNT; i++)
        w[i].load(k + tile_load_column(), end, to.w[i]);
}

template <typename S>
static __device__ __forceinline__ void tile_put(tile_memory<S> &m, uint32_t half,
                                                const tile_ahead<S> &from)
{
#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::X>::COUNT; i++)
        if (tile_loads<S::X>::row(i) < S::X)
            tile_store(m.x[half], tile_loads<S::X>::row(i), from.x[i]);
#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::W>::COUNT; i++)
        if (tile_loads<S::W>::row(i) < S::W)
            tile_store(m.w[half], tile_loads<S::W>::row(i), from.w[i]);
}

/* The first row of x of this lane, and the first row of w of this warp. */
template <typename S> static __device__ __forceinline__ uint32_t tile_x()
{
    return threadIdx.x / 32 % S::X_WARPS * S::X_PARTS * 16 + threadIdx.x % 32 / 4;
}

template <typename S> static __device__ __forceinline__ uint32_t tile_w()
{
    return threadIdx.x / 32 / S::X_WARPS * S::W_PARTS * 8;
}

template <typename S> struct tile_sums {
    double v[S::X_PARTS][S::W_PARTS][4];
};

/* Add the products of one step. x(row, k) and w(row, k) return element k < TILE_STEP of a row. */
template <typename S, typename X, typename W>
static __device__ __forceinline__ void tile_step(const X &x, const W &w, tile_sums<S> &sum)
{
    const uint32_t t = threadIdx.x % 4;

#pragma unroll
    for (uint32_t first = 0; first < TILE_STEP; first += 8) {
        const uint32_t k = first + t;
        double a[S::X_PARTS][4];
        double b[S::W_PARTS][2];

#pragma unroll
        for (uint32_t i = 0; i < S::X_PARTS; i++)
#pragma unroll
            for (uint32_t j = 0; j < 4; j++)
                a[i][j] = x(tile_x<S>() + 16 * i + 8 * (j % 2), k + 4 * (j / 2));
#pragma unroll
        for (uint32_t i = 0; i < S::W_PARTS; i++)
#pragma unroll
            for (uint32_t j = 0; j < 2; j++)
                b[i][j] = w(tile_w<S>() + threadIdx.x % 32 / 4 + 8 * i, k + 4 * j);
#pragma unroll
        for (uint32_t i = 0; i < S::X_PARTS; i++)
#pragma unroll
            for (uint32_t j = 0; j < S::W_PARTS; j++)
                tile_multiply(sum.v[i][j], a[i], b[j]);
    }
}

/* Call out(row of x, row of w, value) for each output of this thread. */
template <typename S, typename T, typename Out>
static __device__ __forceinline__ void tile_give(const T (&v)[S::X_PARTS][S::W_PARTS][4],
                                                 const Out &out)
{
#pragma unroll
    for (uint32_t i = 0; i < S::X_PARTS; i++)
#pragma unroll
        for (uint32_t j = 0; j < S::W_PARTS; j++)
#pragma unroll
            for (uint32_t c = 0; c < 4; c++)
                out(tile_x<S>() + 16 * i + 8 * (c / 2),
                    tile_w<S>() + 8 * j + threadIdx.x % 4 * 2 + c % 2, v[i][j][c]);
}

/*
 * Compute a tile and call out(row, column, value) for each output. x_at(i) and w_at(i) return a
 * loader for row i of each side. All threads of the thread block must call it. block: a multiple of
 * TILE_STEP, or 0.
 */
template <typename S, typename XAt, typename WAt, typename Out>
static __device__ __forceinline__ void tile_product(const XAt &x_at, const WAt &w_at,
                                                    uint64_t depth, uint64_t block,
                                                    tile_memory<S> &m, const Out &out)
{
    const uint64_t step = block == 0 ? depth : block;
    decltype(x_at(0)) x[tile_loads<S::X>::COUNT];
    decltype(w_at(0)) w[tile_loads<S::W>::COUNT];
    float acc[S::X_PARTS][S::W_PARTS][4] = {};
    tile_ahead<S> ahead;
    uint32_t half = 0;

#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::X>::COUNT; i++)
        x[i] = x_at(tile_loads<S::X>::row(i));
#pragma unroll
    for (uint32_t i = 0; i < tile_loads<S::W>::COUNT; i++)
        w[i] = w_at(tile_loads<S::W>::row(i));
    tile_load<S>(x, w, 0, min(step, depth), ahead);
    __syncthreads();             /* other threads may still read the memory from a last call */
    for (uint64_t first = 0; first < depth; first += step) {
        const uint64_t end = min(first + step, depth);
        tile_sums<S> sum = {};

        for (uint64_t k = first; k < end; k += TILE_STEP) {
            const uint64_t next_end = k + TILE_STEP < end ? end : min(end + step, depth);
            const uint64_t next = k + TILE_STEP < end ? k + TILE_STEP : end;

            tile_put<S>(m, half, ahead);
            __syncthreads();
            tile_load<S>(x, w, next, next_end, ahead);     /* overlaps with the products below */
            tile_step<S>([&](uint32_t row, uint32_t at) { return m.x[half][row][at]; },
                         [&](uint32_t row, uint32_t at) { return m.w[half][row][at]; }, sum);
            half ^= 1;
        }
#pragma unroll
        for (uint32_t i = 0; i < S::X_PARTS; i++)
#pragma unroll
            for (uint32_t j = 0; j < S::W_PARTS; j++)
#pragma unroll
                for (uint32_t c = 0; c < 4; c++)
                    acc[i][j][c] += (float)sum.v[i][j][c];
    }
    __syncthreads();             /* `out` may reuse this shared memory */
    tile_give<S>(acc, out);
}

#endif
