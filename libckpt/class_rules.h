/*
 * class_rules.h: the quantising rule of each class of weights, parsed from an option.
 *
 *   RULE[,CLASS=RULE...]    RULE: a name of quantise.h, or "keep": as in the source
 *   PRESET[,CLASS=RULE...]  the rules of a release, changed for some classes
 *
 * A class that is not named gets the RULE without a class, which is that of the class "rest". If
 * mtp-experts is not named, it gets the rule of mtp if that is named, else that of experts. If mtp
 * is not named, the other weights of mtp.* get the rule that they would have outside of mtp.*.
 */
#ifndef CKPT_CLASS_RULES_H
#define CKPT_CLASS_RULES_H

#include "catalog.h"
#include "quantise.h"

/* The class of a weight, by its canonical name: tensor_class.h. */
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
    uint8_t is_asked[WEIGHT_CLASS_COUNT];            /* named by the user, not by the preset */
    ckpt_dtype scale_dtype;                          /* of FP8; CKPT_NONE: not specified */
} class_rules;

/* The name of PRESET `i`; NULL behind the last. */
const char *class_rules_preset_at(size_t i);
int class_rules_is_preset(const char *word);

/* Parse such a text. For a misspelt word, the error names the nearest rule, or the classes. */
ckpt_code class_rules_parse(const char *text, class_rules *out, ckpt_error *err);

/* The rule for a weight; NULL: it is not quantised. */
const quantise_rule *class_rules_find(const class_rules *rules, const char *name);

/* The name of a class that the user named, but that has no tensor in the catalog; or NULL. A preset
 * that has a rule for experts names them. */
const char *class_rules_idle(const class_rules *rules, const ckpt_catalog *catalog);

/* ---- limits of the error ---- */

typedef struct {
    int is_given;
    double most[WEIGHT_CLASS_COUNT];                 /* relative error */
    uint8_t is_named[WEIGHT_CLASS_COUNT];
} class_limits;

/* Parse "X[,CLASS=X...]", numbers of 0 or more. An X without a class is for all others. */
ckpt_code class_limits_parse(const char *text, class_limits *out, ckpt_error *err);

/* The limit for a weight; INFINITY: none. */
double class_limits_find(const class_limits *limits, const char *name);

/* Like class_rules_idle: a class with a limit, but without tensors that have a rule, by tensor. */
const char *class_limits_idle(const class_limits *limits, const ckpt_catalog *catalog,
                              const quantise_rule *const *rules);

#endif
