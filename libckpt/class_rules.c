/* Parses and looks up the quantising rules of classes of weights. */
#include "class_rules.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "digest.h"
#include "nearest.h"
#include "tensor_class.h"

enum { WORD_BYTES = 64 };

static const char *const class_names[WEIGHT_CLASS_COUNT] = {
    "experts", "shared", "attention", "mtp-experts", "mtp", "rest"
};

/* ---- classes ---- */

static weight_class class_in_block(const char *name)
{
    switch (tensor_class_of(name)) {
    case TENSOR_EXPERT:
        return WEIGHT_EXPERTS;
    case TENSOR_SHARED_EXPERT:
        return WEIGHT_SHARED;
    case TENSOR_ATTENTION:
        return WEIGHT_ATTENTION;
    default:
        return WEIGHT_REST;
    }
}

weight_class weight_class_of(const char *name)
{
    const weight_class class = class_in_block(name);

    if (!digest_is_mtp(name))
        return class;
    return class == WEIGHT_EXPERTS ? WEIGHT_MTP_EXPERTS : WEIGHT_MTP;
}

const char *weight_class_name(weight_class class)
{
    return class_names[class];
}

/* The named class that decides for this weight; WEIGHT_CLASS_COUNT: none is named. */
static int find_named(const char *name, const uint8_t is_named[WEIGHT_CLASS_COUNT])
{
    static const weight_class orders[][4] = {
        [WEIGHT_EXPERTS] = { WEIGHT_MTP_EXPERTS, WEIGHT_MTP, WEIGHT_EXPERTS, WEIGHT_REST },
        [WEIGHT_SHARED] = { WEIGHT_MTP, WEIGHT_SHARED, WEIGHT_REST },
        [WEIGHT_ATTENTION] = { WEIGHT_MTP, WEIGHT_ATTENTION, WEIGHT_REST },
        [WEIGHT_REST] = { WEIGHT_MTP, WEIGHT_REST },
    };
    const weight_class *class = orders[class_in_block(name)];

    for (;; class++) {
        const int is_of_mtp = *class == WEIGHT_MTP_EXPERTS || *class == WEIGHT_MTP;

        if (is_named[*class] && (digest_is_mtp(name) || !is_of_mtp))
            return *class;
        if (*class == WEIGHT_REST)
            return WEIGHT_CLASS_COUNT;
    }
}

const quantise_rule *class_rules_find(const class_rules *rules, const char *name)
{
    const int class = find_named(name, rules->is_named);

    return class == WEIGHT_CLASS_COUNT ? NULL : rules->rules[class];
}

double class_limits_find(const class_limits *limits, const char *name)
{
    const int class = find_named(name, limits->is_named);

    return class == WEIGHT_CLASS_COUNT ? INFINITY : limits->most[class];
}

/* "rest" may have no tensors: a rule without a class is stored as "rest", too. */
static const char *find_idle(const uint8_t is_asked[WEIGHT_CLASS_COUNT],
                             const uint8_t is_used[WEIGHT_CLASS_COUNT + 1])
{
    for (int class = 0; class < WEIGHT_REST; class++)
        if (is_asked[class] && !is_used[class])
            return class_names[class];
    return NULL;
}

const char *class_rules_idle(const class_rules *rules, const ckpt_catalog *catalog)
{
    uint8_t is_asked[WEIGHT_CLASS_COUNT];
    uint8_t is_used[WEIGHT_CLASS_COUNT + 1] = { 0 };

    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++)
        is_asked[class] = rules->rules[class] != NULL &&
                          (rules->is_asked[class] ||
                           (class == WEIGHT_EXPERTS && rules->preset != NULL &&
                            rules->is_named[class]));
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        is_used[find_named(ckpt_catalog_at(catalog, i)->name, rules->is_named)] = 1;
    return find_idle(is_asked, is_used);
}

