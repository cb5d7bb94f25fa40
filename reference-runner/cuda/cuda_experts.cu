/* cuda_experts.cu: the products of several experts. An entry is a pair of a row and one of its
 * experts. */
#include "cuda_fp4_single.cuh"
#include "cuda_fp8_single.cuh"

#include <stdlib.h>

#include <vector>

namespace {

constexpr uint32_t WARP = 32;
constexpr uint32_t ACTIVATION_BLOCK = 128;
constexpr uint32_t ITEM_ROWS = tile_large::X;

static_assert(ITEM_ROWS == FP4_ROWS, "an item is a tile of either kind");

/* Some rows of one expert: entries first .. first + count - 1 of the slab. */
struct expert_item {
    cuda_weight weights[3];
    uint32_t first;
    uint32_t count;
};

/* A slab: the entries that are processed together, sorted by expert. Device pointers. */
struct slab {
    const expert_item *items;
    const uint32_t *rows;        /* row of x of each entry */
    const float *factors;        /* factor of each entry */
    const uint32_t *targets;     /* the distinct rows */
    const uint32_t *target_begin;    /* index in `order` of each target's first entry; the end */
    const uint32_t *order;       /* entries sorted by row, then in the order of the experts */
    float *a;                    /* entries x expert_dim */
    float *b;
    float *y;                    /* entries x dim */
    float *scales;               /* of cut rows (cuda_fp4.cuh) */
    uint32_t item_count;
    uint32_t entry_count;
    uint32_t target_count;
    uint32_t most_rows;          /* largest `count` of an item */
};

struct experts_job {
    cuda_rows x;
    cuda_rows y;
    uint32_t dim;
    uint32_t expert_dim;
    uint32_t block;
    float limit;
    int round;
};

/* The two steps of an expert: IN computes a (w1, blockIdx.z 0) and b (w3, blockIdx.z 1); OUT
 * computes y (w2). */
typedef enum { IN, OUT } expert_side;

struct side_shape {
    uint32_t outputs;
    uint32_t depth;
    uint32_t weight;             /* index in the item's weights */
    float *y;                    /* entries x outputs */
};

template <expert_side SIDE>
__device__ __forceinline__ side_shape shape_of(const experts_job &j, const slab &s)
{
    if (SIDE == OUT)
        return { j.dim, j.expert_dim, 1, s.y };
    return { j.expert_dim, j.dim, blockIdx.z == 0 ? 0u : 2u, blockIdx.z == 0 ? s.a : s.b };
}

/* For items of at most FEW_ROWS rows; one thread block per item and outputs. */
template <expert_side SIDE, typename W>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    experts_few_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    extern __shared__ float sums[];
    const side_shape side = shape_of<SIDE>(j, s);
    const expert_item *item = &s.items[blockIdx.x];
    const few_shape shape = { item->count, side.depth, j.block };
    const uint32_t n = blockIdx.y * few_outputs(j.block) + few_first(j.block);
    const uint32_t lane = few_lane_row();
    const uint32_t entry = item->first + lane;
    const float *x = lane >= item->count ? nullptr
                     : SIDE == IN        ? j.x.row(s.rows[entry])
                                         : s.a + (uint64_t)entry * j.expert_dim;
    const W w = W::at(n + lane < side.outputs ? &item->weights[side.weight] : nullptr, n + lane);

    few_product({ shape, x, sums }, w, [&](uint32_t row, uint32_t column, float sum) {
        if (n + column < side.outputs)
            side.y[(uint64_t)(item->first + row) * side.outputs + n + column] =
                run_round(sum, j.round);
    });
}

/* For items of one row on the E4M3 grid, FP8 weights and sums of 128 columns; blockIdx.y is the
 * item. */
