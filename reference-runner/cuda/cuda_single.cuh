/*
 * cuda_single.cuh: products of a single row of x, as when tokens are generated one by one, without
 * the matrix unit, which would compute 15 rows of zeros beside it. The time is that of reading the
 * weights: a lane loads 16 bytes of a weight row, and the values of x that it needs, converted to
 * F64 once, serve several weight rows.
 *
 * A weight is converted to F64 by moving its bits: sign, exponent and mantissa of a narrower
 * format, put into those of F64, are its value times a power of two, also for subnormals. x is
 * multiplied by a power of two that makes up for most of it, the result for the rest. Neither
 * changes a product's bits.
 *
 * plain_dot adds in ascending order; here lanes add shares of a row. Where that may change bits:
 *   single_exact    it cannot: the sums are exact (cuda_few.cuh says why).
 *   single_certain  every addition of either order errs by at most 2^-53 of its result. If the sum
 *                   less and plus both bounds is rounded to the same F32 (or BF16), so is the sum
 *                   in ascending order. If not, which is rare, it is formed in that order.
 */
#ifndef RUN_CUDA_SINGLE_CUH
#define RUN_CUDA_SINGLE_CUH

#include "cuda_few.cuh"

constexpr uint32_t SINGLE_WARPS = 8;
constexpr uint32_t SINGLE_WARPS_MAX = 16;
constexpr uint32_t SINGLE_LANES = 8;         /* lanes that add up a segment of columns */
constexpr uint32_t SINGLE_SEGMENTS = 32 / SINGLE_LANES;
constexpr uint32_t SINGLE_MEMORY_MAX = 48 << 10;
constexpr double SINGLE_X = 0x1p890;         /* no F32 overflows by it */

/* Readers of 16 bytes of a weight row. at() is the value of code i, times a power of two. */
struct single_fp8 {
    static constexpr uint32_t COLUMNS = 16;
    static constexpr double BACK = 0x1p126;  /* makes up for both powers of two */

    static __device__ __forceinline__ double at(const uint32_t *words, uint32_t i)
    {
        const int top = (int)(words[i / 4] << (24 - 8 * (i % 4)));

        return __hiloint2double(top >> 7 & (int)0x80FE0000u, 0);
    }
    /* The code of an E8M0 scale. */
    static __device__ __forceinline__ uint32_t scale(const cuda_weight &w, uint64_t row, uint32_t k)
    {
        return w.scale[row / w.block_rows * w.scale_row_bytes + k / w.block_cols];
    }
    /* With a scale outside of this range, the F32 product of code and scale may be rounded. */
    static __device__ __forceinline__ void weigh(uint32_t scale, double2 *sum)
    {
        const double factor = __hiloint2double((int)(scale + 896) << 20, 0);

        sum->x *= factor;
        sum->y = scale >= 10 && scale <= 245 ? sum->y * factor : INFINITY;
    }
};

/* Readers of weights without scales. */
struct single_unscaled {
    static constexpr double BACK = 0x1p6;

    static __device__ __forceinline__ uint32_t scale(const cuda_weight &, uint64_t, uint32_t)
    {
        return 0;
    }
    static __device__ __forceinline__ void weigh(uint32_t, double2 *)
    {
    }
};

struct single_bf16 : single_unscaled {
    static constexpr uint32_t COLUMNS = 8;

    static __device__ __forceinline__ double at(const uint32_t *words, uint32_t i)
    {
        const int top = (int)(words[i / 2] << (16 - 16 * (i % 2)));

        return __hiloint2double(top >> 3 & (int)0x8FFFE000u, 0);
    }
};

struct single_float : single_unscaled {
    static constexpr uint32_t COLUMNS = 4;

    static __device__ __forceinline__ double at(const uint32_t *words, uint32_t i)
    {
        return __hiloint2double((int)words[i] >> 3 & (int)0x8FFFFFFFu, (int)(words[i] << 29));
    }
};

