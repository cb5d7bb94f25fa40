/*
 * config_meaning.h: the members of a config.json that affect the forward pass, under one set of
 * names, so that configs can be compared and recorded in any spelling.
 *
 * A DeepSeek-V4 config is read in the spelling of the releases, of transformers 5 and of DeepSeek's
 * own code; members that are absent stand with what loaders take for them, and those that no table
 * knows under their own names. Of any other config all
 * members count, by the path through its objects ("text_config.rope_theta"), but for those that say
 * how weights are stored (dtype, quantization_config, expert_dtype) or that no forward pass reads
 * (transformers_version, use_cache, token ids ...).
 */
#ifndef CKPT_CONFIG_MEANING_H
#define CKPT_CONFIG_MEANING_H

#include "json.h"

typedef struct {
    char *name;
    char *text;                    /* JSON on one line; numbers in their shortest form */
} config_member;

typedef struct {
    config_member *members;
    size_t count;
} config_meaning;

/* Members that say how weights are stored, or that no forward pass reads: no part of the meaning.
 * `name` is the whole path. */
int config_member_is_aside(const char *name);

/* *out is yours to release, also on failure. */
ckpt_code config_meaning_read(const json_value *config, config_meaning *out, ckpt_error *err);
/* The record that config_meaning_put made. */
ckpt_code config_meaning_read_record(const json_value *record, config_meaning *out,
                                     ckpt_error *err);
/* As one object of `w`. */
void config_meaning_put(json_writer *w, const config_meaning *meaning);
void config_meaning_release(config_meaning *meaning);

/* A member that differs; NULL: that side does not have it. */
typedef struct {
    const char *name;              /* borrowed from what was compared, as are the texts */
    const char *a;
    const char *b;
} config_difference;

typedef struct {
    config_difference *differing;
    size_t count;
    size_t compared;               /* members that both have */
    const char **lone;             /* not compared: what only one has, and the other's spelling may
                                      have no name for */
    size_t lone_count;
} config_comparison;

/* *out is yours to release. Numbers are compared by value. */
ckpt_code config_meaning_compare(const config_meaning *a, const config_meaning *b,
                                 config_comparison *out, ckpt_error *err);
void config_comparison_release(config_comparison *comparison);

#endif
