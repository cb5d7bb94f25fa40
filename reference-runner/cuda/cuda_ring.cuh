/*
 * cuda_ring.cuh: the certain sums of cuda_single.cuh with many FP8 weight rows.
 *
 * A warp computes units of RING_ROWS weight rows and all columns, a span of columns at a time, and
 * no other warp waits for it. It loads spans into a ring in shared memory, of its next unit, too,
 * so loads never stop. A lane uses only what it loaded itself, hence needs no barrier. x is the
 * same for all units of a thread block, and stored as F64.
 */
#ifndef RUN_CUDA_RING_CUH
#define RUN_CUDA_RING_CUH

#include "cuda_copy.cuh"
#include "cuda_single.cuh"

constexpr uint32_t RING_WARPS = 16;
constexpr uint32_t RING_ROWS = 4;
constexpr uint32_t RING_STAGES = 4;          /* spans that are loaded or used */
constexpr uint32_t RING_SPAN_BYTES = 512;    /* of a weight row: 16 for each lane */
constexpr uint32_t RING_STAGE_BYTES = RING_ROWS * RING_SPAN_BYTES;
constexpr uint32_t RING_BYTES = RING_STAGES * RING_STAGE_BYTES;
constexpr uint32_t RING_COLUMNS_MAX = RING_WARPS * RING_STAGE_BYTES / sizeof(float);

/* Shared memory: x, for each lane and span the sum of magnitudes of x, the rings. */
template <typename W> static inline __host__ __device__ uint32_t ring_x_bytes(uint32_t cols)
{
    return single_spans<W>(cols) * single_span<W>() * (uint32_t)sizeof(double);
}

template <typename W> static inline __host__ __device__ uint32_t ring_sizes_bytes(uint32_t cols)
{
    return single_spans<W>(cols) * 32 * (uint32_t)sizeof(double);
}

template <typename W> static inline __host__ __device__ uint64_t ring_memory(uint32_t cols)
{
    return (uint64_t)ring_x_bytes<W>(cols) + ring_sizes_bytes<W>(cols) + RING_WARPS * RING_BYTES;
}

/* Thread blocks that share `rows` weight rows, if at most `most` should. */
static inline uint32_t ring_blocks(uint64_t rows, uint64_t most)
{
    return static_cast<uint32_t>(size_max(size_min(size_div_up(rows, RING_ROWS), most), 1));
}

/* Where a warp is: a unit, and a span in it. */
struct ring_place {
    uint32_t unit;
    uint32_t span;
};

/* The work of a warp: every `step`-th unit of the rows of `block`. */
template <typename W> struct ring_work {
    single_block block;
    uint32_t spans;
    uint32_t units;
    uint32_t step;
    const double2 *x;
    const double *sizes;
    uint8_t *ring;               /* this lane's part */

    __device__ __forceinline__ ring_place after(ring_place p) const
    {
        return p.span + 1 < spans ? ring_place{ p.unit, p.span + 1 }
                                  : ring_place{ p.unit + step, 0 };
    }
    __device__ __forceinline__ uint32_t column(const ring_place &p) const
    {
        return p.span * single_span<W>() + threadIdx.x % 32 * W::COLUMNS;
    }
    __device__ __forceinline__ int has(const ring_place &p, uint32_t row) const
    {
        return p.unit * RING_ROWS + row < block.count && column(p) < block.weight->cols;
    }
    __device__ __forceinline__ uint8_t *slot(uint32_t stage, uint32_t row) const
    {
        return ring + (stage * RING_ROWS + row) * RING_SPAN_BYTES;
    }
    /* Start loading a span: one group of copies, also past the end. */
    __device__ __forceinline__ void fetch(const ring_place &p, uint32_t stage) const
    {
        const cuda_weight &w = *block.weight;
        const uint8_t *from = w.data + (block.row + p.unit * RING_ROWS) * w.row_bytes +
                              column(p) / W::COLUMNS * 16;

#pragma unroll
        for (uint32_t r = 0; r < RING_ROWS; r++)
            if (has(p, r))
                cuda_copy16(slot(stage, r), from + r * w.row_bytes);
            else
                *reinterpret_cast<uint4 *>(slot(stage, r)) = make_uint4(0, 0, 0, 0);
        cuda_copy_commit();
    }
    __device__ __forceinline__ void load_x(uint32_t span, double *to) const
    {
#pragma unroll
        for (uint32_t i = 0; i < W::COLUMNS / 2; i++) {
            const double2 two = x[(span * (W::COLUMNS / 2) + i) * 32 + threadIdx.x % 32];

            to[2 * i] = two.x;
            to[2 * i + 1] = two.y;
        }
    }
};

/* Where x is in F32 before it is converted: the last stages of all rings, which are still free. Its
 * copies begin before those of weights; behind them, it would arrive late. */
static __device__ __forceinline__ float4 *ring_raw(uint8_t *rings, uint32_t column)
{
    constexpr uint32_t EACH = RING_STAGE_BYTES / sizeof(float);

    return reinterpret_cast<float4 *>(rings + column / EACH * RING_BYTES + RING_BYTES -
                                      RING_STAGE_BYTES + column % EACH * sizeof(float));
}

