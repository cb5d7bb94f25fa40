/* chat_check.c: checks the members of messages and requests. */
#include "chat_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat_words.h"

#define TASK(name) "<" CHAT_BAR name CHAT_BAR ">"

enum { CALLS_MAX = 1024, KEY_BYTES = 64 };

const char *chat_task_token(const chat_json *json, size_t task)
{
    static const struct {
        const char *name;
        const char *token;
    } tasks[] = {
        { "action", TASK("action") }, { "query", TASK("query") },
        { "authority", TASK("authority") }, { "domain", TASK("domain") },
        { "title", TASK("title") }, { "read_url", TASK("read_url") },
    };

    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (chat_equals(json, task, tasks[i].name))
            return tasks[i].token;
    return NULL;
}

/* Kinds of values, as bits of a set. */
#define KIND(kind) (1u << (kind))
enum {
    IS_STRING = KIND(JSON_SCAN_STRING),
    IS_NULL = KIND(JSON_SCAN_NULL),
    IS_ARRAY = KIND(JSON_SCAN_ARRAY),
    IS_OBJECT = KIND(JSON_SCAN_OBJECT),
    IS_BOOL = KIND(JSON_SCAN_TRUE) | KIND(JSON_SCAN_FALSE),
    IS_ABSENT = KIND(JSON_SCAN_END)
};

static const struct {
    unsigned kind;
    const char *name;
} kind_names[] = {
    { IS_STRING, "a string" },  { IS_ARRAY, "an array" }, { IS_OBJECT, "an object" },
    { IS_BOOL, "true or false" }, { IS_NULL, "null" },
    { KIND(JSON_SCAN_NUMBER), "a number" }, { IS_ABSENT, "nothing" },
};

enum { KIND_NAMES = sizeof kind_names / sizeof *kind_names };

static const char *kind_name(unsigned kind)
{
    size_t i = 0;

    while (i + 1 < KIND_NAMES && (kind_names[i].kind & kind) == 0)
        i++;
    return kind_names[i].name;
}

static ckpt_code fail_kind(const chat_json *j, const char *path, unsigned kinds, size_t value,
                           ckpt_error *err)
{
    const unsigned found = value == 0 ? IS_ABSENT : KIND(chat_kind(j, value));
    char expected[CHAT_PATH_BYTES] = "";
    size_t used = 0;

    for (size_t i = 0; i < KIND_NAMES; i++)
        if ((kind_names[i].kind & kinds) != 0 && kind_names[i].kind != IS_ABSENT)
            used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                     used > 0 ? " or " : "", kind_names[i].name);
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s: expected %s, found %s", j->subject, path,
                     expected, kind_name(found));
}

/* Check that a member of the object has one of these kinds. *out: its value; out may be NULL. */
static ckpt_code want(const chat_place *p, const char *key, unsigned kinds, size_t *out,
                      ckpt_error *err)
{
    const size_t value = chat_member(p->json, p->object, key);
    const unsigned found = value == 0 ? IS_ABSENT : KIND(chat_kind(p->json, value));
    char path[CHAT_PATH_BYTES + KEY_BYTES];

    if (out != NULL)
        *out = value;
    if ((found & kinds) != 0)
        return CKPT_OK;
    snprintf(path, sizeof path, "%s%s%s", p->path, p->path[0] == '\0' ? "" : ".", key);
    return fail_kind(p->json, path, kinds, value, err);
}

ckpt_code chat_fail_at(const chat_place *p, const char *key, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s%s%s: %s", p->json->subject, p->path,
                     p->path[0] == '\0' ? "" : ".", key, what);
}

void chat_enter_item(const chat_place *p, const char *key, size_t i, size_t value, chat_place *out)
{
    *out = (chat_place){ .json = p->json, .object = value };
    snprintf(out->path, sizeof out->path, "%.60s%s%.20s[%zu]", p->path,
             p->path[0] == '\0' ? "" : ".", key, i);
}

