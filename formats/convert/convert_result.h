/* convert_result.h: the result of a run: digests, counts, outcome. Only the run writes it. */
#ifndef CKPT_CONVERT_RESULT_H
#define CKPT_CONVERT_RESULT_H

#include "convert_plan.h"

/* All zero before the run. */
typedef struct {
    ckpt_digest *digest;             /* of the inputs, in the order of the targets; or NULL */
    ckpt_digest *written_digest;     /* of what was written, if it was read back; or NULL */
    ckpt_digest *encoded_digest;     /* of what should have been written, if its values may differ
                                        from the inputs' by rules, or --verify compares; or NULL */
    char root[CKPT_ROOT_HEX];        /* of the target; "" without digests */
    char main_root[CKPT_ROOT_HEX];
    char source_root[CKPT_ROOT_HEX];  /* of the inputs: differ from those above after rounding */
    char source_main_root[CKPT_ROOT_HEX];
    encode_stats *stats;             /* by target tensor */
    quantise_loss *losses;           /* by target tensor; NULL: none has a rule */
    uint8_t *kept;                   /* by target tensor: an earlier run had finished it */
    size_t kept_count;
    size_t repaired_count;           /* damaged tensors of other processes that were written
                                      * again */
    int is_waiting;                  /* this share is done; another process will commit */
    int is_there;                    /* DST already exists, from the same job */
    int is_refused;                  /* the inputs cannot be converted: leave nothing behind */
    double seconds;
    const char **source_names;       /* of the source's tensor files: for the outcome */
    outcome_file *other_files;       /* without tensors, written or not copied: for the outcome */
} job_result;

/* Roots of the inputs, which are also the target's if no value changes. */
ckpt_code job_result_take_roots(job_result *result, ckpt_error *err);

/* The outcome, borrowed from all three stages. `others` are the target's files without tensors. */
ckpt_code job_result_tell(job_result *result, const job_plan *plan, const file_list *others,
                          ckpt_outcome *out, ckpt_error *err);

void job_result_release(job_result *result);

#endif
