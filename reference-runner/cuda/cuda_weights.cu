/*
 * cuda_weights.cu: weights on the device.
 *
 * Threads read weights into pinned stages; other streams copy them to the device while the
 * computing stream works. The computing stream waits for each weight separately, so prefetched ones
 * delay nothing. All weights are in one region. If a block is reused, the copies wait for the
 * kernels that read the previous weight; the host does not.
 *
 * Large tiles go to the copy engine, one after the other. It takes microseconds for each copy, and
 * threads that queue small ones wait for each other: small tiles are fetched by kernels, which each
 * stage queues on a stream of its own.
 */
#include "cuda_private.cuh"

#include <new>

enum { ALIGNMENT = 256 };

static const uint64_t REGION_SLACK = 1 << 20;    /* for alignment */
static const uint64_t FETCH_MAX = 2 << 20;       /* bytes of the tiles that kernels fetch */
static const double ORIGIN_AGE_MAX = 10;         /* seconds; times since then are floats */

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

/* The epoch that copies to a block have to wait for; 0: none, it is complete. The current epoch is
 * ended. */
static cudaError_t find_epoch(cuda_backend *cuda, uint64_t epoch, uint64_t *out)
{
    *out = 0;
    if (epoch == 0)
        return cudaSuccess;
    if (epoch > cuda->epoch) {
        const ckpt_code code = cuda_next_epoch(cuda, nullptr);

        if (code != CKPT_OK)
            return cudaErrorUnknown;
    }
    if (cudaEventQuery(cuda->epochs[epoch % CUDA_EPOCHS]) != cudaSuccess)
        *out = epoch;
    cudaGetLastError();
    return cudaSuccess;
}

