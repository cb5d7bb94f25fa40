/* tokenizer_file.c: reads a tokenizer.json. */
#include "tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/memory.h"
#include "tokenizer_private.h"

enum { FILE_BYTES_MAX = 1 << 28, ID_MAX = 1 << 24 };

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                   " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static ckpt_code unknown(const char *what, const char *got, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "the tokenizer has %s '%s', which is not supported", what,
                     got);
}

/* Where an object of some type must be: `got` is its type; NULL: it has none, or is not there. */
static ckpt_code fail_type(const char *place, const char *expected, const char *got,
                           ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "the tokenizer's %s: expected %s, found %s%s%s", place,
                     expected, got == NULL ? "nothing with a type" : "'", got == NULL ? "" : got,
                     got == NULL ? "" : "'");
}

static const char *type_of(const json_value *v)
{
    return json_string(json_member(v, "type"));
}

static int is_type(const json_value *v, const char *type)
{
    return type_of(v) != NULL && strcmp(type_of(v), type) == 0;
}

static int is_true(const json_value *v, const char *key)
{
    int flag;

    return json_bool(json_member(v, key), &flag) && flag;
}

/* ---- bytes as characters ---- */

/* GPT-2's byte-level alphabet: printable Latin-1 characters stand for themselves, the other bytes
 * get the characters from U+0100 on, in order. */
static unsigned code_of(unsigned byte)
{
    unsigned code = 256;

    for (unsigned b = 0; b <= byte; b++) {
        const int is_itself = (b >= 33 && b <= 126) || (b >= 161 && b != 173);

        if (b == byte)
            return is_itself ? b : code;
        code += is_itself ? 0 : 1;
    }
    return code;
}

void text_byte_name(unsigned byte, char out[4])
{
    const unsigned code = code_of(byte);

    memset(out, 0, 4);
    if (code < 128) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
    }
}

int text_byte_of(const char **at)
{
    const unsigned char *p = (const unsigned char *)*at;
    unsigned code = p[0];

    if (p[0] >= 0xC0 && p[0] < 0xE0) {
        code = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
        *at += 1;
    }
    *at += 1;
    for (unsigned b = 0; b < TEXT_BYTES; b++)
        if (code_of(b) == code)
            return (int)b;
    return -1;
}

/* ---- tokens ---- */

static ckpt_code put_token(run_text *t, const char *content, uint64_t id, int is_added,
                           ckpt_error *err)
{
    if (id >= t->token_count) {
        const size_t count = 2 * (size_t)id + 1;
        text_token *grown;

        if (id >= ID_MAX)
            return ckpt_fail(err, CKPT_E_FORMAT, "token '%s' has id %" PRIu64, content, id);
        if (!memory_has(count * sizeof *grown) ||
            (grown = realloc(t->tokens, count * sizeof *grown)) == NULL)
            return ckpt_fail_memory(err, "tokens", count * sizeof *grown);
        memset(grown + t->token_count, 0, (count - t->token_count) * sizeof *grown);
        t->tokens = grown;
        t->token_count = count;
    }
    if (!is_added && t->tokens[id].content != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "tokens '%s' and '%s' have the same id",
                         t->tokens[id].content, content);
    t->tokens[id] = (text_token){ content, is_added };
    return CKPT_OK;
}

static ckpt_code read_vocab(run_text *t, const json_value *vocab, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (const json_value *v = json_first(vocab); v != NULL && code == CKPT_OK; v = json_next(v)) {
        uint64_t id;

        if (!json_u64(v, &id))
            return ckpt_fail(err, CKPT_E_FORMAT, "token '%s' has no id", json_key(v));
        code = put_token(t, json_key(v), id, 0, err);
        if (code == CKPT_OK && table_add(&t->vocab, json_key(v), id) == TABLE_NO_MEMORY)
            code = ckpt_fail_memory(err, "a vocabulary", id);
    }
    for (unsigned b = 0; b < TEXT_BYTES && code == CKPT_OK; b++) {
        uint64_t id;
        char name[4];

        text_byte_name(b, name);
        if (!table_find(&t->vocab, name, &id))
            code = ckpt_fail(err, CKPT_E_FORMAT, "the tokenizer has no token for byte %u", b);
        else
            t->byte_ids[b] = (uint32_t)id;
    }
    return code;
}

