/*
 * map.h: how a naming style of a family names and packs its tensors; text, read both ways.
 *
 * Lines, in words separated by blanks, # comments:
 *
 *   map    deepseek_v4 sglang                 family and style
 *   scale  .weight_scale_inv                  suffix written for the scale of X.weight: this,
 *                                             .weight_scale or .scale, which reading knows
 *   tensor STORED = LOGICAL                   rename
 *   tensor STORED = concat(PIECE, PIECE)      rows of the first, then of the second ...
 *   tensor STORED = cols(PIECE, PIECE)        columns of the first, then of the second ..., as many
 *                                             of each
 *   tensor STORED = interleave(N, PIECE, ...) the same for each of N groups: the first group of
 *                                             each piece, then the second ...
 *   tensor STORED = part(LOGICAL, 0/3)        the first of three equal parts of its rows
 *   tensor STORED = stack({e}, ...)           one more dimension in front, indexed by {e}; any of
 *                                             the above, or a stack again, whose index is the inner
 *   tensor ... when LOGICAL                   the line is for writing only where that tensor is
 *   tensor ... if MEMBER = N                  the line counts where config.json has that number;
 *                                             true is 1, what is absent 0; also != N. MEMBER may be
 *                                             a number itself, put in by an include
 *   copy   STORED = LOGICAL                   repeats a tensor; must equal it
 *   omit   LOGICAL REASON...                  a tensor that this layout cannot carry
 *   spare  LOGICAL REASON...                  one that it can, and that is written only on demand
 *   cut    STORED ROWS REASON...              of a renamed tensor the first ROWS rows are read;
 *                                             the rest is left out, with the reason in the ledger.
 *                                             ROWS is as N below; all rows count where the config
 *                                             lacks such members
 *   drop   STORED REASON...                   left out, with the reason in the ledger
 *   shard  STORED AXIS=WHERE [AXIS=WHERE]     how parallel ranks divide a stored tensor: AXIS is
 *                                             mp, tp, ep or etp; WHERE a dimension that is cut in
 *                                             equal parts, or {e}: ranks own runs of the index.
 *                                             halves=2: the dimension is cut in each of two halves.
 *                                             groups=KEY: as many groups as config.json says under
 *                                             KEY make up the dimension, and none of them is cut.
 *                                             Without a line every rank holds the whole
 *   stage  STORED first|{l}|stacked           the pipeline stage that holds it: the first, or that
 *                                             of layer {l}; stacked: its first dimension is the
 *                                             layer, and every stage has its own. Without a line it
 *                                             is the last
 *   extra  STORED empty|none                  beside X.weight strict loaders of Megatron want the
 *                                             bytes X._extra_state: an empty tensor, or None
 *   arg    NAME EXPR                          an argument of the trainer that is stored beside the
 *                                             weights: a number out of config.json (below), or
 *                                             none. Without its members in the config the next line
 *                                             of the name counts, if there is one
 *   dialect NAME [ARG]                        software that writes this form. With ARG it stores an
 *                                             argument of this name beside the weights, which other
 *                                             software with the same keys does not; its value is
 *                                             that of the config member of the same name
 *   preset NAME AXIS=N [AXIS=N]...            ranks that are known to train: AXIS is tp, pp, ep or
 *                                             etp; first and last: layers of those stages
 *   encode LOGICAL DTYPE                      a weight that this layout keeps in a plain dtype
 *   plain  LOGICAL REASON...                  a weight that a reader of these names misreads when
 *                                             it is quantised
 *   module LOGICAL NAME...                    what servers call the module of a weight, for the
 *                                             list of those that are not quantised; captures as
 *                                             in LOGICAL. Without a line it is X for X.weight
 *
 * A PIECE is LOGICAL, LOGICAL:N or part(...):N. Rows are steps of the first dimension. Pieces have
 * rows in proportion to their N (1 when it is not given): concat(a:3, b) gives a three rows for one
 * of b. part(LOGICAL, FROM, COUNT, OF) is COUNT of OF equal parts from part FROM on, and 0/3 is
 * 0, 1, 3; of a piece with N it is taken of each of its N blocks in a group. All parts of a tensor
 * make it, on one line or on several. So queries, keys and values by query group are
 * interleave(GROUPS, q:HEADS/GROUPS, k, v), and heads whose halves are swapped are
 * interleave(HEADS, part(q, 1/2), part(q, 0/2)).
 *
 * N, GROUPS and the like are chains of + - * / over numbers and members of config.json, worked out
 * from left to right ("num_attention_heads/num_key_value_heads"; libckpt/config_number.h). A map
 * that has members must be given the config (map_bind) before tensors are read or written by it.
 *
 * Names are patterns: {l} stands for one run of characters other than '.', up to the next '.' or
 * the end; {x*} for the rest of the name, which is empty only where it is all of it; {m+KEY} for
 * the number {m} plus a member of the config, so that layers after the last can have names of
 * their own. The first line that matches counts. A tensor `X.weight` is paired with a scale
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
    uint64_t value;                         /* 0: has members, and map_bind has not been called */
} map_number;