static cudaError_t take_block(cuda_backend *cuda, uint64_t bytes, cuda_block **out, uint64_t *epoch)
{
    cuda_block *block = find_block(cuda, bytes);
    cudaError_t error;
    char *memory;

    if (block != nullptr) {
        *out = block;
        return find_epoch(cuda, block->epoch, epoch);
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

/* Copies to the block may still be queued if the weight was never used. The next weight in this
 * block must not be copied before them. */
void weight_free_cuda(run_backend *backend, run_weight *weight)
{
    if (weight == nullptr)
        return;
    if (!weight->is_awaited)
        cudaEventSynchronize(weight->arrived);
    if (weight->saved != nullptr) {
        cudaEventSynchronize(weight->saved);
        cudaEventDestroy(weight->saved);
    }
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
    data_bytes = size_div_up(ckpt_part_bytes(&w->tensor, CKPT_DATA), ALIGNMENT) * ALIGNMENT;
    bytes = data_bytes + ckpt_part_bytes(&w->tensor, CKPT_SCALE);
    bytes = size_div_up(size_max(bytes, 1), ALIGNMENT) * ALIGNMENT;
    if ((error = cudaEventCreateWithFlags(&w->arrived, cudaEventDisableTiming)) == cudaSuccess &&
        (error = take_block(cuda, bytes, &w->block, &w->epoch)) != cudaSuccess)
        cudaEventDestroy(w->arrived);
    if (error != cudaSuccess) {
        delete w;
        return cuda_fail(err, "a weight", error);
    }
    set_view(w, data_bytes);
    *out = w;
    return CKPT_OK;
}

/* Bytes that are adjacent in a tile and in the weight. */
struct cuda_piece {
    uint8_t *to;
    const uint8_t *from;
    uint64_t bytes;
};

/* The pieces of a tile. */
struct cuda_pieces {
    cuda_piece of[2];
    unsigned count;
};

/* Data and scales; one piece if they are as far apart in the tile as on the device, which is common
 * for a whole weight. */
static cuda_pieces pieces_of(const run_weight *w, uint64_t row, uint64_t row_count,
                             const ckpt_tile *tile)
{
    const source_range range = { 0, row, row_count, SOURCE_WANT_ALL };
    const cuda_weight *v = &w->view;
    uint8_t *to = const_cast<uint8_t *>(v->data);
    uint8_t *scale_to = const_cast<uint8_t *>(v->scale);
    const uint8_t *data = static_cast<const uint8_t *>(tile->part[CKPT_DATA]);
    const uint8_t *scale = static_cast<const uint8_t *>(tile->part[CKPT_SCALE]);
    cuda_pieces out = { { { to + row * v->row_bytes, data, row_count * v->row_bytes } }, 1 };
    uint64_t first;
    uint64_t count;

    if (w->tensor.scale_dtype == CKPT_NONE)
        return out;
    source_scale_rows(&w->tensor, &range, &first, &count);
    if (row == 0 && scale > data && scale - data == scale_to - to)
        out.of[0].bytes = static_cast<uint64_t>(scale - data) + count * v->scale_row_bytes;
    else
        out.of[out.count++] = { scale_to + first * v->scale_row_bytes, scale,
                                count * v->scale_row_bytes };
    return out;
}

/* 1 if a kernel fetches these pieces. */
static int is_fetched(const cuda_pieces &pieces)
{
    uint64_t bits = 0;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < pieces.count; i++) {
        const cuda_piece &p = pieces.of[i];

        bits |= reinterpret_cast<uintptr_t>(p.to) | reinterpret_cast<uintptr_t>(p.from) | p.bytes;
        bytes += p.bytes;
    }
    return bits % sizeof(uint4) == 0 && bytes <= FETCH_MAX;
}

/* All threads of the grid copy a piece together; each has four loads from the host on their way. */
static __device__ void fetch_piece(const cuda_piece &piece)
{
    uint4 *to = reinterpret_cast<uint4 *>(piece.to);
    const uint4 *from = reinterpret_cast<const uint4 *>(piece.from);
    const uint64_t count = piece.bytes / sizeof(uint4);
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;

    for (; i + 3 * step < count; i += 4 * step) {
        const uint4 four[4] = { from[i], from[i + step], from[i + 2 * step], from[i + 3 * step] };

        for (unsigned j = 0; j < 4; j++)
            to[i + j * step] = four[j];
    }
    for (; i < count; i += step)
        to[i] = from[i];
}

static __global__ void fetch_pieces_kernel(cuda_pieces pieces)
{
    for (unsigned i = 0; i < pieces.count; i++)
        fetch_piece(pieces.of[i]);
}

static cudaError_t queue_fetch(const cuda_pieces &pieces, cudaStream_t stream)
{
    enum { BLOCKS = 8, THREADS = 512 };      /* enough for the bus */

    fetch_pieces_kernel<<<BLOCKS, THREADS, 0, stream>>>(pieces);
    return cudaGetLastError();
}

static cudaError_t queue_copies(const cuda_pieces &pieces, cudaStream_t stream)
{
    cudaError_t error = cudaSuccess;

    for (unsigned i = 0; i < pieces.count && error == cudaSuccess; i++)
        error = cudaMemcpyAsync(pieces.of[i].to, pieces.of[i].from, pieces.of[i].bytes,
                                cudaMemcpyHostToDevice, stream);
    return error;
}

/* The event of an old epoch may have been reused for a later one, which ends after it. */
cudaError_t cuda_begin_arrival(const run_weight *w, cudaStream_t stream)
{
    return w->epoch == 0 ? cudaSuccess
                         : cudaStreamWaitEvent(stream, w->owner->epochs[w->epoch % CUDA_EPOCHS], 0);
}

/* Queue the copies of a tile between the events of its stage. */
static cudaError_t queue_pieces(const run_weight *w, const cuda_pieces &pieces, cuda_stage *stage,
                                cudaStream_t stream)
{
    cuda_copy_time *time = &stage->time;
    cudaError_t error = cuda_begin_arrival(w, stream);

    if (error == cudaSuccess)
        error = cudaEventRecord(time->begun, stream);
    if (error == cudaSuccess)
        error = stream == stage->fetch ? queue_fetch(pieces, stream)
                                       : queue_copies(pieces, stream);
    if (error == cudaSuccess)
        error = cudaEventRecord(time->sent, stream);
    time->is_timed = error == cudaSuccess;
    return error;
}

/* The event waits for what other streams copy, too. Called under the weight's lock. */
cudaError_t cuda_add_arrival(run_weight *w, cudaStream_t stream)
{
    const cudaError_t error = cudaStreamWaitEvent(stream, w->arrived, 0);

    return error == cudaSuccess ? cudaEventRecord(w->arrived, stream) : error;
}

static cudaError_t add_tile(run_weight *w, cudaStream_t stream, const ckpt_tile *tile)
{
    std::lock_guard<std::mutex> guard(w->lock);

    if (tile->part[CKPT_TENSOR_SCALE] != nullptr)        /* the same in every tile */
        memcpy(&w->view.tensor_scale, tile->part[CKPT_TENSOR_SCALE], sizeof(float));
    return cuda_add_arrival(w, stream);
}

ckpt_code weight_put_cuda(run_weight *weight, uint64_t row, uint64_t row_count,
                          const ckpt_tile *tile, run_stage *stage, ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(weight->owner);
    cuda_stage *s = reinterpret_cast<cuda_stage *>(stage);
    const cuda_pieces pieces = pieces_of(weight, row, row_count, tile);
    cudaStream_t stream = is_fetched(pieces) ? s->fetch : cuda->copy;
    std::unique_lock<std::mutex> in_turn(cuda->copy_lock, std::defer_lock);
    cudaError_t error;

    if (stream == cuda->copy)
        in_turn.lock();
    error = queue_pieces(weight, pieces, s, stream);
    if (error == cudaSuccess)
        error = add_tile(weight, stream, tile);
    if (stream == cuda->copy)
        in_turn.unlock();
    std::lock_guard<std::mutex> guard(cuda->lap_lock);

    for (unsigned i = 0; i < pieces.count; i++)
        cuda->copy_bytes += pieces.of[i].bytes;
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
    if (s->fetch != nullptr)
        cudaStreamDestroy(s->fetch);
    if (s->time.begun != nullptr)
        cudaEventDestroy(s->time.begun);
    if (s->time.sent != nullptr)
        cudaEventDestroy(s->time.sent);
    cudaFreeHost(s->base.memory);
    delete s;
}

/* The kernels that fetch get processors before those that compute. */
static cudaError_t create_fetch(cudaStream_t *out)
{
    int least = 0;
    int greatest = 0;
    const cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);

    return error == cudaSuccess
               ? cudaStreamCreateWithPriority(out, cudaStreamNonBlocking, greatest)
               : error;
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
        error = create_fetch(&s->fetch);
    if (error == cudaSuccess)
        error = cudaEventCreate(&s->time.begun);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&s->time.sent, cudaEventBlockingSync);
    if (error != cudaSuccess) {
        stage_free_cuda(backend, &s->base);
        return cuda_fail(err, "pinned memory", error);
    }
    *out = &s->base;
    return CKPT_OK;
}

