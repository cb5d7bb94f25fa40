/* chat_messages.h: a conversation that was checked, its tool results put into the turns of the
 * user. */
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

/* Text of the user or a result of a tool. */
typedef struct {
    size_t message;            /* the value that holds it; its "content" may be missing */
    int is_result;
} chat_block;

/* Values of the conversation; 0: none. */
typedef struct {
    chat_role role;
    size_t message;            /* 0: a system message that the list does not have */
    size_t tools;
    size_t response_format;
    size_t task;
    size_t block;              /* of a user: the first of block_count */
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

/* The token of a task's name, or NULL: it is none. */
const char *chat_task_token(const chat_json *json, size_t task);

/* The arguments of a call: an object, or, without tokens, a text that is no JSON. Release it also
 * after a failure, whose text says what was expected. */
ckpt_code chat_arguments_read(const char *text, chat_json *out, ckpt_error *err);

/* A member of a turn's message, or 0. */
size_t chat_turn_member(const chat_list *list, const chat_turn *turn, const char *key);

#endif
