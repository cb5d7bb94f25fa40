/*
 * config_names.h: the spellings of a DeepSeek-V4 config. Every member goes by the name that the
 * releases' config.json has for it ("rope_scaling.factor" for a member of an object); DeepSeek's
 * own code has other names in inference/config.json, and transformers 5 has moved some.
 */
#ifndef CKPT_CONFIG_NAMES_H
#define CKPT_CONFIG_NAMES_H

#include "json.h"

typedef struct {
    const char *name;
    const char *inference;         /* the spelling of inference/config.json; NULL: has none */
    const char *fallback;          /* JSON of what stands for an absent one; NULL: required */
} config_name;

/* All members that change what the forward pass computes, but for layer kinds. Ends with a NULL
 * name. */
extern const config_name config_names[];

const config_name *config_name_find(const char *name);         /* NULL: not one of them */
int config_is_inference(const json_value *config);             /* the spelling of DeepSeek's code */
/* The member in whatever spelling `config` has; NULL when it is absent or null. */
const json_value *config_find(const json_value *config, const char *name);
/*
 * The compression ratio of a layer: `kind` is an element of transformers' `layer_types`, whose
 * numbers are elsewhere. The window has none, whatever compress_rates says: 0.
 */
ckpt_code config_layer_ratio(const json_value *config, const json_value *kind, uint64_t *out,
                             ckpt_error *err);
/* `name` is of a release, also where transformers has put it; the spelling is not looked at. */
const json_value *config_find_as(const json_value *config, const char *name);

#endif
