/*
 * map.h: maps say how one naming style of a family names and packs its tensors. The same text
 * serves for reading and for writing.
 *
 * One statement a line, in words separated by blanks; comments begin with #:
 *
 *   map    deepseek_v4 sglang                 family and style
 *   scale  .weight_scale_inv                  suffix to write for the scale of X.weight: this one,
 *                                             .weight_scale or .scale. Reading accepts all three
 *   tensor STORED = LOGICAL                   rename
 *   tensor STORED = concat(PIECE, PIECE)      rows of the first, then of the second ...
 *   tensor STORED = cols(PIECE, PIECE)        columns of the first, then of the second ...; all
 *                                             pieces have the same number of columns
 *   tensor STORED = interleave(N, PIECE, ...) every piece is divided into N groups of rows: the
 *                                             first group of each piece, then the second ...
 *   tensor STORED = part(LOGICAL, 0/3)        the first of three equal parts of its rows
 *   tensor STORED = stack({e}, ...)           adds a first dimension with index {e} to any of the
 *                                             above or to another stack, whose index is the inner
 *   tensor ... when LOGICAL                   use the line for writing only if the checkpoint has
 *                                             that tensor
 *   tensor ... if MEMBER = N                  use the line only if config.json has that number;
 *                                             true is 1, an absent member is 0. Also != N. MEMBER
 *                                             may be a number, inserted by an include
 *   copy   STORED = LOGICAL                   a replica of a tensor; must equal it
 *   omit   LOGICAL REASON...                  a tensor that this layout cannot contain
 *   spare  LOGICAL REASON...                  a tensor that is written only on demand
 *   cut    STORED ROWS REASON...              read only the first ROWS rows of a renamed tensor;
 *                                             the ledger gives the reason for the others. ROWS is
 *                                             like N below; if the config lacks its members, all
 *                                             rows are read
 *   drop   STORED REASON...                   do not read it; the ledger gives the reason
 *   shard  STORED AXIS=WHERE [AXIS=WHERE]     how parallel ranks divide a stored tensor. AXIS is
 *                                             mp, tp, ep or etp; WHERE is the dimension to cut in
 *                                             equal parts, or {e}: each rank has a range of the
 *                                             index. halves=2: both halves of the dimension are cut
 *                                             separately. groups=KEY: the dimension consists of
 *                                             config[KEY] groups, and no cut may divide a group.
 *                                             Without a line every rank has the whole tensor
 *   stage  STORED first|{l}|stacked           the pipeline stage that has it: the first, or that of
 *                                             layer {l}; stacked: the first dimension is the layer,
 *                                             and every stage has its range. Without a line it is
 *                                             the last stage
 *   extra  STORED empty|none                  strict loaders of Megatron expect an entry of bytes
 *                                             X._extra_state with X.weight: an empty tensor or None
 *   arg    NAME EXPR                          an argument of the trainer that is stored with the
 *                                             weights: a number from config.json (see below), or
 *                                             none. If the config lacks a member of EXPR, the next
 *                                             line with this NAME is used, if there is one
 *   dialect NAME [ARG]                        software that writes this form. It is recognised by
 *                                             the argument ARG, which it alone stores with the
 *                                             weights; the value of ARG is the config member of the
 *                                             same name
 *   preset NAME AXIS=N [AXIS=N]...            numbers of ranks that are known to train: AXIS is tp,
 *                                             pp, ep or etp; first, last: layers in those stages
 *   encode LOGICAL DTYPE                      a weight that this layout stores in a plain dtype
 *   plain  LOGICAL REASON...                  a weight that must not be quantised, because readers
 *                                             of these names would misread it
 *   module LOGICAL NAME...                    the names that servers use for the module of a
 *                                             weight, for the list of modules that are not
 *                                             quantised; placeholders as in LOGICAL. Without a line
 *                                             it is X for X.weight
 *
 * A PIECE is LOGICAL, LOGICAL:N or part(...):N. Rows are steps of the first dimension. N is the
 * relative number of rows of a piece (default 1): in concat(a:3, b), a has three times the rows of
 * b. part(LOGICAL, FROM, COUNT, OF) divides the rows into OF equal parts and takes COUNT of them,
 * the first of which is FROM; 0/3 is short for 0, 1, 3. A part with :N is taken from each of the N
 * blocks that the piece has in a group. The parts on all lines together must be the whole tensor.
 * Examples: queries, keys and values by query group are interleave(GROUPS, q:HEADS/GROUPS, k, v);
 * heads with swapped halves are interleave(HEADS, part(q, 1/2), part(q, 0/2)).
 *
 * N, GROUPS and so on are chains of + - * / over numbers and members of config.json, evaluated from
 * left to right ("num_attention_heads/num_key_value_heads"; libckpt/config_number.h). A map with
 * such members must be given the config (map_bind) before it is used to read or write tensors.
 *
 * Names are patterns: {l} matches one run of characters other than '.', up to the next '.' or the
 * end; {x*} matches the rest of the name, which may be empty only if {x*} is the whole pattern;
 * {m+KEY} is the number {m} plus a member of the config, for blocks that are stored as layers after
 * the last one. The first line that matches is used. A tensor `X.weight` is paired with a scale
 * `X.scale` or `X.weight_scale_inv`, any other `X` with `X_scale_inv`.
 */
