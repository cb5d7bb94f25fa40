/* The rules about loaders. */
#include "loader_rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libckpt/codes.h"
#include "libckpt/tensor_class.h"
#include "libckpt/config_number.h"
#include "libckpt/encoding.h"
#include "libckpt/foreign_codes.h"
#include "libckpt/plan.h"
#include "libckpt/text.h"

#define VLLM (1u << LOADER_VLLM)
#define SGLANG (1u << LOADER_SGLANG)
#define TRANSFORMERS (1u << LOADER_TRANSFORMERS)
#define MEGATRON (1u << LOADER_MEGATRON)
#define FILES (1u << LOADER_NONE)
#define SERVERS (VLLM | SGLANG | TRANSFORMERS)

/* ---- texts ---- */

/* Set the text of a rule that holds. Returns 1. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static int say(rule_call *call, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(call->text, LOADER_TEXT_BYTES, format, args);
    va_end(args);
    return 1;
}

static const char *name_of(const weight_group *group)
{
    return group->first->name;
}

/* ---- the folder ---- */

static int is_no_folder(rule_call *call)
{
    const char *layout = call->facts->in.layout;

    if (call->loader == LOADER_MEGATRON)
        return strcmp(layout, "torch_dist") != 0 &&
               say(call, "the layout is %s, and Megatron loads torch_dist: ckpt-shard --layout "
                   "torch_dist", layout);
    return strcmp(layout, "hf") != 0 &&
           say(call, "the layout is %s, and it loads a Hugging Face folder: ckpt-shard --layout "
               "hf", layout);
}

static int is_one_of_many(rule_call *call)
{
    return call->facts->in.is_partial &&
           say(call, "this is one file of several: give the folder");
}

static int has_no_config(rule_call *call)
{
    return call->facts->in.config == NULL &&
           say(call, "there is no config.json, which says what model it is");
}

static int has_no_model_type(rule_call *call)
{
    const json_value *config = call->facts->in.config;

    return config != NULL && json_string(json_member(config, "model_type")) == NULL &&
           say(call, "config.json has no model_type");
}

static int has_no_architectures(rule_call *call)
{
    const json_value *config = call->facts->in.config;

    return config != NULL && json_count(json_member(config, "architectures")) == 0 &&
           say(call, "config.json has no architectures, which name the model's class");
}

/* ---- names ---- */

static int has_foreign_names(rule_call *call)
{
    const loader_facts *f = call->facts;
    const char *names = f->in.names;

    if (!f->is_v4 || strcmp(names, "native") == 0 || strcmp(f->in.layout, "hf") != 0)
        return 0;
    if (call->loader == LOADER_TRANSFORMERS && strncmp(names, "transformers", 12) == 0)
        return f->quantised > 0 &&
               say(call, "names are in the style '%s', whose quantised form it does not have: "
                   "ckpt-convert --names native", names);
    if (call->loader == LOADER_SGLANG && strcmp(names, "sglang") == 0)
        return 0;
    return say(call, "names are in the style '%s', and it translates native ones: ckpt-convert "
               "--names native", names);
}

/* R16 of the rules of conversion: only X.wo_a.scale makes SGLang dequantise wo_a. */
static int has_fp8_wo_a_in_sglang_names(rule_call *call)
{
    const ckpt_catalog *stored = call->facts->in.stored;
    static const char ending[] = ".wo_a.weight_scale_inv";

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;
        const size_t length = strlen(name);

        if (length >= sizeof ending && strcmp(name + length - sizeof ending + 1, ending) == 0)
            return say(call, "'%s': it dequantises wo_a only where its scale is called "
                       "wo_a.scale, and would take FP8 codes for numbers: ckpt-convert --names "
                       "native", name);
    }
    return 0;
}

static int has_some_fp8_wo_a(rule_call *call)
{
    const ckpt_catalog *logical = call->facts->in.logical;
    const ckpt_tensor *quantised = NULL;
    const ckpt_tensor *plain = NULL;

    for (size_t i = 0; i < ckpt_catalog_count(logical); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(logical, i);

        if (strstr(t->name, ".attn.wo_a.weight") == NULL)
            continue;
        if (t->scale_dtype != CKPT_NONE)
            quantised = t;
        else
            plain = t;
    }
    return quantised != NULL && plain != NULL &&
           say(call, "'%s' is quantised and '%s' is not: it wants wo_a of all layers alike",
               quantised->name, plain->name);
}

