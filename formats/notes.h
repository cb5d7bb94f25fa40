/* notes.h: notes on a successful run, one line each. */
#ifndef CKPT_NOTES_H
#define CKPT_NOTES_H

#include "libckpt/file.h"

/* Append a line. Fails at a million notes: the input is probably not a checkpoint. */
ckpt_code note_add(file_list *notes, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Append those of another list, each prefixed with `of` unless NULL. */
ckpt_code note_add_all(file_list *notes, const file_list *from, const char *of, ckpt_error *err);

#endif
