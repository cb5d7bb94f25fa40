/*
 * dialect.h: which software's form of a layout is written, and which was read.
 *
 * A map names the software that writes its form in `dialect` lines (libckpt/map.h).
 */
#ifndef CKPT_DIALECT_H
#define CKPT_DIALECT_H

#include "format.h"

typedef struct {
    const char *family;
    const ckpt_format *format;      /* with map names */
    const json_value *config;       /* or NULL */
    const char *dialect;            /* or NULL: any */
    const char *layer_keys;         /* "stacked", "per-layer", or NULL: as the dialect has them */
} dialect_wanted;

/* The naming style to write, first of those that fit in the order of the format, or an error. */
ckpt_code dialect_choose(const dialect_wanted *wanted, const char **out, ckpt_error *err);

/* Settle c->map, which names most of the tensors: another one that names as many replaces it, where
 * an argument of the run or c->options.dialect says so. CKPT_E_USAGE when values depend on what is
 * not told. */
ckpt_code dialect_settle(ckpt_checkpoint *c, ckpt_error *err);

/* 1 when the layers of a map share a key, whose first dimension is the layer. */
int dialect_is_stacked(const ckpt_map *map);

#endif
