/* cuda.cu: the CUDA backend: the device, its streams, buffers and scratch. */
#include "cuda_private.cuh"

#include <new>

#include "libckpt/clock.h"

enum { CAPABILITY_MIN = 8, PARCEL_UNIT = 1 << 16, PARCEL_BYTES_MAX = 1 << 22 };

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

static ckpt_code find_device(unsigned device, ckpt_error *err)
{
    const int number = static_cast<int>(device);
    int count = 0;
    int major = 0;
    cudaError_t error = cudaGetDeviceCount(&count);

    if (error == cudaSuccess && count == 0)
        error = cudaErrorNoDevice;
    if (error == cudaSuccess && number >= count)
        return ckpt_fail(err, CKPT_E_USAGE, "the backend 'cuda' has %d devices, no device %u",
                         count, device);
    if (error == cudaSuccess)
        error = cudaSetDevice(number);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number);
    if (error != cudaSuccess)
        return ckpt_fail(err, CKPT_E_USAGE, "the backend 'cuda' finds no device: %s",
                         cudaGetErrorString(error));
    if (major < CAPABILITY_MIN)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "the backend 'cuda' needs compute capability %d.0, the device has %d",
                         CAPABILITY_MIN, major);
    return CKPT_OK;
}

static ckpt_code free_bytes_cuda(unsigned device, uint64_t *out, ckpt_error *err)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    const ckpt_code code = find_device(device, err);
    cudaError_t error;

    if (code != CKPT_OK)
        return code;
    error = cudaMemGetInfo(&free_bytes, &total_bytes);
    *out = free_bytes;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "free memory", error);
}

static cudaError_t create_streams(cuda_backend *cuda)
{
    int processor_count = 0;
    int shared_bytes = 0;
    cudaError_t error =
        cudaDeviceGetAttribute(&processor_count, cudaDevAttrMultiProcessorCount, cuda->device);

    cuda->processor_count = static_cast<uint32_t>(processor_count);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                       cuda->device);
    cuda->shared_bytes = static_cast<uint64_t>(shared_bytes);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&cuda->compute, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&cuda->copy, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&cuda->save, cudaStreamNonBlocking);
    for (cudaEvent_t &e : cuda->epochs)
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    for (cuda_parcel &p : cuda->parcels)
        if (error == cudaSuccess)
            error = cudaEventCreateWithFlags(&p.sent, cudaEventDisableTiming);
    if (error == cudaSuccess)
        error = cudaEventCreateWithFlags(&cuda->reading.parcel.sent, cudaEventDisableTiming);
    for (cudaEvent_t(&pair)[2] : cuda->waits)
        for (cudaEvent_t &e : pair)
            if (error == cudaSuccess)
                error = cudaEventCreate(&e);
    if (error == cudaSuccess)
        error = cudaEventCreate(&cuda->origin);
    for (cuda_copy_time &t : cuda->restores) {
        if (error == cudaSuccess)
            error = cudaEventCreate(&t.begun);
        if (error == cudaSuccess)
            error = cudaEventCreate(&t.sent);
    }
    if (error == cudaSuccess)
        error = cudaEventRecord(cuda->origin, cuda->copy);
    return error == cudaSuccess ? cudaEventSynchronize(cuda->origin) : error;
}

static void free_parcel(cuda_parcel *p)
{
    if (p->sent != nullptr)
        cudaEventDestroy(p->sent);
    cudaFreeHost(p->memory);
}

