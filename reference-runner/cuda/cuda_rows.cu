/* cuda_rows.cu: operations on single rows: norms, quantisers, rotations, hyper-connections,
 * routing. */
#include "cuda_private.cuh"

#include "kernels/cuda/codecs.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t WARP = 32;
constexpr uint32_t ALL = 0xFFFFFFFFu;
constexpr uint32_t STREAMS_MAX = 8;      /* so that a warp_matrix holds its square */

constexpr uint32_t NORM_ROWS = 8;        /* fewer rows get a thread block each */
constexpr uint32_t LANES = 256;          /* as in square_sum of plain.c */

__device__ __forceinline__ double square_of(float x, int is_bf16)
{
    return is_bf16 ? (double)run_bf16(x * x) : (double)x * (double)x;
}

/* Add the last 32 lanes of square_sum, one in each thread of a warp; all threads get the sum. */
__device__ __forceinline__ double meet(double sum)
{
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        sum += __shfl_xor_sync(ALL, sum, step);
    return sum;
}

/* square_sum of plain.c by one warp: thread i has the lanes i, i + 32, ... */
__device__ double square_sum(const float *x, uint64_t count, int is_bf16)
{
    double lane[LANES / WARP] = { 0 };

    for (uint64_t base = threadIdx.x % WARP; base < count; base += LANES)
#pragma unroll
        for (uint32_t i = 0; i < LANES / WARP; i++)
            if (base + i * WARP < count)
                lane[i] += square_of(x[base + i * WARP], is_bf16);
#pragma unroll
    for (uint32_t half = LANES / WARP / 2; half > 0; half /= 2)
#pragma unroll
        for (uint32_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return meet(lane[0]);
}

/* The same by a block of LANES threads; the first warp gets the sum. */
__device__ double square_sum_block(const float *x, uint64_t count, int is_bf16)
{
    __shared__ double lane[LANES];
    double sum = 0;

#pragma unroll 16
    for (uint64_t k = threadIdx.x; k < count; k += LANES)
        sum += square_of(x[k], is_bf16);
    lane[threadIdx.x] = sum;
    for (uint32_t half = LANES / 2; half >= WARP; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            lane[threadIdx.x] += lane[threadIdx.x + half];
    }
    __syncthreads();
    return threadIdx.x < WARP ? meet(lane[threadIdx.x]) : 0;
}

/* 1 if each step of the norm is rounded. */
__device__ __forceinline__ int is_chain(const float *weight, const run_norm &op)
{
    return weight == nullptr && op.round;
}

/* What x is multiplied by, from the sum of its squares. */
__device__ float norm_factor(double squares, int is_rounded, const run_norm &op)
{
    const float mean = (float)(squares / (double)op.col_count);

    if (is_rounded)
        return run_bf16(1.0f / sqrtf(run_bf16(run_bf16(mean) + op.eps)));
    return 1.0f / sqrtf(mean + op.eps);
}

/* One warp per row. */
__global__ void norm_kernel(cuda_rows x, cuda_rows y, const float *weight, run_norm op)
{
    const uint64_t t = (uint64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    const int is_rounded = is_chain(weight, op);

    if (t >= op.row_count)
        return;
    const float *from = x.row(t);
    float *to = y.row(t);
    const float factor = norm_factor(square_sum(from, op.col_count, is_rounded), is_rounded, op);

    __syncwarp();
    for (uint64_t i = threadIdx.x % WARP; i < op.col_count; i += WARP) {
        const float scaled = from[i] * factor;

        to[i] = run_round(weight == nullptr ? scaled : weight[i] * scaled, op.round);
    }
}

constexpr uint32_t NORM_BLOCK = 128;     /* run_norm.quantised */
constexpr uint32_t NORM_EACH = NORM_BLOCK / WARP;

/* Quantise a block to E4M3: this lane's NORM_EACH values, of which `count` in the block exist. */
__device__ void quantise_block(const float *values, uint32_t count, float *to)
{
    float amax = 0;
    float scale;

#pragma unroll
    for (uint32_t i = 0; i < NORM_EACH; i++)
        amax = fabsf(values[i]) > amax ? fabsf(values[i]) : amax;
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(ALL, amax, step));
    scale = cuda_fp8_scale(amax);
#pragma unroll
    for (uint32_t i = 0; i < NORM_EACH; i++)
        if (threadIdx.x % WARP + i * WARP < count)
            to[threadIdx.x % WARP + i * WARP] =
                cuda_e4m3(cuda_to_e4m3(values[i] / scale)) * scale;
}

/* Row t by a thread block: a warp does NORM_BLOCK columns at a time, quantised, too, on demand. */
__device__ void norm_row(const cuda_step &step, uint64_t t)
{
    __shared__ float shared_factor;
    const run_norm &op = step.op.norm;
    const cuda_rows y = step.y;
    const cuda_rows quantised = step.other;
    const float *weight = step.vector;
    const int is_rounded = is_chain(weight, op);
    const float *from = step.x.row(t);
    const double squares = square_sum_block(from, op.col_count, is_rounded);

    if (threadIdx.x == 0)
        shared_factor = norm_factor(squares, is_rounded, op);
    __syncthreads();
    const float factor = shared_factor;

    for (uint64_t first = threadIdx.x / WARP * NORM_BLOCK; first < op.col_count;
         first += LANES / WARP * NORM_BLOCK) {
        const uint64_t mine = first + threadIdx.x % WARP;
        float values[NORM_EACH];
        float weights[NORM_EACH];

#pragma unroll
        for (uint32_t i = 0; i < NORM_EACH; i++) {
            const int is_there = mine + i * WARP < op.col_count;

            values[i] = is_there ? from[mine + i * WARP] : 0;
            weights[i] = is_there && weight != nullptr ? weight[mine + i * WARP] : 0;
        }
#pragma unroll
        for (uint32_t i = 0; i < NORM_EACH; i++) {
            const float scaled = values[i] * factor;

            values[i] = run_round(weight == nullptr ? scaled : weights[i] * scaled, op.round);
            if (mine + i * WARP < op.col_count)
                y.row(t)[mine + i * WARP] = values[i];
        }
        if (quantised.data != nullptr)
            quantise_block(values, (uint32_t)min((uint64_t)NORM_BLOCK, op.col_count - first),
                           quantised.row(t) + first);
    }
}

/* One thread block per row. */
__global__ void __launch_bounds__(LANES) norm_block_kernel(const __grid_constant__ cuda_step step)
{
    norm_row(step, blockIdx.x);
}

/* Block number `unit` of at most 128 columns, by a warp. */
__device__ void quantise_unit(cuda_rows x, cuda_rows y, const run_quantise &op, uint64_t unit)
{
    const uint64_t blocks = (op.col_count + op.block - 1) / op.block;
    const uint64_t first = unit % blocks * op.block;
    const uint32_t lane = threadIdx.x % WARP;
    float amax = 0;
    float scale;

    if (unit >= op.row_count * blocks)
        return;
    const float *from = x.row(unit / blocks) + first;
    float *to = y.row(unit / blocks) + first;
    const uint32_t count = min((uint64_t)op.block, op.col_count - first);

    for (uint32_t i = lane; i < count; i += WARP)
        amax = fabsf(from[i]) > amax ? fabsf(from[i]) : amax;
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(ALL, amax, step));
    scale = op.grid == RUN_E4M3 ? cuda_fp8_scale(amax) : cuda_e8m0(cuda_fp4_scale(amax));
    for (uint32_t i = lane; i < count; i += WARP) {
        const float scaled = from[i] / scale;

        to[i] = (op.grid == RUN_E4M3 ? cuda_e4m3(cuda_to_e4m3(scaled))
                                     : cuda_e2m1(cuda_to_e2m1(scaled))) * scale;
    }
}

