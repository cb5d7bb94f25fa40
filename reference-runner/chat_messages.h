/* chat_messages.h: reads a conversation, and merges tool results into user turns, as DeepSeek's
 * encoder does. */
#ifndef RUN_CHAT_MESSAGES_H
#define RUN_CHAT_MESSAGES_H

#include "chat.h"
#include "chat_check.h"

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

/* The member `key` of a turn's message, or 0. */
size_t chat_turn_member(const chat_list *list, const chat_turn *turn, const char *key);

#endif
