/*
 * json.c: JSON values as a tree.
 *
 * json_check refuses invalid text and computes the size of the tree. memory.h may refuse that size;
 * else the tree is built in one block of memory: nodes first, then the strings.
 */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json_scan.h"
#include "memory.h"
#include "size.h"

struct json_value {
    json_value *next;
    const char *key;               /* of a member; else NULL */
    union {
        const char *string;
        json_value *first;         /* child */
        double number;
    } as;
    uint8_t kind;                  /* json_token_kind of its first token */
    uint8_t is_unsigned;           /* number written as an integer without a sign */
};

struct json_document {
    uint64_t size_bytes;           /* of the block, as counted by memory.h */
    size_t value_count;
    char *strings;                 /* after the values: where to put the next string */
    json_value values[];           /* the root is the first */
};

/* ---- building ---- */

/* The containers around the next value, and where to link it in each. */
typedef struct {
    json_value **ends[JSON_DEPTH_MAX + 1];
    const char *key;               /* of the next value */
    json_value *root;
} json_build;

static const char *take_string(json_document *d, const char *text, const json_token *token)
{
    char *string = d->strings;

    d->strings += json_token_decode(text, token, string) + 1;
    return string;
}

static void take_value(json_document *d, json_build *build, const char *text,
                       const json_token *token)
{
    json_value *value = &d->values[d->value_count++];

    memset(value, 0, sizeof *value);
    value->kind = (uint8_t)token->kind;
    value->key = build->key;
    build->key = NULL;
    *build->ends[token->depth] = value;
    build->ends[token->depth] = &value->next;
    if (token->kind == JSON_SCAN_OBJECT || token->kind == JSON_SCAN_ARRAY) {
        build->ends[token->depth + 1] = &value->as.first;
    } else if (token->kind == JSON_SCAN_STRING) {
        value->as.string = take_string(d, text, token);
    } else if (token->kind == JSON_SCAN_NUMBER) {
        value->as.number = json_token_number(text, token);
        value->is_unsigned = (uint8_t)token->is_unsigned;
    }
}

static ckpt_code build_tree(json_document *d, const char *text, size_t size, const char *subject,
                            ckpt_error *err)
{
    json_build build = { .key = NULL };
    json_scanner scan;
    json_token token;
    ckpt_code code;

    build.ends[0] = &build.root;
    json_scan_begin(&scan, text, size, subject);
    while ((code = json_scan_next(&scan, &token, err)) == CKPT_OK && token.kind != JSON_SCAN_END) {
        if (token.kind == JSON_SCAN_KEY)
            build.key = take_string(d, text, &token);
        else if (token.kind != JSON_SCAN_OBJECT_END && token.kind != JSON_SCAN_ARRAY_END)
            take_value(d, &build, text, &token);
    }
    return code;
}

/* ---- documents ---- */

ckpt_code json_parse(const char *text, size_t size, const char *subject, json_document **out,
                     ckpt_error *err)
{
    json_document *document;
    json_census census;
    uint64_t bytes;
    ckpt_code code;

    *out = NULL;
    if ((code = json_check(text, size, subject, &census, err)) != CKPT_OK)
        return code;
    if (!size_mul(census.value_count, sizeof *document->values, &bytes) ||
        !size_add(bytes, sizeof *document + census.string_bytes, &bytes))
        return ckpt_fail_memory(err, subject, UINT64_MAX);
    /* The text is counted, too, because it exists at the same time. */
    if (!memory_take(bytes + size))
        return ckpt_fail_memory(err, subject, bytes);
    memory_give(size);
    if ((document = malloc(bytes)) == NULL) {
        memory_give(bytes);
        return ckpt_fail_memory(err, subject, bytes);
    }
    document->size_bytes = bytes;
    document->value_count = 0;
    document->strings = (char *)(document->values + census.value_count);
    if ((code = build_tree(document, text, size, subject, err)) == CKPT_OK)
        *out = document;
    else
        json_free(document);
    return code;
}

ckpt_code json_parse_file(const char *path, uint64_t max_bytes, json_document **out,
                          ckpt_error *err)
{
    char *text;
    size_t size;
    ckpt_code code;

    *out = NULL;
    if ((code = file_read_all(path, max_bytes, &text, &size, err)) != CKPT_OK)
        return code;
    code = json_parse(text, size, path, out, err);
    free(text);
    return code;
}

ckpt_code json_parse_named(const char *path, uint64_t max_bytes, json_document **out,
                           ckpt_error *err)
{
    char *text;
    size_t size;
    ckpt_code code;

    *out = NULL;
    if ((code = file_read_named(path, max_bytes, &text, &size, err)) != CKPT_OK)
        return code;
    code = json_parse(text, size, path, out, err);
    free(text);
    return code;
}

void json_free(json_document *document)
{
    if (document == NULL)
        return;
    memory_give(document->size_bytes);
    free(document);
}

const json_value *json_root(const json_document *document)
{
    return document->values;
}

/* ---- values ---- */

static int is_kind(const json_value *value, json_token_kind kind)
{
    return value != NULL && value->kind == kind;
}

int json_is_object(const json_value *value)
{
    return is_kind(value, JSON_SCAN_OBJECT);
}

int json_is_array(const json_value *value)
{
    return is_kind(value, JSON_SCAN_ARRAY);
}

int json_is_null(const json_value *value)
{
    return is_kind(value, JSON_SCAN_NULL);
}

const char *json_string(const json_value *value)
{
    return is_kind(value, JSON_SCAN_STRING) ? value->as.string : NULL;
}

int json_u64(const json_value *value, uint64_t *out)
{
    if (!is_kind(value, JSON_SCAN_NUMBER) || !value->is_unsigned)
        return 0;
    *out = (uint64_t)value->as.number;
    return 1;
}

int json_number(const json_value *value, double *out)
{
    if (!is_kind(value, JSON_SCAN_NUMBER))
        return 0;
    *out = value->as.number;
    return 1;
}

int json_bool(const json_value *value, int *out)
{
    if (!is_kind(value, JSON_SCAN_TRUE) && !is_kind(value, JSON_SCAN_FALSE))
        return 0;
    *out = value->kind == JSON_SCAN_TRUE;
    return 1;
}

const json_value *json_first(const json_value *value)
{
    return json_is_object(value) || json_is_array(value) ? value->as.first : NULL;
}

const json_value *json_next(const json_value *value)
{
    return value->next;
}

const char *json_key(const json_value *value)
{
    return value->key;
}

size_t json_count(const json_value *value)
{
    size_t count = 0;

    for (const json_value *v = json_first(value); v != NULL; v = v->next)
        count++;
    return count;
}

const json_value *json_member(const json_value *object, const char *key)
{
    if (!json_is_object(object))
        return NULL;
    for (const json_value *v = object->as.first; v != NULL; v = v->next)
        if (strcmp(v->key, key) == 0)
            return v;
    return NULL;
}
