/* cuda_attend.cu: compressor, indexer and attention on the device. */
#include "cuda_attend_few.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t WARP = 32;
constexpr uint32_t ALL = 0xFFFFFFFFu;
constexpr uint32_t TILE = 64;            /* heads, candidates or columns per thread block */

typedef tile_large tile;

static_assert(tile::X == TILE && tile::W == TILE, "tiles are square");

/* ---- compressor ---- */

/* One thread per column of an entry. */
__global__ void pool_kernel(cuda_ring k, cuda_ring s, cuda_rows y, run_pool op)
{
    const uint64_t unit = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    const uint64_t i = unit / op.width;
    const uint64_t j = unit % op.width;
    const uint64_t entry = op.entry + i;
    const uint64_t own = entry * op.ratio;
    const uint64_t begin = op.overlap && entry > 0 ? own - op.ratio : own;
    float max = 0;
    double weight_sum = 0;
    double sum = 0;

    if (i >= op.entry_count)
        return;
    for (uint64_t p = begin; p < own + op.ratio; p++) {
        const float score = s.row(p)[j + (op.overlap && p >= own ? op.width : 0)];

        max = p == begin || score > max ? score : max;
    }
    for (uint64_t p = begin; p < own + op.ratio; p++) {
        const uint64_t column = j + (op.overlap && p >= own ? op.width : 0);
        const float e = run_expf(s.row(p)[column] - max);

        weight_sum += (double)e;
        sum += (double)e * (double)k.row(p)[column];
    }
    y.row(i)[j] = run_round((float)(sum / weight_sum), op.round);
}

/* ---- indexer ---- */

struct select_job {
    cuda_rows q;
    cuda_rows weights;
    cuda_rows keys;
    cuda_rows chosen;
    float *gap;
    float *scores;           /* one row of `pitch` floats per row of the slab */
    uint64_t pitch;
    uint64_t first;          /* row of the slab */
    uint64_t position;
    uint32_t ratio;
    uint32_t head_count;
    uint32_t width;
    uint32_t topk;
    int round;
};

/* Scores of TILE candidates of one row, TILE heads at a time. */
__global__ void __launch_bounds__(TILE_THREADS, 3)
    score_kernel(const __grid_constant__ select_job s)
{
    __shared__ tile_memory<tile> memory;
    float(*dots)[TILE + 1] = reinterpret_cast<float(*)[TILE + 1]>(&memory);
    const uint64_t t = s.first + blockIdx.y;
    const uint64_t count = (s.position + t + 1) / s.ratio;
    const uint64_t c = (uint64_t)blockIdx.x * TILE;
    double sum = 0;

    static_assert(sizeof memory >= sizeof(float) * TILE * (TILE + 1), "dots take its place");
    if (c >= count)
        return;
    for (uint32_t h = 0; h < s.head_count; h += TILE) {
        const auto q_at = [&](uint32_t i) {
            return float_loader{ h + i < s.head_count ? s.q.row(t) + (uint64_t)(h + i) * s.width
                                                      : nullptr };
        };
        const auto key_at = [&](uint32_t i) {
            return float_loader{ c + i < count ? s.keys.row(c + i) : nullptr };
        };
        const auto out = [&](uint32_t row, uint32_t column, float dot) {
            dots[row][column] = run_round(dot, s.round);
        };

        tile_product<tile>(q_at, key_at, s.width, 0, memory, out);
        __syncthreads();
        for (uint32_t i = 0; threadIdx.x < TILE && i < TILE && h + i < s.head_count; i++) {
            const float open = dots[i][threadIdx.x] > 0 ? dots[i][threadIdx.x] : 0;
            const float weight = s.weights.row(t)[h + i];

            sum += s.round ? (double)run_bf16(open * weight) : (double)open * (double)weight;
        }
    }
    if (threadIdx.x < TILE && c + threadIdx.x < count)
        s.scores[blockIdx.y * s.pitch + c + threadIdx.x] = run_round((float)sum, s.round);
}

/* A key that is larger for a better candidate: higher score, then lower index. -0 equals 0. */
__device__ uint64_t rank_key(float score, uint64_t index)
{
    uint32_t bits = cuda_bits(score + 0.0f);

    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (0xFFFFFFFFu - (uint32_t)index);
}

constexpr uint32_t DIGITS = 256;

