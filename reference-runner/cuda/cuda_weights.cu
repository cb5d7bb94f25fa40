/*
 * cuda_weights.cu: weights on the device.
 *
 * Threads read weights into pinned stages; the copying stream copies them to the device while the
 * computing stream works. The computing stream waits for each weight separately, so prefetched ones
 * delay nothing. All weights are in one region. If a block is reused, the copying stream waits for
 * the kernels that read the previous weight; the host does not.
 */
#include "cuda_private.cuh"

#include <new>

enum { ALIGNMENT = 256 };

static const uint64_t REGION_SLACK = 1 << 20;    /* for alignment */

/* ---- blocks ---- */

static cuda_block *new_block(char *memory, uint64_t bytes)
{
    cuda_block *block = new (std::nothrow) cuda_block();

    if (block != nullptr) {
        block->memory = memory;
        block->bytes = bytes;
    }
    return block;
}

/* If the region cannot be allocated, each weight gets its own allocation. */
void weights_reserve_cuda(run_backend *backend, uint64_t bytes)
{
    cuda_backend *cuda = cuda_of(backend);

    if (cuda->region != nullptr || cuda_allocate(bytes + REGION_SLACK, &cuda->region) !=
                                       cudaSuccess)
        return;
    cuda->region_bytes = bytes + REGION_SLACK;
    cuda->blocks = cuda->rover = new_block(cuda->region, cuda->region_bytes);
}

void cuda_free_weights(cuda_backend *cuda)
{
    while (cuda->blocks != nullptr) {
        cuda_block *next = cuda->blocks->next;

        delete cuda->blocks;
        cuda->blocks = next;
    }
    cudaFree(cuda->region);
}

/* Join a free block with the free one after it. The result keeps the later epoch of the two. */
static void join_next(cuda_backend *cuda, cuda_block *block)
{
    cuda_block *next = block->next;

    block->bytes += next->bytes;
    block->epoch = size_max(block->epoch, next->epoch);
    block->next = next->next;
    if (next->next != nullptr)
        next->next->before = block;
    if (cuda->rover == next)
        cuda->rover = block;
    delete next;
}

static void give_back(cuda_backend *cuda, cuda_block *block)
{
    if (block->is_own) {
        cudaFree(block->memory);     /* waits for the device */
        delete block;
        return;
    }
    block->is_used = 0;
    if (block->next != nullptr && !block->next->is_used)
        join_next(cuda, block);
    if (block->before != nullptr && !block->before->is_used)
        join_next(cuda, block->before);
}

/* Use the first `bytes` of a free block; the rest becomes another free block. */
static cuda_block *cut(cuda_block *block, uint64_t bytes)
{
    if (block->bytes > bytes) {
        cuda_block *rest = new_block(block->memory + bytes, block->bytes - bytes);

        if (rest == nullptr)
            return nullptr;
        rest->epoch = block->epoch;
        rest->before = block;
        rest->next = block->next;
        if (rest->next != nullptr)
            rest->next->before = rest;
        block->next = rest;
        block->bytes = bytes;
    }
    block->is_used = 1;
    return block;
}

/* Next-fit: search from where the last search ended, once around. */
static cuda_block *find_block(cuda_backend *cuda, uint64_t bytes)
{
    cuda_block *block = cuda->rover;

    if (block == nullptr)
        return nullptr;
    do {
        if (!block->is_used && block->bytes >= bytes) {
            cuda->rover = block;
            return cut(block, bytes);
        }
        block = block->next != nullptr ? block->next : cuda->blocks;
    } while (block != cuda->rover);
    return nullptr;
}

/* Make the copying stream wait until the work of this epoch is done. */
static cudaError_t await_epoch(cuda_backend *cuda, uint64_t epoch)
{
    if (epoch == 0)
        return cudaSuccess;
    if (epoch > cuda->epoch) {       /* the current epoch: end it */
        const ckpt_code code = cuda_next_epoch(cuda, nullptr);

        if (code != CKPT_OK)
            return cudaErrorUnknown;
    }
    /* The event of an old epoch may have been reused for a later one, which ends after it. */
    return cudaStreamWaitEvent(cuda->copy, cuda->epochs[epoch % CUDA_EPOCHS], 0);
}

static cudaError_t take_block(cuda_backend *cuda, uint64_t bytes, cuda_block **out)
{
    cuda_block *block = find_block(cuda, bytes);
    cudaError_t error;
    char *memory;

    if (block != nullptr) {
        *out = block;
        return await_epoch(cuda, block->epoch);
    }
    if ((error = cuda_allocate(bytes, &memory)) != cudaSuccess)
        return error;
    if ((block = new_block(memory, bytes)) == nullptr) {
        cudaFree(memory);
        return cudaErrorMemoryAllocation;
    }
    block->is_own = 1;
    *out = block;
    return cudaSuccess;
}

/* ---- weights ---- */

/* The encodings that weight_value of cuda_tile.cuh decodes. NVFP4 of GGUF has rules of its own for
 * signs and NaN of the scales of blocks. */
