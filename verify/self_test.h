/*
 * self_test.h: is the gate able to fail? A candidate that is the reference with one fault is judged
 * as any other by the policy; each kind of fault (mutation.h) that the checkpoint can host must
 * make a check fail.
 *
 * Tensors that a mutation leaves alone keep the digests that they have; the others are read and
 * digested anew, through the same functions as a checkpoint on the disk.
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
    /* Told of each as it is done; or NULL. */
    void (*report)(void *context, const mutation *made, const certificate_mutation *result);
    void *context;
} self_test_options;

/* Append to c->mutations what becomes of each kind. c->checkpoints[0] is the reference, with
 * digests: without them there is nothing to test. */
ckpt_code self_test(certificate *c, const self_test_options *options, ckpt_error *err);

/* Of c->mutations: applicable ones, those of them that no check found. */
size_t self_test_applicable(const certificate *c);
size_t self_test_missed(const certificate *c);

#endif