/* Of `wanted` keys, counted by a digit, the last one in descending order: its digit, and the place
 * that it has among those of the same digit. One warp calls it. */
struct digit_choice {
    uint32_t digit;
    uint32_t place;
};

__device__ void choose_digit(const uint32_t *counts, uint32_t wanted, digit_choice *out)
{
    constexpr uint32_t EACH = DIGITS / WARP;
    const uint32_t high = DIGITS - 1 - threadIdx.x * EACH;       /* this lane's highest digit */
    uint32_t mine = 0;

    for (uint32_t i = 0; i < EACH; i++)
        mine += counts[high - i];
    uint32_t through = mine;

    for (uint32_t step = 1; step < WARP; step *= 2) {
        const uint32_t other = __shfl_up_sync(ALL, through, step);

        through += threadIdx.x >= step ? other : 0;
    }
    uint32_t before = through - mine;

    if (before >= wanted || through < wanted)
        return;
    for (uint32_t i = 0; i < EACH; i++) {
        if (before + counts[high - i] >= wanted) {
            *out = { high - i, wanted - before };
            return;
        }
        before += counts[high - i];
    }
}

/* The topk-th largest key, found digit by digit. All keys are different; topk <= count. */
__device__ uint64_t cut_key(const float *scores, uint64_t count, uint32_t topk)
{
    __shared__ uint32_t counts[DIGITS];
    __shared__ digit_choice choice;
    uint64_t cut = 0;
    uint32_t wanted = topk;

    static_assert(DIGITS == THREADS, "a thread clears one count");
    for (int shift = 56; shift >= 0; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (uint64_t c = threadIdx.x; c < count; c += THREADS) {
            const uint64_t key = rank_key(scores[c], c);

            if (shift == 56 || (key ^ cut) >> (shift + 8) == 0)
                atomicAdd(&counts[key >> shift & (DIGITS - 1)], 1u);
        }
        __syncthreads();
        if (threadIdx.x < WARP)
            choose_digit(counts, wanted, &choice);
        __syncthreads();
        cut |= (uint64_t)choice.digit << shift;
        wanted = choice.place;
    }
    return cut;
}

/* The best score whose key is below the cut. */
__device__ float next_score(const float *scores, uint64_t count, uint64_t cut, uint64_t *best)
{
    if (threadIdx.x == 0)
        *best = 0;
    __syncthreads();
    for (uint64_t c = threadIdx.x; c < count; c += THREADS) {
        const uint64_t key = rank_key(scores[c], c);

        if (key < cut)
            atomicMax(reinterpret_cast<unsigned long long *>(best),
                      static_cast<unsigned long long>(key));
    }
    __syncthreads();
    return scores[0xFFFFFFFFu - (uint32_t)*best];
}

/* Write the candidates with keys at or above the cut in ascending order; returns their number. */
__device__ uint32_t write_chosen(const float *scores, uint64_t count, uint64_t cut, int32_t *chosen,
                                 uint32_t *shared)
{
    uint32_t used = 0;

    for (uint64_t base = 0; base < count; base += THREADS) {
        const uint64_t c = base + threadIdx.x;
        const int taken = c < count && rank_key(scores[c], c) >= cut;
        const uint32_t ballot = __ballot_sync(ALL, taken);
        uint32_t place = used + __popc(ballot & ((1u << threadIdx.x % WARP) - 1));

        __syncthreads();
        if (threadIdx.x % WARP == 0)
            shared[threadIdx.x / WARP] = __popc(ballot);
        __syncthreads();
        for (uint32_t i = 0; i < THREADS / WARP; i++) {
            place += i < threadIdx.x / WARP ? shared[i] : 0;
            used += shared[i];
        }
        if (taken)
            chosen[place] = (int32_t)c;
    }
    return used;
}