#ifndef CKPT_MAP_H
#define CKPT_MAP_H

#include "encoding.h"
#include "json.h"
#include "layout.h"

enum {
    MAP_PIECES_MAX = 8,
    MAP_STACKS_MAX = 2,
    MAP_MODULE_NAMES_MAX = 4,
    MAP_CAPTURES_MAX = 8,
    MAP_NAME_BYTES = 1024
};

typedef enum { MAP_TENSOR, MAP_COPY, MAP_DROP, MAP_OMIT, MAP_SPARE, MAP_PLAIN } map_kind;

typedef struct {
    const char *text;
    uint64_t value;                         /* 0: needs the config, and map_bind was not called */
} map_number;

typedef struct {
    const char *logical;                    /* pattern */
    map_number times;                       /* its N: blocks of it in each group */
    map_number from;                        /* takes parts [from, from + count) of `of` per block */
    map_number count;
    map_number of;
} map_piece;

typedef struct {
    map_kind kind;
    const char *stored;                     /* patterns; MAP_OMIT, MAP_SPARE and MAP_PLAIN
                                               have only pieces[0].logical */
    map_piece pieces[MAP_PIECES_MAX];
    size_t piece_count;
    int has_cols;                           /* cols(...): pieces are side by side */
    map_number groups;
    const char *stacks[MAP_STACKS_MAX];     /* placeholders "{e}", the outer first */
    uint32_t stack_count;
    const char *when;                       /* pattern of a logical tensor, or NULL */
    struct {
        const char *member;                 /* of config.json; NULL: no condition */
        int differs;                        /* 1: != instead of = */
        uint64_t number;
    } condition;
    const char *reason;
} map_rule;

typedef enum { MAP_MP, MAP_TP, MAP_EP, MAP_ETP, MAP_AXIS_COUNT } map_axis;

typedef struct {
    const char *stored;                     /* pattern */
    struct {
        int cut;                            /* 1: the axis divides this tensor */
        uint32_t dimension;
        const char *index;                  /* "{e}": ranks divide this index; NULL: `dimension` */
    } axes[MAP_AXIS_COUNT];
    uint32_t halves;                        /* 2: the halves (gate and up) are cut separately */
    const char *groups;                     /* path in config.json, or NULL */
} map_shard;

typedef struct {
    const char *stored;                     /* pattern */
    const char *layer;                      /* placeholder "{l}"; NULL: the first stage */
    int is_stacked;                         /* every stage has the rows of its layers */
} map_stage;

typedef struct {
    const char *stored;                     /* pattern */
    int is_none;                            /* 1: Python's None; 0: an empty tensor */
} map_extra;

typedef struct {
    const char *logical;                    /* pattern */
    ckpt_dtype dtype;
} map_encode;

typedef struct {
    const char *stored;                     /* pattern */
    map_number rows;                        /* 0: not known */
    const char *reason;
} map_cut;

typedef struct {
    const char *name;
    const char *expression;                 /* config_number.h; NULL: none */
} map_arg;

typedef struct {
    const char *name;
    const char *arg;                        /* argument that it alone stores, or NULL */
} map_dialect;

typedef enum {
    PRESET_TP,
    PRESET_PP,
    PRESET_EP,
    PRESET_ETP,
    PRESET_FIRST,
    PRESET_LAST,
    PRESET_COUNT
} map_preset_number;