const char *class_limits_idle(const class_limits *limits, const ckpt_catalog *catalog,
                              const quantise_rule *const *rules)
{
    uint8_t is_used[WEIGHT_CLASS_COUNT + 1] = { 0 };

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        if (rules[i] != NULL)
            is_used[find_named(ckpt_catalog_at(catalog, i)->name, limits->is_named)] = 1;
    return find_idle(limits->is_named, is_used);
}

/* ---- words ---- */

/* The rules of releases. Weights that are not FP4 get nvfp4, not nvfp4-exact: plan_quantise. */
static const struct {
    const char *name;
    const char *rules;
    ckpt_dtype scale_dtype;
} presets[] = {
    { "v4-release", "fp8-ue8m0,experts=fp4", CKPT_F8_E8M0 },
    { "v4-vllm-fp8", "fp8-ue8m0", CKPT_F32 },
    { "v4-nvfp4", "fp8-ue8m0,experts=nvfp4-exact,mtp-experts=fp4", CKPT_F8_E8M0 },
    { "v3-release", "fp8-f32", CKPT_F32 },
};

/* 1 for words that other programs have for "leave it as it is". */
static int means_keep(const char *word)
{
    static const char *const words[] = { "none", "no", "off", "skip", "false", "bf16", "copy" };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(words[i], word) == 0)
            return 1;
    return 0;
}

/* 1 for the other types of llama.cpp's quantiser, as Q4_K_M, IQ2_XXS and TQ1_0. */
static int is_ggml_type(const char *word)
{
    const char *q = strchr("iItT", word[0]) != NULL ? word + 1 : word;

    return (*q == 'q' || *q == 'Q') && q[1] >= '1' && q[1] <= '6';
}

enum { PRESET_COUNT = sizeof presets / sizeof *presets };

const char *class_rules_preset_at(size_t i)
{
    return i < PRESET_COUNT ? presets[i].name : NULL;
}

/* The number of the preset that is called so, or PRESET_COUNT. */
static size_t find_preset(const char *word, size_t length)
{
    size_t i = 0;

    while (i < PRESET_COUNT && (strlen(presets[i].name) != length ||
                                strncmp(presets[i].name, word, length) != 0))
        i++;
    return i;
}

int class_rules_is_preset(const char *word)
{
    return find_preset(word, strlen(word)) < PRESET_COUNT;
}

static unsigned distance_to(const char *name, const char *word)
{
    return strncmp(name, word, strlen(word)) == 0 ? 0 : name_distance(name, word);
}

/* A word that a rule or a preset begins with was meant as that one: "fp8" is no slip of "fp4". */
static const char *find_nearest(const char *word)
{
    const char *nearest = quantise_rule_nearest(word);

    for (size_t i = 0; i < PRESET_COUNT; i++)
        if (distance_to(presets[i].name, word) < distance_to(nearest, word))
            nearest = presets[i].name;
    return nearest;
}

/* How to parse a comma-separated list of "CLASS=WORD" and "WORD": `set` stores a word in `out`. */
typedef struct {
    const char *option;            /* "--quantize" */
    ckpt_code (*set)(void *out, weight_class class, const char *word, ckpt_error *err);
    uint8_t *is_named;             /* indexed by class */
    void *out;
} item_list;

static weight_class find_class(const char *word, size_t length)
{
    int class = 0;

    while (class < WEIGHT_CLASS_COUNT && (strlen(class_names[class]) != length ||
                                          strncmp(class_names[class], word, length) != 0))
        class++;
    return (weight_class)class;
}

