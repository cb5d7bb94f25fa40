/*
 * results.h: writes logits to a safetensors file, the format of golden files:
 *
 *   tokens     I32 [T]           the prompt
 *   positions  I32 [P]           positions with logits, ascending
 *   logits     F32 [P, V]        full rows, or with a top of K:
 *   top_ids    I32 [P, K]        best first, ties by lower id
 *   top_logits F32 [P, K]
 *   logsumexp  F32 [P]
 *   generated  I32 [N]           tokens that were generated; -1 after the end
 *   mtp_positions, mtp_logits (or mtp_top_ids ...): the same of the MTP block, which at position p
 *                                predicts token p + 2
 *
 * With several prompts every name ends in ".0", ".1" ... The header's __metadata__ records how the
 * file was made. Rows may arrive in any order: each is written at once to its final offset in a
 * temporary file, which is renamed to the given path, replacing an existing file, when complete.
 */
#ifndef RUN_RESULTS_H
#define RUN_RESULTS_H

#include "libckpt/error.h"
#include "prompts.h"

typedef struct run_results run_results;

typedef struct {
    const uint32_t *tokens;
    uint64_t token_count;
    const uint64_t *positions;
    uint64_t position_count;
    uint64_t mtp_position_count;   /* how many of the first positions have MTP rows */
    uint64_t generate_count;
} run_result_plan;

typedef struct {
    const char *path;
    uint32_t vocab_size;
    uint32_t top;                  /* 0: full rows */
    const run_result_plan *plans;  /* one per prompt; borrowed until commit or abort */
    size_t plan_count;
    const char *const *metadata;   /* key, value, key, value ..., NULL */
} run_results_options;

ckpt_code run_results_create(const run_results_options *options, run_results **out,
                             ckpt_error *err);
/* Write the vocab_size logits of position i of a prompt's plan. */
ckpt_code run_results_put(run_results *results, size_t prompt, uint64_t i, const float *logits,
                          ckpt_error *err);
ckpt_code run_results_put_mtp(run_results *results, size_t prompt, uint64_t i,
                              const float *logits, ckpt_error *err);
ckpt_code run_results_put_generated(run_results *results, size_t prompt, const int32_t *ids,
                                    ckpt_error *err);
/* Consumes results, also on failure. */
ckpt_code run_results_commit(run_results *results, ckpt_error *err);
/* The same as JSONL: {"prompt": i, "tokens": [..], "positions": [..], "logits": [[..], ..]}, or
 * "top_ids", "top_logits", "logsumexp". Compressed when the name ends in ".zst". */
ckpt_code run_results_commit_jsonl(run_results *results, ckpt_error *err);
void run_results_abort(run_results *results);        /* NULL is fine */

#endif