__global__ void quantise_kernel(cuda_rows x, cuda_rows y, run_quantise op)
{
    quantise_unit(x, y, op, (uint64_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP);
}

/* Pair number i. */
__device__ void rope_pair(cuda_rows x, cuda_rows angles, const run_rope &op, uint64_t i)
{
    const uint64_t pairs = op.rope_dim / 2;
    const uint64_t head = i / pairs % op.head_count;
    const uint64_t t = i / pairs / op.head_count;

    if (t >= op.row_count)
        return;
    float *pair = x.row(t) + (head + 1) * op.head_dim - op.rope_dim + 2 * (i % pairs);
    const float *angle = angles.row(t) + 2 * (i % pairs);
    const float a = pair[0];
    const float b = pair[1];
    const float c = angle[0];
    const float s = op.inverse ? -angle[1] : angle[1];

    pair[0] = run_round(a * c - b * s, op.round);
    pair[1] = run_round(a * s + b * c, op.round);
}

__global__ void rope_kernel(cuda_rows x, cuda_rows angles, run_rope op)
{
    rope_pair(x, angles, op, (uint64_t)blockIdx.x * THREADS + threadIdx.x);
}

/* One thread block per vector; in each pass, one of its width / 2 threads per pair. */
__global__ void hadamard_kernel(cuda_rows x, run_hadamard op, float factor)
{
    extern __shared__ float values[];
    float *row = x.row(blockIdx.x / op.head_count) +
                 (uint64_t)(blockIdx.x % op.head_count) * op.width;

    for (uint32_t i = threadIdx.x; i < op.width; i += blockDim.x)
        values[i] = row[i];
    for (uint32_t half = 1; half < op.width; half *= 2) {
        __syncthreads();
        for (uint32_t p = threadIdx.x; p < op.width / 2; p += blockDim.x) {
            const uint32_t i = p / half * 2 * half + p % half;
            const float a = values[i];
            const float b = values[i + half];

            values[i] = a + b;
            values[i + half] = a - b;
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < op.width; i += blockDim.x)
        row[i] = run_round(values[i] * factor, op.round);
}

/* Element i of row t. */
__device__ void put_element(cuda_rows x, cuda_ring ring, const run_ring_put &op, const float *add,
                            uint64_t t, uint64_t i)
{
    const uint64_t p = op.position + t;
    const float value = x.row(t)[i];

    ring.row(p)[i] = add == nullptr ? value : value + add[p % op.add_rows * ring.width + i];
}

__global__ void ring_put_kernel(cuda_rows x, cuda_ring ring, run_ring_put op, const float *add,
                                uint64_t first)
{
    const uint64_t unit = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    const uint64_t t = first + unit / ring.width;

    if (t < op.row_count)
        put_element(x, ring, op, add, t, unit % ring.width);
}

__global__ void add_kernel(cuda_rows a, cuda_rows b, cuda_rows y, run_add op)
{
    const uint64_t unit = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    const uint64_t t = unit / op.col_count;
    const uint64_t i = unit % op.col_count;

    if (t >= op.row_count)
        return;
    const float left = a.row(t / op.repeat)[i];

    y.row(t)[i] = run_round(b.data == nullptr ? left : left + b.row(t)[i], op.round);
}

/* ---- hyper-connections ---- */

/* A matrix of at most 2 * WARP elements held by a warp: each lane has elements lane and
 * lane + WARP. */
struct warp_matrix {
    float v[2];
};

__device__ __forceinline__ float matrix_at(const warp_matrix &c, uint32_t i)
{
    const float low = __shfl_sync(ALL, c.v[0], i % WARP);
    const float high = __shfl_sync(ALL, c.v[1], i % WARP);

    return i < WARP ? low : high;
}

/* The row or column that contains element i: its first element and the step to the next one. */
struct matrix_line {
    uint32_t first;
    uint32_t step;
};

__device__ __forceinline__ matrix_line line_of(uint32_t i, uint32_t count, int is_row)
{
    i = i < count * count ? i : 0;
    if (is_row)
        return { i / count * count, 1 };
    return { i % count, count };
}

/* Divide each row or column by its sum plus eps. */
__device__ void normalise_lines(warp_matrix &c, uint32_t count, int is_row, float eps)
{
    float sums[2];

    for (uint32_t k = 0; k < 2; k++) {
        const matrix_line line = line_of(threadIdx.x + k * WARP, count, is_row);

        sums[k] = 0;
        for (uint32_t j = 0; j < count; j++)
            sums[k] += matrix_at(c, line.first + j * line.step);
    }
    for (uint32_t k = 0; k < 2; k++)
        c.v[k] /= sums[k] + eps;
}

/* sinkhorn of plain.c by one warp, with the same operations in the same order for each element. */
__device__ void sinkhorn(warp_matrix &c, const run_streams *op)
{
    const uint32_t count = op->stream_count;
    float max[2];

    for (uint32_t k = 0; k < 2; k++) {
        const matrix_line line = line_of(threadIdx.x + k * WARP, count, 1);

        max[k] = matrix_at(c, line.first);
        for (uint32_t o = 1; o < count; o++) {
            const float other = matrix_at(c, line.first + o);

            max[k] = other > max[k] ? other : max[k];
        }
    }
    for (uint32_t k = 0; k < 2; k++)
        c.v[k] = run_expf(c.v[k] - max[k]);
    normalise_lines(c, count, 1, 0);
    for (uint32_t k = 0; k < 2; k++)
        c.v[k] += op->hc_eps;
    normalise_lines(c, count, 0, op->hc_eps);
    for (uint32_t n = 1; n < op->iters; n++) {
        normalise_lines(c, count, 1, op->hc_eps);
        normalise_lines(c, count, 0, op->hc_eps);
    }
}

/* The weights of the streams in u, by one warp. */
__device__ void mix_pre(const cuda_streams &v, const run_streams &op, uint64_t t, float rho,
                        float *pre)
{
    const uint32_t n = threadIdx.x;

    if (n < op.stream_count)
        pre[n] = run_sigmoid(v.mix.row(t)[n] * rho * v.scale[0] + v.base[n]) + op.hc_eps;
}

/* post and comb of one row, by one warp. */
__device__ void mix_post(const cuda_streams &v, const run_streams &op, uint64_t t, float rho)
{
    const uint32_t count = op.stream_count;
    const uint32_t n = threadIdx.x;
    const float *mix = v.mix.row(t);
    warp_matrix comb;

    if (n < count)
        v.post.row(t)[n] =
            2 * run_sigmoid(mix[count + n] * rho * v.scale[1] + v.base[count + n]);
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t i = n + k * WARP < count * count ? n + k * WARP : 0;

        comb.v[k] = mix[2 * count + i] * rho * v.scale[2] + v.base[2 * count + i];
    }
    sinkhorn(comb, &op);
    for (uint32_t k = 0; k < 2; k++)
        if (n + k * WARP < count * count)
            v.comb.row(t)[n + k * WARP] = comb.v[k];
}

/* u of column j. */
__device__ __forceinline__ void mix_column(const cuda_streams &v, const run_streams &op,
                                           uint64_t t, uint32_t j, const float *pre)
{
    const float *x = v.x.row(t) + j;
    float sum = 0;

#pragma unroll 4
    for (uint32_t n = 0; n < op.stream_count; n++)
        sum += pre[n] * x[(uint64_t)n * op.dim];
    v.u.row(t)[j] = run_round(sum, op.round);
}

/* Row t by a thread block. One warp computes post and comb, which takes it a while, and the others
 * meanwhile u. */
__device__ void streams_row(const cuda_streams &v, const run_streams &op, uint64_t t)
{
    __shared__ float pre[STREAMS_MAX];
    const uint64_t count = (uint64_t)op.stream_count * op.dim;
    const double squares = square_sum_block(v.x.row(t), count, 0);
    const float rho = 1.0f / sqrtf((float)(squares / (double)count) + op.norm_eps);
    const uint32_t busy = v.post.data == nullptr ? 0 : WARP;

    if (threadIdx.x < WARP)
        mix_pre(v, op, t, rho, pre);
    __syncthreads();
    if (threadIdx.x < busy)
        mix_post(v, op, t, rho);
    else
#pragma unroll 4
        for (uint32_t j = threadIdx.x - busy; j < op.dim; j += THREADS - busy)
            mix_column(v, op, t, j, pre);
}

__global__ void __launch_bounds__(THREADS) streams_kernel(const __grid_constant__ cuda_streams v,
                                                          const __grid_constant__ run_streams op)
{
    streams_row(v, op, blockIdx.x);
}

__global__ void streams_post_kernel(cuda_rows x, cuda_rows y, cuda_rows post, cuda_rows comb,
                                    run_streams_post op)
{
    const uint64_t unit = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    const uint64_t t = unit / op.dim;
    const uint64_t j = unit % op.dim;
    const uint32_t count = op.stream_count;
    float in[STREAMS_MAX];

    if (t >= op.row_count)
        return;
    float *row = x.row(t) + j;

    for (uint32_t i = 0; i < count; i++)
        in[i] = row[(uint64_t)i * op.dim];
    for (uint32_t o = 0; o < count; o++) {
        float sum = 0;

        for (uint32_t i = 0; i < count; i++)
            sum += comb.row(t)[i * count + o] * in[i];
        row[(uint64_t)o * op.dim] = run_round(post.row(t)[o] * y.row(t)[j] + sum, op.round);
    }
}

/* ---- routing ---- */

/* The index of the best score (ties: lower index), found by a whole warp. */
__device__ uint32_t warp_best(const float *scores, uint32_t count)
{
    uint32_t best = threadIdx.x < count ? threadIdx.x : 0;
    float value = scores[best];

    for (uint32_t e = best + WARP; e < count; e += WARP)
        if (scores[e] > value) {
            best = e;
            value = scores[e];
        }
    for (uint32_t step = WARP / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(ALL, value, step);
        const uint32_t index = __shfl_xor_sync(ALL, best, step);

        if (other > value || (other == value && index < best)) {
            best = index;
            value = other;
        }
    }
    return best;
}

__device__ float relative_gap(float last, float next)
{
    return last == next ? 0 : (last - next) / fmaxf(fabsf(last), fabsf(next));
}

/* Write the active_count best to ids; returns the gap (run_route). */
__device__ float route_best(float *biased, int32_t *ids, const run_route *op)
{
    float last = 0;

    for (uint32_t i = 0; i <= op->active_count; i++) {
        if (i == op->expert_count)
            break;
        const uint32_t best = warp_best(biased, op->expert_count);
        const float value = biased[best];

        if (i == op->active_count)
            return relative_gap(last, value);
        __syncwarp();
        if (threadIdx.x == 0) {
            ids[i] = (int32_t)best;
            biased[best] = -INFINITY;
        }
        last = value;
        __syncwarp();
    }
    return INFINITY;
}

/* One thread block per row. */
__global__ void route_kernel(cuda_rows logits, cuda_rows table, cuda_rows ids, cuda_rows weights,
                             const float *bias, float *gap, run_route op)
{
    extern __shared__ float g[];
    float *biased = g + op.expert_count;
    const uint64_t t = blockIdx.x;
    int32_t *id = ids.ints(t);
    float cut = INFINITY;
    float sum = 0;

    for (uint32_t e = threadIdx.x; e < op.expert_count; e += THREADS) {
        g[e] = sqrtf(run_softplus(logits.row(t)[e]));
        biased[e] = g[e] + (bias == nullptr ? 0 : bias[e]);
    }
    __syncthreads();
    if (threadIdx.x >= WARP)
        return;
    if (table.data == nullptr)
        cut = route_best(biased, id, &op);
    else if (threadIdx.x < op.active_count)
        id[threadIdx.x] = table.ints(t)[threadIdx.x];
    __syncwarp();
    if (threadIdx.x != 0)
        return;
    gap[t] = cut;
    for (uint32_t i = 0; i < op.active_count; i++)
        sum += g[id[i]];
    for (uint32_t i = 0; i < op.active_count; i++)
        weights.row(t)[i] = g[id[i]] / sum * op.route_scale;
}

/* ---- steps ---- */

/* One step, by all threads of the block. */
__device__ void run_step(const cuda_step &s)
{
    const uint64_t warp = threadIdx.x / WARP;

    switch (s.kind) {
    case CUDA_STEP_NORM:
        norm_row(s, 0);
        break;
    case CUDA_STEP_QUANTISE:
        for (uint64_t i = warp; i * s.op.quantise.block < s.op.quantise.col_count;
             i += THREADS / WARP)
            quantise_unit(s.x, s.y, s.op.quantise, i);
        break;
    case CUDA_STEP_ROPE:
        for (uint64_t i = threadIdx.x; i < s.op.rope.head_count * (s.op.rope.rope_dim / 2);
             i += THREADS)
            rope_pair(s.x, s.other, s.op.rope, i);
        break;
    case CUDA_STEP_PUT:
        for (uint64_t i = threadIdx.x; i < s.ring.width; i += THREADS)
            put_element(s.x, s.ring, s.op.put, s.vector, 0, i);
        break;
    case CUDA_STEP_STREAMS:
        streams_row(s.streams, s.op.streams, 0);
        break;
    }
}

__global__ void __launch_bounds__(THREADS) steps_kernel(const __grid_constant__ cuda_steps list)
{
    for (unsigned i = 0; i < list.count; i++) {
        run_step(list.steps[i]);
        __syncthreads();
    }
}

constexpr uint64_t STEP_SIZE_MAX = 1024;     /* values; more are for several thread blocks */

/* A new step, to be filled. */
cuda_step *add_step(cuda_backend *cuda, cuda_step_kind kind)
{
    if (cuda->steps.count == CUDA_STEPS)
        cuda_flush(cuda);
    cuda_step *step = &cuda->steps.steps[cuda->steps.count++];

    *step = {};
    step->kind = kind;
    return step;
}

} // namespace

