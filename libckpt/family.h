/*
 * family.h: which tensors a model of a family has, from its config.json.
 *
 * A family is a text (formats/maps/NAME.family). Lines, in words separated by blanks, # comments:
 *
 *   family deepseek_v4
 *   detect model_type deepseek_v4            config member that has one of these strings, or
 *                                            without strings: that is there. All lines must hold
 *   blocks fp8:128x128 [f32]                 what fp8 without a block means: quantised checkpoints
 *                                            of the family have this and no other. Without a line
 *                                            they have what their config tells. With f32 their
 *                                            scales are F32 numbers
 *   experts-told-by expert_dtype             config member that has the encoding of fp4 tensors,
 *                                            "fp4" or "fp8", and is written with it
 *   others keep                              tensors that the text does not have are no error
 *   let    D hidden_size                     D = config member (integer; required)
 *   let    M num_nextn_predict_layers 1      with a default when the member is absent or null
 *   let    HC = 2+hc*hc                      an expression (left to right, no precedence)
 *   list   r compress_ratios                 r[i] = i-th element of a config array of integers
 *   list   o mlp_only_layers?                the same; empty when it is absent
 *   list   t layer_types linear full         of strings: 0 for "linear", 1 for "full"
 *   count  S dspark_target_layer_ids         length of a config array, 0 when absent or null
 *   position k sources l if l in sources     which element of a list has a value: 0 for the first
 *   index  l 0 L                             {l} in names runs over 0 .. L-1
 *   block  layers.{l}. file l+2              prefix and file number (1-based) of lines that follow
 *   block  mtp.{m}. file L+m+3 or-none       the same; a checkpoint may lack all such blocks
 *   tensor attn.wq_b.weight fp8 H*hd,ql
 *   optional head.weight bf16 V,D            may be there; family_expand_optional makes it
 *   use    core                              the lines of a part, as if they stood here
 *   end                                      of a block or a part
 *   part   core                              lines (as in a block) that blocks share
 *   tensor embed.weight bf16 V,D file 1      outside a block: with its file
 *
 * Config members are paths with spellings, as in "text_config.hidden_size" and
 * "num_experts|num_local_experts" (config_number.h); true and false are 1 and 0.
 *
 * let, position, tensor and optional lines may end in `if COND [and COND]`, where COND is EXPR OP
 * EXPR, OP one of = != < <= > >=, or EXPR in LIST, or EXPR not-in LIST; the line counts when all of
 * it holds. A variable is set once; those that a block sets are forgotten at each step of its
 * indexes. Lists, indexes and parts stand before their use.
 *
 * Encodings: f32 bf16 f16 i64 i32; linear (BF16, a weight that quantised forms of the family have
 * as codes); fp8 (E4M3 with the family's blocks) or fp8:32x32, fp8:1x32, fp8:row with its own; fp4
 * (E2M1 in I8, 1x32; becomes fp8 when the member of experts-told-by is "fp8", and when the config
 * has none, as that of a BF16 checkpoint, and some rows are not whole groups). What is neither
 * linear nor fp8 nor fp4 is never quantised. Scales are as the blocks line has them, else E8M0, or
 * F32 when experts are fp8 and the config has no scale_fmt "ue8m0" in its quantization_config.
 *
 * An expression is a chain of + - * / % over integers, variables and r[one variable or number],
 * evaluated left to right in checked 64-bit arithmetic; a difference below zero and a division with
 * a rest are errors.
 *
 * Names are the family's own, whatever a map calls them, and obey the conventions of
 * tensor_class.h, by which the digest and the options go. Layers are layers.{l}.*, without the
 * prefix that other software puts in front.
 */
#ifndef CKPT_FAMILY_H
#define CKPT_FAMILY_H

#include "catalog.h"
#include "json.h"

typedef struct ckpt_family ckpt_family;

enum {
    FAMILY_RANGE_MAX = 1 << 20,      /* steps of one index, and number of files */
    FAMILY_TENSORS_MAX = 1 << 22
};

/* `subject` names the text in errors. *out is yours to free. */
ckpt_code family_parse(const char *text, size_t size, const char *subject, ckpt_family **out,
                       ckpt_error *err);
void family_free(ckpt_family *family);     /* NULL is fine */

const char *family_name(const ckpt_family *family);

/* 1 when the config is of this family. */
int family_matches(const ckpt_family *family, const json_value *config);

/*
 * Every tensor that a checkpoint with this config has, in logical form: native names, full shapes,
 * official encodings, `file` = 0-based number of its file in the official grouping; stored_dtype
 * is I8 for FP4, else CKPT_NONE. Errors name the config member that is missing, not an integer, or
 * out of range. *out is yours to free.
 */
ckpt_code family_expand(const ckpt_family *family, const json_value *config, ckpt_catalog **out,
                        ckpt_error *err);

/* The optional tensors alone, in the same form. *out is yours to free. */
ckpt_code family_expand_optional(const ckpt_family *family, const json_value *config,
                                 ckpt_catalog **out, ckpt_error *err);

/* The blocks line and those of single tensors, as map_read_options.encodings has them; 0: there is
 * no blocks line. */
unsigned family_fp8(const ckpt_family *family);

/* The member of experts-told-by, or NULL. */
const char *family_expert_member(const ckpt_family *family);

/* 1 when tensors that the text does not have are no error. */
int family_keeps_others(const ckpt_family *family);

/* 1 when the text takes a number or a list from this config member. */
int family_asks(const ckpt_family *family, const char *member);

/* 1 when `name` is in a block that a checkpoint may lack. */
int family_may_lack(const ckpt_family *family, const char *name);

/* 1 when `name` is an optional tensor of the family (any index in range). */
int family_has_optional(const ckpt_family *family, const json_value *config, const char *name);

#endif
