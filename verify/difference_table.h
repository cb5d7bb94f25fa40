/*
 * difference_table.h: differences of tensors as a sorted table, optionally summed by layer or kind.
 */
#ifndef CKPT_DIFFERENCE_TABLE_H
#define CKPT_DIFFERENCE_TABLE_H

#include "compare.h"

/* Sort order: largest first, but smallest cosine first and names ascending. Equal entries are
 * sorted by name, with numbers by value. */
typedef enum {
    DIFFERENCE_BY_ERROR,           /* relative Frobenius error */
    DIFFERENCE_BY_MAX,             /* largest |b - a| */
    DIFFERENCE_BY_COSINE,
    DIFFERENCE_BY_CHANGED,         /* share of changed elements */
    DIFFERENCE_BY_NAME
} difference_order;

typedef enum {
    DIFFERENCE_TENSORS,            /* an entry for each tensor */
    DIFFERENCE_LAYERS,             /* "layers.3", "mtp.0"; "rest" for tensors in no layer */
    DIFFERENCE_KINDS               /* numbers replaced: "layers.*.attn.wq_a.weight" */
} difference_group;

typedef struct {
    char *name;
    size_t tensor_count;
    int is_int;                    /* integers: no sums */
    ckpt_dtype unit;               /* of its ulps; CKPT_NONE: none, or mixed units */
    difference_statistics statistics;
} difference_entry;

typedef struct {
    difference_entry *entries;
    size_t count;
    difference_statistics total;           /* its ulps mix units */
    uint64_t bf16_ulps[DIFFERENCE_ULPS];   /* of the tensors with this unit */
    uint64_t f32_ulps[DIFFERENCE_ULPS];
} difference_table;

/* Make the table of measured tensors. *out is yours to release. */
ckpt_code difference_table_make(const ckpt_comparison *comparison, difference_group group,
                                difference_order order, difference_table *out, ckpt_error *err);
void difference_table_release(difference_table *list);

/* The distances of a bucket as text: "0", "1", "2-3", "4-7". */
enum { DIFFERENCE_ULP_TEXT_BYTES = 48 };
void difference_ulp_text(unsigned bucket, char out[DIFFERENCE_ULP_TEXT_BYTES]);

/*
 * The entries as an array, one a line, and the total as an object: values of `w`.
 *   name, tensors, elements, changed, nonfinite, max_abs, row and col of that (of one tensor),
 *   relative_error and cosine (null of integers), ulp_of, ulps (least distance of each power of
 *   two: how many); of the total bf16_ulps and f32_ulps
 */
void difference_put_entries(json_writer *w, const difference_table *list);
void difference_put_total(json_writer *w, const difference_table *list);

#endif