/* An error of the launch is found by the check after the next one. */
void cuda_flush(cuda_backend *cuda)
{
    steps_kernel<<<1, THREADS, 0, cuda->compute>>>(cuda->steps);
    cuda->steps.count = 0;
}

/* ---- the table's functions ---- */

static cuda_step norm_step(const run_norm *op)
{
    cuda_step step = {};

    step.kind = CUDA_STEP_NORM;
    step.x = cuda_view(op->x);
    step.y = cuda_view(op->y);
    step.other = cuda_view(op->quantised);
    step.vector = cuda_view(op->weight);
    step.op.norm = *op;
    return step;
}

ckpt_code norm_cuda(run_backend *backend, const run_norm *op, ckpt_error *err)
{
    const run_quantise quantise = run_norm_quantise(op);
    ckpt_code code;

    if (op->row_count == 0)
        return CKPT_OK;
    if (op->row_count == 1) {
        *add_step(cuda_of(backend), CUDA_STEP_NORM) = norm_step(op);
        return CKPT_OK;
    }
    if (op->row_count < NORM_ROWS) {
        norm_block_kernel<<<(uint32_t)op->row_count, LANES, 0, cuda_queue(cuda_of(backend))>>>(
            norm_step(op));
        return cuda_launched("norm", err);
    }
    norm_kernel<<<cuda_grid(op->row_count, THREADS / WARP), THREADS, 0,
                  cuda_queue(cuda_of(backend))>>>(cuda_view(op->x), cuda_view(op->y),
                                               cuda_view(op->weight), *op);
    if ((code = cuda_launched("norm", err)) != CKPT_OK || op->quantised.buffer == nullptr)
        return code;
    return quantise_cuda(backend, &quantise, err);
}

