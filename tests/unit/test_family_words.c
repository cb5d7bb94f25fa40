/* The words of family texts that look at a config, one by one. */
#include "libckpt/family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "family_text.h"
#include "libckpt/encoding.h"

#define HEAD "family f\ndetect t x\n"

/* The tensors of a text and a config, in order, as "name shape encoding" lines. */
static void assert_tensors(const char *text, const char *config, const char *expected)
{
    ckpt_family *family = family_of_text(text, strlen(text));
    json_document *document;
    ckpt_catalog *catalog;
    char all[1024] = "";
    ckpt_error err;

    assert_int_equal(json_parse(config, strlen(config), "config", &document, NULL), CKPT_OK);
    if (family_expand(family, json_root(document), &catalog, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        char encoding[64];
        char shape[64];
        const size_t used = strlen(all);

        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        catalog_shape_text(t, shape, sizeof shape);
        snprintf(all + used, sizeof all - used, "%s %s %s\n", t->name, shape, encoding);
    }
    assert_string_equal(all, expected);
    catalog_free(catalog);
    json_free(document);
    family_free(family);
}

static void test_members_have_paths_spellings_and_flags(void **state)
{
    static const char text[] = HEAD "let D hidden|text.hidden\nlet E experts|num_experts\n"
                                    "let tied tie\ntensor a bf16 D,E file 1 if tied = 1\n";

    (void)state;
    assert_tensors(text, "{\"hidden\": 3, \"experts\": 2, \"tie\": true}", "a [3, 2] BF16\n");
    assert_tensors(text, "{\"text\": {\"hidden\": 4}, \"num_experts\": 5, \"tie\": true}",
                   "a [4, 5] BF16\n");
    assert_tensors(text, "{\"text_config\": {\"hidden\": 6, \"experts\": null, "
                         "\"num_experts\": 7}, \"tie\": true}", "a [6, 7] BF16\n");
    assert_tensors(text, "{\"hidden\": 3, \"experts\": 2, \"tie\": false}", "");
}

/* The language model's own config goes before the root; whether the head is tied says the root. */
static void test_members_are_of_the_language_model(void **state)
{
    static const char text[] = HEAD "let D hidden\nlet E experts|num_experts\n"
                                    "let tied tie_word_embeddings\n"
                                    "tensor a bf16 D,E file 1 if tied = 1\n";

    (void)state;
    assert_tensors(text, "{\"hidden\": 3, \"experts\": 2, \"tie_word_embeddings\": true, "
                         "\"llm_config\": {\"hidden\": 6, \"num_experts\": 7, "
                         "\"tie_word_embeddings\": false}}", "a [6, 7] BF16\n");
    assert_tensors(text, "{\"hidden\": 3, \"experts\": 2, \"text_config\": {\"hidden\": null, "
                         "\"tie_word_embeddings\": true}}", "a [3, 2] BF16\n");
}

/* The names of the family of a text for this config; NULL: it does not belong to it. */
static const char *names_of(const char *text, const char *config, int *is_part)
{
    static char names[64];
    ckpt_family *family = family_of_text(text, strlen(text));
    json_document *document;
    int matches;

    assert_int_equal(json_parse(config, strlen(config), "config", &document, NULL), CKPT_OK);
    matches = family_matches(family, json_root(document));
    *is_part = family_is_part(family, json_root(document));
    snprintf(names, sizeof names, "%s", family_names(family, json_root(document)));
    json_free(document);
    family_free(family);
    return matches ? names : NULL;
}

static void test_a_family_is_found_inside_known_models_only(void **state)
{
    static const char text[] = "family f\ndetect model_type f g\ndetect n\nlanguage f_text\n"
                               "inside style seer painter\n";
    int is_part;

    (void)state;
    assert_string_equal(names_of(text, "{\"model_type\": \"g\", \"n\": 1}", &is_part), "native");
    assert_false(is_part);
    assert_null(names_of(text, "{\"model_type\": \"f_text\", \"n\": 1}", &is_part));
    assert_null(names_of(text, "{\"model_type\": \"seer\", \"n\": 1}", &is_part));
    assert_string_equal(names_of(text, "{\"model_type\": \"painter\", \"text_config\": "
                                 "{\"model_type\": \"f_text\", \"n\": 1}}", &is_part), "style");
    assert_true(is_part);
    assert_null(names_of(text, "{\"model_type\": \"seer\", \"text_config\": "
                         "{\"model_type\": \"f\"}}", &is_part));
    assert_false(is_part);
    assert_null(names_of(text, "{\"model_type\": \"other\", \"llm_config\": "
                         "{\"model_type\": \"f\", \"n\": 1}}", &is_part));
    assert_true(is_part);
}

static void test_lines_count_for_members_of_a_list(void **state)
{
    static const char text[] = HEAD "list s sources\nlist o others?\nlist t types full linear\n"
                                    "index l 0 4\nblock b{l}. file 1\n"
                                    "tensor in f32 1 if l in s and l not-in o\n"
                                    "tensor full f32 2 if t[l] = 0\n"
                                    "tensor odd f32 3 if l+1%2 = 0\nend\n";

    (void)state;
    assert_tensors(text, "{\"sources\": [1, 2], \"types\": [\"linear\", \"full\", \"linear\", "
                         "\"linear\"]}",
                   "b1.in [1] F32\nb1.full [2] F32\nb1.odd [3] F32\nb2.in [1] F32\n"
                   "b3.odd [3] F32\n");
    assert_tensors(text, "{\"sources\": [1, 2], \"others\": [2], \"types\": [\"full\", "
                         "\"linear\", \"linear\", \"linear\"]}",
                   "b0.full [2] F32\nb1.in [1] F32\nb1.odd [3] F32\nb3.odd [3] F32\n");
    assert_expand_fails(text, "{\"sources\": [], \"types\": [\"full\", \"other\"]}",
                        "config member 'types', element 1, is not a word of the family");
}

static void test_a_position_says_where_a_list_has_a_value(void **state)
{
    static const char text[] = HEAD "list s sources\nlist n sizes\nindex l 0 3\n"
                                    "block b{l}. file 1\nposition k s l if l in s\n"
                                    "tensor in f32 n[k] if l in s\nend\n";
    static const char always[] = HEAD "list s sources\nposition k s 7\n";

    (void)state;
    assert_tensors(text, "{\"sources\": [2, 0], \"sizes\": [20, 30]}",
                   "b0.in [30] F32\nb2.in [20] F32\n");
    assert_expand_fails(always, "{\"sources\": [2, 0]}", "config list 'sources' has no 7");
}

static void test_fp8_has_the_blocks_of_its_word_or_of_the_family(void **state)
{
    static const char config[] = "{\"quantization_config\": {\"scale_fmt\": \"ue8m0\"}}";

    (void)state;
    assert_tensors(HEAD "blocks fp8:32x32\ntensor a fp8 64,64 file 1\n"
                        "tensor b fp8:1x32 64,64 file 1\ntensor c fp8:128x128 64,64 file 1\n",
                   config, "a [64, 64] F8_E4M3 32x32 F8_E8M0\nb [64, 64] F8_E4M3 1x32 F8_E8M0\n"
                   "c [64, 64] F8_E4M3 128x128 F8_E8M0\n");
    assert_tensors(HEAD "blocks fp8:128x128 f32\ntensor a fp8 576,64 file 1\n", config,
                   "a [576, 64] F8_E4M3 128x128 F32\n");
}

/* What an expanded text says of the one tensor that it has. */
static ckpt_tensor only_tensor(const char *text)
{
    ckpt_family *family = family_of_text(text, strlen(text));
    json_document *document;
    ckpt_catalog *catalog;
    ckpt_tensor tensor;

    assert_int_equal(json_parse("{}", 2, "config", &document, NULL), CKPT_OK);
    assert_int_equal(family_expand(family, json_root(document), &catalog, NULL), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(catalog), 1);
    tensor = *ckpt_catalog_at(catalog, 0);
    catalog_free(catalog);
    json_free(document);
    family_free(family);
    return tensor;
}

static void test_weights_that_quantised_forms_have_as_codes_are_marked(void **state)
{
    const ckpt_tensor linear = only_tensor(HEAD "tensor a linear 64,64 file 1\n");

    (void)state;
    assert_int_equal(linear.dtype, CKPT_BF16);
    assert_int_equal(linear.scale_dtype, CKPT_NONE);
    assert_true(linear.is_linear);
    assert_true(only_tensor(HEAD "tensor a fp8 64,64 file 1\n").is_linear);
    assert_true(only_tensor(HEAD "tensor a fp4 64,64 file 1\n").is_linear);
    assert_false(only_tensor(HEAD "tensor a bf16 64,64 file 1\n").is_linear);
}

static void test_detect_lines_ask_for_values_or_members(void **state)
{
    static const char text[] = "family f\ndetect type a b\ndetect size\n";
    static const struct {
        const char *config;
        int matches;
    } cases[] = {
        { "{\"type\": \"a\", \"size\": 1}", 1 },
        { "{\"type\": \"b\", \"text_config\": {\"size\": 1}}", 1 },
        { "{\"type\": \"c\", \"size\": 1}", 0 },
        { "{\"type\": 1, \"size\": 1}", 0 },
        { "{\"type\": \"a\", \"size\": null}", 0 },
        { "{\"size\": 1}", 0 },
    };
    ckpt_family *family = family_of_text(text, strlen(text));

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_document *config;

        assert_int_equal(json_parse(cases[i].config, strlen(cases[i].config), "config", &config,
                                    NULL), CKPT_OK);
        assert_int_equal(family_matches(family, json_root(config)), cases[i].matches);
        json_free(config);
    }
    family_free(family);
}

