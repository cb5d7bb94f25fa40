/* Compares tensors by digest. */
#include "digest_compare.h"

#include <string.h>

/* Compare expected tensor `i` with that of the other side. 1: the other side has it. */
static int compare_tensor(const digest_side *expected, size_t i, const digest_side *got,
                          digest_difference_fn *tell, void *context)
{
    const ckpt_tensor *a = ckpt_catalog_at(expected->catalog, i);
    const int64_t found = ckpt_catalog_find(got->catalog, a->name);
    const ckpt_tensor *b;
    char expected_hex[CKPT_DIGEST_HEX];
    char got_hex[CKPT_DIGEST_HEX];

    if (found == CKPT_NOT_FOUND) {
        tell(context, DIGEST_MISSING, a->name, NULL, NULL);
        return 0;
    }
    b = ckpt_catalog_at(got->catalog, (size_t)found);
    if (!catalog_same_shape(a, b) || ckpt_tensor_is_int(a) != ckpt_tensor_is_int(b)) {
        tell(context, DIGEST_SHAPE, a->name, NULL, NULL);
        return 1;
    }
    if (expected->digest == NULL || got->digest == NULL)
        return 1;
    ckpt_digest_tensor(expected->digest, i, expected_hex);
    ckpt_digest_tensor(got->digest, (size_t)found, got_hex);
    if (strcmp(expected_hex, got_hex) != 0)
        tell(context, DIGEST_VALUE, a->name, expected_hex, got_hex);
    return 1;
}

size_t digest_compare(const digest_side *expected, const digest_side *got, int main_only,
                      digest_difference_fn *tell, void *context)
{
    size_t matched = 0;

    for (size_t i = 0; i < ckpt_catalog_count(expected->catalog); i++)
        if (!main_only || !digest_is_mtp(ckpt_catalog_at(expected->catalog, i)->name))
            matched += (size_t)compare_tensor(expected, i, got, tell, context);
    for (size_t i = 0; i < ckpt_catalog_count(got->catalog); i++) {
        const char *name = ckpt_catalog_at(got->catalog, i)->name;

        if ((!main_only || !digest_is_mtp(name)) &&
            ckpt_catalog_find(expected->catalog, name) == CKPT_NOT_FOUND)
            tell(context, DIGEST_EXTRA, name, NULL, NULL);
    }
    return matched;
}
