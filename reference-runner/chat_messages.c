/* chat_messages.c: checks a conversation, and joins the messages of the user and the tools between
 * two answers into one turn. */
#include "chat_messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat_words.h"
#include "libckpt/array.h"

#define TASK(name) "<" CHAT_BAR name CHAT_BAR ">"

enum { CALLS_MAX = 1024, PATH_BYTES = 128, KEY_BYTES = 64 };

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
    char expected[PATH_BYTES] = "";
    size_t used = 0;

    for (size_t i = 0; i < KIND_NAMES; i++)
        if ((kind_names[i].kind & kinds) != 0 && kind_names[i].kind != IS_ABSENT)
            used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                     used > 0 ? " or " : "", kind_names[i].name);
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s: expected %s, found %s", j->subject, path,
                     expected, kind_name(found));
}

/* An object and its path for errors, as in messages[2].tool_calls[0]. */
typedef struct {
    const chat_json *json;
    size_t object;
    char path[PATH_BYTES];
} place;

/* Check that a member of the object has one of these kinds. *out: its value; out may be NULL. */
static ckpt_code want(const place *p, const char *key, unsigned kinds, size_t *out,
                      ckpt_error *err)
{
    const size_t value = chat_member(p->json, p->object, key);
    const unsigned found = value == 0 ? IS_ABSENT : KIND(chat_kind(p->json, value));
    char path[PATH_BYTES + KEY_BYTES];

    if (out != NULL)
        *out = value;
    if ((found & kinds) != 0)
        return CKPT_OK;
    snprintf(path, sizeof path, "%s%s%s", p->path, p->path[0] == '\0' ? "" : ".", key);
    return fail_kind(p->json, path, kinds, value, err);
}

static ckpt_code fail_at(const place *p, const char *key, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s%s%s: %s", p->json->subject, p->path,
                     p->path[0] == '\0' ? "" : ".", key, what);
}

/* Set *out to item i of the array p.key, and to its path. */
static void enter_item(const place *p, const char *key, size_t i, size_t value, place *out)
{
    *out = (place){ .json = p->json, .object = value };
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

static ckpt_code check_arguments(const place *function, size_t value, ckpt_error *err)
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
        code = fail_at(function, "arguments", why.text, err);
    chat_json_release(&arguments);
    free(text.bytes);
    return code;
}