ckpt_code quantise_cuda(run_backend *backend, const run_quantise *op, ckpt_error *err)
{
    const uint64_t units = op->row_count * size_div_up(op->col_count, op->block);

    if (units == 0)
        return CKPT_OK;
    if (op->row_count == 1 && op->col_count <= STEP_SIZE_MAX) {
        cuda_step *step = add_step(cuda_of(backend), CUDA_STEP_QUANTISE);

        step->x = cuda_view(op->x);
        step->y = cuda_view(op->y);
        step->op.quantise = *op;
        return CKPT_OK;
    }
    quantise_kernel<<<cuda_grid(units, THREADS / WARP), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->x), cuda_view(op->y), *op);
    return cuda_launched("quantise", err);
}

ckpt_code rope_cuda(run_backend *backend, const run_rope *op, ckpt_error *err)
{
    const uint64_t pairs = op->row_count * op->head_count * (op->rope_dim / 2);

    if (pairs == 0)
        return CKPT_OK;
    if (op->row_count == 1 && 2 * pairs <= STEP_SIZE_MAX) {
        cuda_step *step = add_step(cuda_of(backend), CUDA_STEP_ROPE);

        step->x = cuda_view(op->x);
        step->other = cuda_view(op->angles);
        step->op.rope = *op;
        return CKPT_OK;
    }
    rope_kernel<<<cuda_grid(pairs, THREADS), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->x), cuda_view(op->angles), *op);
    return cuda_launched("rope", err);
}

