/*
 * json_scan.h: strict JSON, one token at a time, without memory.
 *
 * This is where bad text is refused. The tree, the editor and the readers of headers and indexes
 * all read these tokens, so they agree on what the text says and where.
 */
#ifndef CKPT_JSON_SCAN_H
#define CKPT_JSON_SCAN_H

#include "json.h"

typedef enum {
    JSON_SCAN_END,           /* of the text; nothing but white space was left */
    JSON_SCAN_OBJECT,
    JSON_SCAN_OBJECT_END,
    JSON_SCAN_ARRAY,
    JSON_SCAN_ARRAY_END,
    JSON_SCAN_KEY,           /* the colon behind it is read too */
    JSON_SCAN_STRING,
    JSON_SCAN_NUMBER,
    JSON_SCAN_TRUE,
    JSON_SCAN_FALSE,
    JSON_SCAN_NULL
} json_token_kind;

typedef struct {
    json_token_kind kind;
    int is_unsigned;         /* a number written as an integer, without a sign */
    unsigned depth;          /* containers around it; a bracket is not inside its own */
    size_t start;            /* text[start .. end), quotes included */
    size_t end;
} json_token;

typedef struct {
    const char *text;
    size_t size;
    const char *subject;     /* for errors */
    size_t at;
    unsigned depth;
    int state;
    int takes_long_integers; /* 0 after the begin; 1: its reader keeps the digits of a number */
    unsigned char is_object[JSON_DEPTH_MAX + 1];
} json_scanner;

/* All arguments are borrowed for the life of the scanner. */
void json_scan_begin(json_scanner *s, const char *text, size_t size, const char *subject);
/* The next token, or CKPT_E_FORMAT. After a failure or JSON_SCAN_END the scanner is done. */
ckpt_code json_scan_next(json_scanner *s, json_token *token, ckpt_error *err);
/* Read to the end. */
ckpt_code json_scan_all(const char *text, size_t size, const char *subject, ckpt_error *err);

/* What a tree of the text would hold. */
typedef struct {
    uint64_t value_count;
    uint64_t string_bytes;   /* of strings and keys, each with its NUL, at most */
} json_census;

/* Refuse all that json.h says, in one pass, without a tree: whoever reads the tokens of a text that
 * has passed need not look for keys that occur twice. */
ckpt_code json_check(const char *text, size_t size, const char *subject, json_census *out,
                     ckpt_error *err);

/* Refuse the text at byte `at`. Always CKPT_E_FORMAT. */
ckpt_code json_scan_fail(const json_scanner *s, size_t at, const char *what, ckpt_error *err);

/* 1 when a key or string token, its escapes undone, is `string`. */
int json_token_equals(const char *text, const json_token *token, const char *string);

/* A key or string token without its escapes, NUL-terminated; `out` has room for token->end -
 * token->start - 1 bytes, or is NULL. Returns its length. */
size_t json_token_decode(const char *text, const json_token *token, char *out);

/* Read the value of the key that was read last, whatever it is: a token that ends where it does. */
ckpt_code json_scan_value(json_scanner *s, json_token *value, ckpt_error *err);

/* The value of a number token; infinity when it is too large for a double. */
double json_token_number(const char *text, const json_token *token);
/* 1 for a non-negative integer literal, 0 for any other token. */
int json_token_u64(const char *text, const json_token *token, uint64_t *out);

/* Bytes of the UTF-8 character at `bytes`, of which `left` may be read; 0 when it is none. */
size_t json_utf8_bytes(const unsigned char *bytes, size_t left);

#endif
