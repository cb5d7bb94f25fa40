/* json_file.h: writes a JSON document to a file, completely or not at all; compressed if its name
 * ends in .zst. */
#ifndef CKPT_JSON_FILE_H
#define CKPT_JSON_FILE_H

#include "libckpt/json.h"

/* Puts the document, as one value of `w`. */
typedef ckpt_code json_file_put(json_writer *w, const void *what, ckpt_error *err);

ckpt_code json_file_write(const char *path, json_file_put *put, const void *what,
                          ckpt_error *err);

#endif