/* ---- members of a message ---- */

/* 1 if a text that is not JSON here may be JSON to Python's reader, which accepts NaN, lone
 * surrogates and more. DeepSeek's encoder would then not treat it as plain text. */
static int is_doubtful(const char *text)
{
    unsigned brackets = 0;

    for (const char *at = text; *at != '\0'; at++)
        brackets += *at == '[' || *at == '{';
    return brackets > JSON_DEPTH_MAX || strstr(text, "NaN") != NULL ||
           strstr(text, "Infinity") != NULL || strstr(text, "\\u0000") != NULL ||
           strstr(text, "\\ud") != NULL || strstr(text, "\\uD") != NULL;
}

static int is_json(const char *text)
{
    json_scanner scan;
    json_token token = { .kind = JSON_SCAN_NULL };
    ckpt_error err;

    json_scan_begin(&scan, text, strlen(text), "arguments");
    scan.takes_long_integers = 1;
    while (token.kind != JSON_SCAN_END)
        if (json_scan_next(&scan, &token, &err) != CKPT_OK)
            return 0;
    return 1;
}

ckpt_code chat_arguments_read(const char *text, chat_json *out, ckpt_error *err)
{
    ckpt_code code;

    *out = (chat_json){ .text = text, .subject = "arguments" };
    if (!is_json(text))
        return is_doubtful(text) ? ckpt_fail(err, CKPT_E_FORMAT, "expected plain JSON: no NaN, "
                                             "infinity, lone surrogate or deep nesting")
                                 : CKPT_OK;
    if ((code = chat_json_read(text, strlen(text), "arguments", out, err)) == CKPT_OK &&
        chat_kind(out, 0) != JSON_SCAN_OBJECT)
        code = ckpt_fail(err, CKPT_E_FORMAT, "expected the JSON of an object");
    return code;
}

static ckpt_code check_arguments(const chat_place *function, size_t value, ckpt_error *err)
{
    byte_buffer text = { 0 };
    chat_json arguments = { 0 };
    ckpt_error why;
    ckpt_code code;

    chat_put_string(function->json, value, &text);
    byte_buffer_add(&text, "", 1);
    if (text.failed)
        code = ckpt_fail_memory(err, "arguments", text.used);
    else if ((code = chat_arguments_read(text.bytes, &arguments, &why)) != CKPT_OK)
        code = chat_fail_at(function, "arguments", why.text, err);
    chat_json_release(&arguments);
    free(text.bytes);
    return code;
}

static ckpt_code check_call(const chat_place *call, ckpt_error *err)
{
    const unsigned kinds = IS_STRING | IS_NULL | IS_ABSENT;
    chat_place function = { .json = call->json };
    size_t arguments;
    ckpt_code code;

    snprintf(function.path, sizeof function.path, "%.100s.function", call->path);
    if ((code = want(call, "function", IS_OBJECT, &function.object, err)) != CKPT_OK ||
        (code = want(call, "id", kinds, NULL, err)) != CKPT_OK ||
        (code = want(&function, "id", kinds, NULL, err)) != CKPT_OK ||
        (code = want(&function, "name", IS_STRING, NULL, err)) != CKPT_OK ||
        (code = want(&function, "arguments", IS_STRING, &arguments, err)) != CKPT_OK)
        return code;
    return check_arguments(&function, arguments, err);
}

typedef ckpt_code item_check(const chat_place *item, ckpt_error *err);