/* 1 if rows of x and of the weight can be loaded by 16 bytes, `columns` of the weight at a time. */
static inline int single_aligned(const cuda_weight *w, const float *x, uint32_t columns)
{
    return w->cols % columns == 0 && w->row_bytes % 16 == 0 &&
           reinterpret_cast<uintptr_t>(w->data) % 16 == 0 &&
           reinterpret_cast<uintptr_t>(x) % 16 == 0;
}

/* Columns that a warp loads at once. */
template <typename W> static constexpr __host__ __device__ uint32_t single_span()
{
    return 32 * W::COLUMNS;
}

template <typename W> static inline __host__ __device__ uint32_t single_spans(uint32_t cols)
{
    return (cols + single_span<W>() - 1) / single_span<W>();
}

/* Segments of a row of the weight, empty ones at its end included. */
template <typename W> static inline __host__ __device__ uint32_t single_segments(uint32_t cols)
{
    return single_spans<W>(cols) * SINGLE_SEGMENTS;
}

/* Weight rows of a thread block: `rows` for each group of warps that divide a row. */
template <typename W> static inline __host__ __device__ uint32_t single_rows(uint32_t cols,
                                                                             uint32_t rows)
{
    const uint32_t spans = single_spans<W>(cols);

    return rows * (spans < SINGLE_WARPS ? SINGLE_WARPS / spans : 1);
}

/* What a thread block computes: `count` rows of the weight from `row` on. */
struct single_block {
    const float *x;
    const cuda_weight *weight;
    uint64_t row;
    uint32_t count;
};

/* What a lane loads at once: 16 bytes of codes of each of some weight rows, and their scales. */
template <uint32_t rows> struct single_codes {
    uint4 of[rows];
    uint32_t scales[rows];
};

/* Load this lane's codes of `rows` weight rows; zeros for those past the end. */
template <typename W, uint32_t rows>
static __device__ __forceinline__ void single_load(const single_block &b, uint32_t row, uint32_t k,
                                                   single_codes<rows> &to)
{
    const cuda_weight &w = *b.weight;
    const uint8_t *at = w.data + (b.row + row) * w.row_bytes + (uint64_t)k / W::COLUMNS * 16;

#pragma unroll
    for (uint32_t r = 0; r < rows; r++) {
        const int is_there = k < w.cols && row + r < b.count;

        to.of[r] = is_there ? __ldg(reinterpret_cast<const uint4 *>(at + r * w.row_bytes))
                            : make_uint4(0, 0, 0, 0);
        to.scales[r] = is_there ? W::scale(w, b.row + row + r, k) : 127;
    }
}

template <typename W>
static __device__ __forceinline__ void single_load_x(const single_block &b, uint32_t k, double *x)
{
#pragma unroll
    for (uint32_t i = 0; i < W::COLUMNS; i += 4) {
        const float4 four = k < b.weight->cols
                                ? *reinterpret_cast<const float4 *>(b.x + k + i)
                                : make_float4(0, 0, 0, 0);

        x[i] = (double)four.x * SINGLE_X;
        x[i + 1] = (double)four.y * SINGLE_X;
        x[i + 2] = (double)four.z * SINGLE_X;
        x[i + 3] = (double)four.w * SINGLE_X;
    }
}

/* The sum of a lane's products with one weight row, and of their magnitudes. */
template <typename W, bool bounded>
static __device__ __forceinline__ double2 single_multiply(const uint4 &codes, const double *x)
{
    const uint32_t words[4] = { codes.x, codes.y, codes.z, codes.w };
    double2 sum = make_double2(0, 0);

#pragma unroll
    for (uint32_t i = 0; i < W::COLUMNS; i++) {
        const double w = W::at(words, i);

        sum.x = __fma_rn(w, x[i], sum.x);
        if (bounded)
            sum.y = __fma_rn(fabs(w), fabs(x[i]), sum.y);
    }
    return sum;
}

