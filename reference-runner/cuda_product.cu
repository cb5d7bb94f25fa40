/* Products with stored weights, and the grouped product of experts. */
#include "cuda_tile.cuh"

#include <stdlib.h>

namespace {

constexpr uint32_t WARP = 32;
constexpr uint32_t ACTIVATION_BLOCK = 128;

struct linear_job {
    cuda_rows x;
    cuda_rows y;
    cuda_weight weight;
    uint64_t row_count;
    uint64_t weight_row;
    uint64_t weight_row_count;
    uint32_t block;
    float scale;
    int round;
};

__global__ void __launch_bounds__(TILE_THREADS) linear_kernel(const __grid_constant__ linear_job j)
{
    __shared__ tile_memory memory;
    const uint64_t t = (uint64_t)blockIdx.x * TILE;
    const uint64_t n = (uint64_t)blockIdx.y * TILE;
    const uint64_t load = tile_load_row();
    const float_loader x = { t + load < j.row_count ? j.x.row(t + load) : nullptr };
    const weight_loader w = { n + load < j.weight_row_count ? &j.weight : nullptr,
                              j.weight_row + n + load };
    float acc[4];

    tile_product(x, w, j.weight.cols, j.block, memory, acc);
    if (t + tile_row() >= j.row_count)
        return;
    float *y = j.y.row(t + tile_row());

    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t column = n + tile_column(i);
        const float value = run_round(acc[i], j.round);

        if (column < j.weight_row_count)
            y[column] = j.scale != 0 ? run_round(value * j.scale, j.round) : value;
    }
}

/* ---- experts ---- */

/* Some of the rows of one expert: entries first .. first + count - 1 of the lists. */
struct expert_item {
    cuda_weight weights[3];
    uint32_t first;
    uint32_t count;
};

/* One slab of routed rows: `entries` of them, sorted by expert, on the device. */
struct slab {
    const expert_item *items;
    const uint32_t *rows;        /* of x, by entry */
    const float *factors;        /* by entry */
    const uint32_t *targets;     /* the distinct rows */
    const uint32_t *target_begin;    /* where in `order` each one's entries begin, and the end */
    const uint32_t *order;       /* entries by row, then in the order of the experts */
    float *a;                    /* entries x expert_dim */
    float *b;
    float *y;                    /* entries x dim */
    uint32_t item_count;
    uint32_t entry_count;
    uint32_t target_count;
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

/* a and b: blockIdx.z 0 for w1, 1 for w3. */
__global__ void __launch_bounds__(TILE_THREADS)
    experts_in_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    __shared__ tile_memory memory;
    const expert_item *item = &s.items[blockIdx.x];
    const uint32_t n = blockIdx.y * TILE;
    const uint32_t load = tile_load_row();
    const float_loader x = {
        load < item->count ? j.x.row(s.rows[item->first + load]) : nullptr
    };
    const weight_loader w = {
        n + load < j.expert_dim ? &item->weights[blockIdx.z == 0 ? 0 : 2] : nullptr, n + load
    };
    float acc[4];

    tile_product(x, w, j.dim, j.block, memory, acc);
    if (tile_row() >= item->count)
        return;
    float *y = (blockIdx.z == 0 ? s.a : s.b) +
               (uint64_t)(item->first + tile_row()) * j.expert_dim;

    for (uint32_t i = 0; i < 4; i++)
        if (n + tile_column(i) < j.expert_dim)
            y[n + tile_column(i)] = run_round(acc[i], j.round);
}

