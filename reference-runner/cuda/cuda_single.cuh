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
 *   exact sums      it cannot (cuda_few.cuh says why).
 *   certain sums    every addition of either order errs by at most 2^-53 of its result. If the sum
 *                   less and plus both bounds is rounded to the same F32 (or BF16), so is the sum
 *                   in ascending order. If not, as with sums halfway between two F32, it is
 *                   formed in that order, unless all additions of the row are exact.
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
    static constexpr double LARGEST = 480 * 0x1p-1016;       /* at() of 0x7F */

    static __device__ __forceinline__ double at(const uint32_t *words, uint32_t i)
    {
        const int top = (int)(words[i / 4] << (24 - 8 * (i % 4)));

        return __hiloint2double(top >> 7 & (int)0x80FE0000u, 0);
    }
    /* The scales of a row, and the E8M0 code for a column. */
    static __device__ __forceinline__ const uint8_t *scale_row(const cuda_weight &w, uint64_t row)
    {
        return w.scale + (uint32_t)row / w.block_rows * w.scale_row_bytes;
    }
    static __device__ __forceinline__ uint32_t scale_at(const cuda_weight &w, const uint8_t *scales,
                                                        uint32_t k)
    {
        return __ldg(scales + (w.block_cols == FEW_COLUMNS ? k / FEW_COLUMNS : k / w.block_cols));
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

    static __device__ __forceinline__ const uint8_t *scale_row(const cuda_weight &, uint64_t)
    {
        return nullptr;
    }
    static __device__ __forceinline__ uint32_t scale_at(const cuda_weight &, const uint8_t *,
                                                        uint32_t)
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
        to.scales[r] = is_there ? W::scale_at(w, W::scale_row(w, b.row + row + r), k) : 127;
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
template <typename W, uint32_t rows, typename Put>
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
            double2 sum = single_multiply<W, true>(now.of[r], x);

            W::weigh(now.scales[r], &sum);
#pragma unroll
            for (uint32_t step = 1; step < SINGLE_LANES; step *= 2) {
                sum.x += __shfl_xor_sync(0xFFFFFFFFu, sum.x, step);
                sum.y += __shfl_xor_sync(0xFFFFFFFFu, sum.y, step);
            }
            if (lane % SINGLE_LANES == 0)
                put(unit / spans * rows + r,
                    unit % spans * SINGLE_SEGMENTS + lane / SINGLE_LANES, sum);
        }
    }
}

/* 1 if sums of blocks of FEW_COLUMNS columns are exact; on_grid is as in few_form_of. */
static inline int single_takes_exact(const cuda_weight *w, const float *x, int on_grid)
{
    return few_form_of(w, on_grid) == FEW_EXACT && single_aligned(w, x, single_fp8::COLUMNS);
}

static_assert(single_span<single_fp8>() / SINGLE_SEGMENTS == FEW_COLUMNS,
              "a segment is a block of columns with one scale");

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

/* A product with its magnitude, as readers weigh them, times a power of two. */
template <typename W>
static __device__ __forceinline__ double2 single_product(double w, double x, uint32_t scale)
{
    double2 product = make_double2(__dmul_rn(w, x), 0);

    product.y = fabs(product.x);
    W::weigh(scale, &product);
    return product;
}

/* The exponent field of the lowest bit of a product that is set, plus 53: an F64 with this exponent
 * is 2^53 times that bit. */
static __device__ __forceinline__ uint32_t single_limit(double product)
{
    const uint64_t bits = (uint64_t)__double_as_longlong(product);
    const uint64_t mantissa = (bits & 0xFFFFFFFFFFFFF) | 1ull << 52;

    return (uint32_t)(bits >> 52 & 0x7FF) + (uint32_t)__ffsll((long long)mantissa);
}

