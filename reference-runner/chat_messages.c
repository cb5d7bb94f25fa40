/* chat_messages.c: joins the messages of the user and the tools between two answers into one turn,
 * with results in the order of the calls. */
#include "chat_messages.h"

#include <stdlib.h>
#include <string.h>

#include "chat_check.h"
#include "libckpt/array.h"

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

static ckpt_code add_message(chat_list *list, const chat_place *m, ckpt_error *err)
{
    chat_turn turn = { .message = m->object,
                       .tools = chat_member(m->json, m->object, "tools"),
                       .response_format = chat_member(m->json, m->object, "response_format"),
                       .task = chat_member(m->json, m->object, "task") };
    const ckpt_code code = chat_check_message(m, &turn.role, err);

    if (code != CKPT_OK)
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
static ckpt_code add_request(chat_list *list, const chat_place *request, ckpt_error *err)
{
    const chat_json *j = request->json;
    const size_t tools = chat_member(j, request->object, "tools");
    const size_t format = chat_member(j, request->object, "response_format");
    chat_turn *first = list->turns;

    if (!chat_is_false(j, tools)) {
        if (!chat_is_false(j, first->tools))
            return chat_fail_at(request, "tools", "the system message has tools, too", err);
        first->tools = tools;
    }
    if (!chat_is_false(j, format)) {
        if (!chat_is_false(j, first->response_format))
            return chat_fail_at(request, "response_format", "the system message has one, too", err);
        first->response_format = format;
    }
    return CKPT_OK;
}

/* 1 if the top-level object has tools or a response format, but its messages do not begin with a
 * system message, so that one must be added. */
static int needs_system(const chat_json *j, const chat_place *request, size_t messages)
{
    const size_t first = chat_first(j, messages);
    const size_t role = chat_kind(j, first) == JSON_SCAN_OBJECT ? chat_member(j, first, "role") : 0;

    if (chat_is_false(j, chat_member(j, request->object, "tools")) &&
        chat_is_false(j, chat_member(j, request->object, "response_format")))
        return 0;
    return role == 0 || chat_kind(j, role) != JSON_SCAN_STRING || !chat_equals(j, role, "system");
}

static ckpt_code read_messages(chat_list *list, const chat_place *root, size_t messages,
                               ckpt_error *err)
{
    const chat_json *j = &list->json;
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    for (size_t i = chat_first(j, messages); i > 0 && code == CKPT_OK; i = chat_next(j, i)) {
        chat_place m;

        chat_enter_item(root, "messages", count++, i, &m);
        code = add_message(list, &m, err);
    }
    return code;
}

ckpt_code chat_list_read(const run_chat_text *text, chat_list *out, ckpt_error *err)
{
    const chat_turn instructions = { .role = CHAT_IS_SYSTEM };
    chat_place root = { .json = &out->json };
    size_t messages = 0;
    int is_request;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = chat_json_read(text->text, text->size, text->subject, &out->json, err)) != CKPT_OK)
        return code;
    is_request = chat_kind(&out->json, 0) == JSON_SCAN_OBJECT;
    if (is_request && (code = chat_check_request(&root, &messages, err)) != CKPT_OK)
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
