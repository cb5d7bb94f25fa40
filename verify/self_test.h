/*
 * self_test.h: tests that the checks can fail. For each kind of fault (mutation.h) that is
 * applicable to the reference, a copy of the reference with that fault is judged by the policy like
 * any other candidate, and a check must fail.
 *
 * Tensors that a mutation does not touch keep their digests; the others are read and digested by
 * the same functions as a checkpoint on the disk.
 */
#ifndef CKPT_SELF_TEST_H
#define CKPT_SELF_TEST_H

#include "mutation.h"
#include "policy.h"

typedef struct {
    ckpt_source *source;           /* logical tensors of the reference */
    const char *config;            /* text of its config.json, or NULL */
    const json_value *config_root; /* the same, parsed */
    const ckpt_catalog *official;  /* what its family expects, or NULL */
    const certificate_policy *policy;
    const uint8_t *wanted;         /* by kind; NULL: all */
    ckpt_run_options run;
    /* Called after each mutation; or NULL. */
    void (*report)(void *context, const mutation *made, const certificate_mutation *result);
    void *context;
} self_test_options;

/* Append a result for each kind to c->mutations. c->checkpoints[0] is the reference and must have
 * digests. */
ckpt_code self_test(certificate *c, const self_test_options *options, ckpt_error *err);

/* Number of applicable mutations in c->mutations, and of those that no check found. */
size_t self_test_applicable(const certificate *c);
size_t self_test_missed(const certificate *c);

#endif
