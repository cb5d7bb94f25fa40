/* run_chat.h: a conversation on a terminal. */
#ifndef TOOL_RUN_CHAT_H
#define TOOL_RUN_CHAT_H

#include "run_job.h"

/* Until /exit or the end of standard input. The model is open; its weights and the state of what
 * was said stay where they are between answers. */
ckpt_code run_chat(run_job *job, ckpt_error *err);

#endif
