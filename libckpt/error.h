/* error.h: how a failure is described, once, where it happens. */
#ifndef CKPT_ERROR_H
#define CKPT_ERROR_H

#include <stdarg.h>

#include "ckpt.h"

/* Fill *err (which may be NULL) and return `code`: `return ckpt_fail(err, CKPT_E_IO, "...")`.
 * The text is made one line of at most CKPT_ERROR_BYTES, as below. */
ckpt_code ckpt_fail(ckpt_error *err, ckpt_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for an allocation that failed, or that the limit of memory.h refused: then it tells that
 * limit and what is needed. */
ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size);

/* `raw` as one line: control characters escaped; where it is too long, what is longest between
 * quotes has dots for its middle, so that what failed, expected and got stay. */
void error_line(char text[CKPT_ERROR_BYTES], const char *raw);
/* The same for what is yet to be formatted; its arguments may point into `text`. */
void error_format(char text[CKPT_ERROR_BYTES], const char *format, va_list args);

#endif
