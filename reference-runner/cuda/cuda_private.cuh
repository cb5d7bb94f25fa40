/*
 * cuda_private.cuh: what the files of the CUDA backend share.
 *
 * One stream computes, one copies. Whatever a kernel computes, its sums have the order of plain.c:
 * a tile only decides which outputs are computed together, so no result depends on the number of
 * rows, and the CPU backend gives the same bits but for the C library's logarithm.
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

/* The functions of number.h are wanted on the device, too. */
#define inline __host__ __device__ inline
#include "reference-runner/number.h"
#undef inline

/* What a kernel sees of a weight. */
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
    int by_four;             /* four columns can be loaded at once */
};

/*
 * Device memory of weights: one region, cut into blocks. Work that reads a weight belongs to an
 * epoch; a free block may be written again once the epoch in which it was last read is over.
 */
struct cuda_block {
    cuda_block *next;        /* by place */
    cuda_block *before;
    char *memory;
    uint64_t bytes;
    uint64_t epoch;          /* of the last work that read it */
    int is_used;
    int is_own;              /* an allocation of its own, outside the region */
};

struct run_buffer {
    struct cuda_backend *owner;
    float *data;
    uint64_t count;
};

struct run_weight {
    struct cuda_backend *owner;
    ckpt_tensor tensor;      /* rank 2, the rows that are held */
    cuda_block *block;
    cuda_weight view;
    uint64_t missing_rows;   /* not on their way yet; under the owner's copy_lock */
    cudaEvent_t arrived;     /* on the copying stream */
    int is_awaited;          /* the computing stream knows of it */
};

/* Pinned memory, and when what was copied from it has left. */
struct cuda_stage {
    run_stage base;
    struct cuda_backend *owner;
    cudaEvent_t begun;
    cudaEvent_t sent;
    int is_timed;            /* both events were recorded since the last wait */
};

/* Pinned memory for what the computing stream needs soon. Its kernels fetch it themselves: a copy
 * would stand in line behind those of weights. */
struct cuda_parcel {
    char *memory;
    uint64_t bytes;
    cudaEvent_t sent;
};

enum { CUDA_EPOCHS = 256, CUDA_PARCELS = 64, CUDA_WAITS = 256 };

struct cuda_backend {
    run_backend base;
    int device;
    cudaStream_t compute;
    cudaStream_t copy;
    uint32_t processor_count;
    /* Blocks of weights, by place; `rover` is where the last search ended. */
    cuda_block *blocks;
    cuda_block *rover;
    char *region;
    uint64_t region_bytes;
    uint64_t epoch;
    cudaEvent_t epochs[CUDA_EPOCHS];         /* the end of epoch i at i % CUDA_EPOCHS */
    cuda_parcel parcels[CUDA_PARCELS];
    unsigned next_parcel;
    char *scratch[3];        /* floats of an operation, lists that it reads, decoded weights */
    uint64_t scratch_bytes[3];
    /* What a lap reports. */
    std::mutex copy_lock;    /* one tile's copies and their events are queued together */
    std::mutex lap_lock;
    double lap_begin;
    double copy_seconds;
    uint64_t copy_bytes;
    cudaEvent_t waits[CUDA_WAITS][2];
    unsigned wait_count;
};

enum { CUDA_SCRATCH_FLOATS, CUDA_SCRATCH_LISTS, CUDA_SCRATCH_WEIGHTS };

/* The bound of the work space of an operation, and of the weights that it decodes at once, which
 * come on top of buffers and weights. */
enum { CUDA_WORK_BYTES = 1 << 27 };

/* Whatever follows on this thread is meant for the device of `cuda`. */
static inline cuda_backend *cuda_use(cuda_backend *cuda)
{
    cudaSetDevice(cuda->device);
    return cuda;
}

static inline cuda_backend *cuda_of(run_backend *backend)
{
    return cuda_use(reinterpret_cast<cuda_backend *>(backend));
}

/* Rows as a kernel sees them. */
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
/* After a launch. */
ckpt_code cuda_launched(const char *what, ckpt_error *err);
/* cudaMalloc, whose error is not reported again by the next launch. */
cudaError_t cuda_allocate(uint64_t bytes, char **out);
/* Scratch of at least `bytes`, its old contents lost. */
ckpt_code cuda_scratch(cuda_backend *cuda, int which, uint64_t bytes, ckpt_error *err);
/* A parcel of so many bytes, to be filled and sent to device memory; both ends are aligned to 16
 * bytes, and the last 16 are sent whole. */
ckpt_code cuda_parcel_take(cuda_backend *cuda, uint64_t bytes, cuda_parcel **out, ckpt_error *err);
ckpt_code cuda_parcel_send(cuda_backend *cuda, cuda_parcel *parcel, void *to, uint64_t bytes,
                           ckpt_error *err);

/* cuda_weights.cu */
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
void cuda_free_weights(cuda_backend *cuda);      /* all are gone */
/* Let the computing stream wait for a weight, and note that it reads it. */
ckpt_code cuda_await(cuda_backend *cuda, const run_weight *weight, ckpt_error *err);
/* What reads weights from here on is of the next epoch. */
ckpt_code cuda_next_epoch(cuda_backend *cuda, ckpt_error *err);

/* cuda_product.cu: sums in blocks of so many columns are possible. */
ckpt_code cuda_check_block(uint32_t block, ckpt_error *err);
/* Whether cuda_decode takes the rows from `row` on. */
int cuda_can_decode(const cuda_weight *w, uint64_t row);
/* `row_count` rows of *view, from `row` on, as F32 at `out`; *view becomes what a kernel sees of
 * these. */
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
