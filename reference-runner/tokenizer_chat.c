/* The prompt format of DeepSeek-V4's own encoder: no separators between the parts. */
#include "tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOS "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"
#define USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"

/* Part of the model's interface: trained with, so to be given byte by byte. */
static const char most_effort[] =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";

ckpt_code run_text_message(run_text_mode mode, const char *instructions, const char *user,
                           char **out, ckpt_error *err)
{
    const char *const parts[] = {
        mode == RUN_TEXT_RAW ? "" : BOS,
        mode == RUN_TEXT_THINK_MAX ? most_effort : "",
        instructions == NULL ? "" : instructions,
        mode == RUN_TEXT_RAW ? "" : USER,
        user,
        mode == RUN_TEXT_RAW ? "" : ASSISTANT,
        mode == RUN_TEXT_RAW ? "" : mode == RUN_TEXT_CHAT ? "</think>" : "<think>",
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
