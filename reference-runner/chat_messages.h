/* chat_messages.h: reads and checks a conversation, and merges tool results into user turns, as
 * DeepSeek's encoder does. */
#ifndef RUN_CHAT_MESSAGES_H
#define RUN_CHAT_MESSAGES_H

#include "chat.h"
#include "chat_json.h"

typedef enum {
    CHAT_IS_SYSTEM,
    CHAT_IS_DEVELOPER,
    CHAT_IS_USER,
    CHAT_IS_ASSISTANT,
    CHAT_IS_TOOL,
    CHAT_IS_REMINDER
} chat_role;

/* One block of a user turn: a text of the user, or the result of a tool. */
typedef struct {
    size_t message;            /* the value with its "content", which may be missing */
    int is_result;
} chat_block;

/* One turn. Members are values of the JSON document; 0: none. */
typedef struct {
    chat_role role;
    size_t message;            /* 0: a system turn added for top-level tools or response_format */
    size_t tools;
    size_t response_format;
    size_t task;
    size_t block;              /* user turns: the index of the first of block_count blocks */
    size_t block_count;
} chat_turn;

typedef struct {
    chat_json json;
    chat_turn *turns;
    size_t turn_count;
    chat_block *blocks;
    size_t block_count;
} chat_list;

/* Release it also after a failure. */
ckpt_code chat_list_read(const run_chat_text *text, chat_list *out, ckpt_error *err);
void chat_list_release(chat_list *list);

/* The special token for a task's name, or NULL if there is no such task. */
const char *chat_task_token(const chat_json *json, size_t task);

/* Read the arguments of a tool call: a JSON object. For a text that is not JSON, *out has no
 * tokens. Release it also after a failure; the error says what was expected. */
ckpt_code chat_arguments_read(const char *text, chat_json *out, ckpt_error *err);

/* The member `key` of a turn's message, or 0. */
size_t chat_turn_member(const chat_list *list, const chat_turn *turn, const char *key);

#endif
