/*
 * sink.h: receivers of tiles, and the loop that moves tiles from a source to a sink.
 *
 * A sink receives each tile of the tensors of one catalog exactly once, in any order and from many
 * threads. ckpt_copy is the suite's only loop over tensors.
 */
#ifndef CKPT_SINK_H
#define CKPT_SINK_H

#include "digest.h"
#include "source.h"
#include "store.h"
#include "turns.h"

typedef struct ckpt_sink ckpt_sink;

typedef struct {
    /* 0: skip this tensor, which the sink has already. NULL: all are wanted. */
    int (*wants)(const ckpt_sink *self, size_t tensor);
    /* Thread-safe. The tile is borrowed. */
    ckpt_code (*put)(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                     arena *scratch, ckpt_error *err);
    /* Bytes of scratch that put takes at most; NULL: none. */
    uint64_t (*need)(const ckpt_sink *self, size_t tensor, uint64_t row_count);
    /* Called once for each tensor, when all its tiles were put. Two such calls never overlap, but
     * calls of put may run at the same time. NULL: not called. */
    ckpt_code (*tensor_done)(ckpt_sink *self, size_t tensor, ckpt_error *err);
} sink_ops;

/* First member of every sink. */
struct ckpt_sink {
    const sink_ops *ops;
};

/* A put that does nothing, for runs that only want the source to compute its tiles, such as to
 * collect statistics. */
ckpt_code sink_put_nothing(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                           arena *scratch, ckpt_error *err);

/*
 * Move every wanted tile from source to sink. Uses fewer threads than asked for if the memory limit
 * has no room for all, and refuses a limit that cannot hold one tile. The first failure stops all
 * threads.
 */
ckpt_code ckpt_copy(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                    ckpt_error *err);

/* How the tiles of a tensor come in order. */
typedef struct {
    const uint64_t *rows;     /* of a tile by tensor, at most source_tile_rows; NULL: these */
    copy_turns *turns;        /* sources and sinks take turns: see below. Or NULL */
} copy_tiles;

/*
 * The same for sources and sinks that process a tensor as a stream: one thread moves all tiles of a
 * tensor, in the order of their rows, before it begins another tensor. With turns, threads without
 * a tensor of their own share one: its tiles are still handed out in order, and what must see them
 * in order waits for its turn (turns.h). After a failure some tensors are unfinished.
 */
ckpt_code ckpt_copy_in_order(ckpt_source *source, ckpt_sink *sink, const copy_tiles *tiles,
                             const ckpt_run_options *options, ckpt_error *err);

/* The same, but all threads work on neighbouring tiles, from the first tensor to the last. For runs
 * in which another reader follows through the same files: it finds them in the page cache. */
ckpt_code ckpt_copy_together(ckpt_source *source, ckpt_sink *sink, const ckpt_run_options *options,
                             ckpt_error *err);

/* How many threads a loop with these options runs if each needs `thread_bytes`. */
uint64_t copy_thread_count(const ckpt_run_options *options, uint64_t thread_bytes);

/* Bytes of scratch of one thread: what the largest tile of all tensors needs. */
uint64_t copy_tile_need(const ckpt_source *source, const ckpt_sink *sink);

/* Bytes of the memory limit that are left for buffers. */
uint64_t copy_memory_left(const ckpt_run_options *options);

/* Fail if the memory limit cannot hold one tile. ckpt_copy does so itself; plans do so earlier. */
ckpt_code copy_check_memory(uint64_t tile_bytes, const ckpt_run_options *options, ckpt_error *err);

/* Sum of the hashes of a tile's parts. The journal records their sum over a tensor, to verify the
 * bytes on disk when a run resumes. */
hash128 tile_hash(const source_range *range, const ckpt_tile *tile);

#endif