static void destroy_streams(cuda_backend *cuda)
{
    for (cudaEvent_t e : cuda->epochs)
        if (e != nullptr)
            cudaEventDestroy(e);
    for (cuda_parcel &p : cuda->parcels)
        free_parcel(&p);
    free_parcel(&cuda->reading.parcel);
    for (cudaEvent_t(&pair)[2] : cuda->waits)
        for (cudaEvent_t e : pair)
            if (e != nullptr)
                cudaEventDestroy(e);
    if (cuda->origin != nullptr)
        cudaEventDestroy(cuda->origin);
    for (cuda_copy_time &t : cuda->restores) {
        if (t.begun != nullptr)
            cudaEventDestroy(t.begun);
        if (t.sent != nullptr)
            cudaEventDestroy(t.sent);
    }
    if (cuda->save != nullptr)
        cudaStreamDestroy(cuda->save);
    if (cuda->copy != nullptr)
        cudaStreamDestroy(cuda->copy);
    if (cuda->compute != nullptr)
        cudaStreamDestroy(cuda->compute);
}

static ckpt_code open_cuda(unsigned thread_count, unsigned device, run_backend **out,
                           ckpt_error *err)
{
    cuda_backend *cuda;
    cudaError_t error;
    ckpt_code code;

    (void)thread_count;
    if ((code = find_device(device, err)) != CKPT_OK)
        return code;
    cuda = new (std::nothrow) cuda_backend();
    if (cuda == nullptr)
        return ckpt_fail_memory(err, "a backend", sizeof *cuda);
    cuda->base.ops = &run_backend_cuda;
    cuda->device = static_cast<int>(device);
    if ((error = create_streams(cuda)) != cudaSuccess) {
        close_cuda(&cuda->base);
        return cuda_fail(err, "streams and pinned memory", error);
    }
    cuda->lap_begin = clock_seconds();
    *out = &cuda->base;
    return CKPT_OK;
}

static void close_cuda(run_backend *backend)
{
    cuda_backend *cuda = cuda_of(backend);

    if (cuda->compute != nullptr)
        cudaStreamSynchronize(cuda->compute);
    if (cuda->copy != nullptr)
        cudaStreamSynchronize(cuda->copy);
    cuda_free_weights(cuda);
    for (char *scratch : cuda->scratch)
        cudaFree(scratch);
    destroy_streams(cuda);
    delete cuda;
}

/* Wait for the computing stream; add up the times in which it waited for weights. */
static ckpt_code sum_waits(cuda_backend *cuda, double *seconds, ckpt_error *err)
{
    cudaError_t error = cudaStreamSynchronize(cuda_queue(cuda));

    for (unsigned i = 0; i < cuda->wait_count && error == cudaSuccess; i++) {
        float milliseconds = 0;

        error = cudaEventElapsedTime(&milliseconds, cuda->waits[i][0], cuda->waits[i][1]);
        *seconds += static_cast<double>(milliseconds) * 1e-3;
    }
    cuda->wait_count = 0;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "the time of a layer", error);
}

static ckpt_code lap_cuda(run_backend *backend, int is_waiting, run_lap *out, ckpt_error *err)
{
    cuda_backend *cuda = cuda_of(backend);
    double waited = 0;
    ckpt_code code;

    if (is_waiting && (code = sum_waits(cuda, &waited, err)) != CKPT_OK)
        return code;
    std::lock_guard<std::mutex> guard(cuda->lap_lock);
    const double time = clock_seconds();

    *out = { time - cuda->lap_begin, waited, cuda->copy_seconds, cuda->copy_bytes };
    cuda->lap_begin = time;
    cuda->copy_seconds = 0;
    cuda->copy_bytes = 0;
    return CKPT_OK;
}

/* ---- memory ---- */

cudaError_t cuda_allocate(uint64_t bytes, char **out)
{
    const cudaError_t error = cudaMalloc(reinterpret_cast<void **>(out), bytes);

    if (error != cudaSuccess)
        cudaGetLastError();
    return error;
}