/* It dequantises wo_a in blocks of 128 x 128 when it loads. */
static int has_mxfp8_wo_a(rule_call *call)
{
    const ckpt_catalog *logical = call->facts->in.logical;

    for (size_t i = 0; i < ckpt_catalog_count(logical); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(logical, i);

        if (tensor_is_wo_a(t->name) && loader_form(t) == FORM_MXFP8)
            return say(call, "'%s' is MXFP8, but it has wo_a in blocks of 128 x 128 or plain",
                       t->name);
    }
    return 0;
}

/* ---- quantization_config ---- */

/* Model-Optimizer declares it in a file of its own, which servers read and transformers ignores. */
static int has_modelopt_file(const rule_call *call)
{
    return call->facts->quantization == NULL && call->facts->modelopt_algorithm != NULL &&
           call->loader != LOADER_TRANSFORMERS;
}

static int lacks_quantization_config(rule_call *call)
{
    const loader_facts *f = call->facts;
    const char *package = foreign_codes_name(f->in.logical);

    if (has_modelopt_file(call) || f->in.config == NULL || f->quantization != NULL)
        return 0;
    if (package != NULL)
        return say(call, "weights are quantised by %s, but config.json has no quantization_config",
                   package);
    return f->quantised > 0 &&
           say(call,
               "%s quantised, but config.json has no quantization_config: codes "
               "would be taken for numbers",
               text_count(f->quantised, "weight is", "weights are").text);
}

/* 1 when weights of the method need not look quantised here: another package's form, or one that is
 * not known. */
static int is_not_looked_at(const loader_facts *f)
{
    static const char *const seen[] = {
        "fp8", "deepseek_v4_fp8", "mxfp8", "mxfp4", "fbgemm_fp8", "modelopt", "modelopt_fp4",
        "compressed-tensors", "gptq", "awq", "bitsandbytes", "exl3"
    };
    int is_seen = f->method == NULL;

    for (size_t i = 0; i < sizeof seen / sizeof *seen && !is_seen; i++)
        is_seen = strcmp(f->method, seen[i]) == 0;
    return !is_seen || foreign_codes_name(f->in.logical) != NULL;
}

static int has_stale_quantization_config(rule_call *call)
{
    const loader_facts *f = call->facts;

    return f->quantization != NULL && f->quantised == 0 &&
           !is_not_looked_at(f) &&
           say(call, "config.json has a quantization_config%s%s, but no weight is quantised: "
               "remove it", f->method == NULL ? "" : " of ", f->method == NULL ? "" : f->method);
}

static int is_known_method(const loader_facts *f)
{
    return f->method != NULL && (strcmp(f->method, "fp8") == 0 ||
                                 strcmp(f->method, "deepseek_v4_fp8") == 0);
}

static int has_other_method(rule_call *call)
{
    const loader_facts *f = call->facts;

    const char *package = foreign_codes_name(f->in.logical);

    if (f->quantization == NULL || (f->quantised == 0 && package == NULL) || is_known_method(f))
        return 0;
    if (f->method == NULL && package != NULL)
        return say(call, "weights are quantised by %s, but quantization_config has no quant_method",
                   package);
    if (f->method == NULL)
        return say(call, "quantization_config has no quant_method");
    return strcmp(f->method, "mxfp8") == 0 && call->loader != LOADER_SGLANG &&
           say(call, "quant_method is 'mxfp8', which only SGLang has");
}

/* A checkpoint that the rules do not cover must not seem to be right. */
static int is_not_judged(rule_call *call)
{
    const loader_facts *f = call->facts;

    if (has_modelopt_file(call))
        return f->quantised > 0 &&
               say(call, "hf_quant_config.json says %s, whose tensors are not looked at",
                   f->modelopt_algorithm);
    return (f->quantised > 0 || is_not_looked_at(f)) && f->method != NULL &&
           !is_known_method(f) && strcmp(f->method, "mxfp8") != 0 &&
           say(call, "quant_method is '%s', whose tensors are not looked at", f->method);
}

