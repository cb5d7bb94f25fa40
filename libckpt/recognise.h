/*
 * recognise.h: guesses what a path is that no format can read, from its name, its first bytes or
 * the names in it, and what the user can do. Called when opening has failed. The guess may be
 * wrong; it only adds text to an error.
 */
#ifndef CKPT_RECOGNISE_H
#define CKPT_RECOGNISE_H

#include <stddef.h>

#include "folder.h"

enum { RECOGNISE_BYTES = 512 };

/* If `code` is CKPT_E_FORMAT and the bytes are recognised, replace the error by one that says what
 * `subject` is. Returns `code`. */
ckpt_code recognise_refused(ckpt_code code, const void *bytes, size_t size, const char *subject,
                            ckpt_error *err);

/* Describe an open file. 1 when it is recognised. */
int recognise_head(const ckpt_file *file, char out[RECOGNISE_BYTES]);

/* Describe a path given by the user, which need not exist: text to follow the path in an error. 1
 * when it is recognised. */
int recognise_place(const folder_place *place, char out[RECOGNISE_BYTES]);

/* 1 for a folder with a LoRA adapter of PEFT: changes to a model, not a model. */
int recognise_is_adapter(const ckpt_folder *folder);

#endif