ckpt_code hadamard_cuda(run_backend *backend, const run_hadamard *op, ckpt_error *err)
{
    const uint64_t vectors = op->row_count * op->head_count;
    const float factor = (float)(1.0 / sqrt((double)op->width));

    if (vectors == 0)
        return CKPT_OK;
    hadamard_kernel<<<(uint32_t)vectors, (uint32_t)size_min(size_max(op->width / 2, WARP), 1024),
                      op->width * sizeof(float), cuda_queue(cuda_of(backend))>>>(cuda_view(op->x),
                                                                              *op, factor);
    return cuda_launched("hadamard", err);
}

/* Skips rows that later rows of the same call would overwrite, since threads run in any order. */
ckpt_code ring_put_cuda(run_backend *backend, const run_ring_put *op, ckpt_error *err)
{
    const uint64_t first =
        op->row_count > op->ring.capacity ? op->row_count - op->ring.capacity : 0;
    const uint64_t units = (op->row_count - first) * op->ring.width;

    if (units == 0)
        return CKPT_OK;
    if (op->row_count == 1 && units <= STEP_SIZE_MAX) {
        cuda_step *step = add_step(cuda_of(backend), CUDA_STEP_PUT);

        step->x = cuda_view(op->x);
        step->ring = cuda_view(op->ring);
        step->vector = cuda_view(op->add);
        step->op.put = *op;
        return CKPT_OK;
    }
    ring_put_kernel<<<cuda_grid(units, THREADS), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->x), cuda_view(op->ring), *op, cuda_view(op->add), first);
    return cuda_launched("ring_put", err);
}

