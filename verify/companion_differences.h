/*
 * companion_differences.h: how the files beside the weights of two checkpoints differ, and the
 * tokenizers in the keys of GGUF files.
 */
#ifndef CKPT_COMPANION_DIFFERENCES_H
#define CKPT_COMPANION_DIFFERENCES_H

#include "certificate.h"

typedef enum {
    COMPANION_CHANGED,             /* another content */
    COMPANION_REWRITTEN,           /* other bytes, the same JSON value */
    COMPANION_MISSING,             /* only A has it */
    COMPANION_EXTRA                /* only B has it */
} companion_kind;

typedef struct {
    companion_kind kind;
    certificate_role role;
    const char *file;              /* borrowed from a or b; of a tokenizer in the weight files:
                                      the key that would hold it in a GGUF file */
    char *member;                  /* CHANGED: a top-level member that differs; NULL: the file */
} companion_difference;

typedef struct {
    companion_difference *differing;   /* in the order of the files' names, A's first */
    size_t count;
    size_t compared[CERTIFICATE_OTHER + 1];    /* by role: number of files that both have */
    char *note;                    /* what could not be compared, and why; NULL: nothing */
} companion_comparison;

/* Append a copy of *d with a copy of `member`; NULL: none. */
ckpt_code companions_add(companion_comparison *out, const companion_difference *d,
                         const char *member, ckpt_error *err);
ckpt_code companions_note(companion_comparison *out, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void companions_release(companion_comparison *comparison);

/* Number of changed tokenizer, template and encoding files. Files on one side only are reported but
 * not counted, as is generation_config, which only sets a server's default sampling. */
size_t companions_changed(const companion_comparison *comparison);
/* As one object of `w`: {"compared": N, "differing": [{"file", "kind", "member"}, ...], "note"}. */
void companions_put(json_writer *w, const companion_comparison *comparison);

const char *companion_kind_name(companion_kind kind);      /* "changed" */

#endif
