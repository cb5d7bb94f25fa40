/*
 * run_trace_file.h: the file of ckpt-run --trace. It grows while the model runs, so that it can be
 * followed, and may be a pipe. Until nothing can be refused any more, what is there stays.
 */
#ifndef TOOL_RUN_TRACE_FILE_H
#define TOOL_RUN_TRACE_FILE_H

#include <stdio.h>

#include "libckpt/error.h"

typedef struct {
    FILE *stream;                  /* NULL: not open */
    const char *path;
    int is_new;                    /* made here, and nothing in it yet */
} run_trace_file;

ckpt_code run_trace_file_open(const char *path, run_trace_file *out, ckpt_error *err);
/* The run begins: an earlier trace is dropped. Fine if not open, as are the other two. */
ckpt_code run_trace_file_begin(run_trace_file *file, ckpt_error *err);
ckpt_code run_trace_file_close(run_trace_file *file, ckpt_error *err);
/* After a failure: a file that was made and has not begun is removed. */
void run_trace_file_abort(run_trace_file *file);

#endif