static int lacks_activation_scheme(rule_call *call)
{
    const loader_facts *f = call->facts;
    const json_value *scheme = json_member(f->quantization, "activation_scheme");

    if (f->quantised == 0 || !is_known_method(f))
        return 0;
    if (scheme == NULL)
        return call->loader != LOADER_TRANSFORMERS &&
               say(call, "quantization_config has no activation_scheme (\"dynamic\")");
    return (json_string(scheme) == NULL || strcmp(json_string(scheme), "dynamic") != 0) &&
           say(call, "activation_scheme is not \"dynamic\", as weights in blocks need it");
}

/* The config's weight_block_size differs from the FP8 blocks in the files. */
static int has_other_block(rule_call *call)
{
    const loader_facts *f = call->facts;
    const json_value *block = json_member(f->quantization, "weight_block_size");
    const size_t in_blocks = f->dense[FORM_FP8].count + f->experts[FORM_FP8].count;
    uint64_t rows = 0;
    uint64_t cols = 0;

    if (in_blocks == 0 || f->quantization == NULL || !is_known_method(f))
        return 0;
    if (block == NULL)
        return call->loader != LOADER_TRANSFORMERS && call->loader != LOADER_NONE &&
               say(call, "quantization_config has no weight_block_size, and FP8 without one has a "
                   "scale for each tensor; the files have blocks of 128 x 128");
    return (json_count(block) != 2 || !json_u64(json_first(block), &rows) ||
            !json_u64(json_next(json_first(block)), &cols) || rows != FP8_BLOCK ||
            cols != FP8_BLOCK) &&
           say(call, "weight_block_size is not [128, 128], as the files have it");
}

/* ---- lists of plain modules ---- */

static int has_unlisted_modules(rule_call *call)
{
    const weight_group *g = &call->facts->unlisted;

    return g->count > 0 && call->facts->quantised > 0 &&
           say(call,
               "%s plain beside quantised ones, and modules_to_not_convert does "
               "not list them: they would be cast to quantised parameters; the first is '%s'",
               text_count(g->count, "weight is", "weights are").text, name_of(g));
}

static int has_listed_modules(rule_call *call)
{
    const weight_group *g = &call->facts->listed;

    return g->count > 0 && say(call,
                               "%s quantised, but config.json lists their modules as plain; the "
                               "first is '%s'",
                               text_count(g->count, "weight is", "weights are").text, name_of(g));
}

/* ---- experts ---- */

static const char *told(const char *expert_dtype)
{
    return expert_dtype == NULL ? "missing" : expert_dtype;
}

/* vLLM: a missing expert_dtype means "fp4", and the key also decides the dtype of all scales. */
static int has_other_experts_for_vllm(rule_call *call)
{
    const loader_facts *f = call->facts;
    const int is_fp8 = f->expert_dtype != NULL && strcmp(f->expert_dtype, "fp8") == 0;
    const weight_group *fp8 = &f->experts[FORM_FP8];
    const weight_group *fp4 = &f->experts[FORM_FP4];

    if (!f->is_v4 || f->quantization == NULL)
        return 0;
    if (fp8->count > 0 && !is_fp8)
        return say(call,
                   "%s FP8, but expert_dtype is %s, which means FP4: set "
                   "\"expert_dtype\": \"fp8\"; the first is '%s'",
                   text_count(fp8->count, "expert is", "experts are").text, told(f->expert_dtype),
                   name_of(fp8));
    return fp4->count > 0 && is_fp8 &&
           say(call, "%s FP4, but expert_dtype is fp8; the first is '%s'",
               text_count(fp4->count, "expert is", "experts are").text, name_of(fp4));
}

/* transformers: a missing expert_dtype means "fp8". The key inside quantization_config wins over
 * that at the root. */
static int has_other_experts_for_transformers(rule_call *call)
{
    const loader_facts *f = call->facts;
    const char *dtype = f->inner_expert_dtype != NULL ? f->inner_expert_dtype : f->expert_dtype;
    const int is_fp4 = dtype != NULL && strcmp(dtype, "fp4") == 0;
    const weight_group *fp8 = &f->experts[FORM_FP8];
    const weight_group *fp4 = &f->experts[FORM_FP4];

    if (!f->is_v4 || f->quantization == NULL)
        return 0;
    if (fp4->count > 0 && !is_fp4)
        return say(call,
                   "%s FP4, but expert_dtype is %s, which means FP8: set "
                   "\"expert_dtype\": \"fp4\"; the first is '%s'",
                   text_count(fp4->count, "expert is", "experts are").text, told(dtype),
                   name_of(fp4));
    return fp8->count > 0 && is_fp4 &&
           say(call, "%s FP8, but expert_dtype is fp4; the first is '%s'",
               text_count(fp8->count, "expert is", "experts are").text, name_of(fp8));
}