int takes_cuda(const ckpt_tensor *t)
{
    const int is_code = t->dtype == CKPT_F4 || t->dtype == CKPT_F8_E4M3;

    switch (t->scale_dtype) {
    case CKPT_NONE:
        return is_code || t->dtype == CKPT_F8_E5M2 || t->dtype == CKPT_F8_E8M0 ||
               t->dtype == CKPT_F16 || t->dtype == CKPT_BF16 || t->dtype == CKPT_F32 ||
               ckpt_tensor_is_int(t);        /* tables, which are not weights */
    case CKPT_F8_E8M0:
    case CKPT_BF16:
    case CKPT_F32:
        return is_code;
    case CKPT_F8_E4M3:
        return is_code && t->tensor_scale != CKPT_TENSOR_SCALE_NONE &&
               t->stored_form == CKPT_FORM_APART;
    default:
        return 0;
    }
}

ckpt_code cuda_next_epoch(cuda_backend *cuda, ckpt_error *err)
{
    const cudaError_t error =
        cudaEventRecord(cuda->epochs[(cuda->epoch + 1) % CUDA_EPOCHS], cuda_queue(cuda));

    cuda->epoch++;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "an epoch", error);
}

/* Copies to the block may still be queued after a failed load. That is safe: the copies of the next
 * weight in this block are queued after them. */
void weight_free_cuda(run_backend *backend, run_weight *weight)
{
    if (weight == nullptr)
        return;
    give_back(cuda_of(backend), weight->block);
    cudaEventDestroy(weight->arrived);
    delete weight;
}

static void set_view(run_weight *w, uint64_t data_bytes)
{
    const ckpt_tensor *t = &w->tensor;

    w->view.data = reinterpret_cast<uint8_t *>(w->block->memory);
    w->view.scale = w->view.data + data_bytes;
    w->view.row_bytes = ckpt_part_row_bytes(t, CKPT_DATA);
    w->view.scale_row_bytes = ckpt_part_row_bytes(t, CKPT_SCALE);
    w->view.cols = static_cast<uint32_t>(t->shape[1]);
    w->view.dtype = t->dtype;
    w->view.scale_dtype = t->scale_dtype;
    w->view.block_rows = static_cast<uint32_t>(size_max(t->block_rows, 1));
    w->view.block_cols = static_cast<uint32_t>(size_max(t->block_cols, 1));
    w->view.by_four = w->view.cols % 4 == 0 &&
                      (t->scale_dtype == CKPT_NONE || w->view.block_cols % 4 == 0);
    w->view.tensor_scale_use = t->tensor_scale;
}

ckpt_code weight_create_cuda(run_backend *backend, const ckpt_tensor *tensor, uint64_t row_count,
                             run_weight **out, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    run_weight *w = new (std::nothrow) run_weight();
    cudaError_t error;
    uint64_t data_bytes;
    uint64_t bytes;

    if (w == nullptr)
        return ckpt_fail_memory(err, "a weight", sizeof *w);
    w->owner = cuda;
    w->tensor = *tensor;
    w->tensor.rank = 2;
    w->tensor.shape[0] = row_count;
    w->tensor.shape[1] = ckpt_tensor_cols(tensor);
    w->missing_rows = row_count;
    data_bytes = size_div_up(ckpt_part_bytes(&w->tensor, CKPT_DATA), ALIGNMENT) * ALIGNMENT;
    bytes = data_bytes + ckpt_part_bytes(&w->tensor, CKPT_SCALE);
    bytes = size_div_up(size_max(bytes, 1), ALIGNMENT) * ALIGNMENT;
    if ((error = cudaEventCreateWithFlags(&w->arrived, cudaEventDisableTiming)) == cudaSuccess &&
        (error = take_block(cuda, bytes, &w->block)) != cudaSuccess)
        cudaEventDestroy(w->arrived);
    if (error != cudaSuccess) {
        delete w;
        return cuda_fail(err, "a weight", error);
    }
    set_view(w, data_bytes);
    *out = w;
    return CKPT_OK;
}

static cudaError_t send(cuda_backend *cuda, const uint8_t *to, const void *from, uint64_t bytes)
{
    return cudaMemcpyAsync(const_cast<uint8_t *>(to), from, bytes, cudaMemcpyHostToDevice,
                           cuda->copy);
}

/* Small copies are slow, so copy data and scales at once if they are as far apart in the tile as on
 * the device, which is common for a whole weight. */
static cudaError_t put_parts(run_weight *w, uint64_t row, uint64_t row_count,
                             const ckpt_tile *tile)
{
    const source_range range = { 0, row, row_count, SOURCE_WANT_ALL };
    const cuda_weight *v = &w->view;
    const uint8_t *data = static_cast<const uint8_t *>(tile->part[CKPT_DATA]);
    const uint8_t *scale = static_cast<const uint8_t *>(tile->part[CKPT_SCALE]);
    const uint64_t data_bytes = row_count * v->row_bytes;
    cudaError_t error;
    uint64_t first;
    uint64_t count;

    if (w->tensor.scale_dtype == CKPT_NONE)
        return send(w->owner, v->data + row * v->row_bytes, data, data_bytes);
    source_scale_rows(&w->tensor, &range, &first, &count);
    if (row == 0 && scale > data && scale - data == v->scale - v->data)
        return send(w->owner, v->data, data,
                    static_cast<uint64_t>(scale - data) + count * v->scale_row_bytes);
    error = send(w->owner, v->data + row * v->row_bytes, data, data_bytes);
    if (error != cudaSuccess)
        return error;
    return send(w->owner, v->scale + first * v->scale_row_bytes, scale,
                count * v->scale_row_bytes);
}

