/* error.h: how a failure is described, once, where it happens. */
#ifndef CKPT_ERROR_H
#define CKPT_ERROR_H

#include <stdarg.h>

#include "ckpt.h"

/* ckpt_fail (ckpt.h) for an allocation that failed, or that the limit of memory.h refused: then the
 * text has that limit and what is needed. */
ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size);

/* `raw` as one line: control characters escaped; where it is too long, what is longest between
 * quotes has dots for its middle, so that what failed, expected and got stay. */
void error_line(char text[CKPT_ERROR_BYTES], const char *raw);
/* The same for what is yet to be formatted; its arguments may point into `text`. */
void error_format(char text[CKPT_ERROR_BYTES], const char *format, va_list args);

#endif
