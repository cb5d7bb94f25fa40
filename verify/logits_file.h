/* logits_file.h: reads a file of logits as sets of rows: one for each prompt, and one for its
 * MTP. */
#ifndef CKPT_LOGITS_FILE_H
#define CKPT_LOGITS_FILE_H

#include "logits.h"

typedef struct {
    uint32_t prompt;
    int is_mtp;
    int is_top;                /* only the K best are present */
    size_t rows;               /* indexes of tensors, as the next two */
    size_t ids;
    size_t sums;
    uint64_t count;            /* of positions */
    uint64_t width;            /* logits of a row */
    int64_t *positions;
    int64_t *tokens;
    uint64_t token_count;
} logits_set;

typedef struct {
    const logits_input *input;
    ckpt_checkpoint *checkpoint;
    ckpt_source *source;       /* borrowed from it */
    logits_set *sets;
    size_t set_count;
} logits_file;

/* One known logit. */
typedef struct {
    uint32_t id;
    float value;
} logits_entry;

typedef struct {
    logits_entry *entries;     /* by id; room for logits_set.width */
    uint64_t count;
    int is_top;
    float sum;                 /* log(sum(exp)) as stored in the file; only for top-K rows */
} logits_row;

/* Open a file; fails if it has no positions. Release *out, also on failure. */
ckpt_code logits_file_open(const logits_input *input, logits_file *out, ckpt_error *err);
void logits_file_release(logits_file *file);

ckpt_code logits_row_create(const logits_set *set, logits_row *out, ckpt_error *err);
void logits_row_release(logits_row *row);
/* Read row `i` of a set. */
ckpt_code logits_row_read(const logits_file *file, const logits_set *set, uint64_t i,
                          logits_row *row, ckpt_error *err);

/* All numbers of an integer tensor; *out is malloc'd, NULL if there is no such tensor. */
ckpt_code logits_read_integers(const logits_file *file, const char *name, int64_t **out,
                               uint64_t *count, ckpt_error *err);

#endif