/* Call put(row, segment, sums) for the segments of all rows of the thread block, once for each. */
template <typename W, uint32_t rows, bool bounded, typename Put>
static __device__ __forceinline__ void single_sums(const single_block &b, const Put &put)
{
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t warps = blockDim.x / 32;
    const uint32_t spans = single_spans<W>(b.weight->cols);
    const uint32_t end = single_rows<W>(b.weight->cols, rows) / rows * spans;
    const uint32_t mine = lane * W::COLUMNS;
    uint32_t unit = threadIdx.x / 32;
    single_codes<rows> ahead = {};

    if (unit < end)
        single_load<W>(b, unit / spans * rows, unit % spans * single_span<W>() + mine, ahead);
    for (; unit < end; unit += warps) {
        const single_codes<rows> now = ahead;
        const uint32_t next = unit + warps;
        double x[W::COLUMNS];

        if (next < end)
            single_load<W>(b, next / spans * rows, next % spans * single_span<W>() + mine, ahead);
        single_load_x<W>(b, unit % spans * single_span<W>() + mine, x);
#pragma unroll
        for (uint32_t r = 0; r < rows; r++) {
            double2 sum = single_multiply<W, bounded>(now.of[r], x);

            W::weigh(now.scales[r], &sum);
#pragma unroll
            for (uint32_t step = 1; step < SINGLE_LANES; step *= 2) {
                sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, step);
                if (bounded)
                    sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, step);
            }
            if (lane % SINGLE_LANES == 0)
                put(unit / spans * rows + r,
                    unit % spans * SINGLE_SEGMENTS + lane / SINGLE_LANES, sum);
        }
    }
}

/* ---- exact sums ---- */

constexpr uint32_t SINGLE_EXACT_ROWS = 4;

static_assert(single_span<single_fp8>() / SINGLE_SEGMENTS == FEW_COLUMNS,
              "a segment is a block of columns with one scale");

/* 1 if single_exact supports this weight and row; on_grid is as in few_form_of. */
static inline int single_takes_exact(const cuda_weight *w, const float *x, int on_grid)
{
    return few_form_of(w, on_grid) == FEW_EXACT && single_aligned(w, x, single_fp8::COLUMNS);
}

/* Weight rows of a thread block, and the bytes of shared memory that it needs. */
static inline __host__ __device__ uint32_t single_exact_rows(uint32_t cols)
{
    return single_rows<single_fp8>(cols, SINGLE_EXACT_ROWS);
}

static inline uint64_t single_exact_memory(uint32_t cols)
{
    return (uint64_t)single_segments<single_fp8>(cols) * single_exact_rows(cols) * sizeof(float);
}

/* Sums of blocks of FEW_COLUMNS columns, each rounded to F32, added in ascending order. Calls
 * out(row, sum) for each row. All threads of the thread block must call it. */
template <typename Out>
static __device__ __forceinline__ void single_exact(const single_block &b, float *sums,
                                                    const Out &out)
{
    const uint32_t rows = single_exact_rows(b.weight->cols);

    single_sums<single_fp8, SINGLE_EXACT_ROWS, false>(
        b, [&](uint32_t row, uint32_t segment, const double2 &sum) {
            if (row < b.count && segment * FEW_COLUMNS < b.weight->cols)
                sums[segment * rows + row] = (float)(sum.x * single_fp8::BACK);
        });
    __syncthreads();
    if (threadIdx.x >= b.count)
        return;
    float value = 0;

#pragma unroll 8
    for (uint32_t i = 0; i < b.weight->cols / FEW_COLUMNS; i++)
        value += sums[i * rows + threadIdx.x];
    out(threadIdx.x, value);
}

/* ---- sums without blocks ---- */

template <typename W> static inline uint64_t single_certain_memory(uint32_t cols, uint32_t rows)
{
    return (uint64_t)single_segments<W>(cols) * single_rows<W>(cols, rows) * sizeof(double2);
}

