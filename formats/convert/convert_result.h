/* convert_result.h: what a run came to: digests, counts, outcome. The run alone writes it. */
#ifndef CKPT_CONVERT_RESULT_H
#define CKPT_CONVERT_RESULT_H

#include "convert_plan.h"

/* All zero before the run. */
typedef struct {
    ckpt_digest *digest;             /* of the inputs, in the order of the targets; or NULL */
    ckpt_digest *written_digest;     /* of what was written, if it was read back; or NULL */
    ckpt_digest *encoded_digest;     /* of what was meant to be written, where its values may be
                                        others than the inputs' and --verify compares; or NULL */
    char root[CKPT_ROOT_HEX];        /* of the target; "" without digests */
    char main_root[CKPT_ROOT_HEX];
    char source_root[CKPT_ROOT_HEX];  /* of the inputs: others than those above after rounding */
    char source_main_root[CKPT_ROOT_HEX];
    encode_stats *stats;             /* by target tensor */
    uint8_t *kept;                   /* by target tensor: an earlier run had finished it */
    size_t kept_count;
    size_t repaired_count;           /* tensors that others had written and the disk lost */
    int is_waiting;                  /* this share is done; another process will commit */
    int is_there;                    /* DST holds it already, from the same job */
    int is_refused;                  /* what the inputs hold forbids it: nothing may be left */
    double seconds;
    const char **source_names;       /* of the source's tensor files: for the outcome */
    outcome_file *other_files;       /* of the target, and what it leaves out: for the outcome */
} job_result;

/* Roots of the inputs, which are the target's too where no value changes. */
ckpt_code job_result_take_roots(job_result *result, ckpt_error *err);

/* What was done, borrowed from all three. `others` are the target's files without tensors. */
ckpt_code job_result_tell(job_result *result, const job_plan *plan, const file_list *others,
                          ckpt_outcome *out, ckpt_error *err);

void job_result_release(job_result *result);

#endif
