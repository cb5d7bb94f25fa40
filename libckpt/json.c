/*
 * json.c: JSON values, and the only file that knows cJSON.
 *
 * The scanner refuses bad text first; cJSON then builds the tree; a walk over tree and tokens
 * side by side checks what only both can tell: keys that occur twice, numbers that a double
 * cannot hold, and that the two readings agree.
 */
#include "json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json_scan.h"
#include "table.h"

struct json_document {
    cJSON *root;
};

/* Objects with fewer members than this are searched; larger ones get a table. */
enum { JSON_TABLE_FROM = 12 };

/* ---- the walk ---- */

/* A container being walked. */
typedef struct {
    cJSON *first;
    cJSON *next;             /* its next child */
    size_t member_count;     /* keys met so far */
    int has_table;
    table keys;
} walk_level;

typedef struct {
    json_scanner scan;
    unsigned depth;
    walk_level levels[JSON_DEPTH_MAX + 1];      /* levels[0] holds the root alone */
} json_walk;

static void walk_push(json_walk *walk, cJSON *children)
{
    walk_level *level = &walk->levels[++walk->depth];

    level->first = children;
    level->next = children;
    level->member_count = 0;
    level->has_table = 0;
}

static void walk_pop(json_walk *walk)
{
    walk_level *level = &walk->levels[walk->depth--];

    if (level->has_table)
        table_release(&level->keys);
}

/* 1: new; 0: there already; -1: no memory. */
static int add_key(walk_level *level, const char *key)
{
    const cJSON *other = level->first;

    level->member_count++;
    if (level->member_count <= JSON_TABLE_FROM) {
        for (size_t i = 1; i < level->member_count; i++, other = other->next)
            if (strcmp(other->string, key) == 0)
                return 0;
        return 1;
    }
    if (!level->has_table) {
        table_init(&level->keys);
        level->has_table = 1;
        for (size_t i = 1; i < level->member_count; i++, other = other->next)
            if (table_add(&level->keys, other->string, 0) != TABLE_ADDED)
                return -1;
    }
    return table_add(&level->keys, key, 0);
}

static ckpt_code check_key(json_walk *walk, const json_token *token, ckpt_error *err)
{
    walk_level *level = &walk->levels[walk->depth];
    const cJSON *member = level->next;
    const char *text = walk->scan.text;

    if (member == NULL || member->string == NULL ||
        !json_token_equals(text, token, member->string))
        return json_scan_fail(&walk->scan, token->start, "a key that cJSON reads otherwise", err);
    switch (add_key(level, member->string)) {
    case TABLE_ADDED:
        return CKPT_OK;
    case TABLE_PRESENT:
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' is not good JSON: key '%s' occurs twice, again at byte %zu",
                         walk->scan.subject, member->string, token->start);
    default:
        return ckpt_fail_memory(err, walk->scan.subject, level->member_count);
    }
}

/* cJSON's type for a token that starts a value; 0 for the others. */
static int type_of(json_token_kind kind)
{
    switch (kind) {
    case JSON_SCAN_OBJECT: return cJSON_Object;
    case JSON_SCAN_ARRAY:  return cJSON_Array;
    case JSON_SCAN_STRING: return cJSON_String;
    case JSON_SCAN_NUMBER: return cJSON_Number;
    case JSON_SCAN_TRUE:   return cJSON_True;
    case JSON_SCAN_FALSE:  return cJSON_False;
    case JSON_SCAN_NULL:   return cJSON_NULL;
    default:               return 0;
    }
}

static ckpt_code check_value(json_walk *walk, const json_token *token, ckpt_error *err)
{
    walk_level *level = &walk->levels[walk->depth];
    cJSON *value = level->next;

    if (value == NULL || (value->type & 0xff) != type_of(token->kind))
        return json_scan_fail(&walk->scan, token->start, "a value that cJSON reads otherwise",
                              err);
    level->next = value->next;
    if (token->kind == JSON_SCAN_NUMBER) {
        if (isinf(value->valuedouble))
            return json_scan_fail(&walk->scan, token->start, "number too large for a double",
                                  err);
        /* valueint is a saturated copy that nobody needs; it keeps what the double forgets. */
        value->valueint = token->is_unsigned;
    }
    if (token->kind == JSON_SCAN_OBJECT || token->kind == JSON_SCAN_ARRAY)
        walk_push(walk, value->child);
    return CKPT_OK;
}