static cudaError_t add_elapsed(cudaEvent_t from, cudaEvent_t to, double *seconds)
{
    float milliseconds = 0;
    const cudaError_t error = cudaEventElapsedTime(&milliseconds, from, to);

    *seconds += static_cast<double>(milliseconds) * 1e-3;
    return error;
}

/* Add a span to those that are kept, as one with those that it touches; the oldest makes room.
 * Returns its time that is in none of them. */
static double add_span(cuda_backend *cuda, cuda_span span)
{
    cuda_span joined = span;
    double added = span.end - span.begin;
    unsigned kept = 0;

    for (unsigned i = 0; i < cuda->span_count; i++) {
        const cuda_span s = cuda->spans[i];
        const double common = fmin(s.end, span.end) - fmax(s.begin, span.begin);

        if (common < 0) {
            cuda->spans[kept++] = s;
            continue;
        }
        added -= common;
        joined = { fmin(s.begin, joined.begin), fmax(s.end, joined.end) };
    }
    if (kept == CUDA_SPANS) {
        memmove(cuda->spans, cuda->spans + 1, (CUDA_SPANS - 1) * sizeof *cuda->spans);
        kept--;
    }
    cuda->spans[kept] = joined;
    cuda->span_count = kept + 1;
    return added;
}

/* If the origin is old, the beginning of a copy becomes the new one, and gets the old event. */
static cudaError_t move_origin(cuda_backend *cuda, cuda_copy_time *time)
{
    double age = 0;
    cudaEvent_t old = cuda->origin;
    const cudaError_t error = add_elapsed(old, time->begun, &age);

    if (error != cudaSuccess || age < ORIGIN_AGE_MAX)
        return error;
    cuda->origin = time->begun;
    time->begun = old;
    for (unsigned i = 0; i < cuda->span_count; i++) {
        cuda->spans[i].begin -= age;
        cuda->spans[i].end -= age;
    }
    return cudaSuccess;
}

/* Only the time in which no other copy that was counted ran. */
cudaError_t cuda_count_copy(cuda_backend *cuda, cuda_copy_time *time)
{
    cuda_span span = { 0, 0 };
    cudaError_t error;

    if (!time->is_timed)
        return cudaSuccess;
    time->is_timed = 0;
    if ((error = add_elapsed(cuda->origin, time->begun, &span.begin)) != cudaSuccess ||
        (error = add_elapsed(cuda->origin, time->sent, &span.end)) != cudaSuccess)
        return error;
    cuda->copy_seconds += add_span(cuda, span);
    return move_origin(cuda, time);
}

ckpt_code stage_wait_cuda(run_stage *stage, ckpt_error *err)
{
    cuda_stage *s = reinterpret_cast<cuda_stage *>(stage);
    cuda_backend *cuda = cuda_use(s->owner);
    cudaError_t error = cudaEventSynchronize(s->time.sent);
    std::lock_guard<std::mutex> guard(cuda->lap_lock);

    if (error == cudaSuccess)
        error = cuda_count_copy(cuda, &s->time);
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's copy", error);
}
