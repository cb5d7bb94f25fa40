/* Products with stored weights. */
#include "cuda_tile.cuh"

namespace {

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

template <typename S>
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
        return weight_loader{ n + i < j.weight_row_count ? &j.weight : nullptr,
                              j.weight_row + n + i };
    };
    const auto out = [&](uint32_t row, uint32_t column, float sum) {
        const float value = run_round(sum, j.round);

        if (t + row < j.row_count && n + column < j.weight_row_count)
            j.y.row(t + row)[n + column] =
                j.scale != 0 ? run_round(value * j.scale, j.round) : value;
    };

    tile_product<S>(x_at, w_at, j.weight.cols, j.block, memory, out);
}

template <typename S> void launch(cudaStream_t stream, const linear_job &j)
{
    const dim3 grid(cuda_grid(j.row_count, S::X), cuda_grid(j.weight_row_count, S::W), 1);

    linear_kernel<S><<<grid, TILE_THREADS, 0, stream>>>(j);
}

} // namespace

ckpt_code cuda_check_block(uint32_t block, ckpt_error *err)
{
    return block % TILE_STEP == 0 ? CKPT_OK
                                  : ckpt_fail(err, CKPT_E_USAGE, "sums in blocks of %u", block);
}

ckpt_code linear_cuda(run_backend *backend, const run_linear *op, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    const linear_job j = { cuda_view(op->x), cuda_view(op->y), op->weight->view,
                           op->row_count,    op->weight_row,   op->weight_row_count,
                           op->block,        op->scale,        op->round };
    const uint64_t blocks = size_div_up(op->row_count, tile_large::X) *
                            size_div_up(op->weight_row_count, tile_large::W);
    ckpt_code code;

    if ((code = cuda_check_block(op->block, err)) != CKPT_OK ||
        (code = cuda_await(cuda, op->weight, err)) != CKPT_OK || op->row_count == 0)
        return code;
    if (op->row_count <= tile_small::X || blocks < cuda->processor_count)
        launch<tile_small>(cuda->compute, j);
    else
        launch<tile_large>(cuda->compute, j);
    return cuda_launched("linear", err);
}
