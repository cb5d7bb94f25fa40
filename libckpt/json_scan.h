/*
 * json_scan.h: strict JSON, one token at a time, without memory.
 *
 * Invalid text is refused here. The tree, the editor and the readers of headers and indexes all use
 * these tokens, so they agree on the content of a text and on positions in it.
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
    JSON_SCAN_KEY,           /* the colon after it has been read, too */
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
    int takes_long_integers; /* 1: accept integers above 2^53, for callers that keep the digits */
    unsigned char is_object[JSON_DEPTH_MAX + 1];
} json_scanner;

/* All arguments are borrowed for the life of the scanner. */
void json_scan_begin(json_scanner *s, const char *text, size_t size, const char *subject);
/* The next token, or CKPT_E_FORMAT. After a failure or JSON_SCAN_END the scanner is done. */
ckpt_code json_scan_next(json_scanner *s, json_token *token, ckpt_error *err);
/* Read all tokens to the end. */
ckpt_code json_scan_all(const char *text, size_t size, const char *subject, ckpt_error *err);

/* The size of a tree of the text. */
typedef struct {
    uint64_t value_count;
    uint64_t string_bytes;   /* of strings and keys, each with its NUL, at most */
} json_census;

/* Check a text for everything that json.h refuses, in one pass, without a tree. Readers of tokens
 * need not look for duplicate keys in a text that has passed. */
ckpt_code json_check(const char *text, size_t size, const char *subject, json_census *out,
                     ckpt_error *err);

/* Fill in the error for byte `at`. Always returns CKPT_E_FORMAT. */
ckpt_code json_scan_fail(const json_scanner *s, size_t at, const char *what, ckpt_error *err);

/* 1 when a key or string token, with its escapes decoded, equals `string`. */
int json_token_equals(const char *text, const json_token *token, const char *string);

/* Decode the escapes of a key or string token into `out`, NUL-terminated. `out` has room for
 * token->end - token->start - 1 bytes, or is NULL. Returns the length. */
size_t json_token_decode(const char *text, const json_token *token, char *out);

/* Read the whole value after the last key, of any kind, as one token from its start to its end. */
ckpt_code json_scan_value(json_scanner *s, json_token *value, ckpt_error *err);

/* The value of a number token; infinity when it is too large for a double. */
double json_token_number(const char *text, const json_token *token);
/* 1 for a non-negative integer literal, 0 for any other token. */
int json_token_u64(const char *text, const json_token *token, uint64_t *out);

/* Length of the UTF-8 character at `bytes`, of which `left` may be read; 0 when it is invalid. */
size_t json_utf8_bytes(const unsigned char *bytes, size_t left);
/* 1 when all of the text is such characters. */
int json_is_utf8(const char *text, size_t size);

#endif