ckpt_code add_cuda(run_backend *backend, const run_add *op, ckpt_error *err)
{
    const uint64_t units = op->row_count * op->col_count;

    if (units == 0)
        return CKPT_OK;
    add_kernel<<<cuda_grid(units, THREADS), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->a), cuda_view(op->b), cuda_view(op->y), *op);
    return cuda_launched("add", err);
}

static ckpt_code run_streams_kernel(run_backend *backend, const run_streams *op, int is_head,
                                    ckpt_error *err)
{
    cuda_streams v = { cuda_view(op->x),    cuda_view(op->mix),   cuda_view(op->u),
                       cuda_view(op->post), cuda_view(op->comb),  cuda_view(op->scale),
                       cuda_view(op->base) };

    if (op->stream_count > STREAMS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%u streams", op->stream_count);
    if (is_head)
        v.post.data = nullptr;
    if (op->row_count == 0)
        return CKPT_OK;
    if (op->row_count == 1) {
        cuda_step *step = add_step(cuda_of(backend), CUDA_STEP_STREAMS);

        step->streams = v;
        step->op.streams = *op;
        return CKPT_OK;
    }
    streams_kernel<<<(uint32_t)op->row_count, THREADS, 0, cuda_queue(cuda_of(backend))>>>(v, *op);
    return cuda_launched("hc_pre", err);
}

ckpt_code hc_pre_cuda(run_backend *backend, const run_streams *op, ckpt_error *err)
{
    return run_streams_kernel(backend, op, 0, err);
}

ckpt_code hc_head_cuda(run_backend *backend, const run_streams *op, ckpt_error *err)
{
    return run_streams_kernel(backend, op, 1, err);
}

ckpt_code hc_post_cuda(run_backend *backend, const run_streams_post *op, ckpt_error *err)
{
    const uint64_t units = op->row_count * op->dim;

    if (op->stream_count > STREAMS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%u streams", op->stream_count);
    if (units == 0)
        return CKPT_OK;
    streams_post_kernel<<<cuda_grid(units, THREADS), THREADS, 0, cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->x), cuda_view(op->y), cuda_view(op->post), cuda_view(op->comb), *op);
    return cuda_launched("hc_post", err);
}

ckpt_code route_cuda(run_backend *backend, const run_route *op, ckpt_error *err)
{
    if (op->row_count == 0)
        return CKPT_OK;
    route_kernel<<<(uint32_t)op->row_count, THREADS, 2 * sizeof(float) * op->expert_count,
                   cuda_queue(cuda_of(backend))>>>(
        cuda_view(op->logits), cuda_view(op->table), cuda_view(op->ids), cuda_view(op->weights),
        cuda_view(op->bias), op->gap->data, *op);
    return cuda_launched("route", err);
}