template <expert_side SIDE>
__global__ void __launch_bounds__(FP8_WARPS * 32, 1)
    experts_single_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s,
                          uint32_t split)
{
    extern __shared__ __align__(16) uint8_t memory[];
    const side_shape side = shape_of<SIDE>(j, s);
    const expert_item *item = &s.items[blockIdx.y];
    const single_block block = { SIDE == IN ? j.x.row(s.rows[item->first])
                                            : s.a + (uint64_t)item->first * j.expert_dim,
                                 &item->weights[side.weight], 0, side.outputs };
    float *y = side.y + (uint64_t)item->first * side.outputs;

    fp8_single(block, split, memory,
               [&](uint32_t row, float sum) { y[row] = run_round(sum, j.round); });
}

/* For items of many rows: several thread blocks along blockIdx.x share an item. */
template <expert_side SIDE, typename S, typename Weights>
__global__ void __launch_bounds__(TILE_THREADS, 3)
    experts_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    __shared__ tile_memory<S> memory;
    const side_shape side = shape_of<SIDE>(j, s);
    const expert_item *item = &s.items[blockIdx.x / (ITEM_ROWS / S::X)];
    const uint32_t first = blockIdx.x % (ITEM_ROWS / S::X) * S::X;
    const uint32_t n = blockIdx.y * S::W;
    const auto x_at = [&](uint32_t i) {
        const uint32_t entry = item->first + first + i;

        return float_loader{ first + i >= item->count ? nullptr
                             : SIDE == IN             ? j.x.row(s.rows[entry])
                                                      : s.a + (uint64_t)entry * j.expert_dim };
    };
    const auto w_at = [&](uint32_t i) {
        return Weights::row(n + i < side.outputs ? &item->weights[side.weight] : nullptr, n + i);
    };
    const auto out = [&](uint32_t row, uint32_t column, float sum) {
        if (first + row < item->count && n + column < side.outputs)
            side.y[(uint64_t)(item->first + first + row) * side.outputs + n + column] =
                run_round(sum, j.round);
    };

    if (first < item->count)
        tile_product<S>(x_at, w_at, side.depth, j.block, memory, out);
}

__device__ __forceinline__ float swiglu(float gate, float up, float factor, const experts_job &j)
{
    if (j.limit > 0) {
        gate = gate > j.limit ? j.limit : gate;
        up = up > j.limit ? j.limit : up < -j.limit ? -j.limit : up;
    }
    return run_round(factor * (gate * run_sigmoid(gate) * up), j.round);
}

/* Replace a by h, quantised to E4M3 if `round` is set. One warp per block of 128 columns. */
__global__ void activate_kernel(const __grid_constant__ experts_job j,
                                const __grid_constant__ slab s)
{
    const uint32_t blocks = (j.expert_dim + ACTIVATION_BLOCK - 1) / ACTIVATION_BLOCK;
    const uint32_t unit = blockIdx.x * TILE_WARPS + threadIdx.x / WARP;
    const uint32_t entry = unit / blocks;
    const uint32_t first = unit % blocks * ACTIVATION_BLOCK;
    const uint32_t count = min(ACTIVATION_BLOCK, j.expert_dim - first);
    float h[ACTIVATION_BLOCK / WARP];
    float amax = 0;

    if (entry >= s.entry_count)
        return;
    float *a = s.a + (uint64_t)entry * j.expert_dim + first;
    const float *b = s.b + (uint64_t)entry * j.expert_dim + first;

#pragma unroll
    for (uint32_t i = 0; i < ACTIVATION_BLOCK / WARP; i++) {
        const uint32_t col = i * WARP + threadIdx.x % WARP;
        const float gate = col < count ? a[col] : 0;
        const float up = col < count ? b[col] : 0;

        h[i] = swiglu(gate, up, s.factors[entry], j);
        amax = fabsf(h[i]) > amax ? fabsf(h[i]) : amax;
    }
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
    const float scale = cuda_fp8_scale(amax);

#pragma unroll
    for (uint32_t i = 0; i < ACTIVATION_BLOCK / WARP; i++) {
        const uint32_t col = i * WARP + threadIdx.x % WARP;

        if (col < count)
            a[col] = j.round ? cuda_e4m3(cuda_to_e4m3(h[i] / scale)) * scale : h[i];
    }
}

