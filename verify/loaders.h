/*
 * loaders.h: predicts whether a program will load this checkpoint, and if not, why.
 *
 * Each rule of the table names the place in the loader's source from which it was derived, and the
 * version of that source. A rule that holds is a reason against loading, or a note. A checkpoint
 * that passes has none of these problems, but may have others.
 */
#ifndef CKPT_LOADERS_H
#define CKPT_LOADERS_H

#include "loader_facts.h"

typedef enum {
    LOADER_VLLM,
    LOADER_SGLANG,
    LOADER_TRANSFORMERS,
    LOADER_MEGATRON,
    LOADER_NONE,                   /* no program: config.json is compared with the files */
    LOADER_COUNT
} loader_id;

enum { LOADER_TEXT_BYTES = 512, LOADER_FINDINGS_MAX = 32 };

typedef struct {
    const char *rule;              /* "expert-dtype" */
    const char *source;            /* place in the source; NULL: follows from the layout */
    int is_note;                   /* not a reason against loading */
    char text[LOADER_TEXT_BYTES];
} loader_finding;

typedef struct {
    loader_id loader;
    int loads;                     /* no reason against it */
    size_t rule_count;             /* rules that were checked */
    loader_finding findings[LOADER_FINDINGS_MAX];
    size_t count;
} loader_verdict;

/* The loader of this name, or LOADER_COUNT. */
loader_id loader_find(const char *name);
const char *loader_name(loader_id loader);
/* The version of the source from which the rules were derived. */
const char *loader_version(loader_id loader);

/* Check all rules of a loader. Some rules read scales. */
ckpt_code loader_judge(loader_id loader, const loader_input *in, loader_verdict *out,
                       ckpt_error *err);

/* The document: {"for", "version", "loads", "reasons": [{"rule", "text", "source"}], "notes"}. */
void loader_put(json_writer *w, const loader_verdict *verdict);

#endif
