/*
 * config_names.h: the spellings of a DeepSeek-V4 config. A member is called by its name in the
 * releases' config.json ("rope_scaling.factor" for a member of an object). DeepSeek's own code uses
 * other names in inference/config.json, and transformers 5 has moved some members.
 *
 * This is code and not a text of formats/maps because it names what code computes with: the runner
 * implements this one family's forward pass, and two configs are compared by what it reads. The
 * names that are written to inference/config.json are a text (deepseek_v4.inference.keys); a test
 * compares the two.
 */
#ifndef CKPT_CONFIG_NAMES_H
#define CKPT_CONFIG_NAMES_H

#include "json.h"

typedef struct {
    const char *name;
    const char *inference;         /* its name in inference/config.json; NULL: none */
    const char *moved;             /* its path in transformers 5; NULL: as in the releases */
    const char *fallback;          /* default as JSON; NULL: the member is required */
} config_name;

/* All members that affect the forward pass, except the kinds of layers. Ends with a NULL name. */
extern const config_name config_names[];

const config_name *config_name_find(const char *name);         /* NULL: not one of them */
int config_is_inference(const json_value *config);             /* the spelling of DeepSeek's code */
/* The value of the member in any spelling; NULL when it is absent or null. */
const json_value *config_find(const json_value *config, const char *name);
/*
 * The compression ratio of a layer: `kind` is an element of transformers' `layer_types`, whose
 * ratios are in `compress_rates`. Layers with window attention have ratio 0, whatever that says.
 */
ckpt_code config_layer_ratio(const json_value *config, const json_value *kind, uint64_t *out,
                             ckpt_error *err);
/*
 * The number of first layers that route by token id: `mlp_layer_types` of transformers 5 has
 * "hash_moe" for these and "moe" for the others. *wrong is the first element that is neither or out
 * of order, or NULL. 0: there is no such list.
 */
int config_hash_layers(const json_value *config, uint64_t *count, const json_value **wrong);
/* The rotary dimensions of a head, as transformers' `partial_rotary_factor` gives them; 0: it does
 * not. */
uint32_t config_rope_dim(const json_value *config);
/* The value of a member by its name in the releases, or at its place in transformers 5. */
const json_value *config_find_as(const json_value *config, const char *name);

#endif
