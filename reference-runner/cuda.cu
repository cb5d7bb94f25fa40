/*
 * The CUDA backend: streams, buffers, weights.
 *
 * Weights leave through pinned buffers on the copy stream while the computing stream works on what
 * came before. A freed weight's memory is kept for the next one of its size, which waits on the
 * device, not here, until the kernels that still read the old one are through. Kept memory counts:
 * live and kept together never exceed what was live at once.
 */
#include "cuda_private.cuh"

#include <new>

enum { ALIGNMENT = 256, CAPABILITY_MIN = 8 };

ckpt_code cuda_fail(ckpt_error *err, const char *what, cudaError_t error)
{
    return ckpt_fail(err, error == cudaErrorMemoryAllocation ? CKPT_E_MEMORY : CKPT_E_IO,
                     "CUDA: %s: %s", what, cudaGetErrorString(error));
}

ckpt_code cuda_launched(const char *what, ckpt_error *err)
{
    const cudaError_t error = cudaGetLastError();

    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, what, error);
}

/* ---- open and close ---- */

static void close_cuda(run_backend *backend);

static ckpt_code find_device(ckpt_error *err)
{
    int count = 0;
    int major = 0;
    cudaError_t error = cudaGetDeviceCount(&count);

    if (error == cudaSuccess && count == 0)
        error = cudaErrorNoDevice;
    if (error == cudaSuccess)
        error = cudaSetDevice(0);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    if (error != cudaSuccess)
        return ckpt_fail(err, CKPT_E_USAGE, "the backend 'cuda' finds no device: %s",
                         cudaGetErrorString(error));
    if (major < CAPABILITY_MIN)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "the backend 'cuda' needs compute capability %d.0, the device has %d",
                         CAPABILITY_MIN, major);
    return CKPT_OK;
}

static ckpt_code free_bytes_cuda(uint64_t *out, ckpt_error *err)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    const ckpt_code code = find_device(err);
    cudaError_t error;

    if (code != CKPT_OK)
        return code;
    error = cudaMemGetInfo(&free_bytes, &total_bytes);
    *out = free_bytes;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "free memory", error);
}

static cudaError_t create_streams(cuda_backend *cuda)
{
    cudaError_t error = cudaStreamCreateWithFlags(&cuda->compute, cudaStreamNonBlocking);

    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&cuda->copied, cudaEventDisableTiming);
    for (int i = 0; i < CUDA_STAGE_COUNT && error == cudaSuccess; i++) {
        cuda_stage *s = &cuda->stages[i];

        error = cudaMallocHost(reinterpret_cast<void **>(&s->memory), CUDA_STAGE_BYTES);
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&s->sent, cudaEventDisableTiming);
    }
    return error;
}

static ckpt_code open_cuda(unsigned thread_count, run_backend **out, ckpt_error *err)
{
    cuda_backend *cuda;
    cudaError_t error;
    ckpt_code code;

    (void)thread_count;
    if ((code = find_device(err)) != CKPT_OK)
        return code;
    cuda = new (std::nothrow) cuda_backend();
    if (cuda == nullptr)
        return ckpt_fail_memory(err, "a backend", sizeof *cuda);
    cuda->base.ops = &run_backend_cuda;
    if ((error = create_streams(cuda)) != cudaSuccess) {
        close_cuda(&cuda->base);
        return cuda_fail(err, "streams and pinned memory", error);
    }
    *out = &cuda->base;
    return CKPT_OK;
}

static void drop_block(cuda_block *block)
{
    cudaFree(block->memory);
    cudaEventDestroy(block->released);
    delete block;
}

static void drop_cached(cuda_backend *cuda)
{
    while (cuda->cached != nullptr) {
        cuda_block *block = cuda->cached;

        cuda->cached = block->next;
        drop_block(block);
    }
    cuda->cached_bytes = 0;
}

