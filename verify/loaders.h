/*
 * loaders.h: will a program load this checkpoint, and if not, why not?
 *
 * A table of rules, each with the place in the loader's source from which it was read, and the
 * version of that source. A rule that holds is a reason against loading, or a note that one should
 * know. What no rule looks at is not promised: a checkpoint that passes has none of these faults.
 */
#ifndef CKPT_LOADERS_H
#define CKPT_LOADERS_H

#include "loader_facts.h"

typedef enum {
    LOADER_VLLM,
    LOADER_SGLANG,
    LOADER_TRANSFORMERS,
    LOADER_MEGATRON,
    LOADER_NONE,                   /* no program: does config.json say what the files hold? */
    LOADER_COUNT
} loader_id;

enum { LOADER_TEXT_BYTES = 512, LOADER_FINDINGS_MAX = 32 };

typedef struct {
    const char *rule;              /* "expert-dtype" */
    const char *source;            /* where it was read; NULL: it follows from the layout */
    int is_note;                   /* it loads nevertheless */
    char text[LOADER_TEXT_BYTES];
} loader_finding;

typedef struct {
    loader_id loader;
    int loads;                     /* no reason against it */
    size_t rule_count;             /* that were looked at */
    loader_finding findings[LOADER_FINDINGS_MAX];
    size_t count;
} loader_verdict;

/* LOADER_COUNT: no loader is called so. */
loader_id loader_find(const char *name);
const char *loader_name(loader_id loader);
/* The version of its source that the rules were read from. */
const char *loader_version(loader_id loader);

/* Some rules read scales, where only their values decide. */
ckpt_code loader_judge(loader_id loader, const loader_input *in, loader_verdict *out,
                       ckpt_error *err);

/* The document: {"for", "version", "loads", "reasons": [{"rule", "text", "source"}], "notes"}. */
void loader_put(json_writer *w, const loader_verdict *verdict);

#endif