/* ---- FP4 experts, rows on the E4M3 grid ---- */

/* Cut rows of x; one warp per 128 columns of an entry. The results are stored in the memory of y,
 * which is computed later. */
__global__ void cut_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    const uint32_t blocks = j.dim / FP4_STEP;
    const uint32_t unit = blockIdx.x * TILE_WARPS + threadIdx.x / WARP;
    const uint32_t entry = unit / blocks;
    const uint32_t first = unit % blocks * FP4_STEP;

    if (entry >= s.entry_count)
        return;
    const float4 x = *reinterpret_cast<const float4 *>(j.x.row(s.rows[entry]) + first +
                                                       4 * (threadIdx.x % WARP));
    const float four[4] = { x.x, x.y, x.z, x.w };
    const float scale =
        fp4_cut(four, reinterpret_cast<uint8_t *>(s.y + (uint64_t)entry * j.dim + first));

    if (threadIdx.x % WARP == 0)
        s.scales[unit] = scale;
}

/* Replace 128 columns of a by h, cut for fp4_product; one warp. */
__global__ void activate_cut_kernel(const __grid_constant__ experts_job j,
                                    const __grid_constant__ slab s)
{
    const uint32_t blocks = j.expert_dim / FP4_STEP;
    const uint32_t unit = blockIdx.x * TILE_WARPS + threadIdx.x / WARP;
    const uint32_t entry = unit / blocks;
    const uint64_t first = (uint64_t)entry * j.expert_dim + unit % blocks * FP4_STEP;
    const uint64_t mine = first + 4 * (threadIdx.x % WARP);
    float h[4];
    float amax = 0;

    if (entry >= s.entry_count)
        return;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        h[i] = swiglu(s.a[mine + i], s.b[mine + i], s.factors[entry], j);
        amax = fmaxf(amax, fabsf(h[i]));
    }
    for (uint32_t step = WARP / 2; step > 0; step /= 2)
        amax = fmaxf(amax, __shfl_xor_sync(0xFFFFFFFFu, amax, step));
    const float scale = cuda_fp8_scale(amax);

#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        h[i] = cuda_e4m3(cuda_to_e4m3(h[i] / scale)) * scale;
    __syncwarp();                /* all lanes have read a before it is overwritten */
    const float cut_scale = fp4_cut(h, reinterpret_cast<uint8_t *>(s.a + first));

    if (threadIdx.x % WARP == 0)
        s.scales[unit] = cut_scale;
}

/* experts_kernel for cut rows: for IN those of x, in the memory of y; for OUT those of h, in the
 * memory of a. */
template <expert_side SIDE>
__global__ void __launch_bounds__(FP4_THREADS, 2)
    fp4_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    extern __shared__ __align__(16) uint8_t memory[];
    const side_shape side = shape_of<SIDE>(j, s);
    const expert_item *item = &s.items[blockIdx.x];
    float *y = side.y + (uint64_t)item->first * side.outputs;
    const fp4_tile tile = {
        { reinterpret_cast<const uint8_t *>(SIDE == IN ? s.y : s.a), s.scales },
        item->weights[side.weight],
        item->first,
        item->count,
        blockIdx.y * FP4_OUTPUTS,
        side.outputs,
        side.depth
    };

    fp4_product(tile, *reinterpret_cast<fp4_memory *>(memory),
                [&](uint32_t row, uint32_t output, float sum) {
                    y[(uint64_t)row * side.outputs + output] = run_round(sum, j.round);
                });
}