static void test_families_say_what_they_are_asked(void **state)
{
    static const char text[] = HEAD "let D hidden|text.hidden\ncount N ratios\nindex m 0 N\n"
                                    "block mtp.{m}. file 1 or-none\ntensor w f32 1\nend\n"
                                    "block l.{m}. file 1\ntensor w f32 1\nend\n";
    static const char mixed[] = HEAD "blocks fp8:32x32\ntensor a fp8 1,1 file 1\n"
                                     "tensor b fp8:1x32 1,1 file 1\ntensor c fp4 1,1 file 1\n";
    static const char facts[] = HEAD "blocks fp8:32x32\nexperts-told-by expert_dtype\n"
                                     "others keep\n";
    ckpt_family *family = family_of_text(text, strlen(text));

    (void)state;
    assert_true(family_asks(family, "ratios"));
    assert_false(family_asks(family, "hidden"));
    assert_true(family_may_lack(family, "mtp.12.w"));
    assert_false(family_may_lack(family, "mtp.x.w"));
    assert_false(family_may_lack(family, "l.0.w"));
    assert_false(family_keeps_others(family));
    assert_int_equal(family_fp8(family), 0);
    assert_null(family_expert_member(family));
    family_free(family);
    family = family_of_text(mixed, strlen(mixed));
    assert_int_equal(family_fp8(family), 1u << ENCODING_FP8_32 | 1u << ENCODING_FP8_1X32);
    family_free(family);
    family = family_of_text(facts, strlen(facts));
    assert_int_equal(family_fp8(family), 1u << ENCODING_FP8_32);
    assert_string_equal(family_expert_member(family), "expert_dtype");
    assert_true(family_keeps_others(family));
    family_free(family);
}

