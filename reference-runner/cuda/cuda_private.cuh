/*
 * cuda_private.cuh: declarations that the files of the CUDA backend share.
 *
 * One stream computes, another one copies. All kernels add in the order of plain.c. A tile only
 * decides which outputs are computed together, so no result depends on the number of rows, and the
 * CPU backend returns the same bits, unless log1p differs from that of the C library.
 */
#ifndef RUN_CUDA_PRIVATE_CUH
#define RUN_CUDA_PRIVATE_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <mutex>

extern "C" {
#include "reference-runner/cuda_backend.h"
#include "libckpt/error.h"
#include "libckpt/size.h"
}

/* Compile the functions of number.h for the device, too. */
#define inline __host__ __device__ inline
#include "reference-runner/number.h"
#undef inline

/* A weight as kernels use it: device pointers, and the shape of its scale blocks. */
struct cuda_weight {
    const uint8_t *data;
    const uint8_t *scale;
    uint64_t row_bytes;
    uint64_t scale_row_bytes;
    uint32_t cols;
    uint32_t block_rows;
    uint32_t block_cols;
    int dtype;               /* ckpt_dtype */
    int scale_dtype;
    int by_four;             /* alignment allows loads of four columns */
    int tensor_scale_use;    /* ckpt_tensor_scale */
    float tensor_scale;
};

/*
 * Device memory of weights: one region, divided into blocks. The work of the computing stream is
 * divided into numbered epochs. A freed block may be overwritten when the epoch in which a kernel
 * last read it is complete.
 */
struct cuda_block {
    cuda_block *next;        /* in the order of addresses */
    cuda_block *before;
    char *memory;
    uint64_t bytes;
    uint64_t epoch;          /* the last one that read it */
    int is_used;
    int is_own;              /* a separate allocation, outside the region */
};

struct run_buffer {
    struct cuda_backend *owner;
    float *data;
    uint64_t count;
};

struct run_weight {
    struct cuda_backend *owner;
    ckpt_tensor tensor;      /* rank 2; its shape has only the rows of this weight */
    cuda_block *block;
    cuda_weight view;
    uint64_t epoch;          /* of the block's previous weight: copies wait for its end; or 0 */
    std::mutex lock;
    cudaEvent_t arrived;     /* all copies that are queued so far; under the lock */
    int is_awaited;          /* the computing stream already waits for `arrived` */
    cudaEvent_t saved;       /* the copy to host memory; nullptr: there was none */
};

/* Events around copies to the device. */
struct cuda_copy_time {
    cudaEvent_t begun;
    cudaEvent_t sent;
    int is_timed;            /* both were recorded, and the time is not counted yet */
};

/* Pinned memory, and the copies from it. */
struct cuda_stage {
    run_stage base;
    struct cuda_backend *owner;
    cudaStream_t fetch;      /* for kernels that fetch small tiles */
    cuda_copy_time time;
};

/* Pinned memory for small data that the computing stream needs soon. A kernel reads it from the
 * host, because a copy would wait behind queued copies of weights. */
struct cuda_parcel {
    char *memory;
    uint64_t bytes;
    cudaEvent_t sent;
};

/* What buffer_read_begin has begun to read: `count` floats. */
struct cuda_reading {
    cuda_parcel parcel;
    const float *from;       /* NULL: nothing */
    uint64_t count;
};

/* run_rows with a device pointer. */
struct cuda_rows {
    float *data;
    uint64_t pitch;

    __device__ float *row(uint64_t i) const
    {
        return data + i * pitch;
    }
    __device__ int32_t *ints(uint64_t i) const
    {
        return reinterpret_cast<int32_t *>(row(i));
    }
};

struct cuda_ring {
    float *data;
    uint64_t capacity;
    uint64_t width;

    __device__ float *row(uint64_t position) const
    {
        return data + position % capacity * width;
    }
};

/*
 * Operations on a single row take less time than their launch. They are collected as steps; one
 * thread block computes the list when anything else is queued, which cuda_queue sees to.
 */
typedef enum {
    CUDA_STEP_NORM,
    CUDA_STEP_QUANTISE,
    CUDA_STEP_ROPE,
    CUDA_STEP_PUT,
    CUDA_STEP_STREAMS
} cuda_step_kind;

/* The rows of a run_streams, and its vectors. */
struct cuda_streams {
    cuda_rows x;
    cuda_rows mix;
    cuda_rows u;
    cuda_rows post;          /* no data: hc_head instead of hc_pre */
    cuda_rows comb;
    const float *scale;
    const float *base;
};

struct cuda_step {
    cuda_step_kind kind;
    cuda_rows x;
    cuda_rows y;
    cuda_rows other;         /* NORM: the quantised result; ROPE: angles */
    cuda_ring ring;
    const float *vector;     /* NORM: weight; PUT: what is added */
    cuda_streams streams;
    union {
        run_norm norm;
        run_quantise quantise;
        run_rope rope;
        run_ring_put put;
        run_streams streams;
    } op;
};

