/* inspect_values.h: prints values for ckpt-inspect: statistics, histograms, decoded rows. */
#ifndef CKPT_INSPECT_VALUES_H
#define CKPT_INSPECT_VALUES_H

#include "verify/statistics.h"

/* Print one line of text for each chosen tensor. */
void inspect_print_statistics(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics);

/* Print histograms over all chosen tensors: of values by power of two, and of codes if all tensors
 * have the same dtype. */
void inspect_print_histograms(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics);

/* Rows [row, row + count) of the row view. */
typedef struct {
    uint64_t row;
    uint64_t count;
} inspect_rows;

/* Parse "5" or "5-8" (8 included). 0: malformed. */
int inspect_parse_rows(const char *text, inspect_rows *out);

/* Refuses rows that the tensor does not have. */
ckpt_code inspect_check_rows(const ckpt_tensor *tensor, const inspect_rows *rows,
                             ckpt_error *err);

/* Print the scales that a tensor has one of, the tensor's own and that of activations: a line, or
 * with `w` members of the object. */
ckpt_code inspect_put_scales(ckpt_source *source, size_t tensor, json_writer *w, ckpt_error *err);

/* Print the values of these rows: one line for each row, or with `w` one JSON array for each, with
 * NaN and infinity as strings. */
ckpt_code inspect_put_rows(ckpt_source *source, size_t tensor, const inspect_rows *rows,
                           json_writer *w, ckpt_error *err);

#endif