/* The tensors that the text has with a config: a weight of experts, another one, and a norm. */
static void check_int4(const char *config_text, int has_int4)
{
    static const char text[] = HEAD "blocks fp8:128x128\nexperts-int4-by q.format pack-quantized\n"
                                    "tensor layers.0.ffn.experts.3.w1.weight fp8 2,64 file 1\n"
                                    "tensor layers.0.attn.wq.weight fp8 2,64 file 1\n"
                                    "tensor norm.weight f32 64 file 1\n";
    ckpt_family *family = family_of_text(text, strlen(text));
    json_document *config;
    ckpt_catalog *made;
    const ckpt_tensor *expert;

    assert_int_equal(json_parse(config_text, strlen(config_text), "config", &config, NULL),
                     CKPT_OK);
    assert_int_equal(family_has_int4(family, json_root(config)), has_int4);
    assert_int_equal(family_expand(family, json_root(config), &made, NULL), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(made), 3);
    expert = ckpt_catalog_at(made, 0);
    assert_int_equal(encoding_id_of(expert), has_int4 ? ENCODING_INT4_32 : ENCODING_FP8_128);
    assert_int_equal(expert->shape_dtype, has_int4 ? CKPT_I32 : CKPT_NONE);
    assert_int_equal(ckpt_catalog_at(made, 1)->dtype, has_int4 ? CKPT_BF16 : CKPT_F8_E4M3);
    assert_int_equal(ckpt_catalog_at(made, 2)->dtype, CKPT_F32);
    catalog_free(made);
    json_free(config);
    family_free(family);
}

static void test_experts_are_int4_where_the_config_says_so(void **state)
{
    (void)state;
    check_int4("{\"model_type\": \"x\", \"q\": {\"format\": \"pack-quantized\"}}", 1);
    check_int4("{\"model_type\": \"x\", \"text_config\": {\"q\": {\"format\": "
               "\"pack-quantized\"}}}", 1);
    check_int4("{\"model_type\": \"x\", \"q\": {\"format\": \"float-quantized\"}}", 0);
    check_int4("{\"model_type\": \"x\"}", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts_are_int4_where_the_config_says_so),
        cmocka_unit_test(test_members_have_paths_spellings_and_flags),
        cmocka_unit_test(test_members_are_of_the_language_model),
        cmocka_unit_test(test_a_family_is_found_inside_known_models_only),
        cmocka_unit_test(test_lines_count_for_members_of_a_list),
        cmocka_unit_test(test_a_position_says_where_a_list_has_a_value),
        cmocka_unit_test(test_fp8_has_the_blocks_of_its_word_or_of_the_family),
        cmocka_unit_test(test_weights_that_quantised_forms_have_as_codes_are_marked),
        cmocka_unit_test(test_detect_lines_ask_for_values_or_members),
        cmocka_unit_test(test_families_say_what_they_are_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
