/*
 * tokenizer_files.c: reads a tokenizer's files. tokenizer.json is read token by token: a tree of
 * its hundred thousand strings would need more memory than the vocabulary.
 */
#include "tokenizer_files.h"

#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "libckpt/json_scan.h"

#define TOKENIZER_CONFIG_FILE "tokenizer_config.json"
#define TEMPLATE_FILE "chat_template.jinja"

enum { TEXT_BYTES_MAX = 1 << 20 };

typedef struct {
    folder_text text;
    json_scanner scan;
    ckpt_vocabulary *out;
    uint64_t vocab_size;           /* 0: any */
    char *word;                    /* room for the longest string of the text */
    ckpt_error *err;
} vocabulary_reader;

static ckpt_code fail_text(const vocabulary_reader *v, const char *what)
{
    return ckpt_fail(v->err, CKPT_E_FORMAT, "'%s': %s", v->text.path, what);
}

static int has_file(const tokenizer_place *place, const char *name)
{
    return place->folder != NULL && place->files != NULL && file_list_has(place->files, name);
}

int tokenizer_files_are_there(const tokenizer_place *place)
{
    return has_file(place, TOKENIZER_FILE);
}

/* ---- tokens ---- */

static ckpt_code add_token(vocabulary_reader *v, uint64_t id, const char *text, int32_t type)
{
    ckpt_code code;

    if (v->vocab_size > 0 && id >= v->vocab_size)
        return ckpt_fail(v->err, CKPT_E_USAGE, "'%s' has a token %llu, but vocab_size of "
                         "config.json is %llu", v->text.path, (unsigned long long)id,
                         (unsigned long long)v->vocab_size);
    code = vocabulary_set(v->out, id, text, type, v->err);
    return code != CKPT_E_FORMAT || v->err == NULL ? code : fail_text(v, v->err->text);
}

/* Read the members of model.vocab, after its opening bracket. */
static ckpt_code read_vocab(vocabulary_reader *v)
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
static ckpt_code read_merges(vocabulary_reader *v)
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
        if ((code = vocabulary_add_merge(v->out, v->word, v->err)) != CKPT_OK)
            return code;
    }
    return code;
}

/* Read {"id": N, "content": TEXT, "special": BOOL, ...}, after its opening bracket. */
static ckpt_code read_added(vocabulary_reader *v)
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

static ckpt_code read_all_added(vocabulary_reader *v)
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
static ckpt_code enter(vocabulary_reader *v, json_token_kind kind,
                       ckpt_code (*handler)(vocabulary_reader *v))
{
    json_token token;
    const ckpt_code code = json_scan_next(&v->scan, &token, v->err);

    if (code != CKPT_OK)
        return code;
    return token.kind == kind ? handler(v) : fail_text(v, "is not a tokenizer of the form BPE");
}

static ckpt_code read_model(vocabulary_reader *v)
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
static ckpt_code read_members(vocabulary_reader *v, const char *wanted, json_token_kind kind,
                              ckpt_code (*handler)(vocabulary_reader *v))
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

static ckpt_code read_tokenizer(vocabulary_reader *v, const ckpt_folder *folder)
{
    json_census census;
    ckpt_code code = folder_read_all(folder, TOKENIZER_FILE, VOCABULARY_BYTES_MAX, &v->text,
                                     v->err);

    if (code != CKPT_OK ||
        (code = json_check(v->text.bytes, v->text.size, v->text.path, &census, v->err)) != CKPT_OK)
        return code;
    if ((v->word = malloc(v->text.size + 2)) == NULL)
        return ckpt_fail_memory(v->err, v->text.path, v->text.size);
    if ((code = read_members(v, "model", JSON_SCAN_OBJECT, read_model)) != CKPT_OK)
        return code;
    return read_members(v, "added_tokens", JSON_SCAN_ARRAY, read_all_added);
}

/* ---- settings ---- */

/* The id of a token given as its text, or as an object with its content. */
static int find_id(const ckpt_vocabulary *v, const json_value *told, uint64_t *id)
{
    const char *text = json_string(told) != NULL ? json_string(told)
                                                 : json_string(json_member(told, "content"));

    return text != NULL && vocabulary_find(v, text, id);
}

/* Ids of special tokens: from tokenizer_config.json, else from config.json. */
static void take_specials(ckpt_vocabulary *v, const tokenizer_place *place, const json_value *told)
{
    static const struct {
        const char *text;
        const char *number;
    } specials[] = {
        [SPECIAL_BOS] = { "bos_token", "bos_token_id" },
        [SPECIAL_EOS] = { "eos_token", "eos_token_id" },
        [SPECIAL_PAD] = { "pad_token", "pad_token_id" },
    };
    const uint64_t end = place->vocab_size > 0 ? place->vocab_size : VOCABULARY_MAX;

    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        const json_value *number = json_member(place->config, specials[i].number);
        uint64_t id;

        if (json_is_array(number))
            number = json_first(number);
        if (find_id(v, json_member(told, specials[i].text), &id) ||
            (json_u64(number, &id) && id < end))
            v->specials[i] = (int64_t)id;
    }
}

static ckpt_code take_template(ckpt_vocabulary *v, const tokenizer_place *place,
                               const json_value *told, ckpt_error *err)
{
    const char *own = json_string(json_member(told, "chat_template"));
    folder_text text = { .path = NULL };
    ckpt_code code = CKPT_OK;

    if (own == NULL && !has_file(place, TEMPLATE_FILE))
        return CKPT_OK;
    if (own == NULL && (code = folder_read_all(place->folder, TEMPLATE_FILE, TEXT_BYTES_MAX, &text,
                                               err)) == CKPT_OK)
        own = text.bytes;
    if (code == CKPT_OK &&
        (v->chat_template = arena_strdup(&v->memory, own, strlen(own))) == NULL)
        code = ckpt_fail_memory(err, "a chat template", strlen(own));
    folder_text_release(&text);
    return code;
}

/* Take the settings of tokenizer_config.json, if it exists. */
static ckpt_code take_settings(ckpt_vocabulary *v, const tokenizer_place *place, ckpt_error *err)
{
    static const char *const flags[] = { [FLAG_ADD_BOS] = "add_bos_token",
                                         [FLAG_ADD_EOS] = "add_eos_token" };
    json_document *document = NULL;
    const json_value *told;
    folder_text text = { .path = NULL };
    ckpt_code code = CKPT_OK;

    if (has_file(place, TOKENIZER_CONFIG_FILE) &&
        (code = folder_read_all(place->folder, TOKENIZER_CONFIG_FILE, CONFIG_BYTES_MAX, &text,
                                err)) == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, &document, err);
    told = document == NULL ? NULL : json_root(document);
    if (code == CKPT_OK) {
        take_specials(v, place, told);
        for (size_t i = 0; i < FLAG_COUNT; i++)
            if (!json_bool(json_member(told, flags[i]), &v->flags[i]))
                v->flags[i] = -1;
        code = take_template(v, place, told, err);
    }
    json_free(document);
    folder_text_release(&text);
    return code;
}

ckpt_code tokenizer_files_read(const tokenizer_place *place, ckpt_vocabulary *out, ckpt_error *err)
{
    vocabulary_reader v = { .out = out, .vocab_size = place->vocab_size, .err = err };
    ckpt_code code;

    vocabulary_init(out);
    code = read_tokenizer(&v, place->folder);
    folder_text_release(&v.text);
    free(v.word);
    return code == CKPT_OK ? take_settings(out, place, err) : code;
}
