/*
 * cuda_product.cu: products with stored weights. With many rows of x, codes are decoded before the
 * product; otherwise each tile of rows would decode them again.
 */
#include "cuda_fp8_single.cuh"
#include "cuda_ring.cuh"

#include "kernels/cuda/dequantise.h"

namespace {

struct linear_job {
    cuda_rows x;
    cuda_rows y;
    cuda_weight weight;
    uint64_t row_count;
    const uint8_t *other_data;   /* NULL, or the codes of another weight without scales */
    float *other_y;
    uint64_t weight_row;
    uint64_t weight_row_count;
    uint64_t group_rows;
    uint64_t group_step;
    uint32_t block;
    float scale;
    int round;
};

__device__ __forceinline__ float finish(const linear_job &j, float sum)
{
    const float value = run_round(sum, j.round);

    return j.scale != 0 ? run_round(value * j.scale, j.round) : value;
}

template <typename S, typename Weights>
__global__ void __launch_bounds__(TILE_THREADS, 3)
    linear_kernel(const __grid_constant__ linear_job j)
{
    __shared__ tile_memory<S> memory;
    const uint64_t t = (uint64_t)blockIdx.x * S::X;
    const uint64_t n = (uint64_t)blockIdx.y * S::W;
    const auto x_at = [&](uint32_t i) {
        return float_loader{ t + i < j.row_count ? j.x.row(t + i) : nullptr };
    };
    const auto w_at = [&](uint32_t i) {
        return Weights::row(n + i < j.weight_row_count ? &j.weight : nullptr,
                            j.weight_row + n + i);
    };
    const auto out = [&](uint32_t row, uint32_t column, float sum) {
        if (t + row < j.row_count && n + column < j.weight_row_count)
            j.y.row(t + row)[n + column] = finish(j, sum);
    };

    tile_product<S>(x_at, w_at, j.weight.cols, j.block, memory, out);
}

template <typename S, typename Weights> void launch_as(cudaStream_t stream, const linear_job &j)
{
    const dim3 grid(cuda_grid(j.row_count, S::X), cuda_grid(j.weight_row_count, S::W), 1);

    linear_kernel<S, Weights><<<grid, TILE_THREADS, 0, stream>>>(j);
}

template <typename S> void launch(cudaStream_t stream, const linear_job &j)
{
    if (j.weight.dtype == CKPT_F32)
        launch_as<S, float_weights>(stream, j);
    else if (j.weight.dtype == CKPT_BF16 && j.weight.by_four)
        launch_as<S, bf16_weights>(stream, j);
    else
        launch_as<S, any_weights>(stream, j);
}

void multiply(cuda_backend *cuda, const linear_job &j)
{
    const uint64_t blocks =
        size_div_up(j.row_count, tile_large::X) * size_div_up(j.weight_row_count, tile_large::W);

    if (j.row_count <= tile_small::X || blocks < cuda->processor_count)
        launch<tile_small>(cuda_queue(cuda), j);
    else
        launch<tile_large>(cuda_queue(cuda), j);
}

/* ---- few rows ---- */

template <typename W>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    few_kernel(const __grid_constant__ linear_job j)
{
    extern __shared__ float sums[];
    const few_shape shape = { static_cast<uint32_t>(j.row_count), j.weight.cols, j.block };
    const uint64_t n = (uint64_t)blockIdx.x * few_outputs(j.block) + few_first(j.block);
    const uint32_t lane = few_lane_row();
    const float *x = lane >= j.row_count ? nullptr
                     : j.group_rows == 0 ? j.x.row(lane)
                                         : j.x.row(lane) + n / j.group_rows * j.group_step;
    const W w = W::at(n + lane < j.weight_row_count ? &j.weight : nullptr, j.weight_row + n + lane);

    few_product({ shape, x, sums }, w, [&](uint32_t row, uint32_t column, float sum) {
        if (n + column < j.weight_row_count)
            j.y.row(row)[n + column] = finish(j, sum);
    });
}

/* All outputs of a warp must be in one group of weight rows, since they share the rows of x. */
int takes_few(const linear_job &j)
{
    return few_fits(j.weight.cols, j.block, j.row_count) && j.group_rows % FEW_OUTPUTS == 0;
}

int is_on_grid(const linear_job &j)
{
    return j.round && j.block == FEW_COLUMNS && j.x.pitch % 4 == 0 &&
           reinterpret_cast<uintptr_t>(j.x.data) % 16 == 0;
}

void multiply_few(cuda_backend *cuda, const linear_job &j)
{
    const uint32_t grid = cuda_grid(j.weight_row_count, few_outputs(j.block));
    const uint64_t memory = few_memory(j.weight.cols, j.block, j.row_count);

    /* In deploy (rounding, sums in blocks) the graph has quantised the rows of x. */
    switch (few_form_of(&j.weight, is_on_grid(j))) {
    case FEW_EXACT:
        few_kernel<few_exact><<<grid, TILE_THREADS, memory, cuda_queue(cuda)>>>(j);
        break;
    case FEW_FLOATS:
        few_kernel<few_float><<<grid, TILE_THREADS, memory, cuda_queue(cuda)>>>(j);
        break;
    case FEW_BF16:
        few_kernel<few_bf16><<<grid, TILE_THREADS, memory, cuda_queue(cuda)>>>(j);
        break;
    case FEW_FP8:
        few_kernel<few_fp8><<<grid, TILE_THREADS, memory, cuda_queue(cuda)>>>(j);
        break;
    default:
        few_kernel<few_any><<<grid, TILE_THREADS, memory, cuda_queue(cuda)>>>(j);
    }
}

/* ---- a single row ---- */

__device__ __forceinline__ single_block single_block_of(const linear_job &j, uint64_t n,
                                                        uint32_t rows)
{
    const uint64_t group = j.group_rows == 0 ? 0 : n / j.group_rows;

    return { j.x.row(0) + group * j.group_step, &j.weight, j.weight_row + n,
             (uint32_t)min((uint64_t)rows, j.weight_row_count - n) };
}

/* The weight rows of a group, which have a row of x of their own. */
__device__ __forceinline__ single_block single_group_of(const linear_job &j)
{
    const uint64_t rows = j.group_rows == 0 ? j.weight_row_count : j.group_rows;

    return single_block_of(j, blockIdx.y * rows, (uint32_t)rows);
}

__global__ void __launch_bounds__(FP8_WARPS * 32, 1)
    fp8_single_kernel(const __grid_constant__ linear_job j, uint32_t split)
{
    extern __shared__ __align__(16) uint8_t memory[];
    const single_block b = single_group_of(j);
    float *y = j.y.row(0) + (b.row - j.weight_row);

    fp8_single(b, split, memory, [&](uint32_t row, float sum) { y[row] = finish(j, sum); });
}

__global__ void __launch_bounds__(RING_WARPS * 32, 1)
    ring_certain_kernel(const __grid_constant__ linear_job j)
{
    extern __shared__ __align__(16) uint8_t memory[];
    const single_block b = single_group_of(j);
    float *y = j.y.row(0) + (b.row - j.weight_row);

    ring_sum_certain<single_fp8>(b, memory, [&](float sum) { return finish(j, sum); },
                                 [&](uint32_t row, float value) { y[row] = value; });
}

template <typename W, uint32_t each>
__global__ void __launch_bounds__((each == 1 ? SINGLE_WARPS_MAX : SINGLE_WARPS) * 32, 2)
    single_certain_kernel(const __grid_constant__ linear_job j)
{
    extern __shared__ double2 segments[];
    const uint32_t rows = single_rows<W>(j.weight.cols, each);
    const uint64_t n = (uint64_t)blockIdx.x * rows;
    const int is_other = blockIdx.y == 1;
    float *y = (is_other ? j.other_y : j.y.row(0)) + n;
    single_block b = single_block_of(j, n, rows);
    cuda_weight w = j.weight;

    w.data = is_other ? j.other_data : w.data;
    b.weight = &w;
    single_certain<W, each>(b, segments, [&](float sum) { return finish(j, sum); },
                            [&](uint32_t row, float value) { y[row] = value; });
}

/* 1 if there is one row of x, which can be loaded by 16 bytes, and so can rows of the weights. */
int is_single(const linear_job &j, uint32_t columns)
{
    return j.row_count == 1 && j.group_step % 4 == 0 &&
           single_aligned(&j.weight, j.x.data, columns) &&
           reinterpret_cast<uintptr_t>(j.other_data) % 16 == 0 &&
           j.weight_row + j.weight_row_count <= UINT32_MAX;
}

/* Rows of x are the same for a thread block if its weight rows are in one group. */
template <typename W, uint32_t each>
int multiply_certain_by(cuda_backend *cuda, const linear_job &j)
{
    const uint32_t rows = single_rows<W>(j.weight.cols, each);
    const uint64_t memory = single_certain_memory<W>(j.weight.cols, each);
    const uint32_t warps = each == 1 ? SINGLE_WARPS_MAX : SINGLE_WARPS;

    if (!is_single(j, W::COLUMNS) || j.group_rows % rows != 0 || memory > SINGLE_MEMORY_MAX)
        return 0;
    const dim3 grid(cuda_grid(j.weight_row_count, rows), j.other_data == nullptr ? 1 : 2, 1);

    single_certain_kernel<W, each><<<grid, warps * 32, memory, cuda_queue(cuda)>>>(j);
    return 1;
}

uint64_t group_rows_of(const linear_job &j)
{
    return j.group_rows == 0 ? j.weight_row_count : j.group_rows;
}

/* Certain sums of enough FP8 weight rows for all warps, if shared memory suffices. */
int multiply_ring(cuda_backend *cuda, const linear_job &j)
{
    const uint64_t memory = ring_memory<single_fp8>(j.weight.cols);
    const uint64_t rows = group_rows_of(j);
    const uint64_t groups = size_div_up(j.weight_row_count, rows);

    if (!is_single(j, single_fp8::COLUMNS) || memory > cuda->shared_bytes ||
        groups > UINT16_MAX || j.weight.cols > RING_COLUMNS_MAX ||
        j.weight_row_count < (uint64_t)RING_ROWS * RING_WARPS / 4 * cuda->processor_count)
        return 0;
    cudaFuncSetAttribute(ring_certain_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)memory);
    ring_certain_kernel<<<dim3(ring_blocks(rows, cuda->processor_count / groups),
                               (uint32_t)groups, 1),
                          RING_WARPS * 32, memory, cuda_queue(cuda)>>>(j);
    return 1;
}