enum { CUDA_STEPS = 8 };

struct cuda_steps {
    cuda_step steps[CUDA_STEPS];
    unsigned count;
};

enum {
    CUDA_EPOCHS = 256,
    CUDA_PARCELS = 64,
    CUDA_WAITS = 256,
    CUDA_SPANS = 64,
    CUDA_RESTORES = 64
};

/* In seconds after the event `origin`. */
struct cuda_span {
    double begin;
    double end;
};

struct cuda_backend {
    run_backend base;
    int device;
    cudaStream_t compute;    /* use cuda_queue */
    cuda_steps steps;        /* not queued yet */
    cudaStream_t copy;
    cudaStream_t save;       /* for copies of weights to host memory */
    uint32_t processor_count;
    uint64_t shared_bytes;   /* the most shared memory of a thread block */
    /* Blocks of weights in the order of addresses. `rover` is where the last search ended. */
    cuda_block *blocks;
    cuda_block *rover;
    char *region;
    uint64_t region_bytes;
    uint64_t epoch;
    cudaEvent_t epochs[CUDA_EPOCHS];         /* the end of epoch i at i % CUDA_EPOCHS */
    cuda_parcel parcels[CUDA_PARCELS];
    unsigned next_parcel;
    cuda_reading reading;
    char *scratch[3];        /* indexed by CUDA_SCRATCH_* */
    uint64_t scratch_bytes[3];
    std::mutex copy_lock;    /* held while the copies and events of one tile are queued on `copy` */
    /* For lap; lap_lock guards the times and bytes of copies. Copies may overlap, and threads learn
     * of their ends in any order: `spans` are the last times in which any copy ran. */
    std::mutex lap_lock;
    double lap_begin;
    double copy_seconds;
    cuda_span spans[CUDA_SPANS];
    unsigned span_count;
    cudaEvent_t origin;
    uint64_t copy_bytes;
    cuda_copy_time restores[CUDA_RESTORES];  /* of the last weights that were restored */
    unsigned next_restore;
    cudaEvent_t waits[CUDA_WAITS][2];
    unsigned wait_count;
};

/* Scratch for an operation's intermediate values, for the lists it reads, for decoded weights. */
enum { CUDA_SCRATCH_FLOATS, CUDA_SCRATCH_LISTS, CUDA_SCRATCH_WEIGHTS };

/* Limit of an operation's scratch, and of the weights that it decodes at once. This memory is not
 * covered by the limit on buffers and weights. */
enum { CUDA_WORK_BYTES = 1 << 27 };

/* Select the device of `cuda` for the following CUDA calls of this thread. */
static inline cuda_backend *cuda_use(cuda_backend *cuda)
{
    cudaSetDevice(cuda->device);
    return cuda;
}

static inline cuda_backend *cuda_of(run_backend *backend)
{
    return cuda_use(reinterpret_cast<cuda_backend *>(backend));
}

/* cuda_rows.cu: queue the steps. */
void cuda_flush(cuda_backend *cuda);

/* The computing stream, for work after all operations so far. */
static inline cudaStream_t cuda_queue(cuda_backend *cuda)
{
    if (cuda->steps.count > 0)
        cuda_flush(cuda);
    return cuda->compute;
}

static inline cuda_rows cuda_view(run_rows rows)
{
    return { rows.buffer == nullptr ? nullptr : rows.buffer->data + rows.offset, rows.pitch };
}

static inline cuda_ring cuda_view(const run_ring &ring)
{
    return { ring.buffer == nullptr ? nullptr : ring.buffer->data, ring.capacity, ring.width };
}

static inline const float *cuda_view(const run_buffer *buffer)
{
    return buffer == nullptr ? nullptr : buffer->data;
}

static inline uint32_t cuda_grid(uint64_t count, uint32_t per_block)
{
    return static_cast<uint32_t>(size_div_up(count, per_block));
}

/* cuda.cu */
ckpt_code cuda_fail(ckpt_error *err, const char *what, cudaError_t error);
/* Check for an error of the launch that was just made; `what` names the operation. */
ckpt_code cuda_launched(const char *what, ckpt_error *err);
/* cudaMalloc; clears its error, which the check after the next launch would report otherwise. */
cudaError_t cuda_allocate(uint64_t bytes, char **out);
/* Make scratch[which] at least `bytes` large; its content is lost. */
ckpt_code cuda_scratch(cuda_backend *cuda, int which, uint64_t bytes, ckpt_error *err);
/* cuda_parcel_take: a parcel of at least `bytes` to fill. cuda_parcel_send: queue its transfer to
 * device memory at `to`, aligned to 16 bytes; `bytes` is rounded up to a multiple of 16. */
