/* error.h: how a failure is described, once, where it happens. */
#ifndef CKPT_ERROR_H
#define CKPT_ERROR_H

#include "ckpt.h"

/* Fill *err (which may be NULL) and return `code`: `return ckpt_fail(err, CKPT_E_IO, "...")`.
 * Control characters in the text are escaped, and it is cut to one line of CKPT_ERROR_BYTES. */
ckpt_code ckpt_fail(ckpt_error *err, ckpt_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed allocation. */
ckpt_code ckpt_fail_memory(ckpt_error *err, const char *what, uint64_t size);

/* `raw` as one line: control characters escaped, cut with dots where it is too long. */
void error_line(char text[CKPT_ERROR_BYTES], const char *raw);

#endif