/*
 * As single_certify, by a warp and from the weight. If all products are multiples of some 2^g and
 * their magnitudes add up to less than 2^(53 + g), every sum of some of them is a multiple of 2^g
 * below 2^(53 + g), hence an F64: all orders of addition return the same, and the error is 0. The
 * sum of magnitudes that is formed here may be rounded, but not from 2^(53 + g) or more to less,
 * since rounding is monotonic and 2^(53 + g) is an F64. Products are normal F64: the lowest bit of
 * two F32 is at least 2^-298, and scales are at least 2^-127.
 *
 * Otherwise the bound of single_certify, for segments of COLUMNS columns: a tighter one.
 */
template <typename W>
static __device__ __forceinline__ single_bound single_refine(const single_block &b, uint32_t row)
{
    const cuda_weight &w = *b.weight;
    const uint8_t *data = w.data + (b.row + row) * w.row_bytes;
    const uint8_t *scales = W::scale_row(w, b.row + row);
    const uint32_t spans = single_spans<W>(w.cols);
    uint32_t limit = 0x7FE;
    double before = 0;
    double spread = 0;
    double size = 0;

#pragma unroll 1
    for (uint32_t span = 0; span < spans; span++) {
        const uint32_t k = span * single_span<W>() + threadIdx.x % 32 * W::COLUMNS;
        const int is_there = k < w.cols;
        const uint4 codes = is_there
                                ? __ldg(reinterpret_cast<const uint4 *>(data + k / W::COLUMNS * 16))
                                : make_uint4(0, 0, 0, 0);
        const uint32_t words[4] = { codes.x, codes.y, codes.z, codes.w };
        const uint32_t scale = is_there ? W::scale_at(w, scales, k) : 127;
        double through = 0;
        double x[W::COLUMNS];

        single_load_x<W>(b, k, x);
#pragma unroll
        for (uint32_t i = 0; i < W::COLUMNS; i++) {
            const double2 product = single_product<W>(W::at(words, i), x[i], scale);

            through += product.x;
            size += product.y;
            limit = product.x == 0 ? limit : min(limit, single_limit(product.x));
        }
        const double mine = through;

        for (uint32_t step = 1; step < 32; step *= 2) {
            const double other = __shfl_up_sync(0xFFFFFFFFu, through, step);

            through += threadIdx.x % 32 >= step ? other : 0;
        }
        spread += fabs(before + (through - mine));
        before += __shfl_sync(0xFFFFFFFFu, through, 31);
    }
    for (uint32_t step = 16; step > 0; step /= 2) {
        spread += __shfl_xor_sync(0xFFFFFFFFu, spread, step);
        size += __shfl_xor_sync(0xFFFFFFFFu, size, step);
    }
    limit = __reduce_min_sync(0xFFFFFFFFu, limit);
    const double error = 0x1.1p-53 * (W::COLUMNS * (spread + size) +
                                      (double)(W::COLUMNS + spans + 8) * size);

    return { before, size < __hiloint2double((int)(limit << 20), 0) ? 0 : error };
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

/* rounded() of the sum of a row, by a warp, for which single_certify's bound does not suffice. */
template <typename W, typename Rounded>
static __device__ __forceinline__ float single_settle(const single_block &b, uint32_t row,
                                                   const Rounded &rounded)
{
    const single_bound s = single_refine<W>(b, row);
    const float low = rounded((s.sum - s.error) * W::BACK);
    const float high = rounded((s.sum + s.error) * W::BACK);

    return cuda_bits(low) == cuda_bits(high) ? low : rounded(single_ascending(b, row));
}

/* The sum of each row, after finish(), which must be monotonic. Calls out(row, finished). All
 * threads of the thread block must call it. */
template <typename W, uint32_t rows, typename Finish, typename Out>
static __device__ __forceinline__ void single_certain(const single_block &b, double2 *segments,
                                                      const Finish &finish, const Out &out)
{
    const uint32_t count = single_segments<W>(b.weight->cols);
    const auto rounded = [&](double sum) { return finish(0.0f + (float)sum); };

    single_sums<W, rows>(b, [&](uint32_t row, uint32_t segment, const double2 &sum) {
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
                                : single_settle<W>(b, row, rounded);

        if (threadIdx.x % 32 == 0)
            out(row, value);
    }
}

#endif