/* One thread block per row. */
__global__ void __launch_bounds__(THREADS) choose_kernel(const __grid_constant__ select_job s)
{
    __shared__ uint32_t shared[THREADS / WARP];
    __shared__ uint64_t best;
    const uint64_t t = s.first + blockIdx.x;
    const uint64_t count = (s.position + t + 1) / s.ratio;
    const float *scores = s.scores + blockIdx.x * s.pitch;
    int32_t *chosen = s.chosen.ints(t);
    const int is_all = count <= s.topk;
    const uint64_t cut = is_all ? 0 : cut_key(scores, count, s.topk);
    const uint32_t used = write_chosen(scores, count, cut, chosen, shared);
    float gap = INFINITY;

    for (uint32_t i = used + threadIdx.x; i < s.topk; i += THREADS)
        chosen[i] = -1;
    if (!is_all) {
        const float last = scores[0xFFFFFFFFu - (uint32_t)cut];
        const float next = next_score(scores, count, cut, &best);

        gap = last == next ? 0 : (last - next) / fmaxf(fabsf(last), fabsf(next));
    }
    if (threadIdx.x == 0)
        s.gap[t] = gap;
}

/* ---- attention ---- */

__global__ void __launch_bounds__(TILE_THREADS, 3)
    attend_score_kernel(const __grid_constant__ attend_job j)
{
    __shared__ tile_memory<tile> memory;
    const uint64_t t = j.first + blockIdx.z;
    const attend_list list = list_of(j, t);
    const uint32_t first = blockIdx.x * TILE;
    const uint32_t head = blockIdx.y * TILE;
    float *scores = j.scores + (blockIdx.z * (uint64_t)j.op.head_count + head) * j.pitch;
    const auto q_at = [&](uint32_t i) {
        return float_loader{ head + i < j.op.head_count
                                 ? j.q.row(t) + (uint64_t)(head + i) * j.op.head_dim
                                 : nullptr };
    };
    const auto v_at = [&](uint32_t i) { return float_loader{ list_row(j, list, first + i) }; };
    const auto out = [&](uint32_t row, uint32_t column, float dot) {
        if (head + row < j.op.head_count && first + column < list.count)
            scores[row * j.pitch + first + column] = dot * j.op.scale;
    };

    if (first < list.count)
        tile_product<tile>(q_at, v_at, j.op.head_dim, 0, memory, out);
}

/* plain_softmax; one warp per head. Replaces the scores by P. */
__global__ void softmax_kernel(const __grid_constant__ attend_job j, uint64_t units)
{
    constexpr float SINK_LEAD_MAX = 80;
    const uint64_t unit = ((uint64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const uint64_t t = j.first + unit / j.op.head_count;
    const float sink = j.sink[unit % j.op.head_count];
    float *scores = j.scores + unit * j.pitch;
    float max = -INFINITY;
    double sum = 0;

    if (unit >= units)
        return;
    const uint64_t count = list_of(j, t).count;

    for (uint64_t i = threadIdx.x % WARP; i < count; i += WARP)
        max = scores[i] > max ? scores[i] : max;
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        max = fmaxf(max, __shfl_xor_sync(ALL, max, step));
    if (sink - max > SINK_LEAD_MAX)
        max = sink;
    for (uint64_t base = 0; base < count; base += WARP) {
        const uint64_t i = base + threadIdx.x % WARP;
        const float e = i < count ? run_expf(scores[i] - max) : 0;
        const double wide = (double)e;

        if (i < count)
            scores[i] = run_round(e, j.op.round);
        for (uint32_t lane = 0; lane < WARP; lane++)     /* ascending; zeros past the end add 0 */
            sum += __shfl_sync(ALL, wide, lane);
    }
    if (threadIdx.x % WARP == 0)
        j.denominators[unit] = (float)(sum + (double)run_expf(sink - max));
}

/* For TILE_STEP vectors of the list: P of TILE heads, and TILE columns of the vectors. */
struct mix_memory {
    double p[2][TILE][TILE_PITCH];
    double v[2][TILE_STEP][TILE + 4];        /* + 4 avoids bank conflicts */
};

/* What one thread loads for a step: P of four vectors for two heads; four columns of two vectors.
 */
struct mix_ahead {
    float p[2][4];
    float v[2][4];
};

struct mix_place {
    const float *scores;     /* of the first head of the tile */
    uint32_t head_count;     /* heads in the tile */
    uint32_t column;
};

__device__ __forceinline__ void mix_load(const attend_job &j, const attend_list &list,
                                         const mix_place &at, uint32_t base, mix_ahead &to)
{
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t head = tile_loads<TILE>::row(i);
        const uint32_t unit = i * TILE_THREADS + threadIdx.x;
        const uint32_t column = at.column + unit % (TILE / 4) * 4;
        const float_loader p = { head < at.head_count ? at.scores + head * j.pitch : nullptr };
        const float_loader v = { list_row(j, list, base + unit / (TILE / 4)) };

        p.load(base + tile_load_column(), list.count, to.p[i]);
        v.load(column, j.op.head_dim, to.v[i]);
    }
}

__device__ __forceinline__ void mix_put(mix_memory &m, uint32_t half, const mix_ahead &from)
{
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t unit = i * TILE_THREADS + threadIdx.x;
        double2 *v = reinterpret_cast<double2 *>(
            &m.v[half][unit / (TILE / 4)][unit % (TILE / 4) * 4]);

        tile_store(m.p[half], tile_loads<TILE>::row(i), from.p[i]);
        v[0] = make_double2(from.v[i][0], from.v[i][1]);
        v[1] = make_double2(from.v[i][2], from.v[i][3]);
    }
}