typedef struct {
    const char *name;
    uint32_t numbers[PRESET_COUNT];         /* 0: not given */
} map_preset;

typedef struct {
    const char *logical;                    /* pattern */
    const char *names[MAP_MODULE_NAMES_MAX];    /* patterns */
    size_t name_count;
} map_module;

typedef struct {
    arena memory;
    const char *family;
    const char *names;
    const char *scale_suffix;
    const char *prefix;                     /* set by map_add_prefix, or NULL */
    map_rule *rules;                        /* malloc'd */
    size_t rule_count;
    map_shard *shards;                      /* malloc'd */
    size_t shard_count;
    map_stage *stages;                      /* malloc'd */
    size_t stage_count;
    map_extra *extras;                      /* malloc'd */
    size_t extra_count;
    map_encode *encodes;                    /* malloc'd */
    size_t encode_count;
    map_cut *cuts;                          /* malloc'd */
    size_t cut_count;
    map_arg *args;                          /* malloc'd */
    size_t arg_count;
    map_dialect *dialects;                  /* malloc'd */
    size_t dialect_count;
    map_preset *presets;                    /* malloc'd */
    size_t preset_count;
    map_module *modules;                    /* malloc'd */
    size_t module_count;
} ckpt_map;

/* `subject` names the text in errors, with the line. *out is yours to free. */
ckpt_code map_parse(const char *text, size_t size, const char *subject, ckpt_map **out,
                    ckpt_error *err);
void map_free(ckpt_map *map);

/* ---- patterns ---- */

typedef struct {
    size_t count;
    struct {
        const char *key;        /* "l" of "{l}": borrowed from the pattern */
        size_t key_bytes;
        const char *value;      /* borrowed from the name; NULL: use `number` */
        size_t value_bytes;
        char number[24];
    } items[MAP_CAPTURES_MAX];
} map_captures;

/* 1 when the pattern matches the whole name; captures are added to *captures. A placeholder that is
 * captured already must have the same value. */
int map_match(const char *pattern, const char *name, map_captures *captures);
/* Replace the placeholders of a pattern by their captures. 0: the result is too long. */
int map_expand(const char *pattern, const map_captures *captures, char out[MAP_NAME_BYTES]);

/* Set placeholder `key` ("{e}") to a number; 0 when it has another value already. */
int map_capture_add(map_captures *captures, const char *key, uint64_t number);

/* Evaluate all numbers of the map with this config, and remove the lines whose condition does not
 * hold. CKPT_E_FORMAT when a member that the map uses, other than in `cut` lines, is missing or not
 * a number. `config` may be NULL, as if all members were missing. */
ckpt_code map_bind(ckpt_map *map, const json_value *config, ckpt_error *err);

/* Add a prefix to every stored name, for a model that is part of another one. */
ckpt_code map_add_prefix(ckpt_map *map, const char *prefix, ckpt_error *err);

/* The rule for a stored tensor, or NULL. */
const map_rule *map_find_stored(const ckpt_map *map, const char *name, map_captures *captures);

/* How ranks divide a stored tensor (a scale like its weight); NULL: every rank has all of it. */
const map_shard *map_find_shard(const ckpt_map *map, const char *name, map_captures *captures);

/* The pipeline stage of a stored tensor; *layer is set for MAP_STAGE_LAYER. */
typedef enum {
    MAP_STAGE_FIRST,
    MAP_STAGE_LAYER,
    MAP_STAGE_STACKED,
    MAP_STAGE_LAST
} map_stage_kind;
map_stage_kind map_find_stage(const ckpt_map *map, const char *name, uint64_t *layer);

/* The `extra` line of a stored tensor, or NULL. */
const map_extra *map_find_extra(const ckpt_map *map, const char *name);

/* The `cut` line of a stored tensor; NULL: all rows are read. */
const map_cut *map_find_cut(const ckpt_map *map, const char *name);

/* The plain dtype in which this layout stores a logical tensor; CKPT_NONE: its own encoding. */
ckpt_dtype map_find_encode(const ckpt_map *map, const char *name);

/* The number that placeholder `key` ("{e}") was captured as. 0: not captured, or not a decimal
 * number without leading zeros. */
int map_capture_number(const map_captures *captures, const char *key, uint64_t *out);

