/*
 * mutation_source.h: a view of a source with some tensors changed as a faulty converter might
 * change them, without a copy on disk. All other tensors are passed through.
 */
#ifndef CKPT_MUTATION_SOURCE_H
#define CKPT_MUTATION_SOURCE_H

#include "libckpt/source.h"

typedef enum {
    EDIT_REPLACE,                  /* only read `from` instead */
    EDIT_XOR,                      /* XOR byte `byte` of row `row` of `part` with `mask` */
    EDIT_SET,                      /* set the data element at row, col to `bits` */
    EDIT_SWAP_ROWS,                /* swap rows `row` and `row` + 1; these share their scales, or
                                      the scales are swapped, too */
    EDIT_ROTATE_ROWS,              /* rotate the rows of each band of SOURCE_BAND_ROWS by one */
    EDIT_SWAP_COLUMNS,             /* swap `col` and `col` + 1 in all rows; whole-byte elements */
    EDIT_SWAP_NIBBLES,             /* swap the nibbles of all data bytes */
    EDIT_NEGATE,                   /* flip the sign bits of all data */
    EDIT_ZERO_ROW,                 /* zero the data of row `row` */
    EDIT_ZERO,                     /* zero all data */
    EDIT_SCALE_UP,                 /* double all scales except the largest possible */
    EDIT_SWAP_SCALES,              /* swap scales `col` and `col` + 1 of scale row `row` */
    EDIT_NARROW,                   /* round plain F32 to BF16, nearest even */
    EDIT_TRANSPOSE                 /* transpose a square matrix and its scales */
} edit_kind;

typedef struct {
    edit_kind kind;
    size_t tensor;                 /* of the catalog that is changed */
    size_t from;                   /* the tensor that is read: `tensor` itself, or one of its shape
                                      and encoding */
    ckpt_part part;
    uint64_t row;                  /* of the part */
    uint64_t col;
    uint64_t byte;
    uint8_t mask;
    uint64_t bits;
} mutation_edit;

typedef struct {
    mutation_edit *edits;          /* malloc'd; at most one per tensor */
    size_t edit_count;
    size_t dropped;                /* a tensor to remove; SIZE_MAX: none */
    const char *added;             /* name of a tensor to add; NULL: none */
    size_t added_like;             /* the tensor that it is a copy of */
} mutation_changes;

/* Create the view; `changes` is copied, `from` borrowed. *touched is yours to free: by tensor of
 * the view, 1 if its values may differ from those of the tensor with its name in `from`. */
ckpt_code source_mutate(ckpt_source *from, const mutation_changes *changes, ckpt_source **out,
                        uint8_t **touched, ckpt_error *err);

#endif
