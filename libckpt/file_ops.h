/*
 * file_ops.h: what an open file is made of, for those who make a new kind of it. file_local.c is
 * the first kind: a local disk. Readers know file.h only.
 *
 * A new kind: a struct that begins with a ckpt_file, a table of operations, and a function that
 * opens one. It can be read through a ckpt_folder of its own (folder.h). Only local files are
 * written.
 */
#ifndef CKPT_FILE_OPS_H
#define CKPT_FILE_OPS_H

#include <sys/uio.h>

#include "file.h"

/* Bytes that follow each other in a file, and the runs of memory that they fill, in this order. */
typedef struct {
    struct iovec *memory;       /* whoever moves them may change these entries */
    int count;                  /* at most IOV_MAX */
    uint64_t offset;            /* of the first byte in the file */
    uint64_t size_bytes;        /* of all runs; more than 0 */
} file_runs;

/* Move all of the runs, or fail. Thread-safe for one file. */
typedef ckpt_code file_move_fn(const ckpt_file *f, file_runs *runs, ckpt_error *err);

typedef struct {
    /* Read all of the runs. A file that ends early is CKPT_E_FORMAT, "'PATH' ends N bytes early";
     * what cannot be read is CKPT_E_IO. */
    file_move_fn *read;
    /* As file_check_unchanged. */
    ckpt_code (*check_unchanged)(const ckpt_file *f, int *is_touched, ckpt_error *err);
    /* Frees f, also on failure. */
    ckpt_code (*close)(ckpt_file *f, ckpt_error *err);
} file_ops;

/* Every kind of file begins with one. */
struct ckpt_file {
    const file_ops *ops;
    const char *path;           /* what errors call it; it lives as long as the file */
    uint64_t size;
    file_identity identity;
};

/* ---- what kinds of files share ---- */

/* CKPT_E_FORMAT when no file has these bytes. */
ckpt_code file_check_range(const ckpt_file *f, uint64_t offset, uint64_t size, ckpt_error *err);

/* How bytes of a file are moved. Of a rectangle, gaps of at most gap_max_bytes between rows are
 * moved, too, and forgotten; 0: what lies between is not touched. */
typedef struct {
    const ckpt_file *file;
    file_move_fn *move;
    uint64_t gap_max_bytes;
} file_mover;

/* What file_read_at and file_read_rect do, with `move`. */
ckpt_code file_move_at(const file_mover *mover, uint64_t offset, void *memory, size_t size,
                       ckpt_error *err);
ckpt_code file_move_rect(const file_mover *mover, const file_rect *rect, void *rows,
                         size_t memory_pitch_bytes, ckpt_error *err);

#endif
