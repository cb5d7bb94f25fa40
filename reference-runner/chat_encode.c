/* chat_encode.c: the prompt format of DeepSeek-V4's own encoder. */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat_messages.h"
#include "chat_words.h"

/* The model was trained with this text, so it must be reproduced byte by byte. */
static const char most_effort[] =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

static const char tools_before[] =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    "writing a \"" CHAT_CALLS ">\" block like the following:\n\n" CHAT_CALLS ">\n"
    CHAT_INVOKE " name=\"$TOOL_NAME\">\n"
    CHAT_PARAMETER " name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE"
    "<" CHAT_PARAMETER_END ">\n...\n" CHAT_INVOKE_END ">\n"
    CHAT_INVOKE " name=\"$TOOL_NAME2\">\n...\n" CHAT_INVOKE_END ">\n" CHAT_CALLS_END "\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types "
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
    "`string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by " CHAT_THINK "), you MUST output your complete "
    "reasoning inside " CHAT_THINK "..." CHAT_THINK_END " BEFORE any tool calls or final "
    "response.\n\n"
    "Otherwise, output directly after " CHAT_THINK_END " with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";

static const char tools_after[] =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool "
    "calls.\n";

static const char format_before[] =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";

ckpt_code run_text_message(run_text_mode mode, const char *instructions, const char *user,
                           char **out, ckpt_error *err)
{
    const char *const parts[] = {
        mode == RUN_TEXT_RAW ? "" : CHAT_BOS,
        mode == RUN_TEXT_THINK_MAX ? most_effort : "",
        instructions == NULL ? "" : instructions,
        mode == RUN_TEXT_RAW ? "" : CHAT_USER,
        user,
        mode == RUN_TEXT_RAW ? "" : CHAT_ASSISTANT,
        mode == RUN_TEXT_RAW ? "" : mode == RUN_TEXT_CHAT ? CHAT_THINK_END : CHAT_THINK,
    };
    size_t size = 1;
    size_t used = 0;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        size += strlen(parts[i]);
    if ((*out = malloc(size)) == NULL)
        return ckpt_fail_memory(err, "a prompt", size);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        used += (size_t)snprintf(*out + used, size - used, "%s", parts[i]);
    return CKPT_OK;
}

/* ---- turns ---- */

typedef struct {
    const chat_list *list;
    byte_buffer out;
    int thinks;
    int keeps_reasoning;       /* of earlier turns, too, not only of those after last_user */
    size_t last_user;          /* the last turn of a user or developer; SIZE_MAX: none */
} encoder;

static void put(encoder *e, const char *text)
{
    byte_buffer_add(&e->out, text, strlen(text));
}

/* Write a string member of a message; nothing if it is null or missing. */
static void put_member(encoder *e, const chat_turn *turn, const char *key)
{
    const size_t value = chat_turn_member(e->list, turn, key);

    if (!chat_is_false(&e->list->json, value))
        chat_put_string(&e->list->json, value, &e->out);
}

static void put_schemas(encoder *e, const chat_turn *turn)
{
    const chat_json *j = &e->list->json;
    const size_t first = chat_is_false(j, turn->tools) ? 0 : chat_first(j, turn->tools);

    if (first > 0) {
        put(e, "\n\n");
        put(e, tools_before);
        for (size_t i = first; i > 0; i = chat_next(j, i)) {
            put(e, i == first ? "" : "\n");
            chat_put_value(j, chat_member(j, i, "function"), &e->out);
        }
        put(e, tools_after);
    }
    if (!chat_is_false(j, turn->response_format)) {
        put(e, "\n\n");
        put(e, format_before);
        chat_put_value(j, turn->response_format, &e->out);
    }
}

/* Write a tool result that is a list: its texts, and for other items a note with their type. */
static void put_result_parts(encoder *e, size_t parts)
{
    const chat_json *j = &e->list->json;

    for (size_t i = chat_first(j, parts); i > 0; i = chat_next(j, i)) {
        const size_t type = chat_member(j, i, "type");
        const size_t text = chat_member(j, i, "text");

        put(e, i == chat_first(j, parts) ? "" : "\n\n");
        if (!chat_equals(j, type, "text")) {
            put(e, "[Unsupported ");
            chat_put_string(j, type, &e->out);
            put(e, "]");
        } else if (text > 0) {
            chat_put_string(j, text, &e->out);
        }
    }
}

