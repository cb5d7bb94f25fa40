/*
 * logits.h: compares two outputs of ckpt-run, or one with a golden file, position by position.
 *
 * A file is safetensors with tokens I32 [T], positions I32 [P] (absent: the first P) and logits F32
 * or BF16 [P, V]; or, for the K best tokens, top_logits, top_ids [P, K] and logsumexp [P]. With
 * several prompts names end in ".0", ".1" ... Tensors mtp_positions, mtp_logits ... are compared as
 * well.
 *
 * All sums are in F64. If only the K best tokens are known, all others are treated as one: the KL
 * divergence is then a lower bound. Different tokens, positions, shapes or prompts, and empty
 * files, are errors, not differences.
 */
#ifndef CKPT_LOGITS_H
#define CKPT_LOGITS_H

#include "libckpt/json.h"
#include "libckpt/ckpt.h"

typedef struct {
    const char *path;
    const char *tensor;            /* "logits_exact"; NULL: logits or top_logits, and mtp_* */
} logits_input;

/* The measures over all positions. */
typedef enum {
    LOGITS_KL_MAX,                 /* sum(p_a * log(p_a / p_b)) */
    LOGITS_KL_MEAN,
    LOGITS_KL_P99,
    LOGITS_KL_P50,
    LOGITS_ABS_MAX,                /* |a - b| of logits */
    LOGITS_ABS_MEAN,
    LOGITS_LOGPROB_MAX,            /* |log p_a - log p_b| */
    LOGITS_LOGPROB_MEAN,
    LOGITS_TOP1,                   /* share of positions with the same best token */
    LOGITS_TOP5,                   /* mean share of A's five best that are among B's */
    LOGITS_MEASURE_COUNT
} logits_measure;

/* A position's measures; NaN where a logit is NaN or infinite. */
typedef struct {
    uint32_t prompt;
    int is_mtp;
    uint64_t position;
    double kl;
    double abs_max;
    double abs_sum;
    double logprob_max;
    double logprob_sum;
    uint64_t value_count;          /* logits in both files */
    uint64_t different_count;      /* of these, logits that differ in any bit */
    uint64_t unmatched_count;      /* ids that are among the K best of A only */
    uint64_t non_finite_count;
    unsigned top1;                 /* 1: the same best token */
    unsigned top5;                 /* number of A's five best among B's */
} logits_position;

typedef struct {
    size_t position;               /* index */
    int64_t id;                    /* token; -1: no common logit, but ids or logsumexp */
    float a;
    float b;
} logits_difference;

typedef struct {
    logits_position *positions;
    size_t position_count;
    unsigned top_count;            /* 5, or fewer if the files have fewer */
    int is_lower_bound;            /* only the K best were known */
    double measures[LOGITS_MEASURE_COUNT];
    size_t worst;                  /* position with the largest KL */
    uint64_t value_count;
    uint64_t different_count;
    uint64_t unmatched_count;
    uint64_t non_finite_count;
    int bit_identical;             /* includes ids, logsumexp and, if both have them, generated */
    int has_generated;             /* both have generated tokens */
    int is_generated_same;
    logits_difference first;       /* unless the logits are identical */
    int has_first;
} logits_comparison;

/* *out is yours to release. */
ckpt_code logits_compare(const logits_input *a, const logits_input *b, logits_comparison *out,
                         ckpt_error *err);
void logits_release(logits_comparison *comparison);
/* Check that this file can be compared, before hours of work to compute the other one. */
ckpt_code logits_check(const logits_input *input, ckpt_error *err);

/* Limits by measure; NaN: none. top1 and top5 are lower limits, the others upper ones. */
typedef double logits_limits[LOGITS_MEASURE_COUNT];
const char *logits_limit_name(logits_measure measure);       /* "max-kl" */
int logits_is_exceeded(const logits_comparison *comparison, const logits_limits limits,
                       logits_measure measure);
/* Within all limits, or bit-identical if there are none. False with NaN or infinity. */
int logits_is_same(const logits_comparison *comparison, const logits_limits limits);

/* ---- traces ---- */

enum { LOGITS_POINT_BYTES = 32 };

/* A point of a layer in a trace. */
typedef struct {
    int is_found;
    uint64_t sequence;
    uint64_t layer;
    char point[LOGITS_POINT_BYTES];
    int is_missing;                /* B does not have it */
    double a_rms;                  /* NaN if the trace does not contain it */
    double b_rms;
} logits_point;

typedef struct {
    size_t point_count;            /* points of A */
    size_t different_count;
    logits_point first;            /* the first point that differs */
    logits_point selection;        /* the first set of experts or entries that differs */
    double gap;                    /* smallest relative gap at its cut; NaN: unknown */
    uint64_t gap_position;
    int is_near_tie;               /* that gap is less than LOGITS_NEAR_TIE */
} logits_trace;

#define LOGITS_NEAR_TIE 1e-5

/* Compare two traces of ckpt-run. Different shapes are errors. */
ckpt_code logits_compare_traces(const char *a_path, const char *b_path, logits_trace *out,
                                ckpt_error *err);

/*
 * The document, as one value of `w`; trace: NULL where there is none. Members: `same`,
 * `bit_identical`, `compared` (positions), `values`, `different` (in any bit), `unmatched`,
 * `non_finite`, `kl` (`mean`, `p50`, `p99`, `max`, `is_lower_bound`, `worst`), `logits` and
 * `logprobs` (`max_abs`, `mean_abs`), `top1`, `top5`, `generated_same`, `exceeded` (`limit`,
 * `expected`, `got`), `first_difference`, `trace` (`points`, `different`, `first`,
 * `first_selection` with `gap` and `near_tie`), `positions`. Percentiles are interpolated
 * linearly between ranks. A measure is null where a logit is NaN or infinite.
 */
void logits_put(json_writer *w, const logits_comparison *comparison, const logits_limits limits,
                const logits_trace *trace);

#endif
