/*
 * family.h: which tensors a model of a family has, from its config.json.
 *
 * A family is a text (formats/maps/NAME.family): one statement a line, words separated by blanks,
 * comments after #.
 *
 *   family deepseek_v4
 *   detect model_type deepseek_v4            the config member must have one of these strings;
 *                                            without strings, it must be present. A config belongs
 *                                            to the family if all detect lines hold
 *   language qwen3_vl_text                   more values of model_type for a language model that is
 *                                            described by a part of a config
 *   inside STYLE kimi_k25 llava              the model_type of models that contain one of the
 *                                            family, described in their text_config, and the
 *                                            naming style of their Hugging Face files
 *   blocks fp8:128x128 [f32]                 the block size of `fp8` below, and the only one that
 *                                            checkpoints of the family may have. Without a line the
 *                                            config gives it. With f32 the scales are F32
 *   experts-told-by expert_dtype             the config member that says whether fp4 tensors are
 *                                            "fp4" or "fp8"; conversions write it
 *   experts-int4-by quantization_config.format pack-quantized
 *                                            where the config member is this string, the weights of
 *                                            experts are INT4 and no others have codes
 *   others keep                              accept tensors that this text does not list
 *   let    D hidden_size                     D = config member (integer; required)
 *   let    M num_nextn_predict_layers 1      with a default when the member is absent or null
 *   let    HC = 2+hc*hc                      an expression (left to right, no precedence)
 *   list   r compress_ratios                 r[i] = i-th element of a config array of integers
 *   list   o mlp_only_layers?                the same; an absent member is an empty list
 *   list   t layer_types linear full         an array of strings: 0 for "linear", 1 for "full"
 *   count  S dspark_target_layer_ids         length of a config array, 0 when absent or null
 *   position k sources l if l in sources     k = index of the value l in a list, from 0
 *   index  l 0 L                             {l} in names runs over 0 .. L-1
 *   block  layers.{l}. file l+2              prefix and file number (1-based) of lines that follow
 *   block  mtp.{m}. file L+m+3 or-none       the same; a checkpoint may lack all such blocks
 *   tensor attn.wq_b.weight fp8 H*hd,ql      name, encoding and shape of a required tensor
 *   optional head.weight bf16 V,D            a tensor that may be absent (family_expand_optional)
 *   use    core                              insert the lines of a part here
 *   end                                      end of a block or a part
 *   part   core                              begin lines (as in a block) for `use`
 *   tensor embed.weight bf16 V,D file 1      a tensor outside of blocks needs a file number
 *
 * Config members are paths with spellings, as in "text_config.hidden_size" and
 * "num_experts|num_local_experts" (config_number.h); true and false are 1 and 0.
 *
 * let, position, tensor and optional lines may end in `if COND [and COND]`, where COND is EXPR OP
 * EXPR, OP one of = != < <= > >=, or EXPR in LIST, or EXPR not-in LIST; the line applies only if
 * all conditions hold. A variable is set once; variables set in a block are local to one step of
 * its indexes. Lists, indexes and parts must be defined before their use.
 *
 * Encodings: f32 bf16 f16 i64 i32; linear (BF16; a weight that quantised checkpoints of the family
 * store as codes); fp8 (E4M3 with the family's blocks) or fp8:32x32, fp8:1x32, fp8:row with a block
 * size of its own; fp4 (E2M1 in I8, 1x32). fp4 becomes fp8 if the member of experts-told-by is
 * "fp8", or if the config lacks it (as that of a BF16 checkpoint) and some rows are not whole
 * groups. A tensor that is not linear, fp8 or fp4 is never quantised. Scales are those of the
 * blocks line, else E8M0, or F32 if experts are fp8 and the config's quantization_config does not
 * have scale_fmt "ue8m0".
 *
 * An expression is a chain of + - * / % over integers, variables and r[one variable or number],
 * evaluated left to right in checked 64-bit arithmetic; a negative difference and a division with a
 * remainder are errors.
 *
 * Names are the canonical names of the family, not those of a map. They must follow the conventions
 * of tensor_class.h, because the digest and the options rely on them. Layers are layers.{l}.*,
 * without the prefix that other software puts in front.
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

/* 1 when the config belongs to this family (detect lines), or to a model of its `inside` lines that
 * contains one of the family. */
int family_matches(const ckpt_family *family, const json_value *config);

/* 1 when a part of the config describes a language model of this family, whatever is around it. */
int family_is_part(const ckpt_family *family, const json_value *config);

#define FAMILY_NATIVE "native"

/* The naming style of Hugging Face files with this config: that of an `inside` line, else native.
 * Also for NULL as the family. */
const char *family_names(const ckpt_family *family, const json_value *config);

/*
 * List every required tensor of a checkpoint with this config as a logical tensor: native names,
 * full shapes, encodings of the release; `file` is the 0-based number of its file in the release;
 * stored_dtype is I8 for FP4, else CKPT_NONE. Errors name the config member that is missing, not an
 * integer, or out of range. *out is yours to free.
 */
ckpt_code family_expand(const ckpt_family *family, const json_value *config, ckpt_catalog **out,
                        ckpt_error *err);

/* The same for the optional tensors alone. *out is yours to free. */
ckpt_code family_expand_optional(const ckpt_family *family, const json_value *config,
                                 ckpt_catalog **out, ckpt_error *err);

/* The FP8 encodings of the blocks line and of single tensors, as bits of
 * map_read_options.encodings; 0: there is no blocks line. */
unsigned family_fp8(const ckpt_family *family);

/* The member of experts-told-by, or NULL. */
const char *family_expert_member(const ckpt_family *family);

/* 1 when the config says, as experts-int4-by tells, that experts are INT4. */
int family_has_int4(const ckpt_family *family, const json_value *config);

/* 1 when the text has `others keep`. */
int family_keeps_others(const ckpt_family *family);

/* 1 when the text reads a number or a list from this config member. */
int family_asks(const ckpt_family *family, const char *member);

/* 1 when `name` is in a block with `or-none`. */
int family_may_lack(const ckpt_family *family, const char *name);

/* 1 when `name` is an optional tensor of the family, with indexes in the range of the config. */
int family_has_optional(const ckpt_family *family, const json_value *config, const char *name);

#endif
