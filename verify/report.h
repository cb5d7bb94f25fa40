/*
 * report.h: the report of a conversion: the fate of every source tensor, the origin of every
 * target tensor, and how much its encoding lost, if anything.
 *
 * A JSON document; README.md has its members. Everything except "seconds" and the
 * paths depends only on source and options.
 */
#ifndef CKPT_REPORT_H
#define CKPT_REPORT_H

#include "libckpt/json.h"
#include "libckpt/outcome.h"

#define REPORT_FILE "ckpt-report.json"

/* The document, as one value of `w`. */
void report_put(json_writer *w, const ckpt_outcome *outcome);
/* Write it to a file; compressed if its name ends in ".zst". */
ckpt_code report_write(const char *path, const ckpt_outcome *outcome, ckpt_error *err);

#endif
