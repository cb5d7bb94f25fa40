/*
 * chat.h: converts messages to the prompt text of DeepSeek-V4, and its answers to messages.
 *
 * A conversation is a JSON array of messages in OpenAI's format, or an object with "messages",
 * "tools" and "response_format"; the last two then belong to its system message. Roles: system,
 * developer, user, assistant, tool, latest_reminder. Members that are not part of the prompt (a
 * name, a refusal) are ignored.
 */
#ifndef RUN_CHAT_H
#define RUN_CHAT_H

#include "libckpt/buffer.h"
#include "libckpt/error.h"

/* The form of the prompt. */
typedef enum {
    RUN_TEXT_RAW,              /* the text as it is */
    RUN_TEXT_CHAT,
    RUN_TEXT_THINK,
    RUN_TEXT_THINK_MAX
} run_text_mode;

/* The prompt for one user message after optional instructions (the "system" text). It ends where
 * the model's answer begins. *out is malloc'd. */
ckpt_code run_text_message(run_text_mode mode, const char *instructions, const char *user,
                           char **out, ckpt_error *err);

/* The prompt for a conversation in JSON, up to where the answer begins; `mode` is not RUN_TEXT_RAW.
 * Errors name the malformed member as in messages[2].content. *out is malloc'd. */
typedef struct {
    const char *text;
    size_t size;
    const char *subject;       /* for errors: the file */
} run_chat_text;
ckpt_code run_chat_encode(run_text_mode mode, const run_chat_text *text, char **out,
                          ckpt_error *err);

/* Append an answer of the model to `out` as a message in JSON. is_ended: the model ended it with
 * the end-of-sequence token, whose text `answer` does not contain. */
ckpt_code run_chat_parse(run_text_mode mode, const char *answer, int is_ended, byte_buffer *out,
                         ckpt_error *err);

#endif