static ckpt_code read_added(run_text *t, const json_value *list, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (!memory_has((json_count(list) + 1) * sizeof *t->added) ||
        (t->added = calloc(json_count(list) + 1, sizeof *t->added)) == NULL)
        return ckpt_fail_memory(err, "added tokens", json_count(list));
    for (const json_value *v = json_first(list); v != NULL && code == CKPT_OK; v = json_next(v)) {
        text_added *a = &t->added[t->added_count++];
        uint64_t id;

        a->content = json_string(json_member(v, "content"));
        if (a->content == NULL || a->content[0] == '\0' || !json_u64(json_member(v, "id"), &id))
            return ckpt_fail(err, CKPT_E_FORMAT, "an added token has no content or id");
        if (is_true(v, "lstrip") || is_true(v, "rstrip") || is_true(v, "single_word"))
            return unknown("lstrip, rstrip or single_word of the added token", a->content, err);
        a->size = strlen(a->content);
        a->id = (uint32_t)id;
        a->is_normalized = is_true(v, "normalized");
        code = put_token(t, a->content, id, 1, err);
    }
    return code;
}

/* ---- merges ---- */

static int order_merges(const void *a, const void *b)
{
    const text_merge *x = a;
    const text_merge *y = b;

    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Read one merge: "a b" or ["a", "b"]. */
static ckpt_code read_merge(run_text *t, const json_value *v, ckpt_error *err)
{
    const json_value *first = json_is_array(v) ? json_first(v) : NULL;
    const char *left = json_string(first);
    const char *right = first == NULL ? NULL : json_string(json_next(first));
    const char *text = json_string(v);
    const size_t size = text != NULL ? strlen(text)
                        : left != NULL && right != NULL ? strlen(left) + strlen(right) : 0;
    char *joined = malloc(size + 1);
    uint64_t ids[3] = { 0, 0, 0 };
    int is_known;

    if (joined == NULL)
        return ckpt_fail_memory(err, "a merge", size);
    if (text != NULL) {
        const char *blank = strchr(text, ' ');

        snprintf(joined, size + 1, "%.*s", blank == NULL ? 0 : (int)(blank - text), text);
        is_known = blank != NULL && table_find(&t->vocab, joined, &ids[0]) &&
                   table_find(&t->vocab, blank + 1, &ids[1]);
        if (blank != NULL)
            snprintf(joined, size + 1, "%.*s%s", (int)(blank - text), text, blank + 1);
    } else {
        is_known = left != NULL && right != NULL && table_find(&t->vocab, left, &ids[0]) &&
                   table_find(&t->vocab, right, &ids[1]);
        snprintf(joined, size + 1, "%s%s", is_known ? left : "", is_known ? right : "");
    }
    is_known = is_known && table_find(&t->vocab, joined, &ids[2]);
    free(joined);
    if (!is_known)
        return ckpt_fail(err, CKPT_E_FORMAT, "merge %zu has a token that is not in the vocabulary",
                         t->merge_count);
    t->merges[t->merge_count] = (text_merge){ ids[0] << 32 | ids[1], (uint32_t)t->merge_count,
                                              (uint32_t)ids[2] };
    t->merge_count++;
    return CKPT_OK;
}

static ckpt_code read_model(run_text *t, const json_value *model, ckpt_error *err)
{
    static const char *const none[] = { "dropout", "unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix", NULL };
    const json_value *merges = json_member(model, "merges");
    double dropout;
    ckpt_code code;

    if (!is_type(model, "BPE"))
        return fail_type("model", "the type BPE", type_of(model), err);
    for (const char *const *key = none; *key != NULL; key++) {
        const json_value *v = json_member(model, *key);
        const int is_empty = (json_string(v) != NULL && json_string(v)[0] == '\0') ||
                             (json_number(v, &dropout) && dropout == 0);

        if (v != NULL && !json_is_null(v) && !is_empty)
            return unknown("the member", *key, err);
    }
    if (is_true(model, "byte_fallback"))
        return unknown("the member", "byte_fallback", err);
    t->ignore_merges = is_true(model, "ignore_merges");
    if ((code = read_vocab(t, json_member(model, "vocab"), err)) != CKPT_OK)
        return code;
    if (!memory_has((json_count(merges) + 1) * sizeof *t->merges) ||
        (t->merges = malloc((json_count(merges) + 1) * sizeof *t->merges)) == NULL)
        return ckpt_fail_memory(err, "merges", json_count(merges) * sizeof *t->merges);
    for (const json_value *v = json_first(merges); v != NULL && code == CKPT_OK; v = json_next(v))
        code = read_merge(t, v, err);
    qsort(t->merges, t->merge_count, sizeof *t->merges, order_merges);
    for (size_t i = 1; i < t->merge_count && code == CKPT_OK; i++)
        if (t->merges[i].pair == t->merges[i - 1].pair)
            code = ckpt_fail(err, CKPT_E_FORMAT, "merges %u and %u are the same pair",
                             t->merges[i - 1].rank, t->merges[i].rank);
    return code;
}

/* ---- cutting ---- */

static ckpt_code add_split(run_text *t, const char *pattern, ckpt_error *err)
{
    ckpt_code code;

    if (t->split_count == TEXT_SPLITS_MAX)
        return unknown("too many pre-tokenizers, the last", pattern, err);
    code = text_regex_create(pattern, &t->splits[t->split_count], err);
    t->split_count += code == CKPT_OK;
    return code;
}

/* Read one pre-tokenizer. *is_bytes: it is the byte-level one, which must be the last. */
static ckpt_code read_split(run_text *t, const json_value *v, int *is_bytes, ckpt_error *err)
{
    const char *behavior = json_string(json_member(v, "behavior"));
    const char *pattern = json_string(json_member(json_member(v, "pattern"), "Regex"));
    int use_regex = 1;

    if (*is_bytes)
        return fail_type("pre_tokenizer", "nothing after ByteLevel", type_of(v), err);
    if (is_type(v, "ByteLevel")) {
        *is_bytes = 1;
        if (is_true(v, "add_prefix_space"))
            return unknown("the member", "add_prefix_space", err);
        (void)json_bool(json_member(v, "use_regex"), &use_regex);
        return use_regex ? add_split(t, gpt2_pattern, err) : CKPT_OK;
    }
    if (!is_type(v, "Split") || pattern == NULL || is_true(v, "invert") || behavior == NULL ||
        strcmp(behavior, "Isolated") != 0)
        return fail_type("pre_tokenizer", "ByteLevel, or Split with a Regex and the behavior "
                         "Isolated", type_of(v), err);
    return add_split(t, pattern, err);
}

static ckpt_code read_splits(run_text *t, const json_value *root, ckpt_error *err)
{
    const json_value *normalizer = json_member(root, "normalizer");
    const json_value *v = json_member(root, "pre_tokenizer");
    ckpt_code code = CKPT_OK;
    int is_bytes = 0;

    if (normalizer != NULL && !json_is_null(normalizer) &&
        !(is_type(normalizer, "Sequence") &&
          json_count(json_member(normalizer, "normalizers")) == 0))
        return fail_type("normalizer", "none", type_of(normalizer), err);
    if (!is_type(v, "Sequence")) {
        code = read_split(t, v, &is_bytes, err);
    } else {
        v = json_first(json_member(v, "pretokenizers"));
        for (; v != NULL && code == CKPT_OK; v = json_next(v))
            code = read_split(t, v, &is_bytes, err);
    }
    if (code == CKPT_OK && !is_bytes)
        return ckpt_fail(err, CKPT_E_FORMAT, "the tokenizer's pre_tokenizer has no ByteLevel: only "
                         "byte-level models are supported");
    return code;
}

static ckpt_code read_document(const ckpt_folder *folder, const char *name,
                               json_document **out, ckpt_error *err)
{
    folder_text text;
    ckpt_code code = folder_read_all(folder, name, FILE_BYTES_MAX, &text, err);

    if (code == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, out, err);
    folder_text_release(&text);
    return code;
}

ckpt_code run_text_open(const ckpt_folder *folder, const char *name, run_text **out,
                        ckpt_error *err)
{
    run_text *t = calloc(1, sizeof *t);
    const json_value *root;
    ckpt_code code;

    if (t == NULL)
        return ckpt_fail_memory(err, "a tokenizer", sizeof *t);
    table_init(&t->vocab);
    code = folder == NULL ? json_parse_named(name, FILE_BYTES_MAX, &t->document, err)
                          : read_document(folder, name, &t->document, err);
    if (code == CKPT_OK) {
        root = json_root(t->document);
        if (json_member(root, "model") == NULL)
            code = ckpt_fail(err, CKPT_E_FORMAT, "not a tokenizer, which has the member model");
        else if ((code = read_splits(t, root, err)) == CKPT_OK &&
            (code = read_model(t, json_member(root, "model"), err)) == CKPT_OK)
            code = read_added(t, json_member(root, "added_tokens"), err);
        if (code == CKPT_E_FORMAT && err != NULL)
            code = ckpt_fail(err, code, "'%s%s%s': %s", folder == NULL ? "" : folder_path(folder),
                             folder == NULL ? "" : "/", name, err->text);
    }
    if (code != CKPT_OK)
        run_text_free(t);
    else
        *out = t;
    return code;
}

void run_text_free(run_text *text)
{
    if (text == NULL)
        return;
    for (size_t i = 0; i < text->split_count; i++)
        text_regex_free(text->splits[i]);
    table_release(&text->vocab);
    free(text->tokens);
    free(text->added);
    free(text->merges);
    json_free(text->document);
    free(text);
}