static __device__ __forceinline__ void ring_fetch_x(const single_block &b, uint8_t *rings)
{
    for (uint32_t k = 4 * threadIdx.x; k < b.weight->cols; k += 4 * blockDim.x)
        cuda_copy16(ring_raw(rings, k), b.x + k);
    cuda_copy_commit();
}

/* Convert x, by the whole thread block. Lanes read adjacent elements of the result. */
template <typename W>
static __device__ __forceinline__ void ring_fill(uint32_t cols, uint8_t *rings, double2 *x)
{
    constexpr uint32_t FOURS = W::COLUMNS / 4;

    for (uint32_t i = threadIdx.x; i < single_spans<W>(cols) * FOURS * 32; i += blockDim.x) {
        const uint32_t lane = i % 32;
        const uint32_t four = i / 32 % FOURS;
        const uint32_t span = i / 32 / FOURS;
        const uint32_t k = span * single_span<W>() + lane * W::COLUMNS + 4 * four;
        const float4 v = k < cols ? *ring_raw(rings, k) : make_float4(0, 0, 0, 0);
        double2 *to = x + (span * (W::COLUMNS / 2) + 2 * four) * 32 + lane;

        to[0] = make_double2((double)v.x * SINGLE_X, (double)v.y * SINGLE_X);
        to[32] = make_double2((double)v.z * SINGLE_X, (double)v.w * SINGLE_X);
    }
    __syncthreads();
}

/* The sum of magnitudes that each lane has in each span. */
template <typename W>
static __device__ __forceinline__ void ring_measure(uint32_t spans, const double2 *x, double *sizes)
{
    for (uint32_t i = threadIdx.x; i < spans * 32; i += blockDim.x) {
        double size = 0;

#pragma unroll
        for (uint32_t j = 0; j < W::COLUMNS / 2; j++) {
            const double2 two = x[(i / 32 * (W::COLUMNS / 2) + j) * 32 + i % 32];

            size += fabs(two.x) + fabs(two.y);
        }
        sizes[i] = size;
    }
    __syncthreads();
}

/* The scales of some rows of the unit at this lane's columns, loaded a span ahead. */
template <typename W, uint32_t count> struct ring_scales {
    const uint8_t *rows[count];
    uint32_t ahead[count];

    __device__ __forceinline__ void load(const ring_work<W> &work, const ring_place &p,
                                         uint32_t first)
    {
#pragma unroll
        for (uint32_t r = 0; r < count; r++) {
            const uint32_t row = p.unit * RING_ROWS + first + r;

            if (p.span == 0 && row < work.block.count)
                rows[r] = W::scale_row(*work.block.weight, work.block.row + row);
            ahead[r] = work.has(p, first + r) ? W::scale_at(*work.block.weight, rows[r],
                                                            work.column(p))
                                              : 127;
        }
    }
};

/*
 * Add values[0 .. RING_ROWS) over groups of `lanes` lanes. Each step exchanges halves: a lane keeps
 * half of the values. This lane gets the sum of value number ring_owned(lanes).
 */
template <uint32_t lanes> static __device__ __forceinline__ uint32_t ring_owned()
{
    return threadIdx.x % lanes / (lanes / RING_ROWS);
}

template <uint32_t lanes> static __device__ __forceinline__ double ring_reduce(const double *values)
{
    double v[RING_ROWS];
    uint32_t step = lanes / 2;

#pragma unroll
    for (uint32_t i = 0; i < RING_ROWS; i++)
        v[i] = values[i];
#pragma unroll
    for (uint32_t half = RING_ROWS / 2; half > 0; half /= 2) {
        const int is_upper = (threadIdx.x & step) != 0;

#pragma unroll
        for (uint32_t i = 0; i < half; i++) {
            const double other = __shfl_xor_sync(0xFFFFFFFFu, is_upper ? v[i] : v[i + half], step);

            v[i] = (is_upper ? v[i + half] : v[i]) + other;
        }
        step /= 2;
    }
#pragma unroll
    for (uint32_t rest = lanes / RING_ROWS / 2; rest > 0; rest /= 2)
        v[0] += __shfl_xor_sync(0xFFFFFFFFu, v[0], rest);
    return v[0];
}

