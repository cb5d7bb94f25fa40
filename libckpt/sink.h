/*
 * sink.h: where tiles go, and the loop that brings them there.
 *
 * A sink takes tiles of the tensors of one catalog, each exactly once, in any order and from many
 * threads. ckpt_copy is the suite's only tensor loop.
 */
#ifndef CKPT_SINK_H
#define CKPT_SINK_H

#include <signal.h>

#include "digest.h"
#include "source.h"
#include "store.h"

typedef struct ckpt_sink ckpt_sink;

typedef struct {
    /* 0: this tensor is here already, skip it. NULL: all are wanted. */
    int (*wants)(const ckpt_sink *self, size_t tensor);
    /* Thread-safe. The tile is borrowed. */
    ckpt_code (*put)(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                     arena *scratch, ckpt_error *err);
    /* Scratch that put takes; NULL: none. */
    uint64_t (*need)(const ckpt_sink *self, size_t tensor, uint64_t row_count);
    /* Every tile of the tensor was put. One call per tensor, never two at once, but
     * beside calls of put. NULL: ignored. */
    ckpt_code (*tensor_done)(ckpt_sink *self, size_t tensor, ckpt_error *err);
} sink_ops;

/* First member of every sink. */
struct ckpt_sink {
    const sink_ops *ops;
};

typedef void copy_progress(void *context, uint64_t done_bytes, uint64_t total_bytes);

typedef struct {
    unsigned thread_count;               /* 0: one per core */
    uint64_t memory_bytes;               /* for everything; 0: 1 GiB */
    uint64_t fixed_bytes;                /* of it, taken already by catalogs and the like */
    const volatile sig_atomic_t *stop;   /* set: end soon with CKPT_E_INTERRUPTED; or NULL */
    copy_progress *progress;             /* called from one thread at a time; or NULL */
    void *progress_context;
} copy_options;

/*
 * Move every wanted tile from source to sink. Uses fewer threads than asked for when memory says
 * so, and refuses a limit that cannot hold one tile. The first failure stops all threads.
 */
ckpt_code ckpt_copy(ckpt_source *source, ckpt_sink *sink, const copy_options *options,
                    ckpt_error *err);

/* Value digests of all tensors: ckpt_copy into a sink that digests. *out is yours to free. */
ckpt_code copy_to_digest(ckpt_source *source, const copy_options *options, ckpt_digest **out,
                         ckpt_error *err);

/* Scratch of one thread: the largest tile of all tensors. */
uint64_t copy_tile_need(const ckpt_source *source, const ckpt_sink *sink);

/* What is left of the limit for buffers. */
uint64_t copy_memory_left(const copy_options *options);

/* What ckpt_copy asks first: can the limit hold one tile? For plans. */
ckpt_code copy_check_memory(uint64_t tile_bytes, const copy_options *options, ckpt_error *err);

/* Sum over the parts of a tile's hashes; what the journal knows of written bytes. */
hash128 tile_hash(const source_range *range, const ckpt_tile *tile);

#endif