/* No loader: expert_dtype has no default, but if it exists it must match the files. */
static int contradicts_experts(rule_call *call)
{
    const loader_facts *f = call->facts;
    const char *dtypes[] = { f->expert_dtype, f->inner_expert_dtype };

    for (size_t i = 0; i < 2; i++) {
        const int says_fp4 = dtypes[i] != NULL && strcmp(dtypes[i], "fp4") == 0;
        const int says_fp8 = dtypes[i] != NULL && strcmp(dtypes[i], "fp8") == 0;
        const weight_group *fp4 = &f->experts[FORM_FP4];
        const weight_group *fp8 = &f->experts[FORM_FP8];
        const weight_group *plain = &f->experts[FORM_PLAIN];
        const weight_group *other = says_fp4 && fp8->count > 0   ? fp8
                                    : says_fp8 && fp4->count > 0 ? fp4
                                    : says_fp4 || says_fp8       ? plain
                                                                 : NULL;

        if (other != NULL && other->count > 0)
            return say(call, "config.json says expert_dtype %s, but %s %s; the first is '%s'",
                       dtypes[i], text_count(other->count, "expert is", "experts are").text,
                       ckpt_dtype_name(other->first->dtype), name_of(other));
    }
    return 0;
}

static int has_plain_experts_for_sglang(rule_call *call)
{
    const loader_facts *f = call->facts;

    return f->is_v4 && f->experts[FORM_PLAIN].count > 0 &&
           say(call, "experts are %s: start SGLang with SGLANG_DSV4_FP4_EXPERTS=0",
               ckpt_dtype_name(f->experts[FORM_PLAIN].first->dtype));
}

/* ---- scales ---- */

/* The loader copies F32 scales into E8M0 parameters: exact only if all are powers of two. */
static int has_uneven_scales(rule_call *call, int experts, const char *why)
{
    weight_group uneven;

    if (call->code != CKPT_OK ||
        (call->code = loader_count_uneven(call->facts, experts, &uneven, call->err)) != CKPT_OK)
        return 0;
    return uneven.count > 0 &&
           say(call, "%zu F32 scales are not powers of two, but its parameters are E8M0 %s; the "
               "first is of '%s'", uneven.count, why, name_of(&uneven));
}

static int has_wrong_scales_for_vllm(rule_call *call)
{
    const loader_facts *f = call->facts;
    const int wants_f32 = f->expert_dtype != NULL && strcmp(f->expert_dtype, "fp8") == 0;
    const weight_group *experts = &f->expert_scales[CKPT_F8_E8M0];
    const weight_group *dense = &f->dense_scales[CKPT_F8_E8M0];
    const weight_group *e8m0 = experts->count > 0 ? experts : dense;

    if (!f->is_v4 || f->quantization == NULL)
        return 0;
    if (wants_f32)
        return e8m0->count > 0 &&
               say(call, "scales of %zu weights are E8M0, but expert_dtype \"fp8\" makes its "
                   "parameters F32, which take the bytes for numbers: ckpt-convert --scale-dtype "
                   "f32; the first is of '%s'", experts->count + dense->count, name_of(e8m0));
    return f->dense_scales[CKPT_F32].count > 0 &&
           has_uneven_scales(call, 0, "(expert_dtype fp4, or missing)");
}

static int has_wrong_scales_for_transformers(rule_call *call)
{
    const loader_facts *f = call->facts;
    const int is_e8m0 = f->scale_fmt != NULL && strcmp(f->scale_fmt, "ue8m0") == 0;

    if (!is_known_method(f) || !is_e8m0)
        return 0;
    return (f->dense_scales[CKPT_F32].count > 0 &&
            has_uneven_scales(call, 0, "(scale_fmt ue8m0)")) ||
           (f->expert_scales[CKPT_F32].count > 0 &&
            has_uneven_scales(call, 1, "(scale_fmt ue8m0)"));
}

