/*
 * config_meaning.h: the members of a config.json that affect the forward pass, with one name for
 * each, so that configs in different spellings can be compared and recorded.
 *
 * A DeepSeek-V4 config may have the spelling of the releases, of transformers 5 or of DeepSeek's
 * own code. An absent member gets the default that loaders use; a member that is not in the table
 * keeps its own name. Of any other config all members are taken, named by their path
 * ("text_config.rope_theta"), except those that say how weights are stored (dtype, expert_dtype,
 * quantization_config) and those that no forward pass reads (transformers_version, use_cache, token
 * ids ...).
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

/* 1 for members that say how weights are stored, or that no forward pass reads. They are not part
 * of the meaning. `name` is the whole path. */
int config_member_is_aside(const char *name);

/* Member of the meaning of a DeepSeek-V4 config: the spelling that it was read from. A member that
 * is not in the table may have another name in each spelling. */
#define CONFIG_SPELLING "@spelling"

/* *out is yours to release, also on failure. */
ckpt_code config_meaning_read(const json_value *config, config_meaning *out, ckpt_error *err);
/* Read the object that config_meaning_put wrote. */
ckpt_code config_meaning_read_record(const json_value *record, config_meaning *out,
                                     ckpt_error *err);
/* Write the members as one JSON object. */
void config_meaning_put(json_writer *w, const config_meaning *meaning);
void config_meaning_release(config_meaning *meaning);

/* Linear search; NULL: it has no such member. */
const config_member *config_meaning_find(const config_meaning *meaning, const char *name);
/* 1 when `meaning` is that of a DeepSeek-V4 config. */
int config_meaning_is_v4(const config_meaning *meaning);

#endif
