/* Families of texts in tests. */
#include "family_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

ckpt_family *family_of_text(const char *text, size_t size)
{
    ckpt_family *family;
    ckpt_error err;

    if (family_parse(text, size, "text", &family, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return family;
}

void assert_expand_fails(const char *text, const char *config, const char *message)
{
    ckpt_family *family = family_of_text(text, strlen(text));
    json_document *document;
    ckpt_catalog *catalog;
    ckpt_error err;

    if (json_parse(config, strlen(config), "config", &document, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(family_expand(family, json_root(document), &catalog, &err), CKPT_E_FORMAT);
    if (strstr(err.text, message) == NULL)
        fail_msg("got %s, expected %s", err.text, message);
    json_free(document);
    family_free(family);
}