static void close_cuda(run_backend *backend)
{
    cuda_backend *cuda = cuda_of(backend);

    if (cuda->compute != nullptr)
        cudaStreamSynchronize(cuda->compute);
    if (cuda->copy != nullptr)
        cudaStreamSynchronize(cuda->copy);
    drop_cached(cuda);
    for (char *scratch : cuda->scratch)
        cudaFree(scratch);
    for (cuda_stage &s : cuda->stages) {
        if (s.sent != nullptr)
            cudaEventDestroy(s.sent);
        cudaFreeHost(s.memory);
    }
    if (cuda->copied != nullptr)
        cudaEventDestroy(cuda->copied);
    if (cuda->copy != nullptr)
        cudaStreamDestroy(cuda->copy);
    if (cuda->compute != nullptr)
        cudaStreamDestroy(cuda->compute);
    delete cuda;
}

/* ---- memory ---- */

/* What is kept for later goes before an allocation fails. */
static cudaError_t allocate(cuda_backend *cuda, uint64_t bytes, char **out)
{
    cudaError_t error = cudaMalloc(reinterpret_cast<void **>(out), bytes);

    if (error == cudaErrorMemoryAllocation && cuda->cached != nullptr) {
        cudaGetLastError();
        drop_cached(cuda);
        error = cudaMalloc(reinterpret_cast<void **>(out), bytes);
    }
    if (error != cudaSuccess)
        cudaGetLastError();     /* reported here, and not again by the next launch */
    return error;
}

ckpt_code cuda_scratch(cuda_backend *cuda, int which, uint64_t bytes, ckpt_error *err)
{
    cudaError_t error;

    if (cuda->scratch_bytes[which] >= bytes)
        return CKPT_OK;
    cudaFree(cuda->scratch[which]);     /* waits for the kernels that use it */
    cuda->scratch[which] = nullptr;
    cuda->scratch_bytes[which] = 0;
    if ((error = allocate(cuda, bytes, &cuda->scratch[which])) != cudaSuccess)
        return cuda_fail(err, "work space", error);
    cuda->scratch_bytes[which] = bytes;
    return CKPT_OK;
}

static ckpt_code buffer_zero_cuda(run_buffer *buffer, uint64_t first, uint64_t count,
                                  ckpt_error *err)
{
    const cudaError_t error = cudaMemsetAsync(buffer->data + first, 0, count * sizeof(float),
                                              buffer->owner->compute);

    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "zeros", error);
}

static void buffer_free_cuda(run_backend *backend, run_buffer *buffer)
{
    (void)backend;
    if (buffer == nullptr)
        return;
    cudaFree(buffer->data);
    delete buffer;
}

static ckpt_code buffer_create_cuda(run_backend *backend, uint64_t count, run_buffer **out,
                                    ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    run_buffer *b = new (std::nothrow) run_buffer();
    cudaError_t error = cudaErrorMemoryAllocation;
    char *memory = nullptr;
    ckpt_code code;

    if (b != nullptr && count < SIZE_MAX / sizeof(float))
        error = allocate(cuda, (count + 1) * sizeof(float), &memory);
    if (error != cudaSuccess) {
        delete b;
        return cuda_fail(err, "a buffer", error);
    }
    b->owner = cuda;
    b->data = reinterpret_cast<float *>(memory);
    b->count = count;
    if ((code = buffer_zero_cuda(b, 0, count + 1, err)) != CKPT_OK) {
        buffer_free_cuda(backend, b);
        return code;
    }
    *out = b;
    return CKPT_OK;
}

/* The source is pageable: it is copied before the call returns. */
static ckpt_code buffer_write_cuda(run_buffer *buffer, uint64_t first, const void *from,
                                   uint64_t count, ckpt_error *err)
{
    const cudaError_t error =
        cudaMemcpyAsync(buffer->data + first, from, count * sizeof(float),
                        cudaMemcpyHostToDevice, buffer->owner->compute);

    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "write to the device", error);
}