typedef struct {
    const char *logical;                    /* pattern */
    map_number times;                       /* blocks of it in each group */
    map_number from;                        /* of each block: parts [from, from + count) of `of` */
    map_number count;
    map_number of;
} map_piece;

typedef struct {
    map_kind kind;
    const char *stored;                     /* patterns; MAP_OMIT, MAP_SPARE and MAP_PLAIN
                                               have only pieces[0].logical */
    map_piece pieces[MAP_PIECES_MAX];
    size_t piece_count;
    int has_cols;                           /* pieces stand side by side, not one below another */
    map_number groups;
    const char *stacks[MAP_STACKS_MAX];     /* placeholders "{e}", the outer first */
    uint32_t stack_count;
    const char *when;                       /* pattern of a logical tensor, or NULL */
    struct {
        const char *member;                 /* of config.json; NULL: no condition */
        int differs;                        /* 1: its number must be another one */
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
        const char *index;                  /* "{e}": by index instead of dimension, or NULL */
    } axes[MAP_AXIS_COUNT];
    uint32_t halves;                        /* 1, or 2: gate and up are cut each on their own */
    const char *groups;                     /* path in config.json, or NULL */
} map_shard;

typedef struct {
    const char *stored;                     /* pattern */
    const char *layer;                      /* placeholder "{l}"; NULL: the first stage */
    int is_stacked;                         /* the stages of all layers */
} map_stage;

typedef struct {
    const char *stored;                     /* pattern */
    int is_none;                            /* None, not an empty tensor */
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
    const char *arg;                        /* by which it is recognised, or NULL */
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
    const char *prefix;                     /* that was put in front of stored names, or NULL */
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
        const char *value;      /* borrowed from the name; NULL: in `number` */
        size_t value_bytes;
        char number[24];
    } items[MAP_CAPTURES_MAX];
} map_captures;

/* 1 when the whole name fits the pattern; captures are added to *captures. A placeholder that was
 * captured before must have the same value again. */
int map_match(const char *pattern, const char *name, map_captures *captures);
/* 1 when the pattern, filled in, fits in MAP_NAME_BYTES. */
int map_expand(const char *pattern, const map_captures *captures, char out[MAP_NAME_BYTES]);

/* Give placeholder `key` ("{e}") the value of a number; 0 when it has another. */
int map_capture_add(map_captures *captures, const char *key, uint64_t number);

/* Work out what the map makes of the config's numbers, and leave out the lines whose condition
 * does not hold. CKPT_E_FORMAT when a member that the map has is missing or not a number; `config`
 * may be NULL: all are missing. */
ckpt_code map_bind(ckpt_map *map, const json_value *config, ckpt_error *err);

/* Put a prefix in front of every stored name, as a model inside another one has it. */
ckpt_code map_add_prefix(ckpt_map *map, const char *prefix, ckpt_error *err);

/* Rule that names a stored tensor, or NULL. */
const map_rule *map_find_stored(const ckpt_map *map, const char *name, map_captures *captures);

/* How ranks divide a stored tensor (a scale is divided as its weight); NULL: not at all. */
const map_shard *map_find_shard(const ckpt_map *map, const char *name, map_captures *captures);

