/* The built-in families and configs against the published inventories of their releases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "formats/maps.h"
#include "libckpt/digest.h"
#include "libckpt/family.h"

typedef struct {
    uint64_t tensors;          /* weights; their scales are not counted */
    uint64_t quantised;
    uint64_t elements;
    uint64_t bytes;            /* of weights and scales */
} sums;

static void add(const ckpt_catalog *catalog, int main_only, sums *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        if (main_only && digest_is_mtp(t->name))
            continue;
        out->tensors++;
        out->quantised += t->scale_dtype != CKPT_NONE;
        out->elements += ckpt_tensor_rows(t) * ckpt_tensor_cols(t);
        out->bytes += ckpt_part_bytes(t, CKPT_DATA) + ckpt_part_bytes(t, CKPT_SCALE);
    }
}

static ckpt_family *find_family(const char *name)
{
    char file[64];
    const ckpt_builtin_map *text;
    ckpt_family *family;
    ckpt_error err;

    snprintf(file, sizeof file, "%s.family", name);
    text = maps_find(file);
    assert_non_null(text);
    if (family_parse(text->text, text->text_bytes, file, &family, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return family;
}

/* All tensors that a family has for a built-in config, the optional ones too. */
static sums inventory(const char *name, const char *config, int main_only)
{
    const ckpt_builtin_map *text = maps_find_config(config);
    ckpt_family *family = find_family(name);
    sums out = { .tensors = 0 };
    json_document *document;
    ckpt_catalog *catalog;
    ckpt_error err;

    assert_non_null(text);
    assert_int_equal(json_parse(text->text, text->text_bytes, config, &document, &err), CKPT_OK);
    if (family_expand(family, json_root(document), &catalog, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    add(catalog, main_only, &out);
    catalog_free(catalog);
    assert_int_equal(family_expand_optional(family, json_root(document), &catalog, &err), CKPT_OK);
    add(catalog, main_only, &out);
    catalog_free(catalog);
    json_free(document);
    family_free(family);
    return out;
}

/* As audited by others: 45,808 of 46,183 tensors have a scale, the copies of both ends counted. */
static void test_v3_is_the_published_inventory(void **state)
{
    const sums all = inventory("deepseek_v3", "v3", 0);
    const sums model = inventory("deepseek_v3", "v3", 1);

    (void)state;
    assert_int_equal(all.tensors, 46183);
    assert_int_equal(all.quantised, 45808);
    assert_int_equal(all.elements, UINT64_C(684489845504));
    assert_int_equal(model.tensors, 45395);
    assert_int_equal(model.quantised, 45032);
    assert_int_equal(model.elements, UINT64_C(671026419200));
}

/* Seven stored tensors more in each of 62 layers, as counted in the headers of the release. */
static void test_v32_is_v3_with_an_indexer(void **state)
{
    const sums all = inventory("deepseek_v32", "v3.2", 0);

    (void)state;
    assert_int_equal(all.tensors + all.quantised, 92425);
}

/* As published: 96,085 stored tensors, a scale is one too. */
static void test_v41_is_the_published_inventory(void **state)
{
    const sums all = inventory("deepseek_v41", "v41-flash", 0);

    (void)state;
    assert_int_equal(all.tensors + all.quantised, 96085);
    assert_int_equal(all.elements, UINT64_C(763205315794));
    assert_int_equal(all.bytes, UINT64_C(510286023000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v3_is_the_published_inventory),
        cmocka_unit_test(test_v32_is_v3_with_an_indexer),
        cmocka_unit_test(test_v41_is_the_published_inventory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