/* Call of(place, codes of RING_ROWS rows, x) for all spans of all units of this warp, in order. */
template <typename W, typename Of>
static __device__ __forceinline__ void ring_walk(const single_block &b, uint8_t *memory, Of &of)
{
    const uint32_t cols = b.weight->cols;
    const uint32_t warp = threadIdx.x / 32;
    double2 *x = reinterpret_cast<double2 *>(memory);
    double *sizes = reinterpret_cast<double *>(memory + ring_x_bytes<W>(cols));
    uint8_t *rings = memory + ring_x_bytes<W>(cols) + ring_sizes_bytes<W>(cols);
    const ring_work<W> work = {
        b, single_spans<W>(cols), (b.count + RING_ROWS - 1) / RING_ROWS, gridDim.x * RING_WARPS, x,
        sizes, rings + warp * RING_BYTES + threadIdx.x % 32 * 16
    };
    ring_place at = { warp * gridDim.x + blockIdx.x, 0 };
    ring_place ahead = at;
    uint32_t stage = 0;

    ring_fetch_x(b, rings);
#pragma unroll
    for (uint32_t i = 0; i + 1 < RING_STAGES; i++) {
        work.fetch(ahead, i);
        ahead = work.after(ahead);
    }
    cuda_copy_wait<RING_STAGES - 1>();
    __syncthreads();
    ring_fill<W>(cols, rings, x);
    ring_measure<W>(work.spans, x, sizes);
    of.begin(work, at);
    while (at.unit < work.units) {
        const ring_place next = work.after(at);
        uint4 codes[RING_ROWS];
        double values[W::COLUMNS];

        work.fetch(ahead, (stage + RING_STAGES - 1) % RING_STAGES);
        ahead = work.after(ahead);
        cuda_copy_wait<RING_STAGES - 1>();
#pragma unroll
        for (uint32_t r = 0; r < RING_ROWS; r++)
            codes[r] = *reinterpret_cast<const uint4 *>(work.slot(stage, r));
        work.load_x(at.span, values);
        of.add(work, at, next, codes, values);
        stage = (stage + 1) % RING_STAGES;
        at = next;
    }
}

/* ---- sums without blocks ---- */

/*
 * A lane adds its columns of all spans. With n columns in a span, P_j the sum before span j and A_j
 * the magnitudes in it, additions in ascending order err by n (|P_j| + A_j) 2^-53 together
 * (single_certify). |P_j| is at most the sum of the magnitudes of all lanes' sums before span j,
 * which is `spread` in the end. No magnitude of a weight exceeds LARGEST. The additions here err by
 * 2^-53 of all magnitudes for each of those that an element passes through: COLUMNS in a span, one
 * for each span, five between the lanes.
 */
template <typename W, typename Finish, typename Out> struct ring_certain {
    const Finish &finish;
    const Out &out;
    ring_scales<W, RING_ROWS> scales;
    double sum[RING_ROWS];
    double size[RING_ROWS];
    double spread[RING_ROWS];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (uint32_t r = 0; r < RING_ROWS; r++)
            sum[r] = size[r] = spread[r] = 0;
    }
    __device__ __forceinline__ void begin(const ring_work<W> &work, const ring_place &at)
    {
        clear();
        scales.load(work, at, 0);
    }
    __device__ __forceinline__ void add(const ring_work<W> &work, const ring_place &at,
                                        const ring_place &next, const uint4 *codes, const double *x)
    {
        const ring_scales<W, RING_ROWS> now = scales;
        const double largest = work.sizes[at.span * 32 + threadIdx.x % 32] * W::LARGEST;

        scales.load(work, next, 0);
#pragma unroll
        for (uint32_t r = 0; r < RING_ROWS; r++) {
            double2 part = make_double2(single_multiply<W, false>(codes[r], x).x, largest);

            W::weigh(now.ahead[r], &part);
            spread[r] += fabs(sum[r]);
            sum[r] += part.x;
            size[r] += part.y;
        }
        if (at.unit == next.unit)
            return;
        put(work, at);
        clear();
    }
    __device__ __forceinline__ void put(const ring_work<W> &work, const ring_place &at)
    {
        const double s = ring_reduce<32>(sum);
        const double a = ring_reduce<32>(size);
        const double through = (double)(W::COLUMNS + work.spans + 8);
        const double error = 0x1.1p-53 * (single_span<W>() * (ring_reduce<32>(spread) + a) +
                                          through * a);
        const auto rounded = [&](double v) { return finish(0.0f + (float)v); };
        const float low = rounded((s - error) * W::BACK);
        const float high = rounded((s + error) * W::BACK);
        const int is_certain = cuda_bits(low) == cuda_bits(high);

        for (uint32_t r = 0; r < RING_ROWS; r++) {
            const uint32_t lane = r * (32 / RING_ROWS);
            const uint32_t row = at.unit * RING_ROWS + r;

            if (row >= work.block.count)
                break;
            const float value = __shfl_sync(0xFFFFFFFFu, is_certain, lane)
                                    ? __shfl_sync(0xFFFFFFFFu, low, lane)
                                    : single_settle<W>(work.block, row, rounded);

            if (threadIdx.x % 32 == 0)
                out(row, value);
        }
    }
};

/* The sum of each row, after finish(), which must be monotonic. Calls out(row, finished). */
template <typename W, typename Finish, typename Out>
static __device__ __forceinline__ void ring_sum_certain(const single_block &b, uint8_t *memory,
                                                        const Finish &finish, const Out &out)
{
    ring_certain<W, Finish, Out> sums = { finish, out, {}, {}, {}, {} };

    ring_walk<W>(b, memory, sums);
}

#endif