/* Wait until the parcel can be filled again, and make it at least `bytes` large. */
static ckpt_code cuda_parcel_reserve(cuda_parcel *p, uint64_t bytes, ckpt_error *err)
{
    const uint64_t wanted = size_max(size_div_up(bytes, PARCEL_UNIT), 1) * PARCEL_UNIT;
    cudaError_t error = cudaEventSynchronize(p->sent);

    if (error == cudaSuccess && p->bytes < wanted) {
        cudaFreeHost(p->memory);
        p->memory = nullptr;
        p->bytes = 0;
        error = cudaMallocHost(reinterpret_cast<void **>(&p->memory), wanted);
        p->bytes = error == cudaSuccess ? wanted : 0;
    }
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "pinned memory", error);
}

ckpt_code cuda_parcel_take(cuda_backend *cuda, uint64_t bytes, cuda_parcel **out, ckpt_error *err)
{
    *out = &cuda->parcels[cuda->next_parcel++ % CUDA_PARCELS];
    return cuda_parcel_reserve(*out, bytes, err);
}

static __global__ void fetch_kernel(uint4 *to, const uint4 *from, uint64_t count)
{
    const uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (i < count)
        to[i] = from[i];
}

ckpt_code cuda_parcel_send(cuda_backend *cuda, cuda_parcel *parcel, void *to, uint64_t bytes,
                           ckpt_error *err)
{
    enum { THREADS = 128 };
    const uint64_t count = size_div_up(bytes, sizeof(uint4));
    cudaError_t error;

    fetch_kernel<<<cuda_grid(count, THREADS), THREADS, 0, cuda_queue(cuda)>>>(
        static_cast<uint4 *>(to), reinterpret_cast<const uint4 *>(parcel->memory), count);
    if ((error = cudaGetLastError()) == cudaSuccess)
        error = cudaEventRecord(parcel->sent, cuda_queue(cuda));
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a parcel", error);
}

ckpt_code cuda_scratch(cuda_backend *cuda, int which, uint64_t bytes, ckpt_error *err)
{
    cudaError_t error;

    if (cuda->scratch_bytes[which] >= bytes)
        return CKPT_OK;
    cudaFree(cuda->scratch[which]);     /* waits for the kernels that use it */
    cuda->scratch[which] = nullptr;
    cuda->scratch_bytes[which] = 0;
    if ((error = cuda_allocate(bytes, &cuda->scratch[which])) != cudaSuccess)
        return cuda_fail(err, "work space", error);
    cuda->scratch_bytes[which] = bytes;
    return CKPT_OK;
}

static ckpt_code buffer_zero_cuda(run_buffer *buffer, uint64_t first, uint64_t count,
                                  ckpt_error *err)
{
    const cudaError_t error = cudaMemsetAsync(buffer->data + first, 0, count * sizeof(float),
                                              cuda_queue(cuda_use(buffer->owner)));

    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "zeros", error);
}

static void buffer_free_cuda(run_backend *backend, run_buffer *buffer)
{
    cuda_queue(cuda_of(backend));    /* a step may use the buffer */
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
        error = cuda_allocate((count + 1) * sizeof(float), &memory);
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

/* 1 if a write can be sent as a parcel: it is not large, and its position and size are multiples of
 * 16 bytes. At the end of a buffer it may be one float short, because buffers have one more. */
static int fits_parcel(const run_buffer *buffer, uint64_t first, uint64_t count)
{
    const int is_whole = count % 4 == 0 || (count % 4 == 3 && first + count == buffer->count);

    return count > 0 && is_whole && count * sizeof(float) <= PARCEL_BYTES_MAX &&
           reinterpret_cast<uintptr_t>(buffer->data + first) % sizeof(uint4) == 0;
}

/* `from` is pageable memory, so cudaMemcpyAsync has copied it when it returns. */
static ckpt_code buffer_write_cuda(run_buffer *buffer, uint64_t first, const void *from,
                                   uint64_t count, ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(buffer->owner);
    cuda_parcel *parcel;
    cudaError_t error;
    ckpt_code code;

    if (!fits_parcel(buffer, first, count)) {
        error = cudaMemcpyAsync(buffer->data + first, from, count * sizeof(float),
                                cudaMemcpyHostToDevice, cuda_queue(cuda));
        return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "write to the device", error);
    }
    if ((code = cuda_parcel_take(cuda, count * sizeof(float), &parcel, err)) != CKPT_OK)
        return code;
    memcpy(parcel->memory, from, count * sizeof(float));
    return cuda_parcel_send(cuda, parcel, buffer->data + first, count * sizeof(float), err);
}

