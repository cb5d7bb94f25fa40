/* test_config.c: config.json says what the tensors are, and keeps the bytes that do not change. */
#include "formats/config_scheme.h"
#include "formats/convert/config_rewrite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FP8_CONFIG                                                                              \
    "{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\", "      \
    "\"scale_fmt\": \"ue8m0\", \"weight_block_size\": [128, 128]}"

enum { BF16, FP8, FP4 };

static ckpt_catalog *targets(int dense, int experts)
{
    ckpt_catalog *catalog = catalog_create();

    for (int i = 0; i < 2; i++) {
        const int kind = i == 0 ? dense : experts;
        const ckpt_tensor t = {
            .name = i == 0 ? "layers.0.attn.wq_a.weight" : "layers.0.ffn.experts.0.w1.weight",
            .dtype = kind == BF16 ? CKPT_BF16 : kind == FP8 ? CKPT_F8_E4M3 : CKPT_F4,
            .scale_dtype = kind == BF16 ? CKPT_NONE : CKPT_F8_E8M0,
            .block_rows = kind == BF16 ? 0 : kind == FP8 ? 128 : 1,
            .block_cols = kind == BF16 ? 0 : kind == FP8 ? 128 : 32,
            .rank = 2,
            .shape = { 128, 128 },
        };

        assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
    }
    return catalog;
}

