/*
 * companions.h: the files beside the weights that change what a model says: tokenizer, chat
 * template, prompt encoding, generation_config. Compared by name: by their bytes, then, where those
 * differ and both are JSON objects, by what their members mean.
 */
#ifndef CKPT_COMPANIONS_H
#define CKPT_COMPANIONS_H

#include "certificate.h"

typedef enum {
    COMPANION_CHANGED,             /* another content */
    COMPANION_REWRITTEN,           /* other bytes of the same JSON value */
    COMPANION_MISSING,             /* A has it only */
    COMPANION_EXTRA                /* B has it only */
} companion_kind;

typedef struct {
    companion_kind kind;
    certificate_role role;
    const char *file;              /* borrowed from a or b */
    char *member;                  /* CHANGED: a top-level member that differs; NULL: the file */
} companion_difference;

typedef struct {
    companion_difference *differing;   /* in the order of the files' names, A's first */
    size_t count;
    size_t compared[CERTIFICATE_OTHER + 1];    /* files of a role that both have */
} companion_comparison;

/* Both with files and their hashes. The roles above; config.json is config_meaning.h's business.
 * *out is yours to release, also on failure. */
ckpt_code companions_compare(const certificate_checkpoint *a, const certificate_checkpoint *b,
                             companion_comparison *out, ckpt_error *err);
void companions_release(companion_comparison *comparison);

/* Files that say another thing: tokenizer, template, encoding. What is on one side only, or in
 * generation_config (how a server samples by default), is told and not counted. */
size_t companions_changed(const companion_comparison *comparison);
/* As one object of `w`: {"compared": N, "differing": [{"file", "kind", "member"}, ...]}. */
void companions_put(json_writer *w, const companion_comparison *comparison);

const char *companion_kind_name(companion_kind kind);      /* "changed" */
/* 1 for the roles that are compared here. */
int companion_is_role(certificate_role role);

#endif