static ckpt_code check_call(const place *call, ckpt_error *err)
{
    const unsigned kinds = IS_STRING | IS_NULL | IS_ABSENT;
    place function = { .json = call->json };
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

typedef ckpt_code item_check(const place *item, ckpt_error *err);

/* Check that each item of the array p.key is an object that passes `check`. */
static ckpt_code check_items(const place *p, const char *key, item_check *check, ckpt_error *err)
{
    ckpt_code code;
    size_t array;
    size_t count = 0;

    code = want(p, key, IS_ARRAY | IS_NULL | IS_ABSENT, &array, err);
    if (code != CKPT_OK || chat_is_false(p->json, array))
        return code;
    for (size_t i = chat_first(p->json, array); i > 0; i = chat_next(p->json, i)) {
        place item;

        enter_item(p, key, count, i, &item);
        if (++count > CALLS_MAX)
            return fail_at(p, key, "expected at most 1024 items", err);
        if (chat_kind(p->json, i) != JSON_SCAN_OBJECT)
            return fail_kind(p->json, item.path, IS_OBJECT, i, err);
        if ((code = check(&item, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code check_tool(const place *tool, ckpt_error *err)
{
    return want(tool, "function", ~(unsigned)IS_ABSENT, NULL, err);
}

/* Check an item of a tool's content. Items that are not text need only a type. */
static ckpt_code check_part(const place *part, ckpt_error *err)
{
    size_t type;
    const ckpt_code code = want(part, "type", IS_STRING, &type, err);

    if (code != CKPT_OK || !chat_equals(part->json, type, "text"))
        return code;
    return want(part, "text", IS_STRING | IS_ABSENT, NULL, err);
}

static ckpt_code check_content(const place *m, chat_role role, ckpt_error *err)
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
        return fail_at(m, "content", "expected text, found \"\"", err);
    return content > 0 && chat_kind(m->json, content) == JSON_SCAN_ARRAY
               ? check_items(m, "content", check_part, err)
               : CKPT_OK;
}

/* Refuse a member that the encoder ignores in messages of this role, so that it is not lost. */
static ckpt_code check_owner(const place *m, const char *key, int is_allowed, ckpt_error *err)
{
    const size_t value = chat_member(m->json, m->object, key);

    return is_allowed || chat_is_false(m->json, value)
               ? CKPT_OK
               : fail_at(m, key, "has no place in a message of this role", err);
}

/* Refuse members that no encoder reads, unless they are empty: a misspelt one would be lost. */
static ckpt_code check_keys(const place *p, const char *const *known, const char *expected,
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
                           : fail_at(p, name.bytes, expected, err);
        free(name.bytes);
        return code;
    }
    return CKPT_OK;
}

static ckpt_code check_task(const place *m, ckpt_error *err)
{
    size_t task;
    const ckpt_code code = want(m, "task", IS_STRING | IS_NULL | IS_ABSENT, &task, err);

    if (code != CKPT_OK || task == 0 || chat_kind(m->json, task) == JSON_SCAN_NULL ||
        chat_task_token(m->json, task) != NULL)
        return code;
    return fail_at(m, "task", "expected action, query, authority, domain, title or read_url", err);
}

static ckpt_code find_role(const place *m, chat_role *out, ckpt_error *err)
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
        return fail_at(m, "role", "expected system, developer, user, assistant, tool or "
                       "latest_reminder", err);
    *out = (chat_role)i;
    return CKPT_OK;
}

static ckpt_code check_message(const place *m, chat_role role, ckpt_error *err)
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

/* ---- turns ---- */

static chat_turn *add_turn(chat_list *list, const chat_turn *turn, ckpt_error *err)
{
    chat_turn *turns = array_room_counted(list->turns, list->turn_count, sizeof *turns,
                                          "messages", err);

    if (turns == NULL)
        return NULL;
    list->turns = turns;
    turns[list->turn_count] = *turn;
    return &turns[list->turn_count++];
}

/* Add a message of the user or a tool as a block of the current user turn. A new turn begins after
 * another role, and after a turn with a task, which can take only tool results. */
static ckpt_code add_block(chat_list *list, chat_turn turn, ckpt_error *err)
{
    const int is_result = turn.role == CHAT_IS_TOOL;
    chat_turn *last = list->turn_count > 0 ? &list->turns[list->turn_count - 1] : NULL;
    chat_block *blocks = array_room_counted(list->blocks, list->block_count, sizeof *blocks,
                                            "messages", err);

    if (blocks == NULL)
        return CKPT_E_MEMORY;
    list->blocks = blocks;
    blocks[list->block_count++] = (chat_block){ turn.message, is_result };
    if (last != NULL && last->role == CHAT_IS_USER && (is_result || last->task == 0)) {
        last->block_count++;
        return CKPT_OK;
    }
    turn.role = CHAT_IS_USER;
    turn.task = is_result ? 0 : turn.task;
    turn.block = list->block_count - 1;
    turn.block_count = 1;
    return add_turn(list, &turn, err) == NULL ? CKPT_E_MEMORY : CKPT_OK;
}

static ckpt_code add_message(chat_list *list, const place *m, ckpt_error *err)
{
    chat_turn turn = { .message = m->object,
                       .tools = chat_member(m->json, m->object, "tools"),
                       .response_format = chat_member(m->json, m->object, "response_format"),
                       .task = chat_member(m->json, m->object, "task") };
    ckpt_code code = find_role(m, &turn.role, err);

    if (code != CKPT_OK || (code = check_message(m, turn.role, err)) != CKPT_OK)
        return code;
    if (turn.task > 0 && chat_kind(m->json, turn.task) == JSON_SCAN_NULL)
        turn.task = 0;
    if (turn.role == CHAT_IS_USER || turn.role == CHAT_IS_TOOL)
        return add_block(list, turn, err);
    return add_turn(list, &turn, err) == NULL ? CKPT_E_MEMORY : CKPT_OK;
}

/* ---- results in the order of the calls ---- */

typedef struct {
    chat_block block;
    size_t order;              /* index of its call */
    size_t place;              /* index among the results, to keep the order of equal ones */
} ordered;

static int compare_ordered(const void *left, const void *right)
{
    const ordered *a = left;
    const ordered *b = right;

    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

/* The identifier of a call, or 0. */
static size_t call_id(const chat_json *j, size_t call)
{
    const size_t id = chat_member(j, call, "id");
    const size_t other = chat_member(j, chat_member(j, call, "function"), "id");

    return !chat_is_false(j, id) ? id : !chat_is_false(j, other) ? other : 0;
}

/* The index of the last call with this identifier; 0 if there is none. */
static size_t find_order(const chat_json *j, size_t calls, const char *id)
{
    size_t order = 0;
    size_t at = 0;

    for (size_t i = chat_first(j, calls); i > 0; i = chat_next(j, i), at++)
        if (call_id(j, i) > 0 && chat_equals(j, call_id(j, i), id))
            order = at;
    return order;
}

static ckpt_code order_of(const chat_list *list, size_t calls, size_t message, size_t *out,
                          ckpt_error *err)
{
    const chat_json *j = &list->json;
    const size_t id = chat_member(j, message, "tool_call_id");
    byte_buffer text = { 0 };

    *out = 0;
    if (chat_is_false(j, id))
        return CKPT_OK;
    chat_put_string(j, id, &text);
    byte_buffer_add(&text, "", 1);
    if (!text.failed)
        *out = find_order(j, calls, text.bytes);
    free(text.bytes);
    return text.failed ? ckpt_fail_memory(err, "an identifier", 0) : CKPT_OK;
}

/* Sort the results among their own positions; blocks of text stay where they are. */
static ckpt_code sort_turn(chat_list *list, const chat_turn *turn, size_t calls, ckpt_error *err)
{
    chat_block *blocks = list->blocks + turn->block;
    ordered *results = calloc(turn->block_count, sizeof *results);
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    if (results == NULL)
        return ckpt_fail_memory(err, "messages", turn->block_count);
    for (size_t i = 0; i < turn->block_count && code == CKPT_OK; i++)
        if (blocks[i].is_result) {
            results[count].block = blocks[i];
            results[count].place = count;
            code = order_of(list, calls, blocks[i].message, &results[count++].order, err);
        }
    qsort(results, count, sizeof *results, compare_ordered);
    count = 0;
    for (size_t i = 0; i < turn->block_count && code == CKPT_OK; i++)
        if (blocks[i].is_result)
            blocks[i] = results[count++].block;
    free(results);
    return code;
}

/* Sort the results of each turn by the calls of the last answer before it that has calls. */
static ckpt_code sort_results(chat_list *list, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    size_t calls = 0;

    for (size_t i = 0; i < list->turn_count && code == CKPT_OK; i++) {
        const chat_turn *turn = &list->turns[i];

        if (turn->role == CHAT_IS_ASSISTANT) {
            const size_t own = chat_member(&list->json, turn->message, "tool_calls");

            calls = chat_is_false(&list->json, own) ? calls : own;
        } else if (turn->role == CHAT_IS_USER && calls > 0) {
            code = sort_turn(list, turn, calls, err);
        }
    }
    return code;
}

/* ---- the whole ---- */

/* Move "tools" and "response_format" of the top-level object to the system message. */
static ckpt_code add_request(chat_list *list, const place *request, ckpt_error *err)
{
    const chat_json *j = request->json;
    const size_t tools = chat_member(j, request->object, "tools");
    const size_t format = chat_member(j, request->object, "response_format");
    chat_turn *first = list->turns;

    if (!chat_is_false(j, tools)) {
        if (!chat_is_false(j, first->tools))
            return fail_at(request, "tools", "the system message has tools, too", err);
        first->tools = tools;
    }
    if (!chat_is_false(j, format)) {
        if (!chat_is_false(j, first->response_format))
            return fail_at(request, "response_format", "the system message has one, too", err);
        first->response_format = format;
    }
    return CKPT_OK;
}

/* What names a model or a way of delivery says nothing about the prompt. How to sample does matter,
 * but is said by options. */
static ckpt_code check_request(const place *request, ckpt_error *err)
{
    static const char *const known[] = { "messages", "tools", "response_format", "model", "stream",
                                         "stream_options", "user", "metadata", NULL };
    ckpt_code code;

    if ((code = check_items(request, "tools", check_tool, err)) != CKPT_OK)
        return code;
    return check_keys(request, known, "is not read: expected messages, tools or response_format; "
                      "options say how to sample (--temperature, --generate)", err);
}

/* 1 if the top-level object has tools or a response format, but its messages do not begin with a
 * system message, so that one must be added. */
static int needs_system(const chat_json *j, const place *request, size_t messages)
{
    const size_t first = chat_first(j, messages);
    const size_t role = chat_kind(j, first) == JSON_SCAN_OBJECT ? chat_member(j, first, "role") : 0;

    if (chat_is_false(j, chat_member(j, request->object, "tools")) &&
        chat_is_false(j, chat_member(j, request->object, "response_format")))
        return 0;
    return role == 0 || chat_kind(j, role) != JSON_SCAN_STRING || !chat_equals(j, role, "system");
}

static ckpt_code read_messages(chat_list *list, const place *root, size_t messages,
                               ckpt_error *err)
{
    const chat_json *j = &list->json;
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    for (size_t i = chat_first(j, messages); i > 0 && code == CKPT_OK; i = chat_next(j, i)) {
        place m;

        enter_item(root, "messages", count++, i, &m);
        code = chat_kind(j, i) == JSON_SCAN_OBJECT ? add_message(list, &m, err)
                                                   : fail_kind(j, m.path, IS_OBJECT, i, err);
    }
    return code;
}

ckpt_code chat_list_read(const run_chat_text *text, chat_list *out, ckpt_error *err)
{
    const chat_turn instructions = { .role = CHAT_IS_SYSTEM };
    place root = { .json = &out->json };
    size_t messages = 0;
    int is_request;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = chat_json_read(text->text, text->size, text->subject, &out->json, err)) != CKPT_OK)
        return code;
    is_request = chat_kind(&out->json, 0) == JSON_SCAN_OBJECT;
    if (is_request && ((code = want(&root, "messages", IS_ARRAY, &messages, err)) != CKPT_OK ||
                       (code = check_request(&root, err)) != CKPT_OK))
        return code;
    if (!is_request && chat_kind(&out->json, 0) != JSON_SCAN_ARRAY)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': expected an array of messages",
                         text->subject);
    if (chat_first(&out->json, messages) == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': messages: expected at least one",
                         text->subject);
    if (is_request && needs_system(&out->json, &root, messages) &&
        add_turn(out, &instructions, err) == NULL)
        return CKPT_E_MEMORY;
    if ((code = read_messages(out, &root, messages, err)) != CKPT_OK ||
        (is_request && (code = add_request(out, &root, err)) != CKPT_OK))
        return code;
    return sort_results(out, err);
}

void chat_list_release(chat_list *list)
{
    array_free_counted(list->turns, list->turn_count, sizeof *list->turns);
    array_free_counted(list->blocks, list->block_count, sizeof *list->blocks);
    chat_json_release(&list->json);
}

size_t chat_turn_member(const chat_list *list, const chat_turn *turn, const char *key)
{
    return turn->message == 0 ? 0 : chat_member(&list->json, turn->message, key);
}