/* A sum, and a bound for the distance of the sum in ascending order from it. */
struct single_bound {
    double sum;
    double error;
};

/*
 * From the segments of one row; a whole warp calls it and gets the same result in all lanes. With
 * n columns in a segment, P_j the sum before segment j and A_j the magnitudes in it, all sums in
 * ascending order within segment j are below |P_j| + A_j, so they err by at most
 * n (|P_j| + A_j) 2^-53 together. The sum of the segment in another order errs by n A_j 2^-53, and
 * the sums of segments by one 2^-53 of all magnitudes for each of the additions, one after the
 * other, that an element passes through. 0x1.1p-53 instead of 2^-53 covers that these bounds are
 * rounded and formed of rounded sums.
 */
static __device__ __forceinline__ single_bound single_certify(const double2 *segments,
                                                              uint32_t count, uint32_t columns)
{
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t each = (count + 31) / 32;
    const uint32_t begin = min(lane * each, count);
    const uint32_t end = min(begin + each, count);
    double total = 0;
    double size = 0;
    double spread = 0;

    for (uint32_t j = begin; j < end; j++) {
        total += segments[j].x;
        size += segments[j].y;
    }
    double through = total;

    for (uint32_t step = 1; step < 32; step *= 2) {
        const double other = __shfl_up_sync(0xFFFFFFFFu, through, step);

        through += lane >= step ? other : 0;
    }
    double before = __shfl_up_sync(0xFFFFFFFFu, through, 1);

    before = lane == 0 ? 0 : before;
    for (uint32_t j = begin; j < end; j++) {
        spread += fabs(before) + 2 * segments[j].y;
        before += segments[j].x;
    }
    for (uint32_t step = 16; step > 0; step /= 2) {
        spread += __shfl_xor_sync(0xFFFFFFFFu, spread, step);
        size += __shfl_xor_sync(0xFFFFFFFFu, size, step);
    }
    return { __shfl_sync(0xFFFFFFFFu, through, 31),
             0x1.1p-53 * (columns * spread + (each + 8) * size) };
}

/* plain_dot by a warp. */
static __device__ double single_ascending(const single_block &b, uint32_t row)
{
    double sum = 0;

    for (uint32_t first = 0; first < b.weight->cols; first += 32) {
        const uint32_t k = first + threadIdx.x % 32;
        const double product = k < b.weight->cols
                                   ? (double)b.x[k] *
                                         (double)weight_value(*b.weight, b.row + row, k)
                                   : 0;

        for (uint32_t i = 0; i < 32; i++)
            sum += __shfl_sync(0xFFFFFFFFu, product, i);
    }
    return sum;
}

/* The sum of each row, after finish(), which must be monotonic. Calls out(row, finished). All
 * threads of the thread block must call it. */
template <typename W, uint32_t rows, typename Finish, typename Out>
static __device__ __forceinline__ void single_certain(const single_block &b, double2 *segments,
                                                      const Finish &finish, const Out &out)
{
    const uint32_t count = single_segments<W>(b.weight->cols);
    const auto rounded = [&](double sum) { return finish(0.0f + (float)sum); };

    single_sums<W, rows, true>(b, [&](uint32_t row, uint32_t segment, const double2 &sum) {
        segments[row * count + segment] = sum;
    });
    __syncthreads();
    for (uint32_t row = threadIdx.x / 32; row < b.count; row += blockDim.x / 32) {
        const single_bound s =
            single_certify(segments + row * count, count, single_span<W>() / SINGLE_SEGMENTS);
        const float low = rounded((s.sum - s.error) * W::BACK);
        const float high = rounded((s.sum + s.error) * W::BACK);
        const float value = cuda_bits(low) == cuda_bits(high)
                                ? low
                                : rounded(single_ascending(b, row));

        if (threadIdx.x % 32 == 0)
            out(row, value);
    }
}

#endif
