/*
 * json_scan.h: strict JSON, one token at a time, without memory.
 *
 * This is where bad text is refused. The tree, the editor and the duplicate check all read these
 * tokens, so they agree on what the text says and where.
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
    unsigned char is_object[JSON_DEPTH_MAX + 1];
} json_scanner;

/* All arguments are borrowed for the life of the scanner. */
void json_scan_begin(json_scanner *s, const char *text, size_t size, const char *subject);
/* The next token, or CKPT_E_FORMAT. After a failure or JSON_SCAN_END the scanner is done. */
ckpt_code json_scan_next(json_scanner *s, json_token *token, ckpt_error *err);
/* Read to the end. */
ckpt_code json_scan_all(const char *text, size_t size, const char *subject, ckpt_error *err);

/* Refuse the text at byte `at`. Always CKPT_E_FORMAT. */
ckpt_code json_scan_fail(const json_scanner *s, size_t at, const char *what, ckpt_error *err);

/* 1 when a key or string token, its escapes undone, is `string`. */
int json_token_equals(const char *text, const json_token *token, const char *string);

/* Bytes of the UTF-8 character at `bytes`, of which `left` may be read; 0 when it is none. */
size_t json_utf8_bytes(const unsigned char *bytes, size_t left);

#endif
