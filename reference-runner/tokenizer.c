/* tokenizer.c: text to tokens and tokens to text. */
#include "tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_private.h"

typedef struct {
    const run_text *text;
    run_prompt *out;
    text_merger merger;
    ckpt_error *err;
} encoding;

static ckpt_code emit(encoding *e, uint32_t id)
{
    return run_prompt_add(e->out, id, e->err);
}

/* ---- one word ---- */

/* For ignore_merges: *id becomes the token that is the whole word; returns 0 if there is none. */
static int find_whole(const run_text *t, const char *bytes, size_t size, uint64_t *id)
{
    char *name = calloc(2 * size + 4, 1);
    int found = 0;

    for (size_t i = 0, at = 0; name != NULL && i < size; i++) {
        text_byte_name((unsigned char)bytes[i], name + at);
        at += strlen(name + at);
    }
    if (name != NULL)
        found = table_find(&t->vocab, name, id);
    free(name);
    return found;
}

static ckpt_code encode_piece(encoding *e, const char *bytes, size_t size)
{
    ckpt_code code;
    uint64_t whole;
    uint32_t at = 0;

    if (e->text->ignore_merges && find_whole(e->text, bytes, size, &whole))
        return emit(e, (uint32_t)whole);
    code = text_merge_piece(e->text, &e->merger, bytes, size, e->err);
    do {
        if (code == CKPT_OK)
            code = emit(e, e->merger.symbols[at].id);
    } while (code == CKPT_OK && (at = text_merger_next(&e->merger, at)) != 0);
    return code;
}

/* ---- cutting ---- */

/* Split by the regular expression number `split` and those after it. Each match and each gap
 * between matches is split further on its own. The depth of the recursion is at most
 * TEXT_SPLITS_MAX for any text. */
static ckpt_code encode_part(encoding *e, size_t split, const char *bytes, size_t size)
{
    ckpt_code code = CKPT_OK;
    size_t done = 0;

    if (split == e->text->split_count)
        return encode_piece(e, bytes, size);
    while (done < size && code == CKPT_OK) {
        size_t match[2];

        code = text_regex_find(e->text->splits[split], bytes, size, done, match, e->err);
        if (code == CKPT_OK && match[0] > done)
            code = encode_part(e, split + 1, bytes + done, match[0] - done);
        if (code == CKPT_OK && match[1] > match[0])
            code = encode_part(e, split + 1, bytes + match[0], match[1] - match[0]);
        done = match[1];
    }
    return code;
}

/* The longest added token that `bytes` begins with, or NULL. */
static const text_added *find_added(const run_text *t, int is_normalized, const char *bytes,
                                    size_t size)
{
    const text_added *best = NULL;

    for (size_t i = 0; i < t->added_count; i++) {
        const text_added *a = &t->added[i];

        if (a->is_normalized == is_normalized && a->content[0] == bytes[0] && a->size <= size &&
            (best == NULL || a->size > best->size) && memcmp(a->content, bytes, a->size) == 0)
            best = a;
    }
    return best;
}

/* Find the added tokens that are not normalized; in the text between them those that are; the rest
 * is split by the regular expressions. */
static ckpt_code encode_added(encoding *e, int is_normalized, const char *bytes, size_t size)
{
    ckpt_code code = CKPT_OK;
    size_t done = 0;

    for (size_t i = 0; i <= size && code == CKPT_OK; i++) {
        const text_added *a =
            i < size ? find_added(e->text, is_normalized, bytes + i, size - i) : NULL;

        if (a == NULL && i < size)
            continue;
        if (i > done)
            code = is_normalized ? encode_part(e, 0, bytes + done, i - done)
                                 : encode_added(e, 1, bytes + done, i - done);
        if (a == NULL || code != CKPT_OK)
            break;
        code = emit(e, a->id);
        done = i + a->size;
        i = done - 1;
    }
    return code;
}

/* Length of the UTF-8 character at the start of `size` bytes; 0 if there is no valid one. */
static size_t character_size(const char *bytes, size_t size)
{
    const unsigned char *p = (const unsigned char *)bytes;
    const size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2
                          : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;

    if (length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] >= 0x90))
        return 0;
    return length;
}

ckpt_code run_text_encode(const run_text *text, const char *bytes, size_t size, run_prompt *out,
                          ckpt_error *err)
{
    encoding e = { .text = text, .out = out, .err = err };
    ckpt_code code;

    *out = (run_prompt){ NULL, 0 };
    for (size_t i = 0, length; i < size; i += length)
        if ((length = character_size(bytes + i, size - i)) == 0)
            return ckpt_fail(err, CKPT_E_USAGE, "the text is not UTF-8 at byte %zu", i);
    code = encode_added(&e, 0, bytes, size);
    text_merger_release(&e.merger);
    if (code != CKPT_OK)
        run_prompt_free(out);
    return code;
}

/* ---- tokens to text ---- */

/* Write the bytes of a token to `out`, which has room for its content; returns their number. */
static size_t token_bytes(const text_token *t, char *out)
{
    const char *at = t->content;
    size_t used = 0;
    int byte = 0;

    while (!t->is_added && *at != '\0' && (byte = text_byte_of(&at)) >= 0)
        out[used++] = (char)byte;
    if (t->is_added || byte < 0) {                 /* the content is not in byte characters */
        used = strlen(t->content);
        memcpy(out, t->content, used);
    }
    return used;
}

static ckpt_code check_ids(const run_text *text, const int32_t *ids, uint64_t count,
                           size_t *room, ckpt_error *err)
{
    *room = 1;
    for (uint64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= text->token_count ||
            text->tokens[ids[i]].content == NULL)
            return ckpt_fail(err, CKPT_E_FORMAT, "the tokenizer has no token %" PRId32, ids[i]);
        *room += strlen(text->tokens[ids[i]].content);
    }
    return CKPT_OK;
}

ckpt_code run_text_decode(const run_text *text, const int32_t *ids, uint64_t count, char **out,
                          ckpt_error *err)
{
    static const char stand_in[] = "\xEF\xBF\xBD";
    size_t room;
    size_t size = 0;
    size_t used = 0;
    char *bytes;
    const ckpt_code code = check_ids(text, ids, count, &room, err);

    if (code != CKPT_OK)
        return code;
    bytes = malloc(room);
    *out = malloc(3 * room);
    if (bytes == NULL || *out == NULL) {
        free(bytes);
        free(*out);
        return ckpt_fail_memory(err, "text", 3 * room);
    }
    for (uint64_t i = 0; i < count; i++)
        size += token_bytes(&text->tokens[ids[i]], bytes + size);
    for (size_t i = 0; i < size;) {
        const size_t length = character_size(bytes + i, size - i);
        const size_t written = length == 0 ? sizeof stand_in - 1 : length;

        memcpy(*out + used, length == 0 ? stand_in : bytes + i, written);
        used += written;
        i += length == 0 ? 1 : length;
    }
    (*out)[used] = '\0';
    free(bytes);
    return CKPT_OK;
}
