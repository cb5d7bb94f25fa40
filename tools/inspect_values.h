/* inspect_values.h: what ckpt-inspect tells of values: statistics, histograms, decoded rows. */
#ifndef CKPT_INSPECT_VALUES_H
#define CKPT_INSPECT_VALUES_H

#include "verify/statistics.h"

/* For people: a line for each tensor that was chosen. */
void inspect_print_statistics(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics);

/* The chosen tensors together: values by power of two, codes where all have the same dtype. */
void inspect_print_histograms(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics);

/* Rows [row, row + count) of the row view. */
typedef struct {
    uint64_t row;
    uint64_t count;
} inspect_rows;

/* "5", or "5-8": the last is one of them. 0 when it is neither. */
int inspect_parse_rows(const char *text, inspect_rows *out);

/* Refuses rows that the tensor does not have. */
ckpt_code inspect_check_rows(const ckpt_tensor *tensor, const inspect_rows *rows,
                             ckpt_error *err);

/* The values of these rows: a line for each, or, with `w`, an array for each as its next values,
 * NaN and infinity as strings. */
ckpt_code inspect_put_rows(ckpt_source *source, size_t tensor, const inspect_rows *rows,
                           json_writer *w, ckpt_error *err);

#endif