/* h in place of a; one warp a block of 128 columns, put through the E4M3 grid when `round`. */
__global__ void activate_kernel(const __grid_constant__ experts_job j,
                                const __grid_constant__ slab s)
{
    const uint32_t blocks = (j.expert_dim + ACTIVATION_BLOCK - 1) / ACTIVATION_BLOCK;
    const uint32_t unit = blockIdx.x * (TILE_THREADS / WARP) + threadIdx.x / WARP;
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
        float gate = col < count ? a[col] : 0;
        float up = col < count ? b[col] : 0;

        if (j.limit > 0) {
            gate = gate > j.limit ? j.limit : gate;
            up = up > j.limit ? j.limit : up < -j.limit ? -j.limit : up;
        }
        h[i] = run_round(s.factors[entry] * (gate * run_sigmoid(gate) * up), j.round);
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

__global__ void __launch_bounds__(TILE_THREADS)
    experts_out_kernel(const __grid_constant__ experts_job j, const __grid_constant__ slab s)
{
    __shared__ tile_memory memory;
    const expert_item *item = &s.items[blockIdx.x];
    const uint32_t n = blockIdx.y * TILE;
    const uint32_t load = tile_load_row();
    const float_loader h = {
        load < item->count ? s.a + (uint64_t)(item->first + load) * j.expert_dim : nullptr
    };
    const weight_loader w = { n + load < j.dim ? &item->weights[1] : nullptr, n + load };
    float acc[4];

    tile_product(h, w, j.expert_dim, j.block, memory, acc);
    if (tile_row() >= item->count)
        return;
    float *y = s.y + (uint64_t)(item->first + tile_row()) * j.dim;

    for (uint32_t i = 0; i < 4; i++)
        if (n + tile_column(i) < j.dim)
            y[n + tile_column(i)] = run_round(acc[i], j.round);
}

/* Each row adds what its experts gave, in their order. */
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

/* The host's side of a slab: one block of memory, sent whole. */
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

/* Where the next slab begins. */
struct experts_cursor {
    size_t expert;
    uint64_t row;
};

/* Entries of a slab: as many as the bound on work space allows. */
uint64_t slab_capacity(const run_experts *op)
{
    const uint64_t entry_bytes = (2 * (uint64_t)op->expert_dim + op->dim) * sizeof(float);

    return size_max(size_min(CUDA_WORK_BYTES / entry_bytes, CUDA_EXPERT_ROWS), TILE);
}

/* Take entries from the cursor on. */
void fill_entries(const run_experts *op, experts_cursor *at, slab_lists *l, slab *s)
{
    const uint64_t capacity = slab_capacity(op);

    while (at->expert < op->expert_count && s->entry_count < capacity) {
        const run_expert *e = &op->experts[at->expert];
        const uint64_t left = e->row_count - at->row;
        const uint64_t count = size_min(size_min(left, TILE), capacity - s->entry_count);

        if (left == 0) {
            at->expert++;
            at->row = 0;
            continue;
        }
        l->items[s->item_count++] = { { e->w1->view, e->w2->view, e->w3->view },
                                      s->entry_count,
                                      static_cast<uint32_t>(count) };
        memcpy(l->rows + s->entry_count, e->rows + at->row, count * sizeof *l->rows);
        memcpy(l->factors + s->entry_count, e->factors + at->row, count * sizeof *l->factors);
        s->entry_count += static_cast<uint32_t>(count);
        at->row += count;
    }
}

/* By row, then by entry. */
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

void launch_slab(cudaStream_t stream, const experts_job &j, const slab &s)
{
    const uint32_t blocks = cuda_grid(j.expert_dim, ACTIVATION_BLOCK);
    const dim3 in(s.item_count, cuda_grid(j.expert_dim, TILE), 2);
    const dim3 out(s.item_count, cuda_grid(j.dim, TILE), 1);
    const dim3 gather(s.target_count, cuda_grid(j.dim, TILE_THREADS), 1);

    experts_in_kernel<<<in, TILE_THREADS, 0, stream>>>(j, s);
    activate_kernel<<<cuda_grid((uint64_t)s.entry_count * blocks, TILE_THREADS / WARP),
                      TILE_THREADS, 0, stream>>>(j, s);
    experts_out_kernel<<<out, TILE_THREADS, 0, stream>>>(j, s);
    gather_kernel<<<gather, TILE_THREADS, 0, stream>>>(j, s);
}

/* Fill, send and compute one slab; `host` has room for its lists. */
ckpt_code run_slab(cuda_backend *cuda, const run_experts *op, experts_cursor *at, char *host,
                   ckpt_error *err)
{
    const experts_job j = { cuda_view(op->x), cuda_view(op->y), op->dim,
                            op->expert_dim,   op->block,        op->limit, op->round };
    const uint64_t capacity = slab_capacity(op);
    const uint64_t items = capacity / TILE + op->expert_count + 1;
    slab_lists l;
    slab_lists on_device;
    slab s = {};
    cudaError_t error;

    lay_out(host, capacity, items, &l);
    lay_out(cuda->scratch[CUDA_SCRATCH_LISTS], capacity, items, &on_device);
    fill_entries(op, at, &l, &s);
    if (s.entry_count == 0)
        return CKPT_OK;
    sort_entries(&l, &s);
    error = cudaMemcpyAsync(on_device.items, host, l.bytes, cudaMemcpyHostToDevice,
                            cuda->compute);
    if (error != cudaSuccess)
        return cuda_fail(err, "lists of experts", error);
    s.items = on_device.items;
    s.rows = on_device.rows;
    s.factors = on_device.factors;
    s.targets = on_device.targets;
    s.target_begin = on_device.target_begin;
    s.order = on_device.order;
    s.a = reinterpret_cast<float *>(cuda->scratch[CUDA_SCRATCH_FLOATS]);
    s.b = s.a + capacity * op->expert_dim;
    s.y = s.b + capacity * op->expert_dim;
    launch_slab(cuda->compute, j, s);
    return cuda_launched("experts", err);
}

ckpt_code check_block(uint32_t block, ckpt_error *err)
{
    return block % TILE == 0 ? CKPT_OK
                             : ckpt_fail(err, CKPT_E_USAGE, "sums in blocks of %u", block);
}

} // namespace