/* Check that each item of the array p.key is an object that passes `check`. */
static ckpt_code check_items(const chat_place *p, const char *key, item_check *check,
                             ckpt_error *err)
{
    ckpt_code code;
    size_t array;
    size_t count = 0;

    code = want(p, key, IS_ARRAY | IS_NULL | IS_ABSENT, &array, err);
    if (code != CKPT_OK || chat_is_false(p->json, array))
        return code;
    for (size_t i = chat_first(p->json, array); i > 0; i = chat_next(p->json, i)) {
        chat_place item;

        chat_enter_item(p, key, count, i, &item);
        if (++count > CALLS_MAX)
            return chat_fail_at(p, key, "expected at most 1024 items", err);
        if (chat_kind(p->json, i) != JSON_SCAN_OBJECT)
            return fail_kind(p->json, item.path, IS_OBJECT, i, err);
        if ((code = check(&item, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code check_tool(const chat_place *tool, ckpt_error *err)
{
    return want(tool, "function", ~(unsigned)IS_ABSENT, NULL, err);
}

/* Check an item of a tool's content. Items that are not text need only a type. */
static ckpt_code check_part(const chat_place *part, ckpt_error *err)
{
    size_t type;
    const ckpt_code code = want(part, "type", IS_STRING, &type, err);

    if (code != CKPT_OK || !chat_equals(part->json, type, "text"))
        return code;
    return want(part, "text", IS_STRING | IS_ABSENT, NULL, err);
}

static ckpt_code check_content(const chat_place *m, chat_role role, ckpt_error *err)
{
    static const unsigned kinds[] = {
        [CHAT_IS_SYSTEM] = IS_STRING | IS_NULL | IS_ABSENT,
        [CHAT_IS_DEVELOPER] = IS_STRING,
        [CHAT_IS_USER] = IS_STRING | IS_ABSENT,
        [CHAT_IS_ASSISTANT] = IS_STRING | IS_NULL | IS_ABSENT,
        [CHAT_IS_TOOL] = IS_STRING | IS_ARRAY | IS_ABSENT,
        [CHAT_IS_REMINDER] = IS_STRING,
    };
    size_t content;
    const ckpt_code code = want(m, "content", kinds[role], &content, err);

    if (code != CKPT_OK)
        return code;
    if (role == CHAT_IS_DEVELOPER && chat_is_false(m->json, content))
        return chat_fail_at(m, "content", "expected text, found \"\"", err);
    return content > 0 && chat_kind(m->json, content) == JSON_SCAN_ARRAY
               ? check_items(m, "content", check_part, err)
               : CKPT_OK;
}

/* Refuse a member that the encoder ignores in messages of this role, so that it is not lost. */
static ckpt_code check_owner(const chat_place *m, const char *key, int is_allowed, ckpt_error *err)
{
    const size_t value = chat_member(m->json, m->object, key);

    return is_allowed || chat_is_false(m->json, value)
               ? CKPT_OK
               : chat_fail_at(m, key, "has no place in a message of this role", err);
}

/* Refuse members that no encoder reads, unless they are empty: a misspelt one would be lost. */
static ckpt_code check_keys(const chat_place *p, const char *const *known, const char *expected,
                            ckpt_error *err)
{
    const chat_json *j = p->json;

    for (size_t key = chat_first(j, p->object); key > 0; key = chat_next(j, key)) {
        byte_buffer name = { 0 };
        ckpt_code code = CKPT_OK;
        size_t i = 0;

        while (known[i] != NULL && !chat_equals(j, key, known[i]))
            i++;
        if (known[i] != NULL || chat_is_false(j, key + 1))
            continue;
        chat_put_string(j, key, &name);
        byte_buffer_add(&name, "", 1);
        code = name.failed ? ckpt_fail_memory(err, "a name", name.used)
                           : chat_fail_at(p, name.bytes, expected, err);
        free(name.bytes);
        return code;
    }
    return CKPT_OK;
}

static ckpt_code check_task(const chat_place *m, ckpt_error *err)
{
    size_t task;
    const ckpt_code code = want(m, "task", IS_STRING | IS_NULL | IS_ABSENT, &task, err);

    if (code != CKPT_OK || task == 0 || chat_kind(m->json, task) == JSON_SCAN_NULL ||
        chat_task_token(m->json, task) != NULL)
        return code;
    return chat_fail_at(m, "task",
                        "expected action, query, authority, domain, title or read_url", err);
}

static ckpt_code find_role(const chat_place *m, chat_role *out, ckpt_error *err)
{
    static const char *const names[] = {
        [CHAT_IS_SYSTEM] = "system",       [CHAT_IS_DEVELOPER] = "developer",
        [CHAT_IS_USER] = "user",           [CHAT_IS_ASSISTANT] = "assistant",
        [CHAT_IS_TOOL] = "tool",           [CHAT_IS_REMINDER] = "latest_reminder",
    };
    ckpt_code code;
    size_t role;
    size_t i = 0;

    if ((code = want(m, "role", IS_STRING, &role, err)) != CKPT_OK)
        return code;
    while (i < sizeof names / sizeof *names && !chat_equals(m->json, role, names[i]))
        i++;
    if (i == sizeof names / sizeof *names)
        return chat_fail_at(m, "role", "expected system, developer, user, assistant, tool or "
                       "latest_reminder", err);
    *out = (chat_role)i;
    return CKPT_OK;
}

static ckpt_code check_members(const chat_place *m, chat_role role, ckpt_error *err)
{
    static const char *const known[] = {
        "role", "content", "reasoning_content", "tool_call_id", "wo_eos", "task", "tools",
        "response_format", "tool_calls", "content_blocks", NULL,
    };
    const unsigned kinds = IS_STRING | IS_NULL | IS_ABSENT;
    const int instructs = role == CHAT_IS_SYSTEM || role == CHAT_IS_DEVELOPER;
    const int answers = role == CHAT_IS_ASSISTANT;
    ckpt_code code;

    if ((code = check_content(m, role, err)) != CKPT_OK ||
        (code = want(m, "reasoning_content", kinds, NULL, err)) != CKPT_OK ||
        (code = want(m, "tool_call_id", kinds, NULL, err)) != CKPT_OK ||
        (code = want(m, "wo_eos", IS_BOOL | IS_ABSENT, NULL, err)) != CKPT_OK ||
        (code = check_task(m, err)) != CKPT_OK ||
        (code = check_owner(m, "tools", instructs, err)) != CKPT_OK ||
        (code = check_owner(m, "response_format", instructs, err)) != CKPT_OK ||
        (code = check_owner(m, "tool_calls", answers, err)) != CKPT_OK ||
        (code = check_owner(m, "reasoning_content", answers, err)) != CKPT_OK ||
        (code = check_owner(m, "content_blocks", 0, err)) != CKPT_OK ||
        (code = check_items(m, "tools", check_tool, err)) != CKPT_OK ||
        (code = check_items(m, "tool_calls", check_call, err)) != CKPT_OK)
        return code;
    return check_keys(m, known, "is not read: expected role, content, reasoning_content, "
                      "tool_calls, tool_call_id, tools, response_format, task or wo_eos", err);
}

ckpt_code chat_check_message(const chat_place *m, chat_role *role, ckpt_error *err)
{
    ckpt_code code;

    if (chat_kind(m->json, m->object) != JSON_SCAN_OBJECT)
        return fail_kind(m->json, m->path, IS_OBJECT, m->object, err);
    code = find_role(m, role, err);
    return code == CKPT_OK ? check_members(m, *role, err) : code;
}

/* What names a model or a way of delivery says nothing about the prompt. How to sample does matter,
 * but is said by options. */
ckpt_code chat_check_request(const chat_place *request, size_t *messages, ckpt_error *err)
{
    static const char *const known[] = { "messages", "tools", "response_format", "model", "stream",
                                         "stream_options", "user", "metadata", NULL };
    ckpt_code code;

    if ((code = want(request, "messages", IS_ARRAY, messages, err)) != CKPT_OK ||
        (code = check_items(request, "tools", check_tool, err)) != CKPT_OK)
        return code;
    return check_keys(request, known, "is not read: expected messages, tools or response_format; "
                      "options say how to sample (--temperature, --generate)", err);
}