static ckpt_code buffer_read_cuda(const run_buffer *buffer, uint64_t first, void *out,
                                  uint64_t count, ckpt_error *err)
{
    cudaError_t error = cudaMemcpyAsync(out, buffer->data + first, count * sizeof(float),
                                        cudaMemcpyDeviceToHost, buffer->owner->compute);

    if (error == cudaSuccess)
        error = cudaStreamSynchronize(buffer->owner->compute);
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "read from the device", error);
}

/* ---- weights ---- */

/* Memory of a weight: a kept block of this size, or a new one. */
static cudaError_t take_block(cuda_backend *cuda, uint64_t bytes, cuda_block **out)
{
    cuda_block **at = &cuda->cached;
    cuda_block *block;
    cudaError_t error;

    while (*at != nullptr && (*at)->bytes != bytes)
        at = &(*at)->next;
    if ((block = *at) != nullptr) {
        *at = block->next;
        cuda->cached_bytes -= bytes;
        *out = block;
        return cudaStreamWaitEvent(cuda->copy, block->released, 0);
    }
    if (cuda->live_bytes + cuda->cached_bytes + bytes >
        size_max(cuda->peak_bytes, cuda->live_bytes + bytes))
        drop_cached(cuda);
    block = new (std::nothrow) cuda_block();
    if (block == nullptr)
        return cudaErrorMemoryAllocation;
    block->bytes = bytes;
    error = allocate(cuda, bytes, &block->memory);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&block->released, cudaEventDisableTiming);
    if (error != cudaSuccess) {
        cudaFree(block->memory);
        delete block;
        return error;
    }
    *out = block;
    return cudaSuccess;
}

static void weight_free_cuda(run_backend *backend, run_weight *weight)
{
    cuda_backend *cuda = cuda_of(backend);

    if (weight == nullptr)
        return;
    cuda->live_bytes -= weight->block->bytes;
    /* A failed load may still be on its way; what the copy stream writes, it writes first. */
    if (cuda->copies_pending)
        cuda_await_weights(cuda, nullptr);
    if (cudaEventRecord(weight->block->released, cuda->compute) == cudaSuccess) {
        weight->block->next = cuda->cached;
        cuda->cached = weight->block;
        cuda->cached_bytes += weight->block->bytes;
    } else {
        drop_block(weight->block);
    }
    delete weight;
}

static ckpt_code weight_create_cuda(run_backend *backend, const ckpt_tensor *tensor,
                                    uint64_t row_count, run_weight **out, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    run_weight *w = new (std::nothrow) run_weight();
    cudaError_t error = cudaErrorMemoryAllocation;
    uint64_t data_bytes = 0;
    uint64_t bytes = 0;

    if (w != nullptr) {
        w->owner = cuda;
        w->tensor = *tensor;
        w->tensor.rank = 2;
        w->tensor.shape[0] = row_count;
        w->tensor.shape[1] = ckpt_tensor_cols(tensor);
        data_bytes = size_div_up(ckpt_part_bytes(&w->tensor, CKPT_DATA), ALIGNMENT) * ALIGNMENT;
        bytes = data_bytes + ckpt_part_bytes(&w->tensor, CKPT_SCALE);
        bytes = size_div_up(size_max(bytes, 1), ALIGNMENT) * ALIGNMENT;
        error = take_block(cuda, bytes, &w->block);
    }
    if (error != cudaSuccess) {
        delete w;
        return cuda_fail(err, "a weight", error);
    }
    cuda->live_bytes += bytes;
    cuda->peak_bytes = size_max(cuda->peak_bytes, cuda->live_bytes);
    w->view.data = reinterpret_cast<uint8_t *>(w->block->memory);
    w->view.scale = w->view.data + data_bytes;
    w->view.row_bytes = ckpt_part_row_bytes(&w->tensor, CKPT_DATA);
    w->view.scale_row_bytes = ckpt_part_row_bytes(&w->tensor, CKPT_SCALE);
    w->view.cols = static_cast<uint32_t>(w->tensor.shape[1]);
    w->view.dtype = tensor->dtype;
    w->view.scale_dtype = tensor->scale_dtype;
    w->view.block_rows = static_cast<uint32_t>(size_max(tensor->block_rows, 1));
    w->view.block_cols = static_cast<uint32_t>(size_max(tensor->block_cols, 1));
    w->view.by_four = w->view.cols % 4 == 0 &&
                      (tensor->scale_dtype == CKPT_NONE || w->view.block_cols % 4 == 0);
    *out = w;
    return CKPT_OK;
}

