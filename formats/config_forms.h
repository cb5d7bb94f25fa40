/*
 * config_forms.h: config.json as several programs spell it, seen as one.
 *
 *   a model inside a model        the language part is in text_config or the like
 */
#ifndef CKPT_CONFIG_FORMS_H
#define CKPT_CONFIG_FORMS_H

#include "json.h"

/* A member of the config: at its root, else of the part that describes the language model; NULL
 * when neither has it. */
const json_value *config_member(const json_value *config, const char *key);

#endif
