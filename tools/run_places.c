/* Checks the outputs of ckpt-run against files that they must not replace. */
#include "run_places.h"

#include <stdio.h>
#include <string.h>

#include "earlier_output.h"
#include "libckpt/error.h"
#include "libckpt/file.h"
#include "libckpt/output.h"
#include "libckpt/text.h"

static ckpt_code check_apart(const run_places *p, const char *path, ckpt_error *err)
{
    const size_t count = sizeof p->inputs / sizeof *p->inputs;
    ckpt_code code = output_check_spares(path, p->model, err);

    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        if (p->inputs[i] != NULL && strcmp(p->inputs[i], "-") != 0)
            code = output_check_spares(path, p->inputs[i], err);
    return code;
}

static ckpt_code check_name(const char *option, const char *path, ckpt_error *err)
{
    if (strcmp(path, "-") == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--%s -: expected a file; standard output is not "
                         "supported (use ./- for a file of this name)", option);
    return CKPT_OK;
}

/* The header of results.h has the digest of the config among its first members. */
static int is_result(const earlier_begin *begin, const void *context)
{
    enum { LENGTH_BYTES = 8 };
    static const char metadata[] = "{\"__metadata__\"";
    const char *header = begin->bytes + LENGTH_BYTES;

    (void)context;
    return earlier_begins_as(begin, "{\"prompt\"") ||
           (begin->size > LENGTH_BYTES && strncmp(header, metadata, sizeof metadata - 1) == 0 &&
            strstr(header, "\"config_digest\"") != NULL);
}

static int is_trace(const earlier_begin *begin, const void *context)
{
    (void)context;
    return earlier_begins_as(begin, "{\"sequence\"");
}

ckpt_code run_places_check(const run_places *places, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (places->out != NULL && ((code = check_name("out", places->out, err)) != CKPT_OK ||
                                (code = file_check_place(places->out, err)) != CKPT_OK ||
                                (code = check_apart(places, places->out, err)) != CKPT_OK ||
                                (code = earlier_output_check(places->out, "an output", is_result,
                                                             NULL, err)) != CKPT_OK))
        return code;
    if (places->trace != NULL && ((code = check_name("trace", places->trace, err)) != CKPT_OK ||
                                  (code = file_check_name(places->trace, 0, err)) != CKPT_OK ||
                                  (code = check_apart(places, places->trace, err)) != CKPT_OK ||
                                  (code = earlier_output_check(places->trace, "a trace", is_trace,
                                                               NULL, err)) != CKPT_OK))
        return code;
    return places->out != NULL && places->trace != NULL
               ? output_check_apart(places->out, places->trace, err)
               : CKPT_OK;
}

ckpt_code run_say_written(const cli_common *common, const char *path, size_t prompt_count,
                          const char *root, ckpt_error *err)
{
    ckpt_file *file = NULL;
    char detail[TEXT_COUNT_BYTES + 1];
    ckpt_code code;

    if (path == NULL || (code = file_open(path, &file, err)) != CKPT_OK)
        return path == NULL ? CKPT_OK : code;
    snprintf(detail, sizeof detail, "%s,", text_count(prompt_count, "prompt", "prompts").text);
    fflush(stdout);                          /* the closing line is the last one */
    cli_say_written(common, &(cli_written){ .path = path, .detail = detail,
                                            .bytes = file_size(file), .root = root });
    file_close(file, NULL);
    return CKPT_OK;
}
