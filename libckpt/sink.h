/*
 * sink.h: where tiles go, and the loop that brings them there.
 *
 * A sink takes tiles of the tensors of one catalog, each exactly once, in any order and from many
 * threads. ckpt_copy is the suite's only tensor loop.
 */
#ifndef CKPT_SINK_H
#define CKPT_SINK_H

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

/* The put of a sink that has tiles made, for what the sources on the way note of them, and keeps
 * none. */
ckpt_code sink_put_nothing(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                           arena *scratch, ckpt_error *err);

/*
 * Move every wanted tile from source to sink. Uses fewer threads than asked for when memory says
 * so, and refuses a limit that cannot hold one tile. The first failure stops all threads.
 */
ckpt_code ckpt_copy(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                    ckpt_error *err);

/*
 * The same for sources and sinks that go through a tensor as through a stream: the tiles of a
 * tensor come in the order of their rows, all from one thread, which does no other tensor until
 * this one is done. After a failure tensors are left unfinished.
 */
ckpt_code ckpt_copy_in_order(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                             ckpt_error *err);

/* The same for a disk that is to give every byte to two readers at once: all threads stay close
 * together, on the way from the first tensor to the last. */
ckpt_code ckpt_copy_together(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                             ckpt_error *err);

/* Threads that a loop with these options would run if memory has room for `thread_bytes` each. */
uint64_t copy_thread_count(const ckpt_run_options *options, uint64_t thread_bytes);

/* Scratch of one thread: the largest tile of all tensors. */
uint64_t copy_tile_need(const ckpt_source *source, const ckpt_sink *sink);

/* What is left of the limit for buffers. */
uint64_t copy_memory_left(const ckpt_run_options *options);

/* What ckpt_copy asks first: can the limit hold one tile? For plans. */
ckpt_code copy_check_memory(uint64_t tile_bytes, const ckpt_run_options *options, ckpt_error *err);

/* Sum over the parts of a tile's hashes; what the journal knows of written bytes. */
hash128 tile_hash(const source_range *range, const ckpt_tile *tile);

#endif
