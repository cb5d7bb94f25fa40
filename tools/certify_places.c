/* Checks the outputs of certify against files that they must not replace. */
#include "certify_places.h"

#include <string.h>

#include "libckpt/error.h"
#include "libckpt/file.h"
#include "libckpt/output.h"
#include "libckpt/size.h"

enum { BEGIN_BYTES = 128, SHA256_DIGITS = 64 };

/* Remove blanks, so that differently indented JSON has the same first bytes. */
static void drop_blanks(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++)
        if (strchr(" \t\r\n", *from) == NULL)
            *to++ = *from;
    *to = '\0';
}

static int begins_as(certify_output output, char *begin)
{
    static const char *const words[PLACE_COUNT][2] = {
        [PLACE_CERTIFICATE] = { "{\"_type\":\"https://in-toto.io/", "{\"payloadType\":" },
        [PLACE_HTML] = { "<!DOCTYPEhtml>", NULL },
        [PLACE_JUNIT] = { "<?xml", NULL },
        [PLACE_SUMMARY] = { "###ckpt-verifycertify:", NULL },
        [PLACE_INTEGRITY] = { "{\"algorithm\":", NULL },
        [PLACE_CYCLONEDX] = { "{\"bomFormat\":", NULL },
    };

    if (output == PLACE_SUMS)
        return strspn(begin, "0123456789abcdef") == SHA256_DIGITS && begin[SHA256_DIGITS] == ' ';
    drop_blanks(begin);
    for (size_t i = 0; i < 2; i++)
        if (words[output][i] != NULL &&
            strncmp(begin, words[output][i], strlen(words[output][i])) == 0)
            return 1;
    return 0;
}

static ckpt_code is_earlier(certify_output output, const char *path, int *out, ckpt_error *err)
{
    char begin[BEGIN_BYTES + 1] = "";
    ckpt_file *file = NULL;
    ckpt_code code = file_open(path, &file, err);

    if (code != CKPT_OK)
        return code;
    code = file_read_at(file, 0, begin, (size_t)size_min(BEGIN_BYTES, file_size(file)), err);
    file_close(file, NULL);
    *out = code == CKPT_OK && begins_as(output, begin);
    return code;
}

static ckpt_code check_spares(const certify_places *p, certify_output output, ckpt_error *err)
{
    const char *path = p->outputs[output];
    const char *inputs[] = { p->policy, p->key, p->map };
    int is_replaceable = 0;
    ckpt_code code = CKPT_OK;

    if (!file_exists(path))
        return CKPT_OK;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = output_check_spares(path, inputs[i], err);
    for (size_t i = 0; i < p->logits->count && code == CKPT_OK; i++)
        code = output_check_spares(path, p->logits->items[i], err);
    if (code == CKPT_OK)
        code = is_earlier(output, path, &is_replaceable, err);
    for (size_t i = 0; i < p->model_count && code == CKPT_OK && !is_replaceable; i++)
        code = output_check_spares(path, p->models[i], err);
    return code;
}

ckpt_code certify_places_check(const certify_places *places, ckpt_error *err)
{
    const char *const *outputs = places->outputs;
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < PLACE_COUNT; i++)
        for (int k = 0; k < i && outputs[i] != NULL; k++)
            if (outputs[k] != NULL &&
                (strcmp(outputs[i], outputs[k]) == 0 || file_is_same(outputs[i], outputs[k])))
                return ckpt_fail(err, CKPT_E_USAGE, "'%s' is named for two outputs", outputs[i]);
    for (int i = 0; i < PLACE_COUNT && code == CKPT_OK; i++)
        if (outputs[i] != NULL && (code = file_check_place(outputs[i], err)) == CKPT_OK)
            code = check_spares(places, (certify_output)i, err);
    return code;
}