/* fp4_kernel for items of one row; blockIdx.y is the item. */
template <expert_side SIDE>
__global__ void __launch_bounds__(FP4_SINGLE_WARPS * 32, 1)
    fp4_single_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    extern __shared__ __align__(16) uint8_t memory[];
    const side_shape side = shape_of<SIDE>(j, s);
    const expert_item *item = &s.items[blockIdx.y];
    float *y = side.y + (uint64_t)item->first * side.outputs;
    const fp4_tile tile = {
        { reinterpret_cast<const uint8_t *>(SIDE == IN ? s.y : s.a), s.scales },
        item->weights[side.weight],
        item->first,
        1,
        0,
        side.outputs,
        side.depth
    };

    fp4_single(tile, memory, [&](uint32_t output, float sum) {
        y[output] = run_round(sum, j.round);
    });
}

/* ---- slabs ---- */

/* Add the results of its experts to each row, in the order of the experts. */
__global__ void gather_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    const uint32_t col = blockIdx.y * TILE_THREADS + threadIdx.x;
    const uint32_t begin = s.target_begin[blockIdx.x];
    const uint32_t end = s.target_begin[blockIdx.x + 1];

    if (col >= j.dim)
        return;
    float *y = j.y.row(s.targets[blockIdx.x]) + col;
    float sum = *y;

    for (uint32_t i = begin; i < end; i++)
        sum += s.y[(uint64_t)s.order[i] * j.dim + col];
    *y = sum;
}

/* The lists of a slab in host memory: one allocation, which is sent as a whole. */
struct slab_lists {
    expert_item *items;
    uint32_t *rows;
    float *factors;
    uint32_t *targets;
    uint32_t *target_begin;
    uint32_t *order;
    uint64_t bytes;
};

uint64_t lay_out(char *base, uint64_t entries, uint64_t items, slab_lists *out)
{
    out->items = reinterpret_cast<expert_item *>(base);
    out->rows = reinterpret_cast<uint32_t *>(out->items + items);
    out->factors = reinterpret_cast<float *>(out->rows + entries);
    out->targets = reinterpret_cast<uint32_t *>(out->factors + entries);
    out->target_begin = out->targets + entries;
    out->order = out->target_begin + entries + 1;
    out->bytes = items * sizeof(expert_item) + (5 * entries + 1) * sizeof(uint32_t);
    return out->bytes;
}

/* One call; `views` has the three weights of each expert as kernels use them. */
struct experts_call {
    cuda_backend *cuda;
    const run_experts *op;
    std::vector<cuda_weight> views;
};

/* The first entry of the next slab: an expert and an index in its rows. */
struct experts_cursor {
    size_t expert;
    uint64_t row;
};

/* The most entries of a slab: all of the call, or as many as CUDA_WORK_BYTES allows. */
uint64_t slab_capacity(const run_experts *op)
{
    const uint64_t entry_bytes = (2 * (uint64_t)op->expert_dim + op->dim) * sizeof(float);
    uint64_t wanted = 1;

    for (size_t i = 0; i < op->expert_count; i++)
        wanted += op->experts[i].row_count;
    return size_min(wanted, size_max(CUDA_WORK_BYTES / entry_bytes, ITEM_ROWS));
}

/* The scratch of a slab, in floats. */
uint64_t slab_floats(const run_experts *op, uint64_t capacity)
{
    return capacity * (2 * (uint64_t)op->expert_dim + op->dim +
                       size_max(op->dim, op->expert_dim) / FP4_STEP + 1);
}

uint64_t slab_items(const run_experts *op, uint64_t capacity)
{
    return capacity / ITEM_ROWS + op->expert_count + 1;
}

