/*
 * delta_structure.h: deltas that add or remove tensors (--structural).
 *
 * In the index delta_encoding is "xor+ckpt1", which other readers refuse. The side file has
 *
 *   "structure": {"weights": [{"name": FILE, "bytes": N, "header": FILE|null}],
 *                 "index": FILE|null, "added": [NAME], "removed": [NAME]}
 *
 * all files of weights of the result, each with its header, from byte 0 to the data, as a file of
 * the delta (null: that of the base's file of this name), and its index. An added tensor is changed
 * from zeros, so its frame has its very bytes; one that is all zeros has no frame. A tensor with
 * another dtype or shape is both removed and added.
 */
#ifndef CKPT_DELTA_STRUCTURE_H
#define CKPT_DELTA_STRUCTURE_H

#include "delta.h"
#include "delta_shape.h"

#define DELTA_STRUCTURAL_SUFFIX "+ckpt1"

/* A file of weights of the result. */
typedef struct delta_weights {
    const char *name;
    const char *header;             /* in the delta; NULL: the base has it */
    uint64_t bytes;
} delta_weights;

/* Read the member of the side file; NULL: there is none. Must agree with the index's word. */
ckpt_code delta_structure_read(ckpt_delta *delta, const json_value *structure, ckpt_error *err);
/* The shape of a delta's result; `base` is what it is applied to. */
ckpt_code delta_structure_shape(const ckpt_delta *delta, const ckpt_checkpoint *base,
                                delta_shape *out, ckpt_error *err);
/* Refuse a base that does not lack what the delta adds, or has not what it removes. */
ckpt_code delta_structure_check(const ckpt_delta *delta, const delta_shape *shape,
                                const ckpt_checkpoint *base, ckpt_error *err);

/* Before a shape is written into a delta: note which files have a header that `base`, to which the
 * delta is applied, has too. Those are not written. */
void delta_structure_compare(delta_shape *shape, const ckpt_checkpoint *base);
/* Append the names of the files that the next writes. */
ckpt_code delta_structure_names(const delta_shape *shape, file_list *out, ckpt_error *err);
/* Write headers and index into the delta's directory. */
ckpt_code delta_structure_write(const delta_shape *shape, const char *directory, ckpt_error *err);
/* Put the member of the side file. */
void delta_structure_put(json_writer *w, const delta_shape *shape);

#endif
