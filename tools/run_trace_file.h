/*
 * run_trace_file.h: the file of ckpt-run --trace. It is written while the model runs, so that it
 * can be followed, and may be a pipe. An existing file keeps its content until all checks of the
 * run have passed.
 */
#ifndef TOOL_RUN_TRACE_FILE_H
#define TOOL_RUN_TRACE_FILE_H

#include <stdio.h>

#include "libckpt/error.h"

typedef struct {
    FILE *stream;                  /* NULL: not open */
    const char *path;
    int is_new;                    /* created by this run and still empty */
} run_trace_file;

ckpt_code run_trace_file_open(const char *path, run_trace_file *out, ckpt_error *err);
/* The run begins: truncate an earlier trace. This and the next two accept a file not open. */
ckpt_code run_trace_file_begin(run_trace_file *file, ckpt_error *err);
ckpt_code run_trace_file_close(run_trace_file *file, ckpt_error *err);
/* After a failure: remove the file if this run created it and has written nothing. */
void run_trace_file_abort(run_trace_file *file);

#endif