/* The reason of the `omit` line of a logical tensor, or NULL. Borrowed from the map. */
const char *map_find_omit(const ckpt_map *map, const char *name);
/* The reason of its `spare` line, or NULL. */
const char *map_find_spare(const ckpt_map *map, const char *name);

/* The reason of its `plain` line; NULL: it may be quantised. */
const char *map_find_plain(const ckpt_map *map, const char *name);

/* The `module` line of a logical tensor, or NULL. Pass its names to map_expand with *captures. */
const map_module *map_find_module(const ckpt_map *map, const char *name, map_captures *captures);

/* 1 when the map can write this logical tensor. */
int map_carries(const ckpt_map *map, const char *name);

/* The dialect called `name`, or NULL. */
const map_dialect *map_find_dialect(const ckpt_map *map, const char *name);

/* 1 when two maps, both bound, read and write every tensor in the same way. */
int map_same_rules(const ckpt_map *a, const ckpt_map *b);

/* How well a map fits: the number of stored tensors, without scales, for which it has a line, and
 * of those the ones whose line does not match every name. */
typedef struct {
    size_t matched;
    size_t named;
} map_fit;
map_fit map_score(const ckpt_map *map, const ckpt_catalog *stored);

/* 1 and the name of its weight, if `name` has the form of a scale that a map may write; else 0. */
int map_weight_of_scale(const char *name, char weight[MAP_NAME_BYTES]);

/* ---- reading: stored tensors -> logical ones ---- */

/* When codes and scales become two plain tensors instead of a pair. NONE: never, codes and scales
 * that do not fit are an error (the family says that they must). UNFIT: if they do not fit. ALL:
 * always, because the config names a quantisation scheme that is not supported. */
typedef enum { BARE_CODES_NONE, BARE_CODES_UNFIT, BARE_CODES_ALL } map_bare_codes;

typedef struct {
    int lenient;             /* unknown tensors keep their names; orphan scales are dropped;
                                quantised weights without a scale stay as they are */
    int u8_scales;           /* U8 scales are E8M0 codes */
    int keep_copies;         /* copies become separate logical tensors */
    map_bare_codes bare_codes;
    unsigned encodings;      /* bit e: weights may have encoding e, if the scale grid fits */
} map_read_options;

typedef enum { FATE_NONE, FATE_USED, FATE_SCALE, FATE_COPY, FATE_DROPPED } map_fate_kind;

typedef struct {
    map_fate_kind kind;
    uint32_t logical;        /* the first logical tensor in it; not set with FATE_DROPPED */
    const char *reason;      /* why it is left out; borrowed from the map or static */
    uint64_t rows_left_out;  /* FATE_USED: rows at its end that are not read */
} map_fate;

/* How many stored tensors have each fate. */
typedef struct {
    size_t counts[FATE_DROPPED + 1];
} map_ledger;
map_ledger map_ledger_of(const map_fate *fates, size_t count);

typedef struct {
    ckpt_catalog *logical;
    ckpt_layout *layout;
    map_fate *fates;         /* indexed by stored tensor: each is accounted for */
    size_t failed;           /* after a failure: 1 + the stored tensor that caused it; or 0 */
} map_reading;

/* On failure *out is released, but `failed` stays valid. The map and the stored catalog must
 * outlive *out. */
ckpt_code map_read(const ckpt_map *map, const ckpt_catalog *stored,
                   const map_read_options *options, map_reading *out, ckpt_error *err);
void map_reading_release(map_reading *reading);

/* ---- writing: logical tensors -> stored ones ---- */

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *logical;   /* .file: its file; packed tensors go to that of the first */
    const ckpt_layout *copies;     /* its copy extents are written too; or NULL */
} map_write_input;

/* Fill `stored` (empty) with the stored tensors that the map makes of the logical ones. An error
 * unless every piece of each is filled exactly once. *out is yours to free. */
ckpt_code map_write(const map_write_input *input, ckpt_catalog *stored, ckpt_layout **out,
                    ckpt_error *err);

