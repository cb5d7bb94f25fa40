/* gguf_tokens.c: keys made from a tokenizer's files, and a tokenizer read from keys. */
#include "gguf_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_files.h"
#include "libckpt/config_number.h"
#include "libckpt/memory.h"

enum { GAP_BYTES = 32 };

/* What stands for an id without a token, as in files of llama.cpp. */
static void write_gap(uint64_t id, char out[GAP_BYTES])
{
    snprintf(out, GAP_BYTES, "[PAD%llu]", (unsigned long long)id);
}

/* ---- to keys ---- */

static void put_tokens(gguf_put *p, const ckpt_vocabulary *v, uint64_t count)
{
    byte_buffer texts = { .bytes = NULL };
    byte_buffer types = { .bytes = NULL };
    byte_buffer merges = { .bytes = NULL };

    for (uint64_t i = 0; i < count; i++) {
        const char *text = i < v->count ? v->tokens[i] : NULL;
        char gap[GAP_BYTES];

        write_gap(i, gap);
        gguf_put_text(&texts, text == NULL ? gap : text);
        gguf_put_number(&types, text == NULL ? TOKEN_UNUSED : (uint32_t)v->types[i],
                        sizeof(int32_t));
    }
    for (uint64_t i = 0; i < v->merge_count; i++)
        gguf_put_text(&merges, v->merges[i]);
    gguf_put_array(p, VOCABULARY_TOKENS_KEY, GGUF_STRING, count, &texts);
    gguf_put_array(p, VOCABULARY_TYPES_KEY, GGUF_I32, count, &types);
    gguf_put_array(p, VOCABULARY_MERGES_KEY, GGUF_STRING, v->merge_count, &merges);
    free(texts.bytes);
    free(types.bytes);
    free(merges.bytes);
}

static void put_settings(gguf_put *p, const ckpt_vocabulary *v)
{
    for (int i = 0; i < SPECIAL_COUNT; i++)
        if (v->specials[i] >= 0)
            gguf_put_u32(p, vocabulary_special_key((vocabulary_special)i),
                         (uint32_t)v->specials[i]);
    for (int i = 0; i < FLAG_COUNT; i++)
        if (v->flags[i] >= 0)
            gguf_put_bool(p, vocabulary_flag_key((vocabulary_flag)i), v->flags[i]);
    if (v->chat_template != NULL)
        gguf_put_string(p, VOCABULARY_TEMPLATE_KEY, v->chat_template);
}

ckpt_code gguf_tokens_put(gguf_put *p, const format_target *target, ckpt_error *err)
{
    tokenizer_place place = { .folder = target->folder, .files = target->files,
                              .config = target->config };
    ckpt_vocabulary v;
    ckpt_code code;

    if (!tokenizer_files_are_there(&place))
        return ckpt_fail(err, CKPT_E_USAGE, "the source has no " TOKENIZER_FILE ", and no reader "
                         "loads a GGUF model without its vocabulary: put it beside the weights, or "
                         "give --without-tokenizer");
    if (!config_number(config_member(target->config, "vocab_size"), &place.vocab_size) ||
        place.vocab_size == 0 || place.vocab_size > VOCABULARY_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%s: 'vocab_size' is not the size of a vocabulary",
                         target->config_name);
    if ((code = tokenizer_files_read(&place, &v, err)) == CKPT_OK) {
        put_tokens(p, &v, place.vocab_size);
        put_settings(p, &v);
    }
    vocabulary_release(&v);
    return code;
}

/* ---- from keys ---- */

typedef struct {
    const gguf_head *head;
    ckpt_vocabulary *out;
    gguf_scan *scan;
    char *word;                    /* room for the longest string of the head */
    size_t word_bytes;
    ckpt_error *err;
} token_reader;

static ckpt_code read_text(token_reader *r, const char *key)
{
    uint64_t size;
    ckpt_code code = gguf_scan_length(r->scan, &size, key);

    if (code != CKPT_OK)
        return code;
    if (size > GGUF_HEAD_BYTES_MAX)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': a string of '%s' has %llu bytes",
                         file_path(r->head->file), key, (unsigned long long)size);
    if (size >= r->word_bytes) {
        char *word = memory_has(size + 1) ? realloc(r->word, (size_t)size + 1) : NULL;

        if (word == NULL)
            return ckpt_fail_memory(r->err, key, size);
        r->word = word;
        r->word_bytes = (size_t)size + 1;
    }
    return gguf_scan_text(r->scan, r->word, (size_t)size, key);
}

