/*
 * json.h: a strict JSON parser and a streaming JSON writer.
 *
 * The parser refuses what others accept: duplicate keys, trailing bytes, invalid UTF-8,
 * control characters in strings, embedded NUL, lone surrogates, numbers outside the JSON grammar,
 * integers of magnitude above 2^53 (they would be rounded), other numbers beyond a double or of
 * more than 63 characters, nesting deeper than JSON_DEPTH_MAX. Errors name the subject and the
 * byte. The size of a tree is computed before it is built; one that exceeds the memory limit
 * (memory.h) is refused.
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
/* The same for a path given by the user, which may be a pipe. */
ckpt_code json_parse_named(const char *path, uint64_t max_bytes, json_document **out,
                           ckpt_error *err);
void json_free(json_document *document);

const json_value *json_root(const json_document *document);

/* The kind of a value. All return 0 for NULL. */
int json_is_object(const json_value *value);
int json_is_array(const json_value *value);
int json_is_null(const json_value *value);
/* These return NULL or 0 if the value is of another kind. */
const char *json_string(const json_value *value);
int json_u64(const json_value *value, uint64_t *out);      /* non-negative integer literal */
int json_number(const json_value *value, double *out);
int json_bool(const json_value *value, int *out);

/* Children in file order: for (v = json_first(o); v != NULL; v = json_next(v)). */
const json_value *json_first(const json_value *value);
const json_value *json_next(const json_value *value);
const char *json_key(const json_value *value);
size_t json_count(const json_value *value);

/* Member of an object by exact key; NULL when absent. A linear search: not for objects with many
 * members. */
const json_value *json_member(const json_value *object, const char *key);

/* 1 when two values are equal. Order of members is ignored; numbers compare by value (1 is 1.0). */
int json_equal(const json_value *a, const json_value *b);

/*
 * Edit one member in the text of an object: the top-level member `key` gets `value` (JSON text), or
 * is added as the last one, or is removed when value is NULL. White space and all other members are
 * kept. `text` must have passed json_parse. *out is malloc'd, NUL-terminated, yours to free.
 */
ckpt_code json_edit(const char *text, const char *key, const char *value, char **out,
                    ckpt_error *err);
/* The JSON text of the top-level member `key`, unchanged. *out is malloc'd, or NULL when there is
 * no such member. */
ckpt_code json_member_text(const char *text, const char *key, char **out, ckpt_error *err);

/* ---- writing ---- */

/* Streams a document and adds commas, quotes and escapes. `write` gets the bytes; it returns
 * non-zero on failure. A failure is kept until json_writer_end, which returns 0 then. `indent`:
 * blanks per level; 0: compact. */
typedef int json_write_fn(void *context, const char *bytes, size_t size);
typedef struct {
    json_write_fn *write;
    void *context;
    unsigned indent;
    unsigned depth;
    int failed;
    int pending_key;
    const char *schema;                         /* value of a first member "schema", or NULL */
    unsigned char filled[JSON_DEPTH_MAX + 1];   /* by level: whether it has an entry */
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