/* The sums are those of cpu_mixture, in the order of the list. */
__global__ void __launch_bounds__(TILE_THREADS, 3) mix_kernel(const __grid_constant__ attend_job j)
{
    __shared__ mix_memory memory;
    const attend_list list = list_of(j, j.first + blockIdx.z);
    const uint32_t head = blockIdx.y * TILE;
    const uint64_t unit = blockIdx.z * (uint64_t)j.op.head_count + head;
    const mix_place at = { j.scores + unit * j.pitch, min(TILE, j.op.head_count - head),
                           blockIdx.x * TILE };
    float *y = j.y.row(j.first + blockIdx.z) + (uint64_t)head * j.op.head_dim;
    tile_sums<tile> sum = {};
    mix_ahead ahead;
    uint32_t half = 0;

    mix_load(j, list, at, 0, ahead);
    for (uint32_t base = 0; base < list.count; base += TILE_STEP) {
        mix_put(memory, half, ahead);
        __syncthreads();
        mix_load(j, list, at, base + TILE_STEP, ahead);
        tile_step<tile>([&](uint32_t row, uint32_t k) { return memory.p[half][row][k]; },
                        [&](uint32_t column, uint32_t k) { return memory.v[half][k][column]; },
                        sum);
        half ^= 1;
    }
    tile_give<tile>(sum.v, [&](uint32_t row, uint32_t column, double mixed) {
        if (row < at.head_count && at.column + column < j.op.head_dim)
            y[(uint64_t)row * j.op.head_dim + at.column + column] =
                run_round((float)mixed / j.denominators[unit + row], j.op.round);
    });
}

/* The longest list of vectors of any row. */
uint64_t list_limit(const run_attend *op)
{
    uint64_t entries = op->entries.buffer == nullptr ? 0
                                                     : (op->position + op->row_count) / op->ratio;

    if (op->chosen.buffer != nullptr)
        entries = size_min(entries, op->topk);
    return size_min(op->window, op->position + op->row_count) + entries;
}

/* The number of rows, with row_bytes of scratch each, that are processed together. */
uint64_t slab_rows(uint64_t row_count, uint64_t row_bytes)
{
    return size_max(size_min(size_min(row_count, CUDA_WORK_BYTES / row_bytes), 32768), 1);
}

/* 1 if `rows` rows have too few tiles for all processors, and cuda_attend_few.cuh supports them. */
int attends_few(const cuda_backend *cuda, const attend_job &j, uint32_t rows)
{
    const uint64_t tiles = rows * size_div_up(j.op.head_count, TILE) *
                           size_div_up(size_max(j.pitch, j.op.head_dim), TILE);

    return tiles < cuda->processor_count && j.op.head_dim % ATTEND_STEP == 0 &&
           size_max(attend_score_memory(j.op.head_dim), attend_mix_memory()) <=
               cuda->shared_bytes;
}

ckpt_code attend_few_slab(cuda_backend *cuda, const attend_job &j, uint32_t rows, ckpt_error *err)
{
    const uint32_t heads = cuda_grid(j.op.head_count, ATTEND_HEADS);
    const dim3 score(cuda_grid(j.pitch, ATTEND_PART), heads, rows);
    const dim3 mix(cuda_grid(j.op.head_dim, ATTEND_PART), heads, rows);
    const uint64_t units = (uint64_t)rows * j.op.head_count;
    const int score_bytes = static_cast<int>(attend_score_memory(j.op.head_dim));
    const int mix_bytes = static_cast<int>(attend_mix_memory());

    cudaFuncSetAttribute(attend_score_few_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         score_bytes);
    cudaFuncSetAttribute(attend_mix_few_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         mix_bytes);
    attend_score_few_kernel<<<score, TILE_THREADS, score_bytes, cuda_queue(cuda)>>>(j);
    softmax_kernel<<<static_cast<uint32_t>(units), WARP, 0, cuda_queue(cuda)>>>(j, units);
    attend_mix_few_kernel<<<mix, TILE_THREADS, mix_bytes, cuda_queue(cuda)>>>(j);
    return cuda_launched("attend", err);
}

