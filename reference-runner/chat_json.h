/*
 * chat_json.h: JSON whose values keep their text, and are written again as Python's json.dumps
 * writes them with ensure_ascii=False: a model was trained on that spelling.
 *
 * A value is the index of its token; 0 is the root, and as a member or an item: there is none.
 */
#ifndef RUN_CHAT_JSON_H
#define RUN_CHAT_JSON_H

#include "libckpt/buffer.h"
#include "libckpt/json_scan.h"

typedef struct {
    json_token token;
    size_t after;              /* the index behind the value that begins here */
} chat_token;

typedef struct {
    const char *text;          /* borrowed */
    const char *subject;
    chat_token *tokens;
    size_t count;
} chat_json;

/* As strict as json.h, but integers have any size. Release it also after a failure. */
ckpt_code chat_json_read(const char *text, size_t size, const char *subject, chat_json *out,
                         ckpt_error *err);
void chat_json_release(chat_json *json);

json_token_kind chat_kind(const chat_json *json, size_t value);
size_t chat_member(const chat_json *json, size_t object, const char *key);
/* Of an object or array: its keys (the value follows) or items. for (i = chat_first(j, v); i > 0;
 * i = chat_next(j, i)). */
size_t chat_first(const chat_json *json, size_t container);
size_t chat_next(const chat_json *json, size_t child);
int chat_equals(const chat_json *json, size_t value, const char *string);
/* What Python takes for false: null, false, 0, "", [] and {}; and what is not there. */
int chat_is_false(const chat_json *json, size_t value);

/* A string without its quotes and escapes. These append; the buffer remembers a failure. */
void chat_put_string(const chat_json *json, size_t value, byte_buffer *out);
/* Any value, or a string with them. */
void chat_put_value(const chat_json *json, size_t value, byte_buffer *out);
void chat_put_quoted(const char *bytes, size_t size, byte_buffer *out);

#endif
