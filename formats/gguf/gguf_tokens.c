/*
 * gguf_tokens.c: makes keys from a tokenizer's files. tokenizer.json is read token by token: a tree
 * of its hundred thousand strings would need more memory than the keys.
 */
#include "gguf_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/config_number.h"
#include "libckpt/json_scan.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"

#define TOKENIZER_FILE "tokenizer.json"
#define TOKENIZER_CONFIG_FILE "tokenizer_config.json"
#define TEMPLATE_FILE "chat_template.jinja"

enum { TOKENIZER_BYTES_MAX = 1 << 28, VOCABULARY_MAX = 1 << 24, TEXT_BYTES_MAX = 1 << 20 };

/* As llama.cpp numbers them. */
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };

typedef struct {
    folder_text text;
    json_scanner scan;
    arena memory;                  /* texts of tokens */
    const char **tokens;           /* by id; NULL: none */
    int32_t *types;
    uint64_t count;                /* of the vocabulary */
    byte_buffer merges;
    uint64_t merge_count;
    char *word;                    /* room for the longest string of the text */
    ckpt_error *err;
} vocabulary;

static ckpt_code fail_text(const vocabulary *v, const char *what)
{
    return ckpt_fail(v->err, CKPT_E_FORMAT, "'%s': %s", v->text.path, what);
}

static int has_file(const format_target *target, const char *name)
{
    return target->files != NULL && file_list_has(target->files, name);
}

/* ---- tokens ---- */

static ckpt_code add_token(vocabulary *v, uint64_t id, const char *text, int32_t type)
{
    if (id >= v->count)
        return ckpt_fail(v->err, CKPT_E_USAGE, "'%s' has a token %llu, but vocab_size of "
                         "config.json is %llu", v->text.path, (unsigned long long)id,
                         (unsigned long long)v->count);
    if (v->tokens[id] != NULL && strcmp(v->tokens[id], text) != 0)
        return ckpt_fail(v->err, CKPT_E_FORMAT, "'%s' has two tokens %llu: '%s' and '%s'",
                         v->text.path, (unsigned long long)id, v->tokens[id], text);
    v->types[id] = type;
    if (v->tokens[id] == NULL)
        v->tokens[id] = arena_strdup(&v->memory, text, strlen(text));
    return v->tokens[id] != NULL ? CKPT_OK : ckpt_fail_memory(v->err, v->text.path, strlen(text));
}

/* Read the members of model.vocab, after its opening bracket. */
static ckpt_code read_vocab(vocabulary *v)
{
    json_token token;
    uint64_t id;
    ckpt_code code;

    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_KEY) {
        json_token_decode(v->text.bytes, &token, v->word);
        if ((code = json_scan_next(&v->scan, &token, v->err)) != CKPT_OK)
            return code;
        if (!json_token_u64(v->text.bytes, &token, &id))
            return fail_text(v, "a token of model.vocab has no number");
        if ((code = add_token(v, id, v->word, TOKEN_NORMAL)) != CKPT_OK)
            return code;
    }
    return code;
}

/* "a b", or ["a", "b"]. */
static ckpt_code read_merges(vocabulary *v)
{
    json_token token;
    ckpt_code code;

    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind != JSON_SCAN_ARRAY_END) {
        size_t length = 0;

        if (token.kind == JSON_SCAN_STRING) {
            json_token_decode(v->text.bytes, &token, v->word);
        } else {
            for (int half = 0; half < 2 && code == CKPT_OK; half++) {
                if ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
                    token.kind != JSON_SCAN_STRING)
                    return fail_text(v, "a merge is not two strings");
                if (code == CKPT_OK)
                    length += json_token_decode(v->text.bytes, &token, v->word + length);
                if (half == 0)
                    v->word[length++] = ' ';
            }
            if (code == CKPT_OK && (code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
                token.kind != JSON_SCAN_ARRAY_END)
                return fail_text(v, "a merge is not two strings");
            if (code != CKPT_OK)
                return code;
        }
        gguf_put_text(&v->merges, v->word);
        v->merge_count++;
    }
    return code;
}

/* Read {"id": N, "content": TEXT, "special": BOOL, ...}, after its opening bracket. */
static ckpt_code read_added(vocabulary *v)
{
    uint64_t id = UINT64_MAX;
    int is_special = 0;
    int has_text = 0;
    json_token token;
    ckpt_code code;

    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_KEY) {
        const json_token key = token;
        json_token value;

        if ((code = json_scan_value(&v->scan, &value, v->err)) != CKPT_OK)
            return code;
        if (json_token_equals(v->text.bytes, &key, "id") &&
            !json_token_u64(v->text.bytes, &value, &id))
            return fail_text(v, "an added token has no number");
        if (json_token_equals(v->text.bytes, &key, "special"))
            is_special = value.kind == JSON_SCAN_TRUE;
        if (json_token_equals(v->text.bytes, &key, "content") && value.kind == JSON_SCAN_STRING) {
            json_token_decode(v->text.bytes, &value, v->word);
            has_text = 1;
        }
    }
    if (code != CKPT_OK)
        return code;
    if (!has_text || id == UINT64_MAX)
        return fail_text(v, "an added token lacks id or content");
    return add_token(v, id, v->word, is_special ? TOKEN_CONTROL : TOKEN_USER_DEFINED);
}

