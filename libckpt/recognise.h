/*
 * recognise.h: what a place is that no format reads, from its name, its first bytes or the names in
 * it, and what a person can do about it. Used where opening has failed: it may be wrong, and
 * nothing depends on it but the words of an error.
 */
#ifndef CKPT_RECOGNISE_H
#define CKPT_RECOGNISE_H

#include <stddef.h>

#include "folder.h"

enum { RECOGNISE_BYTES = 512 };

/* What a file that begins with these bytes is: "is a GGUF file, ..."; NULL: nothing is known. */
const char *recognise_bytes(const void *bytes, size_t size);

/* After `code`: where that is CKPT_E_FORMAT and the bytes are known, say of `subject` what it is
 * instead. Returns `code`. */
ckpt_code recognise_refused(ckpt_code code, const void *bytes, size_t size, const char *subject,
                            ckpt_error *err);

/* The same for a file that is open. 1 when something is known. */
int recognise_head(const ckpt_file *file, char out[RECOGNISE_BYTES]);

/* The same for what a user named, also when it does not exist: the rest of a line that begins with
 * its path. 1 when something is known. */
int recognise_place(const folder_place *place, char out[RECOGNISE_BYTES]);

/* 1 for a folder with a LoRA adapter of PEFT: changes to a model, not a model. */
int recognise_is_adapter(const ckpt_folder *folder);

#endif