int multiply_fp8(cuda_backend *cuda, const linear_job &j)
{
    const uint64_t rows = group_rows_of(j);
    const uint64_t groups = size_div_up(j.weight_row_count, rows);
    const fp8_share share = fp8_divide(rows, j.weight.cols,
                                       (uint32_t)(cuda->processor_count / groups));
    const uint64_t memory = fp8_memory(j.weight.cols, share.split);

    if (!is_single(j, single_fp8::COLUMNS) || memory > cuda->shared_bytes || groups > UINT16_MAX)
        return 0;
    cudaFuncSetAttribute(fp8_single_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)memory);
    fp8_single_kernel<<<dim3(share.blocks, (uint32_t)groups, 1), FP8_WARPS * 32, memory,
                        cuda_queue(cuda)>>>(j, share.split);
    return 1;
}

/* With few weight rows, more thread blocks share them. */
template <typename W> int multiply_certain(cuda_backend *cuda, const linear_job &j)
{
    constexpr uint32_t MANY = 4;

    return j.weight_row_count < MANY * cuda->processor_count
               ? multiply_certain_by<W, 1>(cuda, j)
               : multiply_certain_by<W, MANY>(cuda, j);
}

/* Multiply a single row, if this is one and the weight is of a kind for which that is faster. */
int multiply_single(cuda_backend *cuda, const linear_job &j)
{
    const cuda_weight *w = &j.weight;

    if (j.block == 0 && w->scale_dtype == CKPT_NONE && w->dtype == CKPT_F32)
        return multiply_certain<single_float>(cuda, j);
    if (j.block == 0 && w->scale_dtype == CKPT_NONE && w->dtype == CKPT_BF16)
        return multiply_certain<single_bf16>(cuda, j);
    if (j.block == 0 && w->scale_dtype == CKPT_F8_E8M0 && few_form_of(w, 0) == FEW_FP8)
        return multiply_ring(cuda, j) || multiply_certain<single_fp8>(cuda, j);
    return single_takes_exact(w, j.x.data, is_on_grid(j)) &&
           multiply_fp8(cuda, j);
}