/* Fill the slab with entries from the cursor on, and advance the cursor. */
void fill_entries(const experts_call &call, experts_cursor *at, slab_lists *l, slab *s)
{
    const run_experts *op = call.op;
    const uint64_t capacity = slab_capacity(op);

    while (at->expert < op->expert_count && s->entry_count < capacity) {
        const run_expert *e = &op->experts[at->expert];
        const cuda_weight *views = &call.views[3 * at->expert];
        const uint64_t left = e->row_count - at->row;
        const uint64_t count = size_min(size_min(left, ITEM_ROWS), capacity - s->entry_count);

        if (left == 0) {
            at->expert++;
            at->row = 0;
            continue;
        }
        l->items[s->item_count++] = { { views[0], views[1], views[2] },
                                      s->entry_count,
                                      static_cast<uint32_t>(count) };
        memcpy(l->rows + s->entry_count, e->rows + at->row, count * sizeof *l->rows);
        memcpy(l->factors + s->entry_count, e->factors + at->row, count * sizeof *l->factors);
        s->entry_count += static_cast<uint32_t>(count);
        s->most_rows = static_cast<uint32_t>(size_max(s->most_rows, count));
        at->row += count;
    }
}

/* Order by row, then by entry. */
int compare_entries(const void *left, const void *right, void *context)
{
    const uint32_t *rows = static_cast<const uint32_t *>(context);
    const uint32_t a = *static_cast<const uint32_t *>(left);
    const uint32_t b = *static_cast<const uint32_t *>(right);

    if (rows[a] != rows[b])
        return rows[a] < rows[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

void sort_entries(slab_lists *l, slab *s)
{
    for (uint32_t i = 0; i < s->entry_count; i++)
        l->order[i] = i;
    qsort_r(l->order, s->entry_count, sizeof *l->order, compare_entries, l->rows);
    for (uint32_t i = 0; i < s->entry_count; i++)
        if (i == 0 || l->rows[l->order[i]] != l->rows[l->order[i - 1]]) {
            l->targets[s->target_count] = l->rows[l->order[i]];
            l->target_begin[s->target_count++] = i;
        }
    l->target_begin[s->target_count] = s->entry_count;
}

template <typename S, typename Weights>
void launch_any(cudaStream_t stream, const experts_job &j, const slab &s)
{
    const uint32_t blocks = cuda_grid(j.expert_dim, ACTIVATION_BLOCK);
    const uint32_t items = s.item_count * (ITEM_ROWS / S::X);
    const dim3 in(items, cuda_grid(j.expert_dim, S::W), 2);
    const dim3 out(items, cuda_grid(j.dim, S::W), 1);

    experts_kernel<IN, S, Weights><<<in, TILE_THREADS, 0, stream>>>(j, s);
    activate_kernel<<<cuda_grid((uint64_t)s.entry_count * blocks, TILE_WARPS), TILE_THREADS, 0,
                      stream>>>(j, s);
    experts_kernel<OUT, S, Weights><<<out, TILE_THREADS, 0, stream>>>(j, s);
}

template <typename W>
void launch_few(cudaStream_t stream, const experts_job &j, const slab &s)
{
    const uint32_t blocks = cuda_grid(j.expert_dim, ACTIVATION_BLOCK);
    const dim3 in(s.item_count, cuda_grid(j.expert_dim, few_outputs(j.block)), 2);
    const dim3 out(s.item_count, cuda_grid(j.dim, few_outputs(j.block)), 1);

    experts_few_kernel<IN, W>
        <<<in, TILE_THREADS, few_memory(j.dim, j.block, s.most_rows), stream>>>(j, s);
    activate_kernel<<<cuda_grid((uint64_t)s.entry_count * blocks, TILE_WARPS), TILE_THREADS, 0,
                      stream>>>(j, s);
    experts_few_kernel<OUT, W>
        <<<out, TILE_THREADS, few_memory(j.expert_dim, j.block, s.most_rows), stream>>>(j, s);
}

struct single_launch {
    fp8_share share;
    uint64_t memory;
};

template <expert_side SIDE>
single_launch single_side(const cuda_backend *cuda, const experts_job &j, const slab &s)
{
    const uint32_t outputs = SIDE == IN ? j.expert_dim : j.dim;
    const uint32_t depth = SIDE == IN ? j.dim : j.expert_dim;
    const uint32_t sides = SIDE == IN ? 2 : 1;
    const fp8_share share =
        fp8_divide(outputs, depth, cuda->processor_count / (sides * s.item_count));

    return { share, fp8_memory(depth, share.split) };
}

template <expert_side SIDE>
void launch_single_side(cuda_backend *cuda, const experts_job &j, const slab &s)
{
    const single_launch l = single_side<SIDE>(cuda, j, s);
    const dim3 grid(l.share.blocks, s.item_count, SIDE == IN ? 2 : 1);

    cudaFuncSetAttribute(experts_single_kernel<SIDE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)l.memory);
    experts_single_kernel<SIDE><<<grid, FP8_WARPS * 32, l.memory, cuda->compute>>>(j, s,
                                                                                l.share.split);
}

void launch_single(cuda_backend *cuda, const experts_job &j, const slab &s)
{
    const uint32_t blocks = cuda_grid(j.expert_dim, ACTIVATION_BLOCK);

    launch_single_side<IN>(cuda, j, s);
    activate_kernel<<<cuda_grid((uint64_t)s.entry_count * blocks, TILE_WARPS), TILE_THREADS, 0,
                      cuda->compute>>>(j, s);
    launch_single_side<OUT>(cuda, j, s);
}

/* The weights are FORM_EXACT; their rows are then aligned, and so are those of a. */
int takes_single(const cuda_backend *cuda, const experts_job &j, const slab &s)
{
    return s.most_rows == 1 && s.item_count <= UINT16_MAX && j.x.pitch % 4 == 0 &&
           reinterpret_cast<uintptr_t>(j.x.data) % 16 == 0 &&
           single_side<IN>(cuda, j, s).memory <= cuda->shared_bytes &&
           single_side<OUT>(cuda, j, s).memory <= cuda->shared_bytes;
}

int takes_few(const experts_job &j, const slab &s)
{
    return few_fits(j.dim, j.block, s.most_rows) && few_fits(j.expert_dim, j.block, s.most_rows);
}

/* fp4_kernel, or fp4_single_kernel if no item has more than one row. */
template <expert_side SIDE>
void launch_fp4_side(cuda_backend *cuda, const experts_job &j, const slab &s)
{
    const uint32_t outputs = SIDE == IN ? j.expert_dim : j.dim;
    const uint32_t depth = SIDE == IN ? j.dim : j.expert_dim;
    const uint32_t sides = SIDE == IN ? 2 : 1;
    const uint64_t memory = fp4_single_memory(depth);

    if (s.most_rows == 1 && memory <= cuda->shared_bytes && s.item_count <= UINT16_MAX) {
        const uint32_t blocks =
            fp4_single_blocks(outputs, cuda->processor_count / (sides * s.item_count));

        cudaFuncSetAttribute(fp4_single_kernel<SIDE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             (int)memory);
        fp4_single_kernel<SIDE><<<dim3(blocks, s.item_count, sides), FP4_SINGLE_WARPS * 32, memory,
                                  cuda->compute>>>(j, s);
        return;
    }
    cudaFuncSetAttribute(fp4_kernel<SIDE>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         sizeof(fp4_memory));
    fp4_kernel<SIDE><<<dim3(s.item_count, cuda_grid(outputs, FP4_OUTPUTS), sides), FP4_THREADS,
                       sizeof(fp4_memory), cuda->compute>>>(j, s);
}

void launch_fp4(cuda_backend *cuda, const experts_job &j, const slab &s)
{
    const uint64_t units = (uint64_t)s.entry_count * (j.dim / FP4_STEP);
    const uint64_t hidden = (uint64_t)s.entry_count * (j.expert_dim / FP4_STEP);

    cut_kernel<<<cuda_grid(units, TILE_WARPS), TILE_THREADS, 0, cuda->compute>>>(j, s);
    launch_fp4_side<IN>(cuda, j, s);
    activate_cut_kernel<<<cuda_grid(hidden, TILE_WARPS), TILE_THREADS, 0, cuda->compute>>>(j, s);
    launch_fp4_side<OUT>(cuda, j, s);
}

int is_fp4(const cuda_weight &w)
{
    return w.dtype == CKPT_F4 && w.scale_dtype == CKPT_F8_E8M0 && w.block_rows == 1 &&
           w.block_cols == FP4_SUM;
}

/* The kernel for the encoding of the weights of a call. */
typedef enum { FORM_ANY, FORM_FLOATS, FORM_BF16, FORM_FP4, FORM_FP8, FORM_EXACT } weights_form;

/* FORM_FP4 needs rows on the E4M3 grid and sums of 32 columns: only then does the F16 matrix unit
 * return the same bits. */
weights_form form_of(const run_experts *op, const cuda_weight *views)
{
    int fp4 = op->round && op->block == FP4_SUM && op->dim % FP4_STEP == 0 &&
              op->expert_dim % FP4_STEP == 0;
    int bf16 = 1;
    int floats = 1;
    int fp8 = 1;
    int exact = 1;
    const int on_grid = op->round && op->block == FEW_COLUMNS && op->dim % 4 == 0 &&
                        op->expert_dim % 4 == 0;

    for (size_t i = 0; i < 3 * op->expert_count; i++) {
        fp4 &= is_fp4(views[i]);
        bf16 &= views[i].dtype == CKPT_BF16 && views[i].by_four;
        floats &= views[i].dtype == CKPT_F32;
        fp8 &= few_form_of(&views[i], 0) == FEW_FP8;
        exact &= few_form_of(&views[i], on_grid) == FEW_EXACT;
    }
    return fp4 ? FORM_FP4 : bf16 ? FORM_BF16 : floats ? FORM_FLOATS : exact ? FORM_EXACT
           : fp8 ? FORM_FP8 : FORM_ANY;
}

void launch_few_of(cudaStream_t stream, weights_form form, const experts_job &j, const slab &s)
{
    if (form == FORM_FLOATS)
        launch_few<few_float>(stream, j, s);
    else if (form == FORM_BF16)
        launch_few<few_bf16>(stream, j, s);
    else if (form == FORM_EXACT)
        launch_few<few_exact>(stream, j, s);
    else if (form == FORM_FP8)
        launch_few<few_fp8>(stream, j, s);
    else
        launch_few<few_any>(stream, j, s);
}

void launch_slab(cuda_backend *cuda, weights_form form, const experts_job &j, const slab &s)
{
    const cudaStream_t stream = cuda_queue(cuda);
    const dim3 gather(s.target_count, cuda_grid(j.dim, TILE_THREADS), 1);

    if (form == FORM_FP4)
        launch_fp4(cuda, j, s);
    else if (form == FORM_EXACT && takes_single(cuda, j, s))
        launch_single(cuda, j, s);
    else if (takes_few(j, s))
        launch_few_of(stream, form, j, s);
    else if (s.entry_count <= s.item_count * tile_small::X)
        launch_any<tile_small, any_weights>(stream, j, s);
    else if (form == FORM_FLOATS)
        launch_any<tile_large, float_weights>(stream, j, s);
    else if (form == FORM_BF16)
        launch_any<tile_large, bf16_weights>(stream, j, s);
    else
        launch_any<tile_large, any_weights>(stream, j, s);
    gather_kernel<<<gather, TILE_THREADS, 0, stream>>>(j, s);
}

/* Fill, send and compute one slab. */
ckpt_code run_slab(const experts_call &call, experts_cursor *at, ckpt_error *err)
{
    cuda_backend *cuda = call.cuda;
    const run_experts *op = call.op;
    const experts_job j = { cuda_view(op->x), cuda_view(op->y), op->dim,
                            op->expert_dim,   op->block,        op->limit, op->round };
    const uint64_t capacity = slab_capacity(op);
    const uint64_t items = slab_items(op, capacity);
    slab_lists l;
    slab_lists on_device;
    slab s = {};
    cuda_parcel *parcel;
    ckpt_code code;

    lay_out(nullptr, capacity, items, &l);
    if ((code = cuda_parcel_take(cuda, l.bytes, &parcel, err)) != CKPT_OK)
        return code;
    lay_out(parcel->memory, capacity, items, &l);
    lay_out(cuda->scratch[CUDA_SCRATCH_LISTS], capacity, items, &on_device);
    fill_entries(call, at, &l, &s);
    if (s.entry_count == 0)
        return CKPT_OK;
    sort_entries(&l, &s);
    if ((code = cuda_parcel_send(cuda, parcel, on_device.items, l.bytes, err)) != CKPT_OK)
        return code;
    s.items = on_device.items;
    s.rows = on_device.rows;
    s.factors = on_device.factors;
    s.targets = on_device.targets;
    s.target_begin = on_device.target_begin;
    s.order = on_device.order;
    s.a = reinterpret_cast<float *>(cuda->scratch[CUDA_SCRATCH_FLOATS]);
    s.b = s.a + capacity * op->expert_dim;
    s.y = s.b + capacity * op->expert_dim;
    s.scales = s.y + capacity * op->dim;
    launch_slab(cuda, form_of(op, call.views.data()), j, s);
    return cuda_launched("experts", err);
}

ckpt_code await_experts(experts_call &call, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < call.op->expert_count && code == CKPT_OK; i++) {
        const run_expert *e = &call.op->experts[i];

        for (const run_weight *w : { e->w1, e->w2, e->w3 }) {
            call.views.push_back(w->view);
            if (code == CKPT_OK)
                code = cuda_await(call.cuda, w, err);
        }
    }
    return code;
}