static void check(const char *text, int dense, int experts, const char *expected)
{
    ckpt_catalog *catalog = targets(dense, experts);
    ckpt_error err;
    char *out;

    if (config_rewrite(text, &(config_change){ .targets = catalog, .has_expert_dtype = 1 }, &out,
                       &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(out, expected);
    free(out);
    catalog_free(catalog);
}

static void test_bf16_says_nothing_of_quantisation(void **state)
{
    (void)state;
    check("{\"a\": 1, \"expert_dtype\": \"fp4\", \"quantization_config\": {\"x\": 1}}", BF16,
          BF16, "{\"a\": 1}");
    check("{\"a\" :1 }", BF16, BF16, "{\"a\" :1 }");
}

static void test_what_is_there_keeps_its_bytes(void **state)
{
    static const char text[] =
        "{ \"quantization_config\":{\"fmt\":\"e4m3\"},\n\t\"expert_dtype\" :  \"fp4\", \"z\":[ ] }";

    (void)state;
    check(text, FP8, FP4, text);
    check(text, FP8, FP8,
          "{ \"quantization_config\":{\"fmt\":\"e4m3\"},\n\t\"expert_dtype\" :  \"fp8\", "
          "\"z\":[ ] }");
}

static void test_what_is_missing_is_added(void **state)
{
    ckpt_catalog *catalog = targets(FP8, FP4);
    ckpt_error err;
    char *out;

    (void)state;
    assert_int_equal(config_rewrite("{\"a\": 1}",
                                    &(config_change){ .targets = catalog, .has_expert_dtype = 1 },
                                    &out, &err), CKPT_OK);
    assert_non_null(strstr(out, "\"quantization_config\": " FP8_CONFIG));
    assert_non_null(strstr(out, "\"expert_dtype\": \"fp4\""));
    free(out);
    /* A family that does not know the key is not given it. */
    assert_int_equal(config_rewrite("{\"a\": 1}", &(config_change){ .targets = catalog }, &out,
                                    &err), CKPT_OK);
    assert_null(strstr(out, "expert_dtype"));
    free(out);
    catalog_free(catalog);
}

static void test_plain_experts_have_no_dtype(void **state)
{
    (void)state;
    check("{\"expert_dtype\": \"fp4\", \"quantization_config\": {}}", FP8, BF16,
          "{\"quantization_config\": {}}");
}

/* FP8 experts and BF16 ones at once, as `from` or as targets. */
static void add_expert(ckpt_catalog *catalog, const char *name, int kind)
{
    ckpt_catalog *one = targets(BF16, kind);
    ckpt_tensor t = *ckpt_catalog_at(one, 1);

    t.name = name;
    assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
    catalog_free(one);
}

static void rewrite_mixed(const char *text, int dense, int experts, const char *expected)
{
    ckpt_catalog *from = targets(FP8, FP8);
    ckpt_catalog *catalog = targets(dense, experts);
    const config_change change = { .targets = catalog, .from = from, .has_expert_dtype = 1 };
    ckpt_error err;
    char *out;

    if (config_rewrite(text, &change, &out, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(out, expected);
    free(out);
    catalog_free(catalog);
    catalog_free(from);
}

static void test_what_is_not_quantised_is_listed_under_the_key_that_is_there(void **state)
{
    (void)state;
    rewrite_mixed("{\"quantization_config\": {\"x\": 1}}", FP8, BF16,
                  "{\"quantization_config\": {\"x\": 1,"
                  "\"modules_to_not_convert\": [\"layers.0.ffn.experts\"]}}");
    rewrite_mixed("{\"quantization_config\": {\"ignored_layers\": [\"lm_head\"]}}", BF16, FP4,
                  "{\"quantization_config\": {\"ignored_layers\": "
                  "[\"lm_head\",\"layers.0.attn.wq_a\"]},\"expert_dtype\": \"fp4\"}");
}

static void test_what_is_quantised_now_leaves_the_list(void **state)
{
    (void)state;
    rewrite_mixed("{\"quantization_config\": {\"modules_to_not_convert\": "
                  "[\"model.layers.0.attn.wq_a\", \"head\"]}}", FP8, FP4,
                  "{\"quantization_config\": {\"modules_to_not_convert\": [\"head\"]},"
                  "\"expert_dtype\": \"fp4\"}");
    rewrite_mixed("{\"quantization_config\": {\"modules_to_not_convert\": "
                  "[\"layers.0.attn.wq_a\"]}}", FP8, FP4,
                  "{\"quantization_config\": {},\"expert_dtype\": \"fp4\"}");
}

static void test_a_copy_keeps_its_text_whatever_it_says(void **state)
{
    static const char text[] = "{\"quantization_config\": {\"quant_method\": \"mxfp4\"}}";

    (void)state;
    rewrite_mixed(text, FP8, FP8, text);
}

static void test_experts_of_one_module_are_of_one_encoding(void **state)
{
    ckpt_catalog *catalog = targets(FP8, FP8);
    const config_change change = { .targets = catalog, .has_expert_dtype = 1 };
    char *out = NULL;
    ckpt_error err;

    (void)state;
    add_expert(catalog, "layers.0.ffn.experts.1.w1.weight", FP4);
    assert_int_equal(config_rewrite("{}", &change, &out, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "expert_dtype of config.json has one value"));
    catalog_free(catalog);
}

static void test_scales_of_f32_beside_plain_experts_are_told_by_expert_dtype(void **state)
{
    ckpt_catalog *catalog = targets(FP8, BF16);
    const config_change change = { .targets = catalog, .has_expert_dtype = 1 };
    char *out;
    ckpt_error err;

    (void)state;
    catalog_edit(catalog, 0)->scale_dtype = CKPT_F32;
    assert_int_equal(config_rewrite("{\"quantization_config\": {}}", &change, &out, &err),
                     CKPT_OK);
    assert_string_equal(out, "{\"quantization_config\": {},\"expert_dtype\": \"fp8\"}");
    free(out);
    catalog_free(catalog);
}

static void check_method(const char *text, const char *expected)
{
    json_document *document;
    char method[CONFIG_METHOD_BYTES];

    assert_int_equal(json_parse(text, strlen(text), "config.json", &document, NULL), CKPT_OK);
    config_find_method(json_root(document), method);
    assert_string_equal(method, expected);
    json_free(document);
}

static void test_other_methods_are_found(void **state)
{
    (void)state;
    check_method("{}", "");
    check_method("{\"quantization_config\": {\"quant_method\": \"fp8\"}}", "");
    check_method("{\"quantization_config\": {\"quant_method\": \"gptq\"}}", "gptq");
    check_method("{\"quantization_config\": {\"quant_method\": \"fp8\", "
                 "\"moe_quant_algo\": \"NVFP4\", \"quant_algo\": \"MIXED\"}}", "NVFP4");
    check_method("{\"text_config\": {\"quantization_config\": {\"quant_method\": \"awq\"}}}",
                 "awq");
    check_method("{\"compression_config\": {\"format\": \"x\"}}", "compressed-tensors");
}

static void test_keys_inside_other_members_stay(void **state)
{
    (void)state;
    check("{\"x\": {\"expert_dtype\": \"fp4\", \"quantization_config\": {}}}", BF16, BF16,
          "{\"x\": {\"expert_dtype\": \"fp4\", \"quantization_config\": {}}}");
}

static void test_like_is_taken_whole_when_only_the_encoding_differs(void **state)
{
    static const char like[] = "{\n \"b\": 2,\n \"a\": 1,\n \"expert_dtype\": \"fp4\"\n}";
    ckpt_error err;
    char *out;

    (void)state;
    assert_int_equal(config_rewrite_like("{\"a\":1,\"b\":2}", like, &out, &err), CKPT_OK);
    assert_string_equal(out, like);
    free(out);
    assert_int_equal(config_rewrite_like("{\"a\":7,\"b\":2}", like, &out, &err), CKPT_OK);
    assert_non_null(strstr(out, "\"a\":7"));
    assert_non_null(strstr(out, "\"fp4\""));
    free(out);
}

static void test_inference_config_says_null_not_nothing(void **state)
{
    ckpt_catalog *catalog = targets(BF16, BF16);
    ckpt_error err;
    char *out;

    (void)state;
    assert_int_equal(config_rewrite_inference("{\"dtype\": \"fp8\", \"scale_fmt\": \"ue8m0\", "
                                              "\"expert_dtype\": \"fp4\"}",
                                              catalog, &out, &err), CKPT_OK);
    assert_string_equal(out,
                        "{\"dtype\": \"bf16\", \"scale_fmt\": null, \"expert_dtype\": null}");
    free(out);
    catalog_free(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_says_nothing_of_quantisation),
        cmocka_unit_test(test_what_is_there_keeps_its_bytes),
        cmocka_unit_test(test_what_is_missing_is_added),
        cmocka_unit_test(test_plain_experts_have_no_dtype),
        cmocka_unit_test(test_what_is_not_quantised_is_listed_under_the_key_that_is_there),
        cmocka_unit_test(test_what_is_quantised_now_leaves_the_list),
        cmocka_unit_test(test_a_copy_keeps_its_text_whatever_it_says),
        cmocka_unit_test(test_experts_of_one_module_are_of_one_encoding),
        cmocka_unit_test(test_scales_of_f32_beside_plain_experts_are_told_by_expert_dtype),
        cmocka_unit_test(test_other_methods_are_found),
        cmocka_unit_test(test_keys_inside_other_members_stay),
        cmocka_unit_test(test_like_is_taken_whole_when_only_the_encoding_differs),
        cmocka_unit_test(test_inference_config_says_null_not_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
