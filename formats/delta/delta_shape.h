/*
 * delta_shape.h: a checkpoint in the shape of another one: with its files, names, dtypes and
 * shapes. Tensors that both have keep their bytes, all others are zeros. Between a base in the
 * shape of a result and that result a delta has no tensor to add or to remove.
 *
 * The shaped checkpoint is opened like any other: its folder exists only in memory, and reads from
 * the files of the base.
 */
#ifndef CKPT_DELTA_SHAPE_H
#define CKPT_DELTA_SHAPE_H

#include "formats/format.h"

/* A range of a file that has the bytes of a tensor of the base. */
typedef struct {
    uint64_t offset;
    uint64_t bytes;
    const ckpt_file *from;
    uint64_t from_offset;
} shape_run;

/* A file of weights. */
typedef struct {
    char *name;
    char *header;                   /* its first bytes; malloc'd */
    size_t header_bytes;
    uint64_t bytes;                 /* of the whole file */
    int is_of_base;                 /* set by delta_structure_compare */
    shape_run *runs;                /* sorted by offset */
    size_t run_count;
} shape_file;

/* Any other file. */
typedef struct {
    char *name;
    const ckpt_folder *folder;      /* borrowed; has it, as `as` */
    char *as;
} shape_other;

typedef struct delta_shape {
    shape_file *files;
    size_t file_count;
    shape_other *others;
    size_t other_count;
    file_list added;                /* tensors that the base lacks, or has with another dtype or
                                       shape; sorted, as are the next */
    file_list removed;              /* tensors of the base that the shape lacks, or has otherwise */
    uint64_t held_bytes;
} delta_shape;

/* An empty shape is all zero. Append a file; `header` is taken, also on failure. */
ckpt_code delta_shape_add(delta_shape *shape, const char *name, shape_file *file, ckpt_error *err);
/* Append another file, or replace the one of that name; `folder` NULL: remove it. */
ckpt_code delta_shape_put(delta_shape *shape, const char *name, const ckpt_folder *folder,
                          const char *as, ckpt_error *err);

/* Append all files of a Hugging Face directory. */
ckpt_code delta_shape_take(delta_shape *shape, const ckpt_checkpoint *c, ckpt_error *err);
/* The header of its file `i`; malloc'd. */
ckpt_code delta_shape_header(const ckpt_checkpoint *c, size_t i, char **out, ckpt_error *err);

/* Open `base` in this shape; both must outlive *out, which is yours to close. Fills in `added` and
 * `removed`. Headers are checked as those of files are. */
ckpt_code delta_shape_open(delta_shape *shape, const ckpt_checkpoint *base,
                           const ckpt_open_options *open, ckpt_checkpoint **out, ckpt_error *err);
void delta_shape_release(delta_shape *shape);

#endif