/* Attention of `rows` rows from j.first on. */
ckpt_code attend_slab(cuda_backend *cuda, const attend_job &j, uint32_t rows, ckpt_error *err)
{
    const uint64_t heads = j.op.head_count;
    const dim3 score(cuda_grid(j.pitch, TILE), cuda_grid(heads, TILE), rows);
    const dim3 mix(cuda_grid(j.op.head_dim, TILE), cuda_grid(heads, TILE), rows);

    if (attends_few(cuda, j, rows))
        return attend_few_slab(cuda, j, rows, err);
    attend_score_kernel<<<score, TILE_THREADS, 0, cuda_queue(cuda)>>>(j);
    softmax_kernel<<<cuda_grid(rows * heads, THREADS / WARP), THREADS, 0, cuda_queue(cuda)>>>(
        j, rows * heads);
    mix_kernel<<<mix, TILE_THREADS, 0, cuda_queue(cuda)>>>(j);
    return cuda_launched("attend", err);
}

} // namespace

ckpt_code pool_cuda(run_backend *backend, const run_pool *op, ckpt_error *err)
{
    const uint64_t units = op->entry_count * op->width;

    if (units == 0)
        return CKPT_OK;
    pool_kernel<<<cuda_grid(units, THREADS), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->k), cuda_view(op->s), cuda_view(op->y), *op);
    return cuda_launched("pool", err);
}

ckpt_code select_cuda(run_backend *backend, const run_select *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const uint64_t most = size_max((op->position + op->row_count) / op->ratio, 1);
    const uint64_t rows = slab_rows(op->row_count, most * sizeof(float));
    select_job s = { cuda_view(op->q),  cuda_view(op->weights), cuda_view(op->keys),
                     cuda_view(op->chosen), op->gap->data, nullptr, most, 0, op->position,
                     op->ratio, op->head_count, op->width, op->topk, op->round };
    ckpt_code code = cuda_scratch(cuda, CUDA_SCRATCH_FLOATS, rows * most * sizeof(float), err);

    s.scores = reinterpret_cast<float *>(cuda->scratch[CUDA_SCRATCH_FLOATS]);
    for (; code == CKPT_OK && s.first < op->row_count; s.first += rows) {
        const uint32_t count = (uint32_t)size_min(rows, op->row_count - s.first);

        score_kernel<<<dim3(cuda_grid(most, TILE), count), TILE_THREADS, 0, cuda_queue(cuda)>>>(s);
        choose_kernel<<<count, THREADS, 0, cuda_queue(cuda)>>>(s);
        code = cuda_launched("select", err);
    }
    return code;
}

ckpt_code attend_cuda(run_backend *backend, const run_attend *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const uint64_t most = size_div_up(list_limit(op), 4) * 4;     /* loads are of four floats */
    const uint64_t heads = op->head_count;
    const uint64_t row_bytes = heads * (most + 1) * sizeof(float);
    const uint64_t rows = slab_rows(op->row_count, row_bytes);
    attend_job j = { cuda_view(op->q),       cuda_view(op->y),      cuda_view(op->window_kv),
                     cuda_view(op->entries), cuda_view(op->chosen), cuda_view(op->sink),
                     nullptr, nullptr, most, 0, *op };
    ckpt_code code = cuda_scratch(cuda, CUDA_SCRATCH_FLOATS, rows * row_bytes, err);

    j.scores = reinterpret_cast<float *>(cuda->scratch[CUDA_SCRATCH_FLOATS]);
    j.denominators = j.scores + rows * heads * most;
    for (; code == CKPT_OK && j.first < op->row_count; j.first += rows)
        code = attend_slab(cuda, j, (uint32_t)size_min(rows, op->row_count - j.first), err);
    return code;
}
