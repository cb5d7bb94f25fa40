/*
 * config_members.h: members of a config.json that no field of a run_config holds: those that must
 * have the one value that is computed here, and those of which nothing is known.
 */
#ifndef RUN_CONFIG_MEMBERS_H
#define RUN_CONFIG_MEMBERS_H

#include "libckpt/json.h"

/* Refuses members by which the forward pass is another one. `subject` names the file. */
ckpt_code config_members_check(const json_value *config, const char *subject, ckpt_error *err);

/* The next member after `after` (NULL: the first) that is not known here: it may change the forward
 * pass, and is not computed. NULL: there is none. */
const json_value *config_members_unknown(const json_value *config, const json_value *after);

#endif
