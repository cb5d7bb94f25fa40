/*
 * policy.h: requirements that a release must fulfil to pass: the defaults, or those of a policy
 * file (JSON; ckpt-certificate(5) describes its members).
 */
#ifndef CKPT_POLICY_H
#define CKPT_POLICY_H

#include "certificate.h"
#include "logits.h"

typedef enum {
    POLICY_ROOTS_DEFAULT,          /* equal; only `main` if a candidate has no MTP */
    POLICY_ROOTS_EQUAL,
    POLICY_ROOTS_MAIN,
    POLICY_ROOTS_ANY
} policy_roots;

typedef enum {
    POLICY_EQUAL,                  /* equal if both have it; a missing one is a note */
    POLICY_REQUIRED,               /* both have it, and they are equal */
    POLICY_ANY                     /* differences are notes */
} policy_rule;

typedef enum {
    POLICY_FINDINGS_DEFAULT,       /* those that are wrong in any model fail: NaN, infinity */
    POLICY_FINDINGS_NONE,          /* any finding fails */
    POLICY_FINDINGS_ANY            /* none fails */
} policy_findings;

typedef struct {
    char *text;                    /* of the file; NULL: the defaults */
    policy_roots roots;
    policy_rule config;
    policy_rule files[CERTIFICATE_OTHER + 1];      /* by role */
    policy_findings findings;
    file_list allowed;             /* kinds of findings that do not fail */
    file_list config_except;       /* members of config.json that may differ */
    logits_limits limits;
    file_list required;            /* see policy_require */
} certificate_policy;

/* Set the defaults. */
void policy_init(certificate_policy *policy);
/* Read a file; missing members have their defaults. Unknown members and values are refused. Release
 * *policy, also on failure. */
ckpt_code policy_read(const char *path, certificate_policy *policy, ckpt_error *err);
void policy_release(certificate_policy *policy);

/* What can be required, word `i`; NULL behind the last. */
const char *policy_requirement_at(size_t i);
/* Require config, generation_config, tokenizer, template, encoding (files of every checkpoint),
 * mtp, values, candidate, origin or logits to be present. */
ckpt_code policy_require(certificate_policy *policy, const char *what, ckpt_error *err);
int policy_is_required(const certificate_policy *policy, const char *what);

/* 1 when the policy limits differences of logits. */
int policy_limits_logits(const certificate_policy *policy);

/* 1 when a finding of this kind makes its check fail. is_default: it does by default. */
int policy_finding_fails(const certificate_policy *policy, const char *kind, int is_default);

#endif