static ckpt_code read_all_added(vocabulary *v)
{
    json_token token;
    ckpt_code code;

    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_OBJECT)
        if ((code = read_added(v)) != CKPT_OK)
            return code;
    return code;
}

/* ---- tokenizer.json ---- */

/* Read the value of the key that was just read; `handler` reads its items. */
static ckpt_code enter(vocabulary *v, json_token_kind kind, ckpt_code (*handler)(vocabulary *v))
{
    json_token token;
    const ckpt_code code = json_scan_next(&v->scan, &token, v->err);

    if (code != CKPT_OK)
        return code;
    return token.kind == kind ? handler(v) : fail_text(v, "is not a tokenizer of the form BPE");
}

static ckpt_code read_model(vocabulary *v)
{
    int has_vocab = 0;
    json_token token;
    ckpt_code code;

    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_KEY) {
        json_token value;

        if (json_token_equals(v->text.bytes, &token, "vocab")) {
            has_vocab = 1;
            code = enter(v, JSON_SCAN_OBJECT, read_vocab);
        } else if (json_token_equals(v->text.bytes, &token, "merges")) {
            code = enter(v, JSON_SCAN_ARRAY, read_merges);
        } else {
            code = json_scan_value(&v->scan, &value, v->err);
        }
        if (code != CKPT_OK)
            return code;
    }
    return code != CKPT_OK || has_vocab ? code : fail_text(v, "has no model.vocab");
}

/* Added tokens are read last, wherever they are in the file: they set types of known tokens. */
static ckpt_code read_members(vocabulary *v, const char *wanted, json_token_kind kind,
                              ckpt_code (*handler)(vocabulary *v))
{
    json_token token;
    ckpt_code code;

    json_scan_begin(&v->scan, v->text.bytes, v->text.size, v->text.path);
    if ((code = json_scan_next(&v->scan, &token, v->err)) != CKPT_OK)
        return code;
    if (token.kind != JSON_SCAN_OBJECT)
        return fail_text(v, "is not an object");
    while ((code = json_scan_next(&v->scan, &token, v->err)) == CKPT_OK &&
           token.kind == JSON_SCAN_KEY) {
        json_token value;

        if (json_token_equals(v->text.bytes, &token, wanted))
            return enter(v, kind, handler);
        if ((code = json_scan_value(&v->scan, &value, v->err)) != CKPT_OK)
            return code;
    }
    return code != CKPT_OK || kind == JSON_SCAN_ARRAY
               ? code : fail_text(v, "is not a tokenizer of the form BPE");
}

static ckpt_code read_tokenizer(vocabulary *v, const format_target *target)
{
    json_census census;
    ckpt_code code = folder_read_all(target->folder, TOKENIZER_FILE, TOKENIZER_BYTES_MAX, &v->text,
                                     v->err);

    if (code != CKPT_OK ||
        (code = json_check(v->text.bytes, v->text.size, v->text.path, &census, v->err)) != CKPT_OK)
        return code;
    v->word = malloc(v->text.size + 2);
    v->tokens = arena_calloc(&v->memory, v->count, sizeof *v->tokens);
    v->types = arena_calloc(&v->memory, v->count, sizeof *v->types);
    if (v->word == NULL || v->tokens == NULL || v->types == NULL)
        return ckpt_fail_memory(v->err, v->text.path, v->text.size);
    if ((code = read_members(v, "model", JSON_SCAN_OBJECT, read_model)) != CKPT_OK)
        return code;
    return read_members(v, "added_tokens", JSON_SCAN_ARRAY, read_all_added);
}

/* ---- keys ---- */

static void put_tokens(gguf_put *p, const vocabulary *v)
{
    byte_buffer texts = { .bytes = NULL };
    byte_buffer types = { .bytes = NULL };

    for (uint64_t i = 0; i < v->count; i++) {
        char gap[32];

        snprintf(gap, sizeof gap, "[PAD%llu]", (unsigned long long)i);
        gguf_put_text(&texts, v->tokens[i] == NULL ? gap : v->tokens[i]);
        gguf_put_number(&types, v->tokens[i] == NULL ? TOKEN_UNUSED : (uint32_t)v->types[i],
                        sizeof(int32_t));
    }
    gguf_put_array(p, "tokenizer.ggml.tokens", GGUF_STRING, v->count, &texts);
    gguf_put_array(p, "tokenizer.ggml.token_type", GGUF_I32, v->count, &types);
    gguf_put_array(p, "tokenizer.ggml.merges", GGUF_STRING, v->merge_count, &v->merges);
    free(texts.bytes);
    free(types.bytes);
}

