/* run_chat.h: a conversation on a terminal. */
#ifndef TOOL_RUN_CHAT_H
#define TOOL_RUN_CHAT_H

#include "run_job.h"

/* Run a conversation until /exit or the end of standard input. The model must be open; its weights
 * and the state of the conversation stay in memory between answers. */
ckpt_code run_chat(run_job *job, ckpt_error *err);

#endif
