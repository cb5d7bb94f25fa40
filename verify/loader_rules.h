/*
 * loader_rules.h: the table of rules. A rule is a function that checks for one problem with one
 * loader, and describes it in text. To add a rule, add a function, a line of the table and a row of
 * its test.
 */
#ifndef CKPT_LOADER_RULES_H
#define CKPT_LOADER_RULES_H

#include "loaders.h"

/* Arguments of a rule. */
typedef struct {
    const loader_facts *facts;
    loader_id loader;
    char *text;                    /* LOADER_TEXT_BYTES */
    ckpt_error *err;
    ckpt_code code;                /* error of reading tensors in the rule */
} rule_call;

typedef struct {
    const char *name;
    unsigned loaders;              /* bit l: the rule is for loader l */
    int is_note;                   /* it reports a note, not a reason against loading */
    int (*holds)(rule_call *call); /* 1: the problem exists; call->text describes it */
    const char *source;            /* where in the loader's source, or NULL */
} loader_rule;

extern const loader_rule loader_rules[];     /* ends with a NULL name */

#endif
