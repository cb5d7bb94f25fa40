/* Answers questions about a family: does it match a config, which members and names it has. */
#include "family.h"

#include <string.h>

#include "config_number.h"
#include "family_text.h"

#define MODEL_TYPE "model_type"

int family_encoding_find(const char *word, family_encoding *out)
{
    static const struct {
        const char *word;
        family_encoding encoding;
    } words[] = {
        { "f32", { CKPT_F32, ENCODING_COUNT, 0, 0 } },
        { "bf16", { CKPT_BF16, ENCODING_COUNT, 0, 0 } },
        { "linear", { CKPT_BF16, ENCODING_COUNT, 0, 1 } },
        { "f16", { CKPT_F16, ENCODING_COUNT, 0, 0 } },
        { "i64", { CKPT_I64, ENCODING_COUNT, 0, 0 } },
        { "i32", { CKPT_I32, ENCODING_COUNT, 0, 0 } },
        { "fp8", { CKPT_NONE, ENCODING_FP8_128, 1, 1 } },
        { "fp8:128x128", { CKPT_NONE, ENCODING_FP8_128, 0, 1 } },
        { "fp8:32x32", { CKPT_NONE, ENCODING_FP8_32, 0, 1 } },
        { "fp8:1x32", { CKPT_NONE, ENCODING_FP8_1X32, 0, 1 } },
        { "fp8:row", { CKPT_NONE, ENCODING_FP8_ROW, 0, 1 } },
        { "fp4", { CKPT_NONE, ENCODING_FP4_32, 0, 1 } },
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].word, word) == 0) {
            *out = words[i].encoding;
            return 1;
        }
    return 0;
}

const char *family_name(const ckpt_family *family)
{
    return family->name;
}

static int is_listed(const char *value, const char *const *list, uint32_t count)
{
    uint32_t i = 0;

    while (i < count && (value == NULL || strcmp(value, list[i]) != 0))
        i++;
    return i < count;
}

/* Do all detect lines hold? In a part of a config the values of `language` lines count, too. */
static int is_detected(const ckpt_family *family, const json_value *config, int is_part)
{
    for (uint32_t i = 0; i < family->detect_count; i++) {
        const char *name = family->detects[i].member;
        const json_value *member = config_member(config, name);
        const char *value = json_string(member);

        if (member != NULL && family->detects[i].value_count == 0)
            continue;
        if (!is_listed(value, family->detects[i].values, family->detects[i].value_count) &&
            !(is_part && strcmp(name, MODEL_TYPE) == 0 &&
              is_listed(value, family->language, family->language_count)))
            return 0;
    }
    return 1;
}

int family_is_part(const ckpt_family *family, const json_value *config)
{
    for (int i = 0; i < CONFIG_LANGUAGE_PARTS; i++) {
        const json_value *part = config_member_here(config, config_language_parts[i]);

        if (json_is_object(part) && is_detected(family, part, 1))
            return 1;
    }
    return 0;
}

/* The naming style of the `inside` line for this config, or NULL. */
static const char *find_inside(const ckpt_family *family, const json_value *config)
{
    const char *type = json_string(config_member_here(config, MODEL_TYPE));

    for (uint32_t i = 0; i < family->inside_count; i++)
        if (is_listed(type, family->insides[i].types, family->insides[i].type_count))
            return family_is_part(family, config) ? family->insides[i].names : NULL;
    return NULL;
}

int family_matches(const ckpt_family *family, const json_value *config)
{
    return is_detected(family, config, 0) || find_inside(family, config) != NULL;
}

const char *family_names(const ckpt_family *family, const json_value *config)
{
    const char *names = family == NULL ? NULL : find_inside(family, config);

    return names == NULL ? FAMILY_NATIVE : names;
}

unsigned family_fp8(const ckpt_family *family)
{
    unsigned all = 0;

    if (family->fp8 == ENCODING_COUNT)
        return 0;
    for (uint32_t i = 0; i < family->line_count; i++) {
        const family_line *line = &family->lines[i];
        const encoding_id id = line->encoding.scaled;

        if ((line->kind == LINE_TENSOR || line->kind == LINE_OPTIONAL) &&
            line->encoding.dtype == CKPT_NONE && id != ENCODING_FP4_32 &&
            !line->encoding.is_usual)
            all |= 1u << id;
    }
    return all | 1u << family->fp8;
}

const char *family_expert_member(const ckpt_family *family)
{
    return family->expert_member;
}

int family_has_int4(const ckpt_family *family, const json_value *config)
{
    const char *word = family->int4_member == NULL
                           ? NULL
                           : json_string(config_member(config, family->int4_member));

    return word != NULL && strcmp(word, family->int4_word) == 0;
}

int family_keeps_others(const ckpt_family *family)
{
    return family->keeps_others;
}

int family_asks(const ckpt_family *family, const char *member)
{
    for (uint32_t i = 0; i < family->line_count; i++) {
        const family_line *line = &family->lines[i];

        if ((line->kind == LINE_LET_MEMBER || line->kind == LINE_LIST ||
             line->kind == LINE_COUNT) &&
            strcmp(line->word, member) == 0)
            return 1;
    }
    return 0;
}

/* 1 when the name begins with the prefix, with numbers in place of the indexes. */
static int has_prefix(const family_template *prefix, const char *name)
{
    for (uint32_t i = 0; i < prefix->piece_count; i++) {
        const family_piece *piece = &prefix->pieces[i];
        size_t digits;

        if (strncmp(name, piece->literal, piece->literal_bytes) != 0)
            return 0;
        name += piece->literal_bytes;
        digits = strspn(name, "0123456789");
        if (piece->index >= 0 && digits == 0)
            return 0;
        name += piece->index >= 0 ? digits : 0;
    }
    return 1;
}

int family_may_lack(const ckpt_family *family, const char *name)
{
    for (uint32_t i = 0; i < family->line_count; i++)
        if (family->lines[i].kind == LINE_BLOCK && family->lines[i].may_lack &&
            has_prefix(&family->lines[i].name, name))
            return 1;
    return 0;
}
