/* Tokenizers in keys of GGUF files, compared with each other and with files. */
#include "tokenizer_compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libckpt/checkpoint.h"

/* Differences are named by the key of a GGUF file that has the value, and the first place in it. */
static ckpt_code add_at(companion_comparison *out, const char *key, uint64_t i, ckpt_error *err)
{
    const companion_difference d = { .kind = COMPANION_CHANGED, .role = CERTIFICATE_TOKENIZER,
                                     .file = key };
    char member[32];

    snprintf(member, sizeof member, "%" PRIu64, i);
    return companions_add(out, &d, member, err);
}

static ckpt_code add_key(companion_comparison *out, certificate_role role, const char *key,
                         ckpt_error *err)
{
    const companion_difference d = { .kind = COMPANION_CHANGED, .role = role, .file = key };

    return companions_add(out, &d, NULL, err);
}

/* The text of item i; NULL behind the last one, and for an id without a token. */
static const char *text_at(const char *const *texts, uint64_t count, uint64_t i)
{
    return i < count ? texts[i] : NULL;
}

/* The first item that differs; the larger count if none does. */
static uint64_t first_change(const char *const *a, uint64_t a_count, const char *const *b,
                             uint64_t b_count)
{
    uint64_t i = 0;

    for (; i < a_count || i < b_count; i++) {
        const char *left = text_at(a, a_count, i);
        const char *right = text_at(b, b_count, i);

        if ((left == NULL) != (right == NULL) || (left != NULL && strcmp(left, right) != 0))
            break;
    }
    return i;
}

static ckpt_code compare_lists(const ckpt_vocabulary *a, const ckpt_vocabulary *b,
                               companion_comparison *out, ckpt_error *err)
{
    const uint64_t token = first_change(a->tokens, a->count, b->tokens, b->count);
    uint64_t merge;
    ckpt_code code = CKPT_OK;

    if (token < a->count || token < b->count)
        code = add_at(out, VOCABULARY_TOKENS_KEY, token, err);
    if (code != CKPT_OK || a->merge_count == 0 || b->merge_count == 0)
        return code;
    merge = first_change(a->merges, a->merge_count, b->merges, b->merge_count);
    return merge < a->merge_count || merge < b->merge_count
               ? add_at(out, VOCABULARY_MERGES_KEY, merge, err) : CKPT_OK;
}

static ckpt_code compare_settings(const ckpt_vocabulary *a, const ckpt_vocabulary *b,
                                  companion_comparison *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < SPECIAL_COUNT && code == CKPT_OK; i++)
        if (a->specials[i] >= 0 && b->specials[i] >= 0 && a->specials[i] != b->specials[i])
            code = add_key(out, CERTIFICATE_TOKENIZER,
                           vocabulary_special_key((vocabulary_special)i), err);
    for (int i = 0; i < FLAG_COUNT && code == CKPT_OK; i++)
        if (a->flags[i] >= 0 && b->flags[i] >= 0 && a->flags[i] != b->flags[i])
            code = add_key(out, CERTIFICATE_TOKENIZER, vocabulary_flag_key((vocabulary_flag)i),
                           err);
    if (code == CKPT_OK && a->chat_template != NULL && b->chat_template != NULL) {
        out->compared[CERTIFICATE_TEMPLATE]++;
        if (strcmp(a->chat_template, b->chat_template) != 0)
            code = add_key(out, CERTIFICATE_TEMPLATE, VOCABULARY_TEMPLATE_KEY, err);
    }
    return code;
}

static ckpt_code compare_both(const ckpt_vocabulary *a, const ckpt_vocabulary *b,
                              companion_comparison *out, ckpt_error *err)
{
    const ckpt_code code = compare_lists(a, b, out, err);

    out->compared[CERTIFICATE_TOKENIZER]++;
    return code == CKPT_OK ? compare_settings(a, b, out, err) : code;
}

/* Only one side has a tokenizer: report it, unless its file is reported already. */
static ckpt_code add_alone(companion_kind kind, checkpoint_tokenizer place,
                           companion_comparison *out, ckpt_error *err)
{
    const companion_difference d = { .kind = kind, .role = CERTIFICATE_TOKENIZER,
                                     .file = place == TOKENIZER_IN_WEIGHTS ? VOCABULARY_TOKENS_KEY
                                                                           : "tokenizer.json" };

    for (size_t i = 0; i < out->count; i++)
        if (strcmp(out->differing[i].file, d.file) == 0)
            return CKPT_OK;
    return companions_add(out, &d, NULL, err);
}

ckpt_code tokenizers_compare(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                             companion_comparison *out, ckpt_error *err)
{
    const checkpoint_tokenizer places[] = { checkpoint_tokenizer_of(a),
                                            checkpoint_tokenizer_of(b) };
    ckpt_vocabulary sides[2];
    ckpt_error told;
    ckpt_code code;

    if (places[0] == TOKENIZER_NONE && places[1] == TOKENIZER_NONE)
        return CKPT_OK;
    if (places[1] == TOKENIZER_NONE)
        return add_alone(COMPANION_MISSING, places[0], out, err);
    if (places[0] == TOKENIZER_NONE)
        return add_alone(COMPANION_EXTRA, places[1], out, err);
    if (places[0] != TOKENIZER_IN_WEIGHTS && places[1] != TOKENIZER_IN_WEIGHTS)
        return CKPT_OK;                    /* their files were compared */
    vocabulary_init(&sides[1]);
    if ((code = checkpoint_read_vocabulary(a, &sides[0], &told)) == CKPT_OK &&
        (code = checkpoint_read_vocabulary(b, &sides[1], &told)) == CKPT_OK)
        code = compare_both(&sides[0], &sides[1], out, &told);
    vocabulary_release(&sides[0]);
    vocabulary_release(&sides[1]);
    if (code == CKPT_OK)
        return code;
    if (code != CKPT_E_FORMAT)
        return ckpt_fail(err, code, "%s", told.text);
    return companions_note(out, err, "the tokenizers were not compared: %s", told.text);
}
