/*
 * chat.h: messages as DeepSeek-V4 reads them, and its answers as messages.
 *
 * A conversation is a JSON array of messages in OpenAI's form, or an object with "messages",
 * "tools" and "response_format"; the latter two then belong to its system message. Roles: system,
 * developer, user, assistant, tool, latest_reminder. Members that change no text (a name, a
 * refusal) are passed over.
 */
#ifndef RUN_CHAT_H
#define RUN_CHAT_H

#include "libckpt/buffer.h"
#include "libckpt/error.h"

/* How DeepSeek-V4 is asked. */
typedef enum {
    RUN_TEXT_RAW,              /* the text as it is */
    RUN_TEXT_CHAT,
    RUN_TEXT_THINK,
    RUN_TEXT_THINK_MAX
} run_text_mode;

/* One message of a user after optional instructions (the "system" text), up to where the answer
 * begins. *out is malloc'd. */
ckpt_code run_text_message(run_text_mode mode, const char *instructions, const char *user,
                           char **out, ckpt_error *err);

/* A conversation, up to where the answer begins; the text is JSON. Never raw. What is malformed is
 * named as in messages[2].content. *out is malloc'd. */
typedef struct {
    const char *text;
    size_t size;
    const char *subject;       /* for errors: the file */
} run_chat_text;
ckpt_code run_chat_encode(run_text_mode mode, const run_chat_text *text, char **out,
                          ckpt_error *err);

/* An answer as a message: appends JSON to `out`. is_ended: the model said its end-of-sequence
 * token, whose text is not part of the answer then. */
ckpt_code run_chat_parse(run_text_mode mode, const char *answer, int is_ended, byte_buffer *out,
                         ckpt_error *err);

#endif
