/*
 * cuda_keep.cu: copies of weights in host memory.
 *
 * Copies go both ways at the speed of the bus, and at the same time. A weight is saved soon after
 * it arrived, while it is used, so that nothing waits for that when it is evicted.
 */
#include "cuda_private.cuh"

#include <sys/mman.h>

enum { PAGE_BYTES = 4096 };

/*
 * cudaHostAlloc takes ten times as long: it makes small pages, while it holds a lock for which
 * launches wait. These are huge, and made before that.
 */
ckpt_code host_create_cuda(run_backend *backend, uint64_t bytes, void **out, ckpt_error *err)
{
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cudaError_t error;

    cuda_of(backend);
    if (memory == MAP_FAILED)
        return ckpt_fail_memory(err, "copies of weights", bytes);
    madvise(memory, bytes, MADV_HUGEPAGE);     /* a hint: it may fail */
    for (uint64_t i = 0; i < bytes; i += PAGE_BYTES)
        static_cast<volatile char *>(memory)[i] = 0;
    if ((error = cudaHostRegister(memory, bytes, cudaHostRegisterDefault)) != cudaSuccess) {
        cudaGetLastError();
        munmap(memory, bytes);
        return cuda_fail(err, "pinned memory", error);
    }
    *out = memory;
    return CKPT_OK;
}

void host_free_cuda(run_backend *backend, void *memory, uint64_t bytes)
{
    cuda_of(backend);
    cudaHostUnregister(memory);
    munmap(memory, bytes);
}

/* Data and scales, as they are on the device. */
static uint64_t block_bytes(const run_weight *w)
{
    return static_cast<uint64_t>(w->view.scale - w->view.data) +
           ckpt_part_bytes(&w->tensor, CKPT_SCALE);
}

uint64_t weight_save_bytes_cuda(const run_weight *weight)
{
    return block_bytes(weight) + sizeof weight->view.tensor_scale;
}

ckpt_code weight_save_cuda(run_weight *weight, void *to, ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(weight->owner);
    const uint64_t bytes = block_bytes(weight);
    cudaError_t error = cudaEventCreateWithFlags(&weight->saved, cudaEventDisableTiming);

    memcpy(static_cast<char *>(to) + bytes, &weight->view.tensor_scale,
           sizeof weight->view.tensor_scale);
    if (error == cudaSuccess)
        error = cudaStreamWaitEvent(cuda->save, weight->arrived, 0);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(to, weight->view.data, bytes, cudaMemcpyDeviceToHost, cuda->save);
    if (error == cudaSuccess)
        error = cudaEventRecord(weight->saved, cuda->save);
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a copy of a weight", error);
}

/* The next pair of events, after the copy for which it was used before. */
static cudaError_t take_time(cuda_backend *cuda, cuda_copy_time **out)
{
    cuda_copy_time *time = &cuda->restores[cuda->next_restore++ % CUDA_RESTORES];
    const cudaError_t error = time->is_timed ? cudaEventSynchronize(time->sent) : cudaSuccess;
    std::lock_guard<std::mutex> guard(cuda->lap_lock);

    *out = time;
    return error == cudaSuccess ? cuda_count_copy(cuda, time) : error;
}

static cudaError_t queue_restore(run_weight *w, const void *from, cuda_copy_time *time)
{
    cuda_backend *cuda = w->owner;
    std::lock_guard<std::mutex> in_turn(cuda->copy_lock);
    std::lock_guard<std::mutex> guard(w->lock);
    cudaError_t error = cuda_begin_arrival(w, cuda->copy);

    if (error == cudaSuccess)
        error = cudaEventRecord(time->begun, cuda->copy);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(const_cast<uint8_t *>(w->view.data), from, block_bytes(w),
                                cudaMemcpyHostToDevice, cuda->copy);
    if (error == cudaSuccess)
        error = cudaEventRecord(time->sent, cuda->copy);
    time->is_timed = error == cudaSuccess;
    return error == cudaSuccess ? cuda_add_arrival(w, cuda->copy) : error;
}

ckpt_code weight_restore_cuda(run_weight *weight, const void *from, ckpt_error *err)
{
    cuda_backend *cuda = cuda_use(weight->owner);
    const uint64_t bytes = block_bytes(weight);
    cuda_copy_time *time;
    cudaError_t error = take_time(cuda, &time);

    memcpy(&weight->view.tensor_scale, static_cast<const char *>(from) + bytes,
           sizeof weight->view.tensor_scale);
    if (error == cudaSuccess)
        error = queue_restore(weight, from, time);
    std::lock_guard<std::mutex> guard(cuda->lap_lock);

    cuda->copy_bytes += bytes;
    return error == cudaSuccess ? CKPT_OK : cuda_fail(err, "a weight's copy", error);
}