ckpt_code linear_cuda(run_backend *backend, const run_linear *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const linear_job j = { cuda_view(op->x), cuda_view(op->y), op->weight->view,
                           op->row_count,    op->weight_row,   op->weight_row_count,
                           op->block,        op->scale,        op->round };
    const dim3 grid(cuda_grid(op->row_count, TILE), cuda_grid(op->weight_row_count, TILE), 1);
    ckpt_code code;

    if ((code = check_block(op->block, err)) != CKPT_OK ||
        (code = cuda_await_weights(cuda, err)) != CKPT_OK || op->row_count == 0)
        return code;
    linear_kernel<<<grid, TILE_THREADS, 0, cuda->compute>>>(j);
    return cuda_launched("linear", err);
}

ckpt_code experts_cuda(run_backend *backend, const run_experts *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const uint64_t capacity = slab_capacity(op);
    const uint64_t floats = capacity * (2 * (uint64_t)op->expert_dim + op->dim);
    const uint64_t items = capacity / TILE + op->expert_count + 1;
    experts_cursor at = { 0, 0 };
    slab_lists l;
    const uint64_t bytes = lay_out(nullptr, capacity, items, &l);
    char *host = static_cast<char *>(malloc(bytes));
    ckpt_code code;

    if (host == nullptr)
        return ckpt_fail_memory(err, "lists of experts", bytes);
    if ((code = check_block(op->block, err)) == CKPT_OK &&
        (code = cuda_scratch(cuda, CUDA_SCRATCH_FLOATS, floats * sizeof(float), err)) == CKPT_OK &&
        (code = cuda_scratch(cuda, CUDA_SCRATCH_LISTS, bytes, err)) == CKPT_OK)
        code = cuda_await_weights(cuda, err);
    while (code == CKPT_OK && at.expert < op->expert_count)
        code = run_slab(cuda, op, &at, host, err);
    free(host);
    return code;
}
