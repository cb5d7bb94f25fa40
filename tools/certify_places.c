/* Checks the outputs of certify against files that they must not replace. */
#include "certify_places.h"

#include <stdlib.h>
#include <string.h>

#include "earlier_output.h"
#include "libckpt/error.h"
#include "libckpt/file.h"
#include "libckpt/output.h"
#include "verify/certificate_write.h"

enum { SHA256_DIGITS = 64 };

static const struct {
    const char *what;
    const char *begins[2];         /* without blanks */
} kinds[PLACE_COUNT] = {
    [PLACE_CERTIFICATE] = { "a certificate",
                            { "{\"_type\":\"https://in-toto.io/", "{\"payloadType\":" } },
    [PLACE_HTML] = { "a page", { "<!DOCTYPEhtml>", NULL } },
    [PLACE_JUNIT] = { "a list of tests", { "<?xml", NULL } },
    [PLACE_SUMMARY] = { "a summary", { "###ckpt-verifycertify:", NULL } },
    [PLACE_SUMS] = { "a list of sums", { NULL, NULL } },
    [PLACE_INTEGRITY] = { "a record of integrity", { "{\"algorithm\":", NULL } },
    [PLACE_CYCLONEDX] = { "a bill of materials", { "{\"bomFormat\":", NULL } },
};

const char *certify_place_name(certify_output output)
{
    return kinds[output].what;
}

/* An earlier_is_ours. */
static int is_earlier(const earlier_begin *begin, const void *context)
{
    const certify_output *output = context;
    earlier_begin bare = *begin;

    if (*output == PLACE_SUMS)
        return strspn(begin->bytes, "0123456789abcdef") == SHA256_DIGITS &&
               begin->bytes[SHA256_DIGITS] == ' ';
    earlier_drop_blanks(&bare);
    for (size_t i = 0; i < 2; i++)
        if (kinds[*output].begins[i] != NULL && earlier_begins_as(&bare, kinds[*output].begins[i]))
            return 1;
    return 0;
}

static ckpt_code check_spares(const certify_places *p, certify_output output, ckpt_error *err)
{
    const char *path = p->outputs[output];
    const char *inputs[] = { p->policy, p->key, p->map };
    ckpt_error why;
    ckpt_code code = CKPT_OK;

    if (!file_exists(path))
        return CKPT_OK;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = output_check_spares(path, inputs[i], err);
    for (size_t i = 0; i < p->logits->count && code == CKPT_OK; i++)
        code = output_check_spares(path, p->logits->items[i], err);
    if (code != CKPT_OK ||
        (code = earlier_output_check(path, kinds[output].what, is_earlier, &output, err)) ==
            CKPT_OK)
        return code;
    for (size_t i = 0; i < p->model_count; i++) {
        const ckpt_code spares = output_check_spares(path, p->models[i], &why);

        if (spares != CKPT_OK) {           /* says more: what is in the way is an input */
            *err = why;
            return spares;
        }
    }
    return code;
}

static int is_one_place(const char *a, const char *b)
{
    return strcmp(a, b) == 0 || file_is_same(a, b);
}

/* Where digests of tensors go, if they are many. */
static ckpt_code check_beside(const char *const *outputs, ckpt_error *err)
{
    const char *out = outputs[PLACE_CERTIFICATE];
    char *path = certificate_tensor_path(out);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(out));
    code = file_check_name(path, 0, err);
    for (int i = 0; i < PLACE_COUNT && code == CKPT_OK; i++)
        if (outputs[i] != NULL && is_one_place(outputs[i], path))
            code = ckpt_fail(err, CKPT_E_USAGE, "'%s' is named for another output: digests of "
                             "tensors go there, beside the certificate", path);
    free(path);
    return code;
}

ckpt_code certify_places_check(const certify_places *places, ckpt_error *err)
{
    const char *const *outputs = places->outputs;
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < PLACE_COUNT; i++)
        for (int k = 0; k < i && outputs[i] != NULL; k++)
            if (outputs[k] != NULL && is_one_place(outputs[i], outputs[k]))
                return ckpt_fail(err, CKPT_E_USAGE, "'%s' is named for two outputs", outputs[i]);
    for (int i = 0; i < PLACE_COUNT && code == CKPT_OK; i++)
        if (outputs[i] != NULL && (code = file_check_place(outputs[i], err)) == CKPT_OK)
            code = check_spares(places, (certify_output)i, err);
    return code == CKPT_OK ? check_beside(outputs, err) : code;
}
