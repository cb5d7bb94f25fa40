/*
 * json.h: strict JSON in, streamed JSON out.
 *
 * Reading refuses what other readers let pass: duplicate keys, trailing bytes, invalid UTF-8,
 * control characters in strings, embedded NUL, lone surrogates, numbers outside the JSON grammar,
 * integers of magnitude above 2^53 (they would be rounded), other numbers beyond a double or of
 * more than 63 characters, nesting deeper than JSON_DEPTH_MAX. Errors name the subject and the
 * byte. A tree is counted before it is built, and refused where memory.h has no room for it.
 */
#ifndef CKPT_JSON_H
#define CKPT_JSON_H

#include <stdio.h>

#include "error.h"

enum { JSON_DEPTH_MAX = 64 };

typedef struct json_document json_document;
typedef struct json_value json_value;      /* opaque: use the functions below */

/* Parse `size` bytes. `subject` names the text in errors ("config.json"). *out is yours to free.
 * Trailing white space is fine. */
ckpt_code json_parse(const char *text, size_t size, const char *subject, json_document **out,
                     ckpt_error *err);
ckpt_code json_parse_file(const char *path, uint64_t max_bytes, json_document **out,
                          ckpt_error *err);
/* The same for a path that the user gave for this file: a pipe is fine, too. */
ckpt_code json_parse_named(const char *path, uint64_t max_bytes, json_document **out,
                           ckpt_error *err);
void json_free(json_document *document);

const json_value *json_root(const json_document *document);

/* Kinds. A NULL value is of no kind. */
int json_is_object(const json_value *value);
int json_is_array(const json_value *value);
int json_is_null(const json_value *value);
/* NULL / 0 when the value is of another kind. */
const char *json_string(const json_value *value);
int json_u64(const json_value *value, uint64_t *out);      /* non-negative integer literal */
int json_number(const json_value *value, double *out);
int json_bool(const json_value *value, int *out);

/* Children in file order: for (v = json_first(o); v != NULL; v = json_next(v)). */
const json_value *json_first(const json_value *value);
const json_value *json_next(const json_value *value);
const char *json_key(const json_value *value);
size_t json_count(const json_value *value);

/* Member of an object by exact key, linear; NULL when absent. For config files, not indexes. */
const json_value *json_member(const json_value *object, const char *key);

/* 1 when two values are equal: objects without regard to order, numbers by value (1 is 1.0). */
int json_equal(const json_value *a, const json_value *b);

/*
 * Edit the text of an object without touching the rest of it: the top-level member `key` gets
 * `value` (JSON text), is added as the last one, or is removed when value is NULL. White space and
 * all other members stay as they are. `text` must have passed json_parse. *out is malloc'd,
 * NUL-terminated, yours to free.
 */
ckpt_code json_edit(const char *text, const char *key, const char *value, char **out,
                    ckpt_error *err);
/* JSON text of the top-level member `key` as it stands in `text`; *out malloc'd, or NULL when
 * there is none. */
ckpt_code json_member_text(const char *text, const char *key, char **out, ckpt_error *err);

/* ---- writing ---- */

/* Streams a document; commas, quotes and escapes are its business. Errors stick: look at
 * json_writer_end. `indent` 0 is compact. `write` gets the bytes; non-zero means failure. */
typedef int json_write_fn(void *context, const char *bytes, size_t size);
typedef struct {
    json_write_fn *write;
    void *context;
    unsigned indent;
    unsigned depth;
    int failed;
    int pending_key;
    const char *schema;                         /* the first member of the document; NULL: none */
    unsigned char filled[JSON_DEPTH_MAX + 1];   /* has this level an entry yet */
} json_writer;

void json_writer_begin(json_writer *w, json_write_fn *write, void *context, unsigned indent);
int json_writer_end(json_writer *w);               /* 1 when everything was written */
int json_write_stdio(void *context, const char *bytes, size_t size);   /* context: FILE * */

void json_put_object(json_writer *w);
void json_put_object_end(json_writer *w);
void json_put_array(json_writer *w);
void json_put_array_end(json_writer *w);
void json_put_key(json_writer *w, const char *key);
void json_put_string(json_writer *w, const char *text);    /* NULL: null */
void json_put_u64(json_writer *w, uint64_t number);
void json_put_i64(json_writer *w, int64_t number);
void json_put_double(json_writer *w, double number);       /* shortest text; NaN, infinity: null */
void json_put_bool(json_writer *w, int flag);
void json_put_null(json_writer *w);
void json_put_raw(json_writer *w, const char *json);       /* one value, already JSON */

/* Members of an object: a key and its value. */
void json_member_string(json_writer *w, const char *key, const char *text);
void json_member_u64(json_writer *w, const char *key, uint64_t number);
void json_member_double(json_writer *w, const char *key, double number);
void json_member_bool(json_writer *w, const char *key, int flag);
void json_member_object(json_writer *w, const char *key);      /* up to json_put_object_end */
void json_member_array(json_writer *w, const char *key);
void json_member_names(json_writer *w, const char *key, const char *const *names, size_t count);

#endif