/* The stage of a stored tensor; *layer is set for MAP_STAGE_LAYER. */
typedef enum {
    MAP_STAGE_FIRST,
    MAP_STAGE_LAYER,
    MAP_STAGE_STACKED,
    MAP_STAGE_LAST
} map_stage_kind;
map_stage_kind map_find_stage(const ckpt_map *map, const char *name, uint64_t *layer);

/* The byte entry that strict loaders want beside a stored tensor; NULL: none. */
const map_extra *map_find_extra(const ckpt_map *map, const char *name);

/* Which rows of a stored tensor are read; NULL: all. */
const map_cut *map_find_cut(const ckpt_map *map, const char *name);

/* The plain dtype that this layout keeps a logical tensor in, or CKPT_NONE. */
ckpt_dtype map_find_encode(const ckpt_map *map, const char *name);

/* The number that placeholder `key` ("{e}") was captured as; 0 when it is none, or not spelt as
 * numbers are. */
int map_capture_number(const map_captures *captures, const char *key, uint64_t *out);

/* Why this layout leaves out a logical tensor, or NULL. Borrowed from the map. */
const char *map_find_omit(const ckpt_map *map, const char *name);
/* Why it is written only on demand, or NULL. */
const char *map_find_spare(const ckpt_map *map, const char *name);

/* Why a reader of these names misreads this logical tensor when it is quantised; NULL: it does
 * not. */
const char *map_find_plain(const ckpt_map *map, const char *name);

/* What servers call the module of a logical tensor; NULL: nothing special. Fill in the names with
 * map_expand. */
const map_module *map_find_module(const ckpt_map *map, const char *name, map_captures *captures);

/* 1 when the map has a line for this logical tensor: the layout can carry it. */
int map_carries(const ckpt_map *map, const char *name);

/* The dialect of this name, or NULL. */
const map_dialect *map_find_dialect(const ckpt_map *map, const char *name);

/* 1 when two maps, both bound, read and write every tensor alike. */
int map_same_rules(const ckpt_map *a, const ckpt_map *b);

/* How many of the stored tensors the map names (scales left out). */
size_t map_score(const ckpt_map *map, const ckpt_catalog *stored);

/* If `name` has the form of a scale that a map may write, the name of the weight it would belong
 * to (1). */
int map_weight_of_scale(const char *name, char weight[MAP_NAME_BYTES]);

/* ---- reading: stored tensors -> logical ones ---- */

/* What codes and scales are that do not fit as a pair: an error where a family says that they
 * must, else two plain tensors; all are, where the config tells of a scheme that is not ours. */
typedef enum { BARE_CODES_NONE, BARE_CODES_UNFIT, BARE_CODES_ALL } map_bare_codes;

typedef struct {
    int lenient;             /* unknown tensors keep their names; orphan scales are dropped;
                                quantised weights without a scale stay as they are */
    int u8_scales;           /* U8 scales are E8M0 codes */
    int keep_copies;         /* copies become tensors of their own */
    map_bare_codes bare_codes;
    unsigned encodings;      /* bit e: weights may be of encoding e, if its grid fits */
} map_read_options;

typedef enum { FATE_NONE, FATE_USED, FATE_SCALE, FATE_COPY, FATE_DROPPED } map_fate_kind;

typedef struct {
    map_fate_kind kind;
    uint32_t logical;        /* first logical tensor that it holds; FATE_DROPPED: none */
    const char *reason;      /* of what is left out; borrowed from the map or static */
    uint64_t rows_left_out;  /* FATE_USED: at its end */
} map_fate;

/* How many stored tensors have each fate. */
typedef struct {
    size_t counts[FATE_DROPPED + 1];
} map_ledger;
map_ledger map_ledger_of(const map_fate *fates, size_t count);

typedef struct {
    ckpt_catalog *logical;
    ckpt_layout *layout;
    map_fate *fates;         /* by stored tensor: nothing is silent */
    size_t failed;           /* after a failure: 1 + the stored tensor that it is about; or 0 */
} map_reading;

/* On failure *out is released, but for `failed`. The map and the stored catalog must outlive it. */
ckpt_code map_read(const ckpt_map *map, const ckpt_catalog *stored,
                   const map_read_options *options, map_reading *out, ckpt_error *err);
void map_reading_release(map_reading *reading);

