/* text_file.h: writes a text to a file, completely or not at all. */
#ifndef CKPT_TEXT_FILE_H
#define CKPT_TEXT_FILE_H

#include <stdio.h>

#include "libckpt/error.h"

/* Prints the text of `what` to memory. */
typedef ckpt_code text_file_print(FILE *out, const void *what, ckpt_error *err);

ckpt_code text_file_write(const char *path, text_file_print *print, const void *what,
                          ckpt_error *err);

#endif