/* Queue one part of a tile, a stage after the other. Called from several threads. */
static cudaError_t send(cuda_backend *cuda, const uint8_t *to, const void *from, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += CUDA_STAGE_BYTES) {
        const uint64_t count = size_min(CUDA_STAGE_BYTES, bytes - done);
        unsigned next;
        cudaError_t error;

        {
            std::lock_guard<std::mutex> guard(cuda->stage_lock);

            next = cuda->next_stage++ % CUDA_STAGE_COUNT;
            cuda->copies_pending = 1;
        }
        cuda_stage *s = &cuda->stages[next];
        std::lock_guard<std::mutex> guard(s->lock);

        if ((error = cudaEventSynchronize(s->sent)) != cudaSuccess)
            return error;
        memcpy(s->memory, static_cast<const char *>(from) + done, count);
        error = cudaMemcpyAsync(const_cast<uint8_t *>(to) + done, s->memory, count,
                                cudaMemcpyHostToDevice, cuda->copy);
        if (error == cudaSuccess)
            error = cudaEventRecord(s->sent, cuda->copy);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

static ckpt_code weight_put_cuda(run_weight *weight, uint64_t row, uint64_t row_count,
                                 const ckpt_tile *tile, ckpt_error *err)
{
    const ckpt_tensor *t = &weight->tensor;
    const cuda_weight *v = &weight->view;
    const source_range range = { 0, row, row_count, SOURCE_WANT_ALL };
    cudaError_t error = send(weight->owner, v->data + row * v->row_bytes, tile->part[CKPT_DATA],
                             row_count * v->row_bytes);
    uint64_t first;
    uint64_t count;

    if (error == cudaSuccess && t->scale_dtype != CKPT_NONE) {
        source_scale_rows(t, &range, &first, &count);
        error = send(weight->owner, v->scale + first * v->scale_row_bytes,
                     tile->part[CKPT_SCALE], count * v->scale_row_bytes);
    }
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's copy", error);
}

ckpt_code cuda_await_weights(cuda_backend *cuda, ckpt_error *err)
{
    cudaError_t error;

    if (!cuda->copies_pending)
        return CKPT_OK;
    cuda->copies_pending = 0;
    error = cudaEventRecord(cuda->copied, cuda->copy);
    if (error == cudaSuccess)
        error = cudaStreamWaitEvent(cuda->compute, cuda->copied, 0);
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's arrival", error);
}

extern "C" const run_backend_ops run_backend_cuda = {
    .name = "cuda",
    .open = open_cuda,
    .close = close_cuda,
    .free_bytes = free_bytes_cuda,
    .buffer_create = buffer_create_cuda,
    .buffer_free = buffer_free_cuda,
    .buffer_write = buffer_write_cuda,
    .buffer_read = buffer_read_cuda,
    .buffer_zero = buffer_zero_cuda,
    .weight_create = weight_create_cuda,
    .weight_put = weight_put_cuda,
    .weight_free = weight_free_cuda,
    .linear = linear_cuda,
    .quantise = quantise_cuda,
    .norm = norm_cuda,
    .rope = rope_cuda,
    .hadamard = hadamard_cuda,
    .ring_put = ring_put_cuda,
    .pool = pool_cuda,
    .select = select_cuda,
    .attend = attend_cuda,
    .hc_pre = hc_pre_cuda,
    .hc_post = hc_post_cuda,
    .hc_head = hc_head_cuda,
    .route = route_cuda,
    .experts = experts_cuda,
    .add = add_cuda,
};