/* ---- writing: logical tensors -> stored ones ---- */

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *logical;   /* .file: where each goes; a packed tensor goes with its first */
    const ckpt_layout *copies;     /* its copy extents are written too; or NULL */
} map_write_input;

/* Fill `stored` (empty) with the tensors that the map makes of the logical ones. Every target must
 * be filled exactly once. *out is yours to free. */
ckpt_code map_write(const map_write_input *input, ckpt_catalog *stored, ckpt_layout **out,
                    ckpt_error *err);

/*
 * ---- block-scaled pairs ----
 *
 *   F8_E4M3 [o, i] with a grid [ceil(o/r), ceil(i/c)]          FP8, a block r x c of the table
 *   I8 or U8 [o, i/2], or F4 [o, i], with E8M0 [o, i/32]       FP4, 1 x 32, two codes a byte
 *   the same with E4M3 [o, i/16] and one F32, [] or [1]        NVFP4, 1 x 16
 *
 * or one stored tensor of interleaved blocks (stored_form.h), which is codes and scales at once.
 *
 * Scales are of the dtypes of the table, or U8 when the caller says that they are E8M0 codes; a
 * stack of matrices has a stack of grids. Names: those of map_weight_of_scale, and
 *
 *   X.weight         X.weight_scale   X.weight_scale_2       NVIDIA Model-Optimizer; the last is a
 *                                                            factor
 *   X.weight_packed  X.weight_scale   X.weight_global_scale  compressed-tensors; a divisor. It is
 *                                                            X.weight among logical tensors
 *
 * With the last goes X.input_scale (compressed-tensors: X.input_global_scale), one F32 where it is
 * there. Servers want it; it is of activations and in no digest.
 */

/* The stored tensors of a pair. */
typedef struct {
    const ckpt_tensor *data;
    const ckpt_tensor *scale;         /* NULL: none */
    const ckpt_tensor *tensor_scale;  /* NULL: none */
    const ckpt_tensor *input_scale;   /* NULL: none; one F32 */
} pair_parts;

/*
 * What stored tensors are together: fills dtype, stored_dtype, scale dtype, block, scale of the
 * tensor, names and logical shape of *out. Wrong shapes are an error that names both.
 */
ckpt_code pair_encoding(const pair_parts *parts, const map_read_options *options,
                        ckpt_tensor *out, ckpt_error *err);

/* The weight that `name` is a scale of, by its name; CKPT_NOT_FOUND when it has not the form of a
 * scale or no such weight is there. */
int64_t pair_find_weight(const ckpt_catalog *stored, const char *name,
                         char weight[MAP_NAME_BYTES]);
/* The scale of the whole tensor that goes with `weight` and the scale `scale`, by their names;
 * itself where `scale` is that one. */
int64_t pair_find_tensor_scale(const ckpt_catalog *stored, const char *weight, const char *scale);

/* The scale of activations that goes with such a scale of the whole tensor: one F32. */
int64_t pair_find_input_scale(const ckpt_catalog *stored, const char *tensor_scale);

/* The scale of codes that are called so, by every convention in use, paired by us or not; NULL:
 * none. */
const ckpt_tensor *pair_find_scale(const ckpt_catalog *stored, const char *codes);
/* 1 when `name` has the form of a scale that is read. */
int pair_is_scale_name(const char *name);
/* The suffix by which a map's `scale` line would call it so, as in X.weight_scale; NULL: none. */
const char *pair_scale_suffix(const char *scale);

/* X.weight for the data of a pair that is stored as X.weight_packed (1); 0: any other. */
int pair_logical_name(const char *stored, char out[MAP_NAME_BYTES]);
/* The stored name of one part; `name`, of MAP_NAME_BYTES, holds what the map calls the weight.
 * `map_scale` is the map's suffix. 0: too long, or there is no name for it. */
int pair_name(const ckpt_tensor *logical, ckpt_part part, const char *map_scale, char *name);

/* The stored tensor of one part of a logical one: the data as it stands on disk, and the scales;
 * where the form is blocks, that of the data holds both, and no other is asked for. */
ckpt_tensor pair_stored_part(const ckpt_tensor *logical, ckpt_part part);

#endif