static void put_user(encoder *e, const chat_turn *turn)
{
    const chat_json *j = &e->list->json;

    put(e, CHAT_USER);
    for (size_t i = 0; i < turn->block_count; i++) {
        const chat_block *block = &e->list->blocks[turn->block + i];
        const size_t content = chat_member(j, block->message, "content");

        put(e, i == 0 ? "" : "\n\n");
        put(e, block->is_result ? "<tool_result>" : "");
        if (content > 0 && chat_kind(j, content) == JSON_SCAN_ARRAY)
            put_result_parts(e, content);
        else if (content > 0)
            chat_put_string(j, content, &e->out);
        put(e, block->is_result ? "</tool_result>" : "");
    }
}

static void put_parameter(encoder *e, const chat_json *j, size_t key, int is_first)
{
    const int is_string = chat_kind(j, key + 1) == JSON_SCAN_STRING;

    put(e, is_first ? "" : "\n");
    put(e, CHAT_PARAMETER " name=\"");
    chat_put_string(j, key, &e->out);
    put(e, is_string ? "\" string=\"true\">" : "\" string=\"false\">");
    if (is_string)
        chat_put_string(j, key + 1, &e->out);
    else
        chat_put_value(j, key + 1, &e->out);
    put(e, "<" CHAT_PARAMETER_END ">");
}

/* Write a call's arguments. A text that is not JSON becomes one argument named "arguments". */
static ckpt_code put_arguments(encoder *e, const char *text, ckpt_error *err)
{
    chat_json j;
    const ckpt_code code = chat_arguments_read(text, &j, err);
    const size_t first = code == CKPT_OK && j.count > 0 ? chat_first(&j, 0) : 0;

    for (size_t key = first; key > 0; key = chat_next(&j, key))
        put_parameter(e, &j, key, key == first);
    if (j.count == 0) {
        put(e, CHAT_PARAMETER " name=\"arguments\" string=\"true\">");
        put(e, text);
        put(e, "<" CHAT_PARAMETER_END ">");
    }
    chat_json_release(&j);
    return code;
}

static ckpt_code put_call(encoder *e, size_t call, ckpt_error *err)
{
    const chat_json *j = &e->list->json;
    const size_t function = chat_member(j, call, "function");
    byte_buffer arguments = { 0 };
    ckpt_code code;

    put(e, CHAT_INVOKE " name=\"");
    chat_put_string(j, chat_member(j, function, "name"), &e->out);
    put(e, "\">\n");
    chat_put_string(j, chat_member(j, function, "arguments"), &arguments);
    byte_buffer_add(&arguments, "", 1);
    code = arguments.failed ? ckpt_fail_memory(err, "arguments", arguments.used)
                            : put_arguments(e, arguments.bytes, err);
    put(e, "\n" CHAT_INVOKE_END ">\n");
    free(arguments.bytes);
    return code;
}

static ckpt_code put_assistant(encoder *e, size_t i, ckpt_error *err)
{
    const chat_json *j = &e->list->json;
    const chat_turn *turn = &e->list->turns[i];
    const size_t calls = chat_turn_member(e->list, turn, "tool_calls");
    const int answers_task = i > 0 && turn[-1].task > 0;
    ckpt_code code = CKPT_OK;

    if (e->thinks && !answers_task && (e->keeps_reasoning || i > e->last_user ||
                                       e->last_user == SIZE_MAX)) {
        put_member(e, turn, "reasoning_content");
        put(e, CHAT_THINK_END);
    }
    put_member(e, turn, "content");
    if (!chat_is_false(j, calls)) {
        put(e, "\n\n" CHAT_CALLS ">\n");
        for (size_t c = chat_first(j, calls); c > 0 && code == CKPT_OK; c = chat_next(j, c))
            code = put_call(e, c, err);
        put(e, CHAT_CALLS_END);
    }
    if (chat_is_false(j, chat_turn_member(e->list, turn, "wo_eos")))
        put(e, CHAT_EOS);
    return code;
}

