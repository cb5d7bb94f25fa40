/*
 * class_rules.h: which quantising rule each class of weights gets, and how that is spelled.
 *
 *   RULE[,CLASS=RULE...]    RULE: a name of quantise.h, or "keep": as in the source
 *   PRESET[,CLASS=RULE...]  what a release has, changed for some classes
 *
 * A class that is not named takes the rule that stands alone, which is "rest". mtp-experts that are
 * not named are mtp if that is, else experts; other weights of mtp.* that are not named are what
 * they are outside of it.
 */
#ifndef CKPT_CLASS_RULES_H
#define CKPT_CLASS_RULES_H

#include "catalog.h"
#include "quantise.h"

/* Of a weight, by its canonical name: tensor_class.h. */
typedef enum {
    WEIGHT_EXPERTS,              /* routed */
    WEIGHT_SHARED,               /* shared experts */
    WEIGHT_ATTENTION,
    WEIGHT_MTP_EXPERTS,          /* routed ones of mtp.* */
    WEIGHT_MTP,                  /* others of mtp.* */
    WEIGHT_REST,
    WEIGHT_CLASS_COUNT
} weight_class;

weight_class weight_class_of(const char *name);
/* "experts", "shared", "attention", "mtp-experts", "mtp", "rest" */
const char *weight_class_name(weight_class class);

typedef struct {
    const char *preset;                              /* its name, or NULL */
    const quantise_rule *rules[WEIGHT_CLASS_COUNT];  /* NULL: keep */
    uint8_t is_named[WEIGHT_CLASS_COUNT];
    uint8_t is_asked[WEIGHT_CLASS_COUNT];            /* named by itself, not by the preset */
    ckpt_dtype scale_dtype;                          /* of FP8; CKPT_NONE: open */
} class_rules;

/* The error names the nearest rule, or the classes. */
ckpt_code class_rules_parse(const char *text, class_rules *out, ckpt_error *err);

/* The rule for a weight; NULL: it stays as it is. */
const quantise_rule *class_rules_find(const class_rules *rules, const char *name);

/* A class with a rule of its own to which no tensor of the catalog belongs, or NULL. */
const char *class_rules_idle(const class_rules *rules, const ckpt_catalog *catalog);

/* ---- limits of what may be lost ---- */

typedef struct {
    int is_given;
    double most[WEIGHT_CLASS_COUNT];                 /* relative error */
    uint8_t is_named[WEIGHT_CLASS_COUNT];
} class_limits;

/* "X[,CLASS=X...]", numbers of 0 and more; one that stands alone is of all that are not named. */
ckpt_code class_limits_parse(const char *text, class_limits *out, ckpt_error *err);

/* INFINITY: none. */
double class_limits_find(const class_limits *limits, const char *name);

/* As class_rules_idle: a limit that nothing can exceed. */
const char *class_limits_idle(const class_limits *limits, const ckpt_catalog *catalog);

#endif
