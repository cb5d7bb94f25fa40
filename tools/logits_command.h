/* logits_command.h: options that limit how far two sets of logits may differ; printing. */
#ifndef CKPT_LOGITS_COMMAND_H
#define CKPT_LOGITS_COMMAND_H

#include "tools/cli/cli.h"
#include "verify/logits.h"

/* As they came from the command line; NULL: not given. */
typedef struct {
    const char *texts[LOGITS_MEASURE_COUNT];
} logits_limit_texts;

#define CLI_LOGITS_LIMITS(limits)                                                              \
    { CLI_HEADING, NULL, NULL, NULL, "Limits (without any: every bit must be the same)" },     \
    { CLI_STRING, "max-kl", "X", &(limits).texts[LOGITS_KL_MAX],                               \
      "largest KL divergence of a position" },                                                 \
    { CLI_STRING, "max-mean-kl", "X", &(limits).texts[LOGITS_KL_MEAN], "mean KL divergence" }, \
    { CLI_STRING, "max-p99-kl", "X", &(limits).texts[LOGITS_KL_P99],                           \
      "99th percentile of the KL divergence" },                                                \
    { CLI_STRING, "max-p50-kl", "X", &(limits).texts[LOGITS_KL_P50], "median KL divergence" }, \
    { CLI_STRING, "max-abs", "X", &(limits).texts[LOGITS_ABS_MAX],                             \
      "largest difference of a logit" },                                                       \
    { CLI_STRING, "max-mean-abs", "X", &(limits).texts[LOGITS_ABS_MEAN],                       \
      "mean difference of logits" },                                                           \
    { CLI_STRING, "max-logprob", "X", &(limits).texts[LOGITS_LOGPROB_MAX],                     \
      "largest difference of a log probability" },                                             \
    { CLI_STRING, "max-mean-logprob", "X", &(limits).texts[LOGITS_LOGPROB_MEAN],               \
      "mean difference of log probabilities" },                                                \
    { CLI_STRING, "min-top1", "SHARE", &(limits).texts[LOGITS_TOP1],                           \
      "share of positions with the same best token, 0 to 1" },                                 \
    { CLI_STRING, "min-top5", "SHARE", &(limits).texts[LOGITS_TOP5],                           \
      "mean share of A's five best tokens that are among B's, 0 to 1" }

/* Rows of a command's rules: a limit needs something to be compared with. */
#define CLI_LOGITS_RULES(with)                                                                     \
    { "max-kl", with, NULL }, { "max-mean-kl", with, NULL }, { "max-p99-kl", with, NULL },         \
    { "max-p50-kl", with, NULL }, { "max-abs", with, NULL }, { "max-mean-abs", with, NULL },       \
    { "max-logprob", with, NULL }, { "max-mean-logprob", with, NULL }, { "min-top1", with, NULL }, \
    { "min-top5", with, NULL }

ckpt_code logits_parse_limits(const logits_limit_texts *texts, logits_limits limits,
                              ckpt_error *err);
/* For people. trace may be NULL. */
void logits_print(const logits_comparison *comparison, const logits_limits limits,
                  const logits_trace *trace);

#endif
