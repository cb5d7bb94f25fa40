/* run_job.h: options and state of a run of ckpt-run. */
#ifndef TOOL_RUN_JOB_H
#define TOOL_RUN_JOB_H

#include "tools/cli/cli.h"
#include "logits_command.h"
#include "run_settings.h"
#include "run_trace_file.h"
#include "run_text.h"
#include "reference-runner/prompts.h"
#include "reference-runner/results.h"
#include "reference-runner/runner.h"
#include "reference-runner/trace.h"

/* The options. */
typedef struct {
    cli_common common;
    ckpt_open_options open;
    const char *tokens;
    const char *out;
    const char *format;
    const char *positions;
    const char *numerics;
    const char *backend;
    const char *devices;
    uint64_t device_memory;
    const char *trace;
    const char *trace_positions;
    const char *config;
    const char *temperature;
    const char *against;
    const char *against_tensor;
    logits_limit_texts limits;
    run_text_options text;
    uint64_t top;
    uint64_t generate_count;
    const char *seed;
    uint64_t feed;
    uint64_t chunk;
    int mtp;
    int digest;
} run_asked;

enum { RUN_RECENT = 64 };

/* Time spent on prompts, and on generated tokens. */
typedef struct {
    double prompt_seconds;
    double token_seconds;
    uint64_t token_count;      /* passes that each add one generated token */
    double recent[RUN_RECENT]; /* seconds of token i at i % RUN_RECENT */
} run_speed;

/* The state of one prompt. */
typedef struct {
    const run_prompt *prompt;
    run_sequence *sequence;
    uint64_t *positions;       /* positions whose logits are wanted, ascending */
    uint64_t position_count;
    uint64_t done_count;       /* how many of these were computed */
    uint64_t mtp_count;        /* of the first of them */
    uint64_t mtp_done_count;
    int32_t *generated;        /* generate_count, -1: ended */
    uint64_t generated_count;
    uint32_t next;             /* the token to process next */
    int ended;
} run_line;

typedef struct {
    const run_asked *asked;
    ckpt_checkpoint *checkpoint;
    run_settings settings;
    run_prompts prompts;
    run_text *text;                /* NULL: prompts are not text */
    run_words words;
    run_line *lines;
    run_result_plan *plans;
    unsigned *devices;
    run_model *model;
    run_trace *trace;
    run_trace_file trace_file;
    uint64_t *trace_positions;
    run_results *results;
    run_segment *segments;         /* of the current forward */
    size_t *owners;                /* by segment: index of its line */
    size_t segment_count;
    uint64_t *rows;                /* rows requested from the current head */
    size_t *row_owners;
    uint64_t *row_positions;
    char root[CKPT_ROOT_HEX];
    const char *root_source;
    double temperature;
    run_speed speed;
    uint64_t seed;
    logits_limits limits;
    logits_comparison against;     /* of --against; no positions: not given */
} run_job;

#endif
