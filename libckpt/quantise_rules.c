/* The table of rules, and how they are found. */
#include <limits.h>
#include <string.h>

#include "encoding.h"
#include "nearest.h"
#include "quantise.h"

#define FP8_128 .codes = CKPT_F8_E4M3, .block_rows = FP8_BLOCK, .block_cols = FP8_BLOCK
#define MXFP8 .codes = CKPT_F8_E4M3, .block_rows = 1, .block_cols = 32,                            \
              .scale_dtype = CKPT_F8_E8M0, .powers_of_two = 1
#define FP4_32 .codes = CKPT_F4, .block_rows = 1, .block_cols = FP4_GROUP,                         \
               .scale_dtype = CKPT_F8_E8M0, .powers_of_two = 1
#define NVFP4 .codes = CKPT_F4, .block_rows = 1, .block_cols = 16, .scale_dtype = CKPT_F8_E4M3,    \
              .has_tensor_scale = 1

static const quantise_rule rules[] = {
    { "fp8-b128-f32", "fp8-f32", FP8_128, .scale_dtype = CKPT_F32, .scales = SCALE_FP8_QUOTIENT },
    { "fp8-b128-f32-deepseek", NULL, FP8_128, .scale_dtype = CKPT_F32,
      .scales = SCALE_FP8_PRODUCT },
    { "fp8-b128-ue8m0", "fp8-ue8m0", FP8_128, .scale_dtype = CKPT_F8_E8M0,
      .scales = SCALE_FP8_CEIL, .powers_of_two = 1 },
    { "fp4-b32-deepseek", "fp4", FP4_32, .scales = SCALE_FP4_CEIL },
    { "fp4-b32-deepseek+canonical", NULL, FP4_32, .scales = SCALE_FP4_CEIL, .keeps_exact = 1 },
    { "fp4-b32-floor", "mxfp4", FP4_32, .scales = SCALE_FP4_FLOOR },
    { "fp4-b32-even", NULL, FP4_32, .scales = SCALE_FP4_EVEN },
    { "mxfp8-rceil", "mxfp8", MXFP8, .scales = SCALE_MXFP8_CEIL },
    { "mxfp8-floor", NULL, MXFP8, .scales = SCALE_MXFP8_FLOOR },
    { "nvfp4-modelopt", "nvfp4", NVFP4, .scales = SCALE_NVFP4 },
    { "nvfp4-cast", "nvfp4-exact", NVFP4, .from_fp4 = 1 },
    { "fp8-channel", NULL, .codes = CKPT_F8_E4M3, .block_rows = 1,
      .block_cols = ENCODING_WHOLE_ROW, .scale_dtype = CKPT_F32, .scales = SCALE_FP8_QUOTIENT },
    { "q8_0", NULL, .codes = CKPT_I8, .block_rows = 1, .block_cols = 32, .scale_dtype = CKPT_F16,
      .scales = SCALE_Q8_0, .keeps_f32 = 1, .takes_fp8 = 1 },
};

const quantise_rule *quantise_rule_at(size_t i)
{
    return i < sizeof rules / sizeof rules[0] ? &rules[i] : NULL;
}

const quantise_rule *quantise_rule_find(const char *name)
{
    const quantise_rule *rule;

    for (size_t i = 0; (rule = quantise_rule_at(i)) != NULL; i++)
        if (strcmp(rule->name, name) == 0 ||
            (rule->short_name != NULL && strcmp(rule->short_name, name) == 0))
            return rule;
    return NULL;
}

static void note_nearer(const char *known, const char *name, const char **nearest,
                        unsigned *distance)
{
    const unsigned d = known == NULL ? UINT_MAX : name_distance(known, name);

    if (d < *distance) {
        *nearest = known;
        *distance = d;
    }
}

const char *quantise_rule_nearest(const char *name)
{
    const char *nearest = rules[0].name;
    unsigned distance = UINT_MAX;
    const quantise_rule *rule;

    for (size_t i = 0; name[0] != '\0' && (rule = quantise_rule_at(i)) != NULL; i++) {
        const char *usual = rule->short_name == NULL ? rule->name : rule->short_name;

        if (strncmp(usual, name, strlen(name)) == 0)
            return usual;
    }
    for (size_t i = 0; (rule = quantise_rule_at(i)) != NULL; i++) {
        note_nearer(rule->name, name, &nearest, &distance);
        note_nearer(rule->short_name, name, &nearest, &distance);
    }
    return nearest;
}

int quantise_rule_fits(const quantise_rule *rule, uint64_t cols)
{
    return rule->block_cols >= FP8_BLOCK || cols % rule->block_cols == 0;
}

/* 2688 = 6 * 448: the largest code under the largest block scale. */
float quantise_tensor_scale(const quantise_rule *rule, float amax)
{
    return rule->has_tensor_scale && amax > 0 ? amax / 2688.0f : 1.0f;
}