static int has_mxfp8_scales_that_are_not_u8(rule_call *call)
{
    const loader_facts *f = call->facts;
    const weight_group *dense = &f->dense[FORM_MXFP8];
    const weight_group *group = dense->count > 0 ? dense : &f->experts[FORM_MXFP8];

    return f->method != NULL && strcmp(f->method, "mxfp8") == 0 && group->count > 0 &&
           group->first->stored_scale_dtype != CKPT_U8 &&
           say(call, "scales of MXFP8 are %s, but its parameters are U8, which would take their "
               "values and not their bytes; the first is of '%s'",
               ckpt_dtype_name(group->first->scale_dtype), name_of(group));
}

/* ---- NVFP4 ---- */

static int says(const loader_facts *f, const char *key, const char *word)
{
    const char *text = json_string(json_member(f->quantization, key));

    return text != NULL && strcmp(text, word) == 0;
}

static int has_untold_nvfp4(rule_call *call)
{
    const loader_facts *f = call->facts;

    if (!f->is_v4 || f->tensor_scales == 0 || f->quantization == NULL)
        return 0;
    if (call->loader == LOADER_TRANSFORMERS)
        return say(call, "experts are NVFP4, which its FP8 and FP4 experts are not");
    if (call->loader == LOADER_VLLM && f->expert_dtype != NULL &&
        strcmp(f->expert_dtype, "fp4") != 0)
        return say(call, "experts are NVFP4, which goes with expert_dtype \"fp4\", not '%s'",
                   f->expert_dtype);
    if (!says(f, "moe_quant_algo", "NVFP4"))
        return say(call, "experts are NVFP4, but quantization_config has no moe_quant_algo "
                   "\"NVFP4\"");
    return call->loader == LOADER_SGLANG && !says(f, "quant_algo", "MIXED_PRECISION") &&
           say(call, "experts are NVFP4, but quantization_config has no quant_algo "
               "\"MIXED_PRECISION\"");
}

/* Only a block of next-token prediction can have other experts than the layers: they are released
 * in FP4, and quantisers leave them so. */
static int has_fp4_drafter(rule_call *call)
{
    const loader_facts *f = call->facts;
    const weight_group *fp4 = &f->experts[FORM_FP4];

    return f->is_v4 && f->experts[FORM_NVFP4].count > 0 && fp4->count > 0 &&
           say(call, "%s FP4 beside NVFP4 ones: for speculative decoding it makes NVFP4 parameters "
               "of them, and accepts few drafts; --quantize mtp-experts=nvfp4-exact converts them; "
               "the first is '%s'",
               text_count(fp4->count, "weight of experts is", "weights of experts are").text,
               name_of(fp4));
}

static int lacks_input_scales(rule_call *call)
{
    const loader_facts *f = call->facts;

    return f->is_v4 && f->tensor_scales > f->input_scales &&
           say(call, "%zu of %zu NVFP4 weights have no input_scale", f->tensor_scales -
               f->input_scales, f->tensor_scales);
}

/* Servers multiply and divide by these scales, and give w1 and w3 one of theirs. */
static int has_wrong_whole_scales(rule_call *call)
{
    loader_whole_scales found;

    if (call->code != CKPT_OK ||
        (call->code = loader_look_at_whole_scales(call->facts, &found, call->err)) != CKPT_OK)
        return 0;
    if (found.unfit.count > 0)
        return say(call,
                   "%s a scale of the whole tensor, or an input_scale, that is "
                   "not a finite number above 0; the first is '%s'",
                   text_count(found.unfit.count, "weight has", "weights have").text,
                   name_of(&found.unfit));
    return found.unequal.count > 0 &&
           say(call,
               "%s different scales of the whole tensor, and it joins the two under one; "
               "the first is of '%s'",
               text_count(found.unequal.count, "pair of weights has", "pairs of weights have").text,
               name_of(&found.unequal));
}

/* ---- forms that are read of experts alone, or not at all ---- */

static int has_fp4_outside_experts(rule_call *call)
{
    const loader_facts *f = call->facts;
    const weight_group *fp4 = &f->dense[FORM_FP4];
    const weight_group *group = fp4->count > 0 ? fp4 : &f->dense[FORM_NVFP4];

    return f->is_v4 && group->count > 0 &&
           say(call,
               "%s FP4 outside of the routed experts, which it reads of experts alone; the "
               "first is '%s'",
               text_count(group->count, "weight is", "weights are").text, name_of(group));
}