/*
 * ---- block-scaled pairs ----
 *
 *   F8_E4M3 [o, i] with a grid [ceil(o/r), ceil(i/c)]          FP8, a block r x c of the table
 *   I8 or U8 [o, i/2], or F4 [o, i], with E8M0 [o, i/32]       FP4, 1 x 32, two codes a byte
 *   the same with E4M3 [o, i/16] and one F32, [] or [1]        NVFP4, 1 x 16
 *   I32 [o, i/8] with BF16 [o, i/32] and I32 or I64 [2]        INT4, 1 x 32, eight codes a word
 *
 * or one stored tensor of interleaved blocks (stored_form.h), which is codes and scales at once;
 * beside blocks of NVFP4 may be F32 scales of the tensor, X.scale or X.weight.scale, [1], or [n] if
 * the map divides a stack of n matrices.
 *
 * Scales are of the dtypes of the table, or U8 when the caller says that they are E8M0 codes; a
 * stack of matrices has a stack of grids. Names: those of map_weight_of_scale, and
 *
 *   X.weight         X.weight_scale   X.weight_scale_2       NVIDIA Model-Optimizer; the last is a
 *                                                            factor
 *   X.weight_packed  X.weight_scale   X.weight_global_scale  compressed-tensors; a divisor. It is
 *                                                            X.weight among logical tensors
 *   the first two with X.weight_shape                        INT4: the numbers o and i
 *
 * A weight with a tensor scale may also have X.input_scale (compressed-tensors:
 * X.input_global_scale), one F32. Servers scale activations by it; digests do not contain it.
 */

/* The stored tensors of a pair. */
typedef struct {
    const ckpt_tensor *data;
    const ckpt_tensor *scale;         /* NULL: none */
    const ckpt_tensor *tensor_scale;  /* NULL: none */
    const ckpt_tensor *input_scale;   /* NULL: none; one F32 */
    const ckpt_tensor *shape;         /* NULL: none */
    const ckpt_tensor *unknown;       /* NULL; else the weight cannot be decoded without it */
} pair_parts;

/*
 * Derive the encoding and logical shape from the stored tensors: fills dtype, stored_dtype, scale
 * dtype, block, tensor scale, part names and shape of *out. If the shapes do not fit, the error
 * gives both.
 */
ckpt_code pair_encoding(const pair_parts *parts, const map_read_options *options,
                        ckpt_tensor *out, ckpt_error *err);

/* The weight that `name` is a scale of, by the names alone; CKPT_NOT_FOUND when `name` does not
 * have the form of a scale, or there is no such weight. */
int64_t pair_find_weight(const ckpt_catalog *stored, const char *name,
                         char weight[MAP_NAME_BYTES]);
/* The tensor scale that belongs to `weight` and its scale `scale`, by the names alone. If `scale`
 * is a tensor scale, it is the result. */
int64_t pair_find_tensor_scale(const ckpt_catalog *stored, const char *weight, const char *scale);

/* The input scale that belongs to a tensor scale: one F32. */
int64_t pair_find_input_scale(const ckpt_catalog *stored, const char *tensor_scale);

/* The tensor that has the shape of a weight whose codes are in words, and one that would change its
 * values in a way that is not decoded (zero points, an order of groups), by the names alone. */
int64_t pair_find_shape(const ckpt_catalog *stored, const ckpt_tensor *codes);
const ckpt_tensor *pair_find_unknown(const ckpt_catalog *stored, const ckpt_tensor *codes);

/* The scale of the codes called `codes`, by every naming convention in use, also those that are
 * never paired here; NULL: none. */
const ckpt_tensor *pair_find_scale(const ckpt_catalog *stored, const char *codes);
/* 1 when `name` has the form of a scale that can be paired. */
int pair_is_scale_name(const char *name);
/* The suffix of a `scale` line that would write this name, as in X.weight_scale; NULL: none. */
const char *pair_scale_suffix(const char *scale);

/* 1 and X.weight in `out` if `stored` is X.weight_packed; else 0. */
int pair_logical_name(const char *stored, char out[MAP_NAME_BYTES]);
/* Replace `name` (MAP_NAME_BYTES), the map's name of the weight, by the stored name of one part.
 * `map_scale` is the map's scale suffix. Returns NULL, or why the part has no name, as in "the name
 * is too long". */
const char *pair_name(const ckpt_tensor *logical, ckpt_part part, const char *map_scale,
                      char *name);

/* The stored tensor for one part of a logical one. In a form of interleaved blocks, that of the
 * data contains both codes and scales; do not ask for the scales then. */
ckpt_tensor pair_stored_part(const ckpt_tensor *logical, ckpt_part part);

#endif
