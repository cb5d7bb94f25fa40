/*
 * chat_json.h: reads JSON and writes it with the spelling of Python's json.dumps(...,
 * ensure_ascii=False), which the model was trained on. Integers keep their digits whatever their
 * size, because values are kept as source text.
 *
 * A value is identified by the index of its first token. 0 is the root; where a member or an item
 * is returned, 0 means that there is none.
 */
#ifndef RUN_CHAT_JSON_H
#define RUN_CHAT_JSON_H

#include "libckpt/buffer.h"
#include "libckpt/json_scan.h"

typedef struct {
    json_token token;
    size_t after;              /* index of the first token after the value that begins here */
} chat_token;

typedef struct {
    const char *text;          /* borrowed */
    const char *subject;
    chat_token *tokens;
    size_t count;
} chat_json;

/* As strict as json.h, but integers may have any size. Release it also after a failure. */
ckpt_code chat_json_read(const char *text, size_t size, const char *subject, chat_json *out,
                         ckpt_error *err);
void chat_json_release(chat_json *json);

json_token_kind chat_kind(const chat_json *json, size_t value);
size_t chat_member(const chat_json *json, size_t object, const char *key);
/* Iterate over the keys of an object (the value is the next token) or the items of an array:
 * for (i = chat_first(j, v); i > 0; i = chat_next(j, i)). */
size_t chat_first(const chat_json *json, size_t container);
size_t chat_next(const chat_json *json, size_t child);
int chat_equals(const chat_json *json, size_t value, const char *string);
/* 1 for what is false in Python (null, false, 0, "", [], {}) and for a missing value. */
int chat_is_false(const chat_json *json, size_t value);

/* These append to `out`, which remembers a failure. chat_put_string: a string's characters without
 * quotes and escapes. */
void chat_put_string(const chat_json *json, size_t value, byte_buffer *out);
/* Any value as JSON; and a string with quotes and escapes. */
void chat_put_value(const chat_json *json, size_t value, byte_buffer *out);
void chat_put_quoted(const char *bytes, size_t size, byte_buffer *out);

#endif