/* quant_method "fp8" makes FP8 parameters of all weights, except of DeepSeek-V4's experts. */
static int has_fp4_of_another_model(rule_call *call)
{
    const loader_facts *f = call->facts;
    const weight_group *const groups[] = { &f->dense[FORM_FP4], &f->experts[FORM_FP4],
                                           &f->dense[FORM_NVFP4], &f->experts[FORM_NVFP4] };

    for (size_t i = 0; !f->is_v4 && is_known_method(f) && i < sizeof groups / sizeof *groups;
         i++) {
        const weight_group *g = groups[i];
        const ckpt_tensor *official =
            g->count == 0 ? NULL : plan_find_official(f->in.official, g->first);

        if (g->count > 0 && (official == NULL || official->dtype != CKPT_F4))
            return say(call, "%s FP4, but quant_method '%s' makes FP8 parameters of them; the "
                       "first is '%s'", text_count(g->count, "weight is", "weights are").text,
                       f->method, name_of(g));
    }
    return 0;
}

/* Codes whose scales do not fit the blocks that the config declares were not decoded. */
static int has_unfit_scales(rule_call *call)
{
    const loader_facts *f = call->facts;
    const weight_group *dense = &f->dense[FORM_OTHER];
    const weight_group *group = dense->count > 0 ? dense : &f->experts[FORM_OTHER];

    return is_known_method(f) && json_is_array(json_member(f->quantization, "weight_block_size")) &&
           group->count > 0 && group->first->dtype == CKPT_F8_E4M3 &&
           codes_are_bare(group->first) &&
           say(call, "%s FP8 without scales for the blocks of weight_block_size; the first is '%s'",
               text_count(dense->count + f->experts[FORM_OTHER].count, "weight is", "weights are")
                   .text,
               name_of(group));
}

/* ---- Megatron ---- */

static int is_quantised_for_megatron(rule_call *call)
{
    const loader_facts *f = call->facts;

    return f->quantised > 0 &&
           say(call,
               "%s quantised, and its parameters are BF16: ckpt-convert --dtype "
               "bf16 --experts bf16",
               text_count(f->quantised, "weight is", "weights are").text);
}

static int has_no_family(rule_call *call)
{
    return strcmp(call->facts->in.family, "generic") == 0 &&
           say(call, "no family of models is known for it: names and completeness were not "
               "checked");
}

/* ---- the table ---- */

#define VLLM_V4 "vllm/models/deepseek_v4/"
#define SGLANG_SRT "sglang/srt/"
#define HF_FP8 "transformers/integrations/finegrained_fp8.py"

