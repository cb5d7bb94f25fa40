/* run_print.h: answers of ckpt-run in words, and what it prints. */
#ifndef TOOL_RUN_PRINT_H
#define TOOL_RUN_PRINT_H

#include "run_job.h"

/* Seconds of a clock that only goes forward. */
double run_now(void);
void run_speed_count(run_speed *speed, int is_token, double seconds);

/* The text of each answer, and as a message where that is asked for. */
ckpt_code run_words_answer(run_job *job, ckpt_error *err);

void run_print_notes(const run_job *job);
/* All results, as text or JSON. */
void run_print(const run_job *job);

#endif
