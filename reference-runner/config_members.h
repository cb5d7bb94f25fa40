/*
 * config_members.h: members of a config.json that are not fields of run_config: those of which the
 * runner supports only one value, and those that it does not know.
 */
#ifndef RUN_CONFIG_MEMBERS_H
#define RUN_CONFIG_MEMBERS_H

#include "libckpt/json.h"

/* Refuse values with which the forward pass would differ from the one implemented here. `subject`
 * names the file in errors. */
ckpt_code config_members_check(const json_value *config, const char *subject, ckpt_error *err);

/* The next unknown member after `after` (NULL: the first), or NULL. An unknown member is ignored
 * but may change the forward pass, so callers should report it. `is_inference`: what
 * config_is_inference says of the config, which takes a pass over it. */
const json_value *config_members_unknown(const json_value *config, int is_inference,
                                         const json_value *after);

#endif
