/* A tokenizer as data. */
#include "vocabulary.h"

#include <string.h>

#include "array.h"

void vocabulary_init(ckpt_vocabulary *v)
{
    memset(v, 0, sizeof *v);
    arena_init(&v->memory);
    for (int i = 0; i < SPECIAL_COUNT; i++)
        v->specials[i] = -1;
    for (int i = 0; i < FLAG_COUNT; i++)
        v->flags[i] = -1;
}

void vocabulary_release(ckpt_vocabulary *v)
{
    arena_release(&v->memory);
    array_free_counted(v->tokens, v->count, sizeof *v->tokens);
    array_free_counted(v->types, v->type_count, sizeof *v->types);
    array_free_counted(v->merges, v->merge_count, sizeof *v->merges);
    vocabulary_init(v);
}

static ckpt_code grow(ckpt_vocabulary *v, ckpt_error *err)
{
    static const char what[] = "a vocabulary";
    int32_t *types = array_room_counted(v->types, v->type_count, sizeof *types, what, err);
    const char **tokens;

    if (types == NULL)
        return CKPT_E_MEMORY;
    v->types = types;
    types[v->type_count++] = TOKEN_UNUSED;
    if ((tokens = array_room_counted(v->tokens, v->count, sizeof *tokens, what, err)) == NULL)
        return CKPT_E_MEMORY;
    v->tokens = tokens;
    tokens[v->count++] = NULL;
    return CKPT_OK;
}

ckpt_code vocabulary_set(ckpt_vocabulary *v, uint64_t id, const char *text, int32_t type,
                         ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (id >= VOCABULARY_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "a token has the number %llu, expected less than %d",
                         (unsigned long long)id, VOCABULARY_MAX);
    while (v->count <= id && code == CKPT_OK)
        code = grow(v, err);
    if (code != CKPT_OK)
        return code;
    if (v->tokens[id] != NULL && strcmp(v->tokens[id], text) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "there are two tokens %llu: '%s' and '%s'",
                         (unsigned long long)id, v->tokens[id], text);
    v->types[id] = type;
    if (v->tokens[id] == NULL)
        v->tokens[id] = arena_strdup(&v->memory, text, strlen(text));
    return v->tokens[id] != NULL ? CKPT_OK
                                 : ckpt_fail_memory(err, "a vocabulary", strlen(text));
}

ckpt_code vocabulary_add_merge(ckpt_vocabulary *v, const char *text, ckpt_error *err)
{
    const char **merges = array_room_counted(v->merges, v->merge_count, sizeof *merges, "merges",
                                             err);

    if (merges == NULL)
        return CKPT_E_MEMORY;
    v->merges = merges;
    if ((merges[v->merge_count] = arena_strdup(&v->memory, text, strlen(text))) == NULL)
        return ckpt_fail_memory(err, "merges", strlen(text));
    v->merge_count++;
    return CKPT_OK;
}

int vocabulary_find(const ckpt_vocabulary *v, const char *text, uint64_t *id)
{
    for (*id = 0; *id < v->count; ++*id)
        if (v->tokens[*id] != NULL && strcmp(v->tokens[*id], text) == 0)
            return 1;
    return 0;
}

const char *vocabulary_special_key(vocabulary_special special)
{
    static const char *const keys[] = { "tokenizer.ggml.bos_token_id",
                                        "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.padding_token_id" };

    return keys[special];
}

const char *vocabulary_flag_key(vocabulary_flag flag)
{
    static const char *const keys[] = { "tokenizer.ggml.add_bos_token",
                                        "tokenizer.ggml.add_eos_token" };

    return keys[flag];
}
