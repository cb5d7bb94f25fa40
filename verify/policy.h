/*
 * policy.h: what must hold for a release to pass. Without a policy the default gates; a file says
 * otherwise (JSON; its members are in ckpt-certificate(5)).
 */
#ifndef CKPT_POLICY_H
#define CKPT_POLICY_H

#include "certificate.h"
#include "logits.h"

typedef enum {
    POLICY_ROOTS_DEFAULT,          /* equal; equal `main` where a candidate carries no MTP */
    POLICY_ROOTS_EQUAL,
    POLICY_ROOTS_MAIN,
    POLICY_ROOTS_ANY
} policy_roots;

typedef enum {
    POLICY_EQUAL,                  /* where both have it; that one lacks it is a note */
    POLICY_REQUIRED,               /* both have it, and it is equal */
    POLICY_ANY                     /* a note */
} policy_rule;

typedef enum {
    POLICY_FINDINGS_DEFAULT,       /* those that are wrong in every model fail: NaN, infinity */
    POLICY_FINDINGS_NONE,          /* any finding fails */
    POLICY_FINDINGS_ANY            /* none fails */
} policy_findings;

typedef struct {
    char *text;                    /* of the file; NULL: the default gates */
    policy_roots roots;
    policy_rule config;
    policy_rule files[CERTIFICATE_OTHER + 1];      /* by role */
    policy_findings findings;
    file_list allowed;             /* kinds of findings that do not fail */
    file_list config_except;       /* members of config.json that may differ */
    logits_limits limits;
    file_list required;            /* see policy_require */
} certificate_policy;

/* The default gates. */
void policy_init(certificate_policy *policy);
/* What a file says, over the default. Unknown members and words are refused. Release it, also on
 * failure. */
ckpt_code policy_read(const char *path, certificate_policy *policy, ckpt_error *err);
void policy_release(certificate_policy *policy);

/* Ask for something to be there: config, generation_config, tokenizer, template, encoding (files of
 * every checkpoint), mtp, values, candidate, origin, logits. */
ckpt_code policy_require(certificate_policy *policy, const char *what, ckpt_error *err);
int policy_is_required(const certificate_policy *policy, const char *what);

/* Does it say how far logits may be apart? */
int policy_limits_logits(const certificate_policy *policy);

/* Does a finding of this kind make its check fail? is_default: it does without a policy. */
int policy_finding_fails(const certificate_policy *policy, const char *kind, int is_default);

#endif
