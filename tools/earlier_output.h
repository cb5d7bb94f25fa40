/* earlier_output.h: which files an output may replace: those that the same command wrote before. */
#ifndef TOOL_EARLIER_OUTPUT_H
#define TOOL_EARLIER_OUTPUT_H

#include "libckpt/error.h"

enum { EARLIER_BYTES = 256 };

/* The first bytes of a file: at most EARLIER_BYTES, then a NUL. */
typedef struct {
    char bytes[EARLIER_BYTES + 1];
    size_t size;
} earlier_begin;

/* 1 when a file that begins so is an earlier output. */
typedef int earlier_is_ours(const earlier_begin *begin, const void *context);

/*
 * Refuse `path` if there is a file that was not recognised: nothing is replaced that the command
 * did not make. An absent file is fine, and so are an empty one (mktemp), one that is compressed
 * with zstd where `path` ends in ".zst", and what is not a regular file. `what` is the name of the
 * output, as "a certificate".
 */
ckpt_code earlier_output_check(const char *path, const char *what, earlier_is_ours *is_ours,
                               const void *context, ckpt_error *err);

/* The file without its blanks, so that differently indented JSON begins alike. */
void earlier_drop_blanks(earlier_begin *begin);
int earlier_begins_as(const earlier_begin *begin, const char *text);

#endif