ckpt_code weight_put_cuda(run_weight *weight, uint64_t row, uint64_t row_count,
                          const ckpt_tile *tile, run_stage *stage, ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(weight->owner);
    cuda_stage *s = reinterpret_cast<cuda_stage *>(stage);
    cudaError_t error;

    {
        std::lock_guard<std::mutex> guard(cuda->copy_lock);

        error = cudaEventRecord(s->begun, cuda->copy);
        if (error == cudaSuccess)
            error = put_parts(weight, row, row_count, tile);
        if (error == cudaSuccess)
            error = cudaEventRecord(s->sent, cuda->copy);
        s->is_timed = error == cudaSuccess;
        weight->missing_rows -= row_count;
        if (tile->part[CKPT_TENSOR_SCALE] != nullptr)    /* the same in every tile */
            memcpy(&weight->view.tensor_scale, tile->part[CKPT_TENSOR_SCALE], sizeof(float));
        if (error == cudaSuccess && weight->missing_rows == 0)
            error = cudaEventRecord(weight->arrived, cuda->copy);
    }
    std::lock_guard<std::mutex> guard(cuda->lap_lock);

    cuda->copy_bytes += row_count * weight->view.row_bytes;
    if (weight->tensor.scale_dtype != CKPT_NONE)
        cuda->copy_bytes += size_div_up(row_count, weight->view.block_rows) *
                            weight->view.scale_row_bytes;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's copy", error);
}

/* Events for timing are recorded only if the stream may have to wait. */
ckpt_code cuda_await(cuda_backend *cuda, const run_weight *weight, ckpt_error *err)
{
    run_weight *w = const_cast<run_weight *>(weight);
    cudaEvent_t *pair = cuda->wait_count < CUDA_WAITS ? cuda->waits[cuda->wait_count] : nullptr;
    cudaError_t error = cudaSuccess;

    w->block->epoch = cuda->epoch + 1;
    if (w->is_awaited)
        return CKPT_OK;
    w->is_awaited = 1;
    if (cudaEventQuery(w->arrived) == cudaSuccess)
        return CKPT_OK;
    cudaGetLastError();
    if (pair != nullptr)
        error = cudaEventRecord(pair[0], cuda_queue(cuda));
    if (error == cudaSuccess)
        error = cudaStreamWaitEvent(cuda_queue(cuda), w->arrived, 0);
    if (error == cudaSuccess && pair != nullptr) {
        error = cudaEventRecord(pair[1], cuda_queue(cuda));
        cuda->wait_count++;
    }
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's arrival", error);
}

/* ---- stages ---- */

void stage_free_cuda(run_backend *backend, run_stage *stage)
{
    cuda_stage *s = reinterpret_cast<cuda_stage *>(stage);

    cuda_of(backend);
    if (s == nullptr)
        return;
    if (s->begun != nullptr)
        cudaEventDestroy(s->begun);
    if (s->sent != nullptr)
        cudaEventDestroy(s->sent);
    cudaFreeHost(s->base.memory);
    delete s;
}

ckpt_code stage_create_cuda(run_backend *backend, uint64_t bytes, run_stage **out, ckpt_error *err)
{
    cuda_stage *s = new (std::nothrow) cuda_stage();
    cudaError_t error;

    if (s == nullptr)
        return ckpt_fail_memory(err, "a stage", sizeof *s);
    s->owner = cuda_of(backend);
    s->base.bytes = bytes;
    error = cudaMallocHost(&s->base.memory, bytes);
    if (error == cudaSuccess)
        error = cudaEventCreate(&s->begun);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&s->sent, cudaEventBlockingSync);
    if (error != cudaSuccess) {
        stage_free_cuda(backend, &s->base);
        return cuda_fail(err, "pinned memory", error);
    }
    *out = &s->base;
    return CKPT_OK;
}

ckpt_code stage_wait_cuda(run_stage *stage, ckpt_error *err)
{
    cuda_stage *s = reinterpret_cast<cuda_stage *>(stage);
    cudaError_t error;
    float milliseconds = 0;

    cuda_use(s->owner);
    error = cudaEventSynchronize(s->sent);
    if (error == cudaSuccess && s->is_timed)
        error = cudaEventElapsedTime(&milliseconds, s->begun, s->sent);
    s->is_timed = 0;
    if (error != cudaSuccess)
        return cuda_fail(err, "a weight's copy", error);
    std::lock_guard<std::mutex> guard(s->owner->lap_lock);

    s->owner->copy_seconds += static_cast<double>(milliseconds) * 1e-3;
    return CKPT_OK;
}
