/*
 * loader_rules.h: the table of rules. A rule is asked whether it holds, for one loader, and says so
 * in words; to add one is to add a function, a line of the table and a row of its test.
 */
#ifndef CKPT_LOADER_RULES_H
#define CKPT_LOADER_RULES_H

#include "loaders.h"

/* The question that a rule is asked. */
typedef struct {
    const loader_facts *facts;
    loader_id loader;
    char *text;                    /* LOADER_TEXT_BYTES */
    ckpt_error *err;
    ckpt_code code;                /* of what the rule had to read */
} rule_call;

typedef struct {
    const char *name;
    unsigned loaders;              /* bit l: it is a rule of loader l */
    int is_note;                   /* what it says is no reason against loading */
    int (*holds)(rule_call *call); /* 1: it does, and call->text says how */
    const char *source;            /* where it was read, or NULL */
} loader_rule;

extern const loader_rule loader_rules[];     /* ends with a NULL name */

#endif