static ckpt_code check_end(json_walk *walk, const json_token *token, ckpt_error *err)
{
    if (walk->levels[walk->depth].next != NULL)
        return json_scan_fail(&walk->scan, token->start, "an end that cJSON reads otherwise", err);
    walk_pop(walk);
    return CKPT_OK;
}

static ckpt_code check_tree(cJSON *root, const char *text, size_t size, const char *subject,
                            ckpt_error *err)
{
    json_walk *walk = malloc(sizeof *walk);
    json_token token;
    ckpt_code code;

    if (walk == NULL)
        return ckpt_fail_memory(err, subject, sizeof *walk);
    json_scan_begin(&walk->scan, text, size, subject);
    walk->depth = 0;
    walk->levels[0].first = root;
    walk->levels[0].next = root;
    walk->levels[0].has_table = 0;
    for (;;) {
        if ((code = json_scan_next(&walk->scan, &token, err)) != CKPT_OK)
            break;
        if (token.kind == JSON_SCAN_END)
            break;
        if (token.kind == JSON_SCAN_KEY)
            code = check_key(walk, &token, err);
        else if (token.kind == JSON_SCAN_OBJECT_END || token.kind == JSON_SCAN_ARRAY_END)
            code = check_end(walk, &token, err);
        else
            code = check_value(walk, &token, err);
        if (code != CKPT_OK)
            break;
    }
    while (walk->depth > 0)
        walk_pop(walk);
    free(walk);
    return code;
}

/* ---- documents ---- */

ckpt_code json_parse(const char *text, size_t size, const char *subject, json_document **out,
                     ckpt_error *err)
{
    json_document *document = NULL;
    ckpt_code code;

    *out = NULL;
    if ((code = json_scan_all(text, size, subject, err)) != CKPT_OK)
        return code;
    document = calloc(1, sizeof *document);
    if (document == NULL)
        return ckpt_fail_memory(err, subject, sizeof *document);
    /* The text is good, so memory is all that cJSON can lack. */
    document->root = cJSON_ParseWithLengthOpts(text, size, NULL, 0);
    if (document->root == NULL)
        code = ckpt_fail_memory(err, subject, size);
    else
        code = check_tree(document->root, text, size, subject, err);
    if (code != CKPT_OK) {
        json_free(document);
        return code;
    }
    *out = document;
    return CKPT_OK;
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
    cJSON_Delete(document->root);
    free(document);
}

const json_value *json_root(const json_document *document)
{
    return document->root;
}

/* ---- values ---- */

int json_is_object(const json_value *value)
{
    return cJSON_IsObject(value);
}

int json_is_array(const json_value *value)
{
    return cJSON_IsArray(value);
}

int json_is_null(const json_value *value)
{
    return cJSON_IsNull(value);
}

const char *json_string(const json_value *value)
{
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

int json_u64(const json_value *value, uint64_t *out)
{
    if (!cJSON_IsNumber(value) || !value->valueint)
        return 0;
    *out = (uint64_t)value->valuedouble;
    return 1;
}

int json_number(const json_value *value, double *out)
{
    if (!cJSON_IsNumber(value))
        return 0;
    *out = value->valuedouble;
    return 1;
}

int json_bool(const json_value *value, int *out)
{
    if (!cJSON_IsBool(value))
        return 0;
    *out = cJSON_IsTrue(value);
    return 1;
}

const json_value *json_first(const json_value *value)
{
    return json_is_object(value) || json_is_array(value) ? value->child : NULL;
}

const json_value *json_next(const json_value *value)
{
    return value->next;
}

const char *json_key(const json_value *value)
{
    return value->string;
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
    for (const json_value *v = object->child; v != NULL; v = v->next)
        if (strcmp(v->string, key) == 0)
            return v;
    return NULL;
}