static ckpt_code take_item(const item_list *list, const char *item, size_t length, ckpt_error *err)
{
    const char *equals = memchr(item, '=', length);
    const size_t before = equals == NULL ? 0 : (size_t)(equals - item) + 1;
    const weight_class class = equals == NULL ? WEIGHT_REST : find_class(item, before - 1);
    char word[WORD_BYTES];

    if (class == WEIGHT_CLASS_COUNT)
        return ckpt_fail(err, CKPT_E_USAGE, "%s: there is no class '%.*s'; expected experts, "
                         "shared, attention, mtp-experts, mtp or rest", list->option,
                         (int)(before < WORD_BYTES ? before - 1 : WORD_BYTES), item);
    if (length == before)
        return ckpt_fail(err, CKPT_E_USAGE, "%s: something is missing %s", list->option,
                         equals == NULL ? "between commas" : "after '='");
    snprintf(word, sizeof word, "%.*s",
             (int)(length - before < WORD_BYTES ? length - before : WORD_BYTES - 1),
             item + before);
    if (list->is_named[class] && equals == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "%s: '%s' is a second value for all that no class is "
                         "given for; write CLASS=%s if it is meant for a class", list->option,
                         word, word);
    if (list->is_named[class])
        return ckpt_fail(err, CKPT_E_USAGE, "%s: '%s' is a second value for the class %s; give "
                         "each class once", list->option, word, class_names[class]);
    list->is_named[class] = 1;
    return list->set(list->out, class, word, err);
}

static ckpt_code take_items(const item_list *list, const char *text, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (const char *item = text; item != NULL && code == CKPT_OK;) {
        const size_t length = strcspn(item, ",");

        code = take_item(list, item, length, err);
        item = item[length] == ',' ? item + length + 1 : NULL;
    }
    return code;
}

static ckpt_code set_rule(void *out, weight_class class, const char *word, ckpt_error *err)
{
    const quantise_rule *rule = quantise_rule_find(word);

    if (rule == NULL && means_keep(word))
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize: there is no rule '%s'; keep leaves "
                         "weights as they are", word);
    if (rule == NULL && is_ggml_type(word))
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize: there is no rule '%s'; of the types of "
                         "llama.cpp there is q8_0: llama-quantize makes the others of the GGUF "
                         "file that ckpt-shard writes", word);
    if (class_rules_is_preset(word))
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize: '%s' is the rules of all classes: it "
                         "comes first, and only rules of classes after it", word);
    if (rule == NULL && strcmp(word, "keep") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize: there is no rule '%s'; the nearest is "
                         "'%s', and ckpt(7) lists all", word, find_nearest(word));
    ((class_rules *)out)->rules[class] = rule;
    return CKPT_OK;
}

static ckpt_code take_rules(const char *text, class_rules *out, ckpt_error *err)
{
    return take_items(&(item_list){ "--quantize", set_rule, out->is_named, out }, text, err);
}

static ckpt_code set_limit(void *out, weight_class class, const char *word, ckpt_error *err)
{
    char *end;
    const double most = strtod(word, &end);

    if (*end != '\0' || !(most >= 0 && most < INFINITY))
        return ckpt_fail(err, CKPT_E_USAGE, "--max-relf: '%s' is not a number of 0 or more", word);
    ((class_limits *)out)->most[class] = most;
    return CKPT_OK;
}

ckpt_code class_limits_parse(const char *text, class_limits *out, ckpt_error *err)
{
    *out = (class_limits){ .is_given = 1 };
    return take_items(&(item_list){ "--max-relf", set_limit, out->is_named, out }, text, err);
}

ckpt_code class_rules_parse(const char *text, class_rules *out, ckpt_error *err)
{
    const size_t length = strcspn(text, ",");
    const size_t i = find_preset(text, length);
    class_rules preset = { .preset = NULL };
    ckpt_code code = CKPT_OK;

    *out = preset;
    if (i < PRESET_COUNT) {
        preset.preset = presets[i].name;
        preset.scale_dtype = presets[i].scale_dtype;
        code = take_rules(presets[i].rules, &preset, err);
    }
    if (code == CKPT_OK && (preset.preset == NULL || text[length] == ','))
        code = take_rules(preset.preset == NULL ? text : text + length + 1, out, err);
    memcpy(out->is_asked, out->is_named, sizeof out->is_asked);
    if (code != CKPT_OK || preset.preset == NULL)
        return code;
    memcpy(preset.is_asked, out->is_asked, sizeof preset.is_asked);
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++)
        if (out->is_named[class]) {
            preset.rules[class] = out->rules[class];
            preset.is_named[class] = 1;
        }
    *out = preset;
    return CKPT_OK;
}