ckpt_code cuda_parcel_take(cuda_backend *cuda, uint64_t bytes, cuda_parcel **out, ckpt_error *err);
ckpt_code cuda_parcel_send(cuda_backend *cuda, cuda_parcel *parcel, void *to, uint64_t bytes,
                           ckpt_error *err);

/* cuda_weights.cu */
int takes_cuda(const ckpt_tensor *tensor);
void weights_reserve_cuda(run_backend *backend, uint64_t bytes);
ckpt_code weight_create_cuda(run_backend *backend, const ckpt_tensor *tensor, uint64_t row_count,
                             run_weight **out, ckpt_error *err);
ckpt_code weight_put_cuda(run_weight *weight, uint64_t row, uint64_t row_count,
                          const ckpt_tile *tile, run_stage *stage, ckpt_error *err);
void weight_free_cuda(run_backend *backend, run_weight *weight);
ckpt_code stage_create_cuda(run_backend *backend, uint64_t bytes, run_stage **out,
                            ckpt_error *err);
ckpt_code stage_wait_cuda(run_stage *stage, ckpt_error *err);
void stage_free_cuda(run_backend *backend, run_stage *stage);
void cuda_free_weights(cuda_backend *cuda);      /* after weight_free of all weights */
/* Begin and end the copies to a weight's block: let `stream` wait for those that read the block
 * before; record that the weight arrives with what is queued so far. Tiles of a weight may be on
 * several streams. */
cudaError_t cuda_begin_arrival(const run_weight *weight, cudaStream_t stream);
cudaError_t cuda_add_arrival(run_weight *weight, cudaStream_t stream);
/* Count the time of complete copies; under lap_lock. */
cudaError_t cuda_count_copy(cuda_backend *cuda, cuda_copy_time *time);
/* Make the computing stream wait for the copy of a weight, and record that this epoch reads it. */
ckpt_code cuda_await(cuda_backend *cuda, const run_weight *weight, ckpt_error *err);
/* End the current epoch: later work belongs to the next one. */
ckpt_code cuda_next_epoch(cuda_backend *cuda, ckpt_error *err);

/* cuda_keep.cu: copies of weights in host memory */
ckpt_code host_create_cuda(run_backend *backend, uint64_t bytes, void **out, ckpt_error *err);
void host_free_cuda(run_backend *backend, void *memory, uint64_t bytes);
uint64_t weight_save_bytes_cuda(const run_weight *weight);
ckpt_code weight_save_cuda(run_weight *weight, void *to, ckpt_error *err);
ckpt_code weight_restore_cuda(run_weight *weight, const void *from, ckpt_error *err);

/* cuda_product.cu: CKPT_E_USAGE unless sums in blocks of `block` columns are supported. */
ckpt_code cuda_check_block(uint32_t block, ckpt_error *err);
/* 1 if cuda_decode supports this weight and a range that begins at `row`. */
int cuda_can_decode(const cuda_weight *w, uint64_t row);
/* Decode rows [row, row + row_count) of *view to F32 at `out`; *view then describes the decoded
 * rows. */
typedef struct {
    cuda_weight *view;
    uint64_t row;
    uint64_t row_count;
    float *out;
} cuda_decode_job;
ckpt_code cuda_decode(cuda_backend *cuda, const cuda_decode_job *job, ckpt_error *err);

/* cuda_rows.cu, cuda_product.cu, cuda_experts.cu, cuda_attend.cu */
ckpt_code quantise_cuda(run_backend *backend, const run_quantise *op, ckpt_error *err);
ckpt_code norm_cuda(run_backend *backend, const run_norm *op, ckpt_error *err);
ckpt_code rope_cuda(run_backend *backend, const run_rope *op, ckpt_error *err);
ckpt_code hadamard_cuda(run_backend *backend, const run_hadamard *op, ckpt_error *err);
ckpt_code ring_put_cuda(run_backend *backend, const run_ring_put *op, ckpt_error *err);
ckpt_code add_cuda(run_backend *backend, const run_add *op, ckpt_error *err);
ckpt_code hc_pre_cuda(run_backend *backend, const run_streams *op, ckpt_error *err);
ckpt_code hc_post_cuda(run_backend *backend, const run_streams_post *op, ckpt_error *err);
ckpt_code hc_head_cuda(run_backend *backend, const run_streams *op, ckpt_error *err);
ckpt_code route_cuda(run_backend *backend, const run_route *op, ckpt_error *err);
ckpt_code linear_cuda(run_backend *backend, const run_linear *op, ckpt_error *err);
ckpt_code experts_cuda(run_backend *backend, const run_experts *op, ckpt_error *err);
ckpt_code pool_cuda(run_backend *backend, const run_pool *op, ckpt_error *err);
ckpt_code select_cuda(run_backend *backend, const run_select *op, ckpt_error *err);
ckpt_code attend_cuda(run_backend *backend, const run_attend *op, ckpt_error *err);

#endif
