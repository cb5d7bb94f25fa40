/* Converts a message to token ids and generated ids to text. */
#include "run_text.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/file.h"
#include "reference-runner/chat.h"

static ckpt_code encode(const run_text_options *options, const run_text *text,
                        run_prompts *prompts, ckpt_error *err)
{
    static const char *const names[] = { [RUN_TEXT_RAW] = "raw", [RUN_TEXT_CHAT] = "chat",
                                         [RUN_TEXT_THINK] = "think",
                                         [RUN_TEXT_THINK_MAX] = "think-max" };
    char *message = NULL;
    int mode = RUN_TEXT_RAW;
    ckpt_code code;

    while (strcmp(names[mode], options->mode) != 0)
        mode++;
    if ((code = run_prompts_begin(prompts, err)) != CKPT_OK)
        return code;
    code = run_text_message((run_text_mode)mode, options->instructions, options->prompt, &message,
                            err);
    if (code == CKPT_OK)
        code = run_text_encode(text, message, strlen(message), &prompts->prompts[0], err);
    if (code == CKPT_OK && prompts->prompts[0].count == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "--prompt is empty");
    free(message);
    return code;
}

ckpt_code run_text_ask(const run_text_options *options, const char *checkpoint, run_text **out,
                       run_prompts *prompts, ckpt_error *err)
{
    char *path = options->tokenizer != NULL ? strdup(options->tokenizer)
                                            : file_join(checkpoint, "tokenizer.json");
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(checkpoint));
    if (options->tokenizer == NULL && !file_exists(path))
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' has no tokenizer.json: use --tokenizer FILE",
                         checkpoint);
    else if ((code = run_text_open(path, options->tokenizer != NULL, out, err)) == CKPT_OK)
        code = encode(options, *out, prompts, err);
    free(path);
    return code;
}