/* Into pinned memory, so that the host does not wait. */
static ckpt_code buffer_read_begin_cuda(const run_buffer *buffer, uint64_t first, uint64_t count,
                                        ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(buffer->owner);
    const uint64_t bytes = count * sizeof(float);
    cuda_reading *r = &cuda->reading;
    cuda_parcel *p = &r->parcel;
    ckpt_code code = cuda_parcel_reserve(p, bytes, err);
    cudaError_t error;

    r->from = nullptr;
    if (code != CKPT_OK)
        return code;
    error = cudaMemcpyAsync(p->memory, buffer->data + first, bytes, cudaMemcpyDeviceToHost,
                            cuda_queue(cuda));
    if (error == cudaSuccess)
        error = cudaEventRecord(p->sent, cuda_queue(cuda));
    if (error != cudaSuccess)
        return cuda_fail(err, "read from the device", error);
    r->from = buffer->data + first;
    r->count = count;
    return CKPT_OK;
}

static ckpt_code buffer_read_cuda(const run_buffer *buffer, uint64_t first, void *out,
                                  uint64_t count, ckpt_error *err)
{
    cuda_reading *r = &cuda_use(buffer->owner)->reading;
    cudaError_t error;

    if (r->from == buffer->data + first && r->count == count) {
        r->from = nullptr;
        error = cudaEventSynchronize(r->parcel.sent);
        memcpy(out, r->parcel.memory, count * sizeof(float));
        return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "read from the device", error);
    }
    error = cudaMemcpyAsync(out, buffer->data + first, count * sizeof(float),
                            cudaMemcpyDeviceToHost, cuda_queue(buffer->owner));
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(cuda_queue(buffer->owner));
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "read from the device", error);
}

static ckpt_code buffer_pass_cuda(const run_buffer *from, run_buffer *to, uint64_t count,
                                  ckpt_error *err)
{
    cudaError_t error = cudaStreamSynchronize(cuda_queue(cuda_use(from->owner)));

    cuda_use(to->owner);
    if (error == cudaSuccess)
        error = cudaMemcpyPeerAsync(to->data, to->owner->device, from->data, from->owner->device,
                                    count * sizeof(float), cuda_queue(to->owner));
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(cuda_queue(to->owner));
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a copy between devices", error);
}

extern "C" const run_backend_ops run_backend_cuda = {
    .name = "cuda",
    .open = open_cuda,
    .close = close_cuda,
    .free_bytes = free_bytes_cuda,
    .lap = lap_cuda,
    .buffer_create = buffer_create_cuda,
    .buffer_free = buffer_free_cuda,
    .buffer_write = buffer_write_cuda,
    .buffer_read = buffer_read_cuda,
    .buffer_read_begin = buffer_read_begin_cuda,
    .buffer_pass = buffer_pass_cuda,
    .buffer_zero = buffer_zero_cuda,
    .stage_create = stage_create_cuda,
    .stage_wait = stage_wait_cuda,
    .stage_free = stage_free_cuda,
    .takes = takes_cuda,
    .weights_reserve = weights_reserve_cuda,
    .weight_create = weight_create_cuda,
    .weight_put = weight_put_cuda,
    .weight_free = weight_free_cuda,
    .host_create = host_create_cuda,
    .host_free = host_free_cuda,
    .weight_save_bytes = weight_save_bytes_cuda,
    .weight_save = weight_save_cuda,
    .weight_restore = weight_restore_cuda,
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