/* ---- many rows ---- */

/* Decode and multiply the weight in bands of rows that fit in CUDA_WORK_BYTES. */
ckpt_code multiply_decoded(cuda_backend *cuda, const linear_job &whole, ckpt_error *err)
{
    const uint64_t row_bytes = (uint64_t)whole.weight.cols * sizeof(float);
    const uint64_t rows = size_max(CUDA_WORK_BYTES / row_bytes / SOURCE_BAND_ROWS, 1) *
                          SOURCE_BAND_ROWS;
    linear_job j = whole;
    ckpt_code code = cuda_scratch(cuda, CUDA_SCRATCH_WEIGHTS,
                                  size_min(rows, whole.weight_row_count) * row_bytes, err);

    for (uint64_t done = 0; done < whole.weight_row_count && code == CKPT_OK; done += rows) {
        const cuda_decode_job decode = {
            &j.weight, whole.weight_row + done, size_min(rows, whole.weight_row_count - done),
            reinterpret_cast<float *>(cuda->scratch[CUDA_SCRATCH_WEIGHTS])
        };

        j.weight = whole.weight;
        code = cuda_decode(cuda, &decode, err);
        j.weight_row = 0;
        j.weight_row_count = decode.row_count;
        j.y.data = whole.y.data + done;
        if (code == CKPT_OK)
            multiply(cuda, j);
    }
    return code;
}

int is_fp8(const cuda_weight *w)
{
    return w->dtype == CKPT_F8_E4M3 && w->block_rows == 128 && w->block_cols == 128 &&
           (w->scale_dtype == CKPT_F8_E8M0 || w->scale_dtype == CKPT_F32);
}

