/*
 * dialect.h: chooses between maps of one layout that differ by the software that writes it.
 *
 * The `dialect` lines of a map name the software that writes such files (libckpt/map.h).
 */
#ifndef CKPT_DIALECT_H
#define CKPT_DIALECT_H

#include "format.h"

typedef struct {
    const char *family;
    const ckpt_format *format;      /* with map names */
    const json_value *config;       /* or NULL */
    const char *dialect;            /* or NULL: any dialect */
    const char *layer_keys;         /* "stacked", "per-layer", or NULL: the dialect's default */
} dialect_wanted;

/* Choose the naming style to write: the first that fits, in the format's order, or an error. */
ckpt_code dialect_choose(const dialect_wanted *wanted, const char **out, ckpt_error *err);

/* Choose between c->map and other maps of the family that match as many tensors: by an argument of
 * the training run stored beside the weights, else by c->options.dialect. CKPT_E_USAGE if neither
 * decides and the maps would read different values. */
ckpt_code dialect_settle(ckpt_checkpoint *c, ckpt_error *err);

#endif