/* If the call has a single expert with many rows, decode its weights once, if they fit in
 * CUDA_WORK_BYTES. */
ckpt_code decode_expert(experts_call &call, ckpt_error *err)
{
    const uint64_t each = (uint64_t)call.op->dim * call.op->expert_dim;
    const weights_form form = form_of(call.op, call.views.data());
    ckpt_code code;

    if (call.op->expert_count != 1 || call.op->experts->row_count <= tile_large::X ||
        (form != FORM_ANY && form != FORM_FP8 && form != FORM_EXACT) ||
        3 * each * sizeof(float) > CUDA_WORK_BYTES)
        return CKPT_OK;
    for (const cuda_weight &w : call.views)
        if (!cuda_can_decode(&w, 0))
            return CKPT_OK;
    code = cuda_scratch(call.cuda, CUDA_SCRATCH_WEIGHTS, 3 * each * sizeof(float), err);
    for (size_t i = 0; i < 3 && code == CKPT_OK; i++) {
        const cuda_decode_job decode = {
            &call.views[i], 0, each / call.views[i].cols,
            reinterpret_cast<float *>(call.cuda->scratch[CUDA_SCRATCH_WEIGHTS]) + i * each
        };

        code = cuda_decode(call.cuda, &decode, err);
    }
    return code;
}

} // namespace

ckpt_code experts_cuda(run_backend *backend, const run_experts *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const uint64_t capacity = slab_capacity(op);
    experts_call call = { cuda, op, {} };
    experts_cursor at = { 0, 0 };
    slab_lists l;
    const uint64_t bytes = lay_out(nullptr, capacity, slab_items(op, capacity), &l);
    ckpt_code code;

    if ((code = cuda_check_block(op->block, err)) == CKPT_OK &&
        (code = cuda_scratch(cuda, CUDA_SCRATCH_FLOATS, slab_floats(op, capacity) * sizeof(float),
                             err)) == CKPT_OK &&
        (code = cuda_scratch(cuda, CUDA_SCRATCH_LISTS, bytes + sizeof(uint4), err)) == CKPT_OK &&
        (code = await_experts(call, err)) == CKPT_OK)
        code = decode_expert(call, err);
    while (code == CKPT_OK && at.expert < op->expert_count)
        code = run_slab(call, &at, err);
    return code == CKPT_OK ? cuda_next_epoch(cuda, err) : code;
}