int is_fp4(const cuda_weight *w)
{
    return w->dtype == CKPT_F4 && w->block_rows == 1 && w->block_cols == 32 &&
           w->scale_dtype == CKPT_F8_E8M0;
}

} // namespace

ckpt_code cuda_check_block(uint32_t block, ckpt_error *err)
{
    return block % TILE_STEP == 0 ? CKPT_OK
                                  : ckpt_fail(err, CKPT_E_USAGE, "sums in blocks of %u", block);
}

int cuda_can_decode(const cuda_weight *w, uint64_t row)
{
    return (is_fp8(w) && w->cols % 16 == 0 && row % 128 == 0) || (is_fp4(w) && w->cols % 32 == 0);
}

ckpt_code cuda_decode(cuda_backend *cuda, const cuda_decode_job *job, ckpt_error *err)
{
    cuda_weight *w = job->view;
    const cuda_dequantise_job codes = { w->data + job->row * w->row_bytes,
                                        w->scale + job->row / w->block_rows * w->scale_row_bytes,
                                        job->out, job->row_count, w->cols,
                                        w->scale_dtype == CKPT_F8_E8M0 };
    const int error = is_fp8(w) ? cuda_fp8_to_f32(&codes, cuda_queue(cuda))
                                : cuda_fp4_to_f32(&codes, cuda_queue(cuda));

    *w = { reinterpret_cast<const uint8_t *>(job->out), nullptr, w->cols * sizeof(float), 0,
           w->cols, 1, 1, CKPT_F32, CKPT_NONE, 0 };
    return error == cudaSuccess
               ? CKPT_OK
               : cuda_fail(err, "decoded weights", static_cast<cudaError_t>(error));
}

/* Multiply each group of weight rows separately. */
static ckpt_code multiply_groups(cuda_backend *cuda, const linear_job &whole, ckpt_error *err)
{
    const uint64_t rows = whole.group_rows == 0 ? whole.weight_row_count : whole.group_rows;
    linear_job j = whole;
    ckpt_code code = CKPT_OK;

    for (uint64_t done = 0; done < whole.weight_row_count && code == CKPT_OK; done += rows) {
        j.weight_row = whole.weight_row + done;
        j.weight_row_count = size_min(rows, whole.weight_row_count - done);
        j.x.data = whole.x.data + done / rows * whole.group_step;
        j.y.data = whole.y.data + done;
        if (j.row_count <= tile_large::X || !cuda_can_decode(&j.weight, j.weight_row))
            multiply(cuda, j);
        else
            code = multiply_decoded(cuda, j, err);
    }
    return code;
}

/* 1 if both weights are without scales and of the same encoding. */
static int is_alike(const cuda_weight &a, const cuda_weight &b)
{
    return a.dtype == b.dtype && a.scale_dtype == CKPT_NONE && b.scale_dtype == CKPT_NONE;
}

/* The products with both weights: by one launch, if they are single and have no scales. */
static ckpt_code linear_both(cuda_backend *cuda, const run_linear *op, const linear_job &j,
                             ckpt_error *err)
{
    const run_linear other = run_linear_other(op);
    run_linear first = *op;
    linear_job both = j;
    ckpt_code code = cuda_await(cuda, other.weight, err);

    both.other_data = other.weight->view.data;
    both.other_y = cuda_view(other.y).data;
    if (code != CKPT_OK)
        return code;
    if (op->block == 0 && is_alike(op->weight->view, other.weight->view) &&
        multiply_single(cuda, both))
        return cuda_launched("linear", err);
    first.other_weight = nullptr;
    code = linear_cuda(&cuda->base, &first, err);
    return code == CKPT_OK ? linear_cuda(&cuda->base, &other, err) : code;
}

ckpt_code linear_cuda(run_backend *backend, const run_linear *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const linear_job j = { cuda_view(op->x), cuda_view(op->y), op->weight->view,
                           op->row_count,    nullptr,          nullptr,
                           op->weight_row,   op->weight_row_count,
                           op->group_rows,   op->group_step,   op->block,
                           op->scale,        op->round };
    ckpt_code code;

    if ((code = cuda_check_block(op->block, err)) != CKPT_OK ||
        (code = cuda_await(cuda, op->weight, err)) != CKPT_OK || op->row_count == 0)
        return code;
    if (op->other_weight != nullptr)
        return linear_both(cuda, op, j, err);
    if (multiply_single(cuda, j))
        return cuda_launched("linear", err);
    if (takes_few(j))
        multiply_few(cuda, j);
    else if ((code = multiply_groups(cuda, j, err)) != CKPT_OK)
        return code;
    return cuda_launched("linear", err);
}
