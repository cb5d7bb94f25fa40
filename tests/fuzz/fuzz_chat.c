/* fuzz_chat.c: a conversation; after the first NUL, an answer. */
#include "reference-runner/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const char *text, size_t size)
{
    const run_chat_text chat = { text, size, "fuzz" };

    for (int mode = RUN_TEXT_CHAT; mode <= RUN_TEXT_THINK_MAX; mode++) {
        char *out;

        if (run_chat_encode((run_text_mode)mode, &chat, &out, NULL) == CKPT_OK)
            free(out);
    }
}

/* A message is JSON as long as the answer is UTF-8. */
static void parse(const char *answer, int is_ended)
{
    for (int mode = RUN_TEXT_CHAT; mode <= RUN_TEXT_THINK; mode++) {
        byte_buffer out = { 0 };

        if (run_chat_parse((run_text_mode)mode, answer, is_ended, &out, NULL) == CKPT_OK &&
            (out.used < 2 || out.bytes[0] != '{' || out.bytes[out.used - 1] != '}'))
            abort();
        free(out.bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    size_t first;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    first = strlen(text);
    encode(text, first);
    if (first < size) {
        parse(text + first + 1, 0);
        parse(text + first + 1, 1);
    }
    free(text);
    return 0;
}