const loader_rule loader_rules[] = {
    { "layout", SERVERS | MEGATRON, 0, is_no_folder, NULL },
    { "one-file", SERVERS | MEGATRON, 0, is_one_of_many, NULL },
    { "config", SERVERS, 0, has_no_config, NULL },
    { "model-type", VLLM | TRANSFORMERS, 0, has_no_model_type,
      "transformers/models/auto/configuration_auto.py#from_pretrained" },
    { "architectures", VLLM | SGLANG, 0, has_no_architectures,
      "vllm/config/model.py#architectures; " SGLANG_SRT "model_loader/utils.py" },
    { "names", VLLM, 0, has_foreign_names,
      VLLM_V4 "nvidia/model.py#_make_deepseek_v4_weights_mapper" },
    { "names", SGLANG, 0, has_foreign_names,
      SGLANG_SRT "models/deepseek_v4.py#remap_weight_name_to_dpsk_hf_format" },
    { "names", TRANSFORMERS, 0, has_foreign_names,
      "transformers/conversion_mapping.py#deepseek_v4" },
    { "wo-a-name", SGLANG, 0, has_fp8_wo_a_in_sglang_names,
      SGLANG_SRT "models/deepseek_v4.py (wo_a.scale)" },
    { "wo-a", SGLANG, 0, has_some_fp8_wo_a, SGLANG_SRT "models/deepseek_v4.py (wo_a.scale)" },
    { "wo-a-block", SGLANG, 0, has_mxfp8_wo_a, SGLANG_SRT "models/deepseek_v4.py (wo_a.scale)" },
    { "quantization-config", SERVERS | FILES, 0, lacks_quantization_config,
      VLLM_V4 "quant_config.py#override_quantization_method; " SGLANG_SRT
      "layers/quantization/fp8.py#from_config; transformers/quantizers/auto.py" },
    { "stale-quantization-config", SERVERS | FILES, 0, has_stale_quantization_config,
      VLLM_V4 "quant_config.py; " SGLANG_SRT "layers/quantization/fp8.py#create_weights; " HF_FP8
      "#replace_with_fp8_linear" },
    { "quant-method", SERVERS, 0, has_other_method,
      VLLM_V4 "quant_config.py#override_quantization_method; " SGLANG_SRT
      "layers/quantization/fp8.py#from_config" },
    { "not-judged", SERVERS, 1, is_not_judged, NULL },
    { "activation-scheme", SERVERS, 0, lacks_activation_scheme,
      "vllm/model_executor/layers/quantization/fp8.py#from_config; " SGLANG_SRT
      "layers/quantization/fp8.py#from_config; " HF_FP8 },
    { "block", SERVERS | FILES, 0, has_other_block,
      "vllm/model_executor/layers/quantization/fp8.py#from_config; " SGLANG_SRT
      "layers/quantization/fp8.py#from_config; transformers/utils/quantization_config.py" },
    { "plain-modules", SERVERS, 0, has_unlisted_modules,
      "vllm/.../quant_utils.py#is_layer_skipped; " SGLANG_SRT "layers/quantization/fp8.py; "
      "transformers/quantizers/quantizers_utils.py#should_convert_module" },
    { "listed-modules", SERVERS | FILES, 0, has_listed_modules,
      "vllm/.../quant_utils.py#is_layer_skipped; " SGLANG_SRT "layers/quantization/fp8.py; "
      "transformers/quantizers/quantizers_utils.py#should_convert_module" },
    { "experts", VLLM, 0, has_other_experts_for_vllm, VLLM_V4 "quant_config.py#expert_dtype" },
    { "experts", TRANSFORMERS, 0, has_other_experts_for_transformers,
      HF_FP8 "#FP8Experts; models/deepseek_v4/configuration_deepseek_v4.py#__post_init__" },
    { "experts", FILES, 0, contradicts_experts, NULL },
    { "bf16-experts", SGLANG, 1, has_plain_experts_for_sglang,
      SGLANG_SRT "configs/deepseek_v4.py#try_detect_fp4_experts" },
    { "scales", VLLM, 0, has_wrong_scales_for_vllm, VLLM_V4 "quant_config.py#is_scale_e8m0" },
    { "scales", TRANSFORMERS, 0, has_wrong_scales_for_transformers, HF_FP8 "#FP8Linear" },
    { "mxfp8-scales", SGLANG, 0, has_mxfp8_scales_that_are_not_u8,
      SGLANG_SRT "layers/quantization/fp8.py#create_fp8_weight_" },
    { "nvfp4", SERVERS, 0, has_untold_nvfp4,
      VLLM_V4 "quant_config.py#moe_quant_algo; " SGLANG_SRT
      "layers/quantization/modelopt_quant.py#HybridFp8NvFp4Config; " HF_FP8 "#FP8Experts" },
    { "fp4-drafter", VLLM, 1, has_fp4_drafter, "vllm-project/vllm#49133" },
    { "input-scale", VLLM | SGLANG, 0, lacks_input_scales,
      VLLM_V4 "quant_config.py; " SGLANG_SRT "layers/quantization/modelopt_quant.py" },
    { "whole-scales", VLLM | SGLANG, 0, has_wrong_whole_scales,
      "vllm/model_executor/layers/quantization/modelopt.py#w13_weight_scale_2" },
    { "fp4-alone", SERVERS, 0, has_fp4_outside_experts, VLLM_V4 "quant_config.py#expert_dtype" },
    { "fp4", SERVERS, 0, has_fp4_of_another_model,
      "vllm/model_executor/layers/quantization/fp8.py#create_weights; " SGLANG_SRT
      "layers/quantization/fp8.py#create_weights; " HF_FP8 "#FP8Linear" },
    { "unfit-scales", SERVERS | FILES, 0, has_unfit_scales,
      "vllm/model_executor/layers/quantization/fp8.py#from_config; " SGLANG_SRT
      "layers/quantization/fp8.py#from_config; " HF_FP8 },
    { "dtype", MEGATRON, 0, is_quantised_for_megatron,
      "megatron/core/dist_checkpointing/strategies/torch.py" },
    { "family", SERVERS | MEGATRON, 1, has_no_family, NULL },
    { NULL, 0, 0, NULL, NULL }
};
