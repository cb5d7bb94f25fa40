/* fuzz_prompts.c: files of token ids, in all of their forms. */
#include "reference-runner/prompts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ID_CHARS = 11 };

/* One prompt a line. */
static char *text_of(const run_prompts *prompts)
{
    size_t room = 1;
    size_t used = 0;
    char *text;

    for (size_t i = 0; i < prompts->count; i++)
        room += prompts->prompts[i].count * ID_CHARS + 1;
    if ((text = malloc(room)) == NULL)
        abort();
    for (size_t i = 0; i < prompts->count; i++) {
        for (uint64_t t = 0; t < prompts->prompts[i].count; t++)
            used += (size_t)snprintf(text + used, room - used, "%" PRIu32 ",",
                                     prompts->prompts[i].tokens[t]);
        text[used++] = '\n';
    }
    text[used] = '\0';
    return text;
}

/* What was read has prompts, all of ids, and reads the same as text. */
static void check(const run_prompts *prompts)
{
    char *text = text_of(prompts);
    run_prompts again;

    if (prompts->count == 0 ||
        run_prompts_parse(text, strlen(text), "again", &again, NULL) != CKPT_OK ||
        again.count != prompts->count)
        abort();
    for (size_t i = 0; i < prompts->count; i++) {
        const run_prompt *a = &prompts->prompts[i];
        const run_prompt *b = &again.prompts[i];

        if (a->count == 0 || a->count != b->count ||
            memcmp(a->tokens, b->tokens, a->count * sizeof *a->tokens) != 0)
            abort();
    }
    run_prompts_free(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    run_prompts prompts;

    if (text == NULL)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (run_prompts_parse(text, size, "prompts", &prompts, NULL) == CKPT_OK) {
        check(&prompts);
        run_prompts_free(&prompts);
    }
    free(text);
    return 0;
}
