/*
 * mutation_source.h: a view in which some tensors are not what they were: what a faulty converter
 * might have made, without a copy on disk. Everything else is read as it is.
 */
#ifndef CKPT_MUTATION_SOURCE_H
#define CKPT_MUTATION_SOURCE_H

#include "libckpt/source.h"

typedef enum {
    EDIT_REPLACE,                  /* nothing but `from` */
    EDIT_XOR,                      /* byte `byte` of row `row` of `part` with `mask` */
    EDIT_SET,                      /* the element's bytes at row, col of the data: `bits` */
    EDIT_SWAP_ROWS,                /* rows `row` and `row` + 1, which share their scales or bring
                                      them along */
    EDIT_ROTATE_ROWS,              /* the rows of each band of SOURCE_BAND_ROWS move up by one */
    EDIT_SWAP_COLUMNS,             /* `col` and `col` + 1 of all rows; elements of whole bytes */
    EDIT_SWAP_NIBBLES,             /* of all data bytes */
    EDIT_NEGATE,                   /* the sign bits of all data */
    EDIT_ZERO_ROW,                 /* the data of row `row` */
    EDIT_ZERO,                     /* all data */
    EDIT_SCALE_UP,                 /* all scales are doubled, below the largest */
    EDIT_SWAP_SCALES,              /* scales `col` and `col` + 1 of scale row `row` */
    EDIT_NARROW,                   /* F32 becomes BF16, rounded to nearest even; plain */
    EDIT_TRANSPOSE                 /* rows and columns change places; square, scales too */
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
    mutation_edit *edits;          /* malloc'd; at most one of a tensor */
    size_t edit_count;
    size_t dropped;                /* a tensor that is left out; SIZE_MAX: none */
    const char *added;             /* name of a tensor that is there, too; NULL: none */
    size_t added_like;             /* what it is made of */
} mutation_changes;

/* The view; `changes` is copied, `from` borrowed. *touched, by tensor of the view, yours to free:
 * 1 when its values may not be those of its name in `from`. */
ckpt_code source_mutate(ckpt_source *from, const mutation_changes *changes, ckpt_source **out,
                        uint8_t **touched, ckpt_error *err);

#endif
