/* run_print.h: decodes the answers of ckpt-run and prints its results. */
#ifndef TOOL_RUN_PRINT_H
#define TOOL_RUN_PRINT_H

#include "run_job.h"

void run_speed_count(run_speed *speed, int is_token, double seconds);

/* Decode each answer into text, and with --parse into a message. */
ckpt_code run_words_answer(run_job *job, ckpt_error *err);

void run_print_notes(const run_job *job);
/* All results, as text or JSON. */
void run_print(const run_job *job);

#endif