/* The key if it is an array of strings; *code is an error if it is anything else. */
static const gguf_key *find_strings(const token_reader *r, const char *name, ckpt_code *code)
{
    const gguf_key *key = gguf_head_find(r->head, name);

    *code = CKPT_OK;
    if (key == NULL || (key->is_array && key->kind == GGUF_STRING && key->count <= VOCABULARY_MAX))
        return key;
    *code = ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' is not a list of at most %d strings",
                      file_path(r->head->file), name, VOCABULARY_MAX);
    return NULL;
}

static ckpt_code read_types(token_reader *r, uint64_t count, uint64_t **out)
{
    const gguf_key *key = gguf_head_find(r->head, VOCABULARY_TYPES_KEY);

    *out = NULL;
    if (key == NULL || !key->is_array || key->kind == GGUF_STRING || key->count != count)
        return CKPT_OK;
    if (!memory_has((count + 1) * sizeof **out) ||
        (*out = calloc((size_t)count + 1, sizeof **out)) == NULL)
        return ckpt_fail_memory(r->err, VOCABULARY_TYPES_KEY, count);
    return gguf_head_numbers(r->head, key, *out, r->err);
}

/* An id that stands for no token is left out, as files say nothing about it. */
static ckpt_code take_token(token_reader *r, uint64_t id, const uint64_t *types)
{
    const int32_t type = types == NULL ? TOKEN_NORMAL : (int32_t)types[id];
    char gap[GAP_BYTES];

    write_gap(id, gap);
    if ((types == NULL || type == TOKEN_UNUSED) && strcmp(r->word, gap) == 0)
        return CKPT_OK;
    return vocabulary_set(r->out, id, r->word, type, r->err);
}

static ckpt_code read_tokens(token_reader *r)
{
    ckpt_code code;
    const gguf_key *key = find_strings(r, VOCABULARY_TOKENS_KEY, &code);
    uint64_t *types = NULL;

    if (key == NULL || (code = read_types(r, key->count, &types)) != CKPT_OK) {
        free(types);
        return code;
    }
    gguf_scan_begin(r->scan, r->head->file, key->offset, r->err);
    for (uint64_t i = 0; i < key->count && code == CKPT_OK; i++)
        if ((code = read_text(r, key->name)) == CKPT_OK)
            code = take_token(r, i, types);
    free(types);
    return code;
}

static ckpt_code read_merges(token_reader *r)
{
    ckpt_code code;
    const gguf_key *key = find_strings(r, VOCABULARY_MERGES_KEY, &code);

    if (key == NULL)
        return code;
    gguf_scan_begin(r->scan, r->head->file, key->offset, r->err);
    for (uint64_t i = 0; i < key->count && code == CKPT_OK; i++)
        if ((code = read_text(r, key->name)) == CKPT_OK)
            code = vocabulary_add_merge(r->out, r->word, r->err);
    return code;
}

static ckpt_code read_template(token_reader *r)
{
    const gguf_key *key = gguf_head_find(r->head, VOCABULARY_TEMPLATE_KEY);
    ckpt_code code;

    if (key == NULL || key->is_array || key->kind != GGUF_STRING)
        return CKPT_OK;
    gguf_scan_begin(r->scan, r->head->file, key->offset, r->err);
    if ((code = read_text(r, key->name)) != CKPT_OK)
        return code;
    r->out->chat_template = arena_strdup(&r->out->memory, r->word, strlen(r->word));
    return r->out->chat_template != NULL ? CKPT_OK
                                         : ckpt_fail_memory(r->err, key->name, strlen(r->word));
}

static void read_settings(token_reader *r)
{
    uint64_t id;

    for (int i = 0; i < SPECIAL_COUNT; i++)
        if (gguf_head_u64(r->head, vocabulary_special_key((vocabulary_special)i), &id) &&
            id < VOCABULARY_MAX)
            r->out->specials[i] = (int64_t)id;
    for (int i = 0; i < FLAG_COUNT; i++) {
        const gguf_key *key = gguf_head_find(r->head, vocabulary_flag_key((vocabulary_flag)i));

        if (key != NULL && !key->is_array && key->kind == GGUF_BOOL)
            r->out->flags[i] = (int)key->number;
    }
}

ckpt_code gguf_tokens_read(const gguf_head *head, ckpt_vocabulary *out, ckpt_error *err)
{
    token_reader r = { .head = head, .out = out, .err = err };
    ckpt_code code;

    vocabulary_init(out);
    if ((r.scan = malloc(sizeof *r.scan)) == NULL)
        return ckpt_fail_memory(err, "a tokenizer", sizeof *r.scan);
    if ((code = read_tokens(&r)) == CKPT_OK && (code = read_merges(&r)) == CKPT_OK &&
        (code = read_template(&r)) == CKPT_OK)
        read_settings(&r);
    free(r.word);
    free(r.scan);
    return code;
}
