/*
 * file_ops.h: the interface that every kind of file implements. file_local.c is the kind for local
 * disks. Code that only reads files uses file.h.
 *
 * To add a kind, write a struct that begins with a ckpt_file, a table of operations, and a function
 * that opens one, and make it available as a kind of folder (folder.h). Only local files can be
 * written.
 */
#ifndef CKPT_FILE_OPS_H
#define CKPT_FILE_OPS_H

#include <sys/uio.h>

#include "file.h"

/* Bytes that follow each other in a file, and the runs of memory that they fill, in this order. */
typedef struct {
    struct iovec *memory;       /* the transfer may change these entries */
    int count;                  /* at most IOV_MAX */
    uint64_t offset;            /* of the first byte in the file */
    uint64_t size_bytes;        /* of all runs; more than 0 */
} file_runs;

/* Transfer all of the runs, or fail. May be called by many threads for the same file. */
typedef ckpt_code file_move_fn(const ckpt_file *f, file_runs *runs, ckpt_error *err);

typedef struct {
    /* Read all of the runs. A file that ends early is CKPT_E_FORMAT, "'PATH' ends N bytes early";
     * any other failure is CKPT_E_IO. */
    file_move_fn *read;
    /* As file_check_unchanged. */
    ckpt_code (*check_unchanged)(const ckpt_file *f, int *is_touched, ckpt_error *err);
    /* Frees f, also on failure. */
    ckpt_code (*close)(ckpt_file *f, ckpt_error *err);
} file_ops;

/* First member of every kind of file. */
struct ckpt_file {
    const file_ops *ops;
    const char *path;           /* its name in errors; lives as long as the file */
    uint64_t size;
    file_identity identity;
};

/* ---- for all kinds of files ---- */

/* CKPT_E_FORMAT when the range is beyond the largest possible file. */
ckpt_code file_check_range(const ckpt_file *f, uint64_t offset, uint64_t size, ckpt_error *err);

/* How to transfer bytes of a file. In a rectangle, gaps of at most gap_max_bytes between rows are
 * read, too, and discarded. 0, for writing: bytes between the rows are not touched. */
typedef struct {
    const ckpt_file *file;
    file_move_fn *move;
    uint64_t gap_max_bytes;
} file_mover;

/* Like file_read_at and file_read_rect, with any kind of transfer. */
ckpt_code file_move_at(const file_mover *mover, uint64_t offset, void *memory, size_t size,
                       ckpt_error *err);
ckpt_code file_move_rect(const file_mover *mover, const file_rect *rect, void *rows,
                         size_t memory_pitch_bytes, ckpt_error *err);

#endif
