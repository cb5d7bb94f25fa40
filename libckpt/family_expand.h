/* family_expand.h: the layers of the expansion of a family: values, then tensors. */
#ifndef CKPT_FAMILY_EXPAND_H
#define CKPT_FAMILY_EXPAND_H

#include "family.h"
#include "family_text.h"

/* Where a symbol's value is valid. */
typedef enum { UNSET = 0, SET_FOR_ALL, SET_FOR_STEP } family_scope;

typedef struct {
    const ckpt_family *family;
    const json_value *config;
    ckpt_error *err;
    ckpt_catalog *catalog; /* NULL during the first pass, which only counts */
    uint32_t tensor_count;
    arena memory;      /* lists */
    int want_optional; /* 1: only optional tensors; 0: only required ones */
    int experts_fp8;
    int has_int4;
    int experts_told;  /* the config has the member of experts-told-by */
    int broken_groups; /* the first pass found FP4 rows that are not whole groups */
    ckpt_dtype scale_dtype;
    uint32_t step_count;
    family_scope now;                 /* scope of variables that are set now */
    const family_line *line;          /* the current line, for errors */
    uint32_t file;                    /* of the block, 0-based */
    char name[FAMILY_NAME_MAX_BYTES]; /* begins with the block's prefix */
    uint32_t prefix_bytes;
    family_scope set[FAMILY_SYMBOLS_MAX];
    uint64_t value[FAMILY_SYMBOLS_MAX]; /* lists: number of elements */
    const uint64_t *list[FAMILY_SYMBOLS_MAX];
} family_expander;

/* Fail because of the config; the error names its members. */
#define FAIL(x, ...) ckpt_fail((x)->err, CKPT_E_FORMAT, __VA_ARGS__)

/* Fail because of the family text; the error has the line number. */
#define FAIL_TEXT(x, ...)                                                                          \
    family_expand_fail_at((x), ckpt_fail((x)->err, CKPT_E_FORMAT, __VA_ARGS__))

/* ---- family_values.c ---- */

/* Prefix the error text that was just written with its place. */
ckpt_code family_expand_fail_at(family_expander *x, ckpt_code code);

ckpt_code family_expr_value(family_expander *x, const family_expr *expr, uint64_t *out);
/* The conditions of the current line. */
ckpt_code family_conditions_hold(family_expander *x, int *out);
/* The number of a file, 0-based. */
ckpt_code family_file_number(family_expander *x, const family_expr *expr, uint32_t *out);
/* Where an index begins and ends. */
ckpt_code family_index_range(family_expander *x, const family_symbol *symbol, uint64_t *from,
                             uint64_t *to);

/* The current line gives a symbol its value, if its conditions hold: let, list, count, position. */
ckpt_code family_define(family_expander *x);
/* Read the members of the config that decide about encodings, see family.h. */
ckpt_code family_read_encodings(family_expander *x);

#endif
