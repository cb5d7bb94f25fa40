/*
 * json_edit.c: changing one member of an object's text and nothing else.
 *
 * A conversion keeps the white space, the order and the spelling of numbers of a config.json; only
 * the spans found here are replaced.
 */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "json_scan.h"

/* The position of a top-level member in the text; the ends are exclusive. */
typedef struct {
    size_t key_start;
    size_t key_end;
    size_t value_start;
    size_t value_end;
} member_span;

/* Positions in the text of an object that json_edit needs. */
typedef struct {
    size_t object_start;     /* of the opening bracket */
    size_t count;
    member_span last;
    int is_found;
    size_t found_index;
    member_span found;
    size_t before_end;       /* end of the value before it */
    size_t after_start;      /* start of the key after it; 0 when it is the last */
} member_search;

/* ---- finding ---- */

static void note_member(member_search *search, const member_span *span, int is_wanted)
{
    if (search->is_found && search->count == search->found_index + 1)
        search->after_start = span->key_start;
    if (is_wanted) {
        search->is_found = 1;
        search->found_index = search->count;
        search->found = *span;
        search->before_end = search->last.value_end;
    }
    search->last = *span;
    search->count++;
}

static ckpt_code find_member(const char *text, const char *key, member_search *search,
                             ckpt_error *err)
{
    json_scanner s;
    json_token token;
    ckpt_code code;

    memset(search, 0, sizeof *search);
    json_scan_begin(&s, text, strlen(text), "the text to edit");
    if ((code = json_scan_next(&s, &token, err)) != CKPT_OK)
        return code;
    if (token.kind != JSON_SCAN_OBJECT)
        return json_scan_fail(&s, token.start, "expected an object", err);
    search->object_start = token.start;
    while ((code = json_scan_next(&s, &token, err)) == CKPT_OK && token.kind == JSON_SCAN_KEY) {
        json_token value;
        member_span span;

        if ((code = json_scan_value(&s, &value, err)) != CKPT_OK)
            return code;
        span = (member_span){ token.start, token.end, value.start, value.end };
        note_member(search, &span, json_token_equals(text, &token, key));
    }
    if (code != CKPT_OK)
        return code;
    return json_scan_next(&s, &token, err);     /* refuses text after the object */
}

ckpt_code json_member_text(const char *text, const char *key, char **out, ckpt_error *err)
{
    member_search search;
    ckpt_code code;

    *out = NULL;
    if ((code = find_member(text, key, &search, err)) != CKPT_OK || !search.is_found)
        return code;
    *out = strndup(text + search.found.value_start,
                   search.found.value_end - search.found.value_start);
    return *out != NULL ? CKPT_OK : ckpt_fail_memory(err, key, strlen(text));
}

/* ---- building ---- */

/* Append text[start .. end). */
static void buffer_copy(byte_buffer *buffer, const char *text, size_t start, size_t end)
{
    byte_buffer_add(buffer, text + start, end - start);
}

static void buffer_key(byte_buffer *buffer, const char *key)
{
    json_writer w;

    json_writer_begin(&w, byte_buffer_write, buffer, 0);
    json_put_string(&w, key);           /* fails only if the buffer does */
}

static void replace_member(byte_buffer *out, const char *text, const member_search *search,
                           const char *value)
{
    buffer_copy(out, text, 0, search->found.value_start);
    byte_buffer_add(out, value, strlen(value));
    buffer_copy(out, text, search->found.value_end, strlen(text));
}

/* Remove a member and one comma: the one before it or, for the first member, the one after it. */
static void remove_member(byte_buffer *out, const char *text, const member_search *search)
{
    size_t start = search->before_end;
    size_t end = search->found.value_end;

    if (search->found_index == 0 && search->after_start > 0) {
        start = search->found.key_start;
        end = search->after_start;
    } else if (search->found_index == 0) {
        start = search->object_start + 1;
    }
    buffer_copy(out, text, 0, start);
    buffer_copy(out, text, end, strlen(text));
}

/* Add a last member, with the same white space as the one before it. */
static void append_member(byte_buffer *out, const char *text, const member_search *search,
                          const char *key, const char *value)
{
    const member_span *last = &search->last;
    size_t at = search->object_start + 1;
    size_t space_start;

    if (search->count > 0) {
        at = last->value_end;
        for (space_start = last->key_start; strchr(" \n\t\r", text[space_start - 1]) != NULL;)
            space_start--;
        buffer_copy(out, text, 0, at);
        byte_buffer_add(out, ",", 1);
        buffer_copy(out, text, space_start, last->key_start);
        buffer_key(out, key);
        buffer_copy(out, text, last->key_end, last->value_start);
    } else {
        buffer_copy(out, text, 0, at);
        buffer_key(out, key);
        byte_buffer_add(out, ": ", 2);
    }
    byte_buffer_add(out, value, strlen(value));
    buffer_copy(out, text, at, strlen(text));
}

/* Refuse a key or value that would make the edited text invalid. */
static ckpt_code check_edit(const char *key, const char *value, ckpt_error *err)
{
    const size_t key_bytes = strlen(key);
    json_document *document;
    ckpt_code code;

    for (size_t i = 0; i < key_bytes;) {
        const size_t character_bytes = json_utf8_bytes((const unsigned char *)key + i,
                                                       key_bytes - i);

        if (character_bytes == 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "cannot edit key '%s': invalid UTF-8 at byte %zu",
                             key, i);
        i += character_bytes;
    }
    if (value == NULL)
        return CKPT_OK;
    if ((code = json_parse(value, strlen(value), key, &document, err)) == CKPT_OK)
        json_free(document);
    return code;
}

ckpt_code json_edit(const char *text, const char *key, const char *value, char **out,
                    ckpt_error *err)
{
    byte_buffer buffer = { .bytes = NULL };
    member_search search;
    ckpt_code code;

    *out = NULL;
    if ((code = check_edit(key, value, err)) != CKPT_OK)
        return code;
    if ((code = find_member(text, key, &search, err)) != CKPT_OK)
        return code;
    if (search.is_found && value != NULL)
        replace_member(&buffer, text, &search, value);
    else if (search.is_found)
        remove_member(&buffer, text, &search);
    else if (value != NULL)
        append_member(&buffer, text, &search, key, value);
    else
        buffer_copy(&buffer, text, 0, strlen(text));
    if (byte_buffer_add(&buffer, "", 1) != 0)
        code = ckpt_fail_memory(err, key, strlen(text));
    else        /* the value is nested one level deeper in the object */
        code = json_scan_all(buffer.bytes, buffer.used - 1, key, err);
    if (code != CKPT_OK)
        free(buffer.bytes);
    else
        *out = buffer.bytes;
    return code;
}
