/* error.h: formats errors. The function that fails describes the failure; callers pass it on. */
#ifndef CKPT_ERROR_H
#define CKPT_ERROR_H

#include <stdarg.h>

#include "ckpt.h"

/* ckpt_fail (ckpt.h) for an allocation that failed, or that the limit of memory.h refused: then the
 * text gives that limit and how much is needed. */
ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size);

/* Write `raw` as one line: control characters are escaped. If it is too long, the longest quoted
 * subjects lose their middle, so that the words around them (what failed, expected, got) stay. */
void error_line(char text[CKPT_ERROR_BYTES], const char *raw);
/* The same with a format; the arguments may point into `text`. */
void error_format(char text[CKPT_ERROR_BYTES], const char *format, va_list args);

#endif