/* Write what precedes an answer: the token of the task, or the start or end of thinking. */
static void put_beginning(encoder *e, size_t i)
{
    const chat_turn *turn = &e->list->turns[i];
    const char *task =
        turn->task == 0 ? NULL : chat_task_token(&e->list->json, turn->task);
    const int is_action = task != NULL && chat_equals(&e->list->json, turn->task, "action");

    if (task != NULL && !is_action) {
        put(e, task);
        return;
    }
    if (task == NULL && turn->role != CHAT_IS_USER && turn->role != CHAT_IS_DEVELOPER)
        return;
    put(e, CHAT_ASSISTANT);
    put(e, e->thinks && (is_action || e->keeps_reasoning || i >= e->last_user) ? CHAT_THINK
                                                                              : CHAT_THINK_END);
    put(e, task == NULL ? "" : task);
}

static ckpt_code put_turn(encoder *e, size_t i, ckpt_error *err)
{
    const chat_list *list = e->list;
    const chat_turn *turn = &list->turns[i];
    ckpt_code code = CKPT_OK;

    switch (turn->role) {
    case CHAT_IS_USER:
    case CHAT_IS_TOOL:
        put_user(e, turn);
        break;
    case CHAT_IS_ASSISTANT:
        code = put_assistant(e, i, err);
        break;
    default:
        put(e, turn->role == CHAT_IS_DEVELOPER  ? CHAT_USER
               : turn->role == CHAT_IS_REMINDER ? CHAT_REMINDER
                                                : "");
        put_member(e, turn, "content");
        put_schemas(e, turn);
    }
    if (code == CKPT_OK &&
        (i + 1 == list->turn_count || list->turns[i + 1].role == CHAT_IS_ASSISTANT ||
         list->turns[i + 1].role == CHAT_IS_REMINDER))
        put_beginning(e, i);
    return code;
}

/* ---- the whole ---- */

static size_t find_last_user(const chat_list *list)
{
    size_t i = list->turn_count;

    while (i > 0 && list->turns[i - 1].role != CHAT_IS_USER &&
           list->turns[i - 1].role != CHAT_IS_DEVELOPER)
        i--;
    return i == 0 ? SIZE_MAX : i - 1;
}

static int has_tools(const chat_list *list)
{
    for (size_t i = 0; i < list->turn_count; i++)
        if (!chat_is_false(&list->json, list->turns[i].tools))
            return 1;
    return 0;
}

/* DeepSeek's encoder, when it drops earlier reasoning, also drops developer messages before the
 * last question. */
static void drop_developers(chat_list *list)
{
    const size_t last = find_last_user(list);
    size_t kept = 0;

    for (size_t i = 0; i < list->turn_count; i++)
        if (list->turns[i].role != CHAT_IS_DEVELOPER || i >= last)
            list->turns[kept++] = list->turns[i];
    list->turn_count = kept;
}

ckpt_code run_chat_encode(run_text_mode mode, const run_chat_text *text, char **out,
                          ckpt_error *err)
{
    chat_list list;
    encoder e = { .list = &list, .thinks = mode != RUN_TEXT_CHAT };
    ckpt_code code;

    if ((code = chat_list_read(text, &list, err)) != CKPT_OK)
        goto out;
    e.keeps_reasoning = has_tools(&list);
    if (e.thinks && !e.keeps_reasoning)
        drop_developers(&list);
    e.last_user = find_last_user(&list);
    put(&e, CHAT_BOS);
    put(&e, mode == RUN_TEXT_THINK_MAX ? most_effort : "");
    for (size_t i = 0; i < list.turn_count && code == CKPT_OK; i++)
        code = put_turn(&e, i, err);
    byte_buffer_add(&e.out, "", 1);
    if (code == CKPT_OK && e.out.failed)
        code = ckpt_fail_memory(err, "a prompt", e.out.used);
out:
    chat_list_release(&list);
    if (code == CKPT_OK)
        *out = e.out.bytes;
    else
        free(e.out.bytes);
    return code;
}
