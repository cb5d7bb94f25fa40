/*
 * chat_check.h: what a conversation may hold. A member that DeepSeek's encoder would read
 * otherwise, or not at all, is refused: it would be lost. Errors name it, as in
 * messages[2].content.
 */
#ifndef RUN_CHAT_CHECK_H
#define RUN_CHAT_CHECK_H

#include "chat_json.h"

typedef enum {
    CHAT_IS_SYSTEM,
    CHAT_IS_DEVELOPER,
    CHAT_IS_USER,
    CHAT_IS_ASSISTANT,
    CHAT_IS_TOOL,
    CHAT_IS_REMINDER
} chat_role;

enum { CHAT_PATH_BYTES = 128 };

/* A value and its path for errors, as in messages[2].tool_calls[0]. */
typedef struct {
    const chat_json *json;
    size_t object;
    char path[CHAT_PATH_BYTES];
} chat_place;

/* Set *out to item i of the array p.key, and to its path. */
void chat_enter_item(const chat_place *p, const char *key, size_t i, size_t value,
                     chat_place *out);
/* Fail: `what` is wrong with the member `key`. */
ckpt_code chat_fail_at(const chat_place *p, const char *key, const char *what, ckpt_error *err);

/* Check that a message is an object with a role and the members of one. */
ckpt_code chat_check_message(const chat_place *m, chat_role *role, ckpt_error *err);
/* Check an object with "messages", as servers get it. *messages: their array. */
ckpt_code chat_check_request(const chat_place *request, size_t *messages, ckpt_error *err);

/* The special token for a task's name, or NULL if there is no such task. */
const char *chat_task_token(const chat_json *json, size_t task);

/* Read the arguments of a tool call: a JSON object. For a text that is not JSON, *out has no
 * tokens. Release it also after a failure; the error says what was expected. */
ckpt_code chat_arguments_read(const char *text, chat_json *out, ckpt_error *err);

#endif