/* The id of a token given as its text, or as an object with its content. */
static int find_id(const vocabulary *v, const json_value *told, uint64_t *id)
{
    const char *text = json_string(told) != NULL ? json_string(told)
                                                 : json_string(json_member(told, "content"));

    for (*id = 0; text != NULL && *id < v->count; ++*id)
        if (v->tokens[*id] != NULL && strcmp(v->tokens[*id], text) == 0)
            return 1;
    return 0;
}

/* Put the ids of special tokens: from tokenizer_config.json, else from config.json. */
static void put_specials(gguf_put *p, const vocabulary *v, const format_target *target,
                         const json_value *told)
{
    static const struct {
        const char *text;
        const char *number;
        const char *key;
    } specials[] = {
        { "bos_token", "bos_token_id", "tokenizer.ggml.bos_token_id" },
        { "eos_token", "eos_token_id", "tokenizer.ggml.eos_token_id" },
        { "pad_token", "pad_token_id", "tokenizer.ggml.padding_token_id" },
    };

    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        const json_value *number = json_member(target->config, specials[i].number);
        uint64_t id;

        if (json_is_array(number))
            number = json_first(number);
        if (find_id(v, json_member(told, specials[i].text), &id) ||
            (json_u64(number, &id) && id < v->count))
            gguf_put_u32(p, specials[i].key, (uint32_t)id);
    }
}

static ckpt_code put_template(gguf_put *p, const format_target *target, const json_value *told,
                              ckpt_error *err)
{
    const char *own = json_string(json_member(told, "chat_template"));
    folder_text text;
    ckpt_code code;

    if (own != NULL)
        gguf_put_string(p, "tokenizer.chat_template", own);
    if (own != NULL || !has_file(target, TEMPLATE_FILE))
        return CKPT_OK;
    code = folder_read_all(target->folder, TEMPLATE_FILE, TEXT_BYTES_MAX, &text, err);
    if (code == CKPT_OK)
        gguf_put_string(p, "tokenizer.chat_template", text.bytes);
    folder_text_release(&text);
    return code;
}

/* Put the settings of tokenizer_config.json, if it exists. */
static ckpt_code put_settings(gguf_put *p, const vocabulary *v, const format_target *target,
                              ckpt_error *err)
{
    static const char *const flags[] = { "add_bos_token", "add_eos_token" };
    json_document *document = NULL;
    const json_value *told;
    folder_text text = { .path = NULL };
    ckpt_code code = CKPT_OK;

    if (has_file(target, TOKENIZER_CONFIG_FILE) &&
        (code = folder_read_all(target->folder, TOKENIZER_CONFIG_FILE, CONFIG_BYTES_MAX, &text,
                                err)) == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, &document, err);
    told = document == NULL ? NULL : json_root(document);
    if (code == CKPT_OK)
        put_specials(p, v, target, told);
    for (size_t i = 0; i < sizeof flags / sizeof *flags && code == CKPT_OK; i++) {
        char key[64];
        int flag;

        snprintf(key, sizeof key, "tokenizer.ggml.%s", flags[i]);
        if (json_bool(json_member(told, flags[i]), &flag))
            gguf_put_bool(p, key, flag);
    }
    if (code == CKPT_OK)
        code = put_template(p, target, told, err);
    json_free(document);
    folder_text_release(&text);
    return code;
}

ckpt_code gguf_tokens_put(gguf_put *p, const format_target *target, ckpt_error *err)
{
    vocabulary v = { .err = err };
    ckpt_code code;

    if (!has_file(target, TOKENIZER_FILE))
        return ckpt_fail(err, CKPT_E_USAGE, "the source has no " TOKENIZER_FILE ", and no reader "
                         "loads a GGUF model without its vocabulary: put it beside the weights, or "
                         "give --without-tokenizer");
    if (!config_number(config_member(target->config, "vocab_size"), &v.count) || v.count == 0 ||
        v.count > VOCABULARY_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "config.json: 'vocab_size' is not the size of a "
                         "vocabulary");
    arena_init(&v.memory);
    if ((code = read_tokenizer(&v, target)) == CKPT_OK) {
        put_tokens(p, &v);
        code = put_settings(p, &v, target, err);
    }
    if (code == CKPT_OK && v.merges.failed)
        code = ckpt_fail_memory(err, "a vocabulary", v.count);
    folder_text_release(&v.text);
    arena_release(&v.memory);
    free(v.merges.bytes);
    free(v.word);
    return code;
}
