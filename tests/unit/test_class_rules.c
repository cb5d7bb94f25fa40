/* test_class_rules.c: classes of weights, and the words that give them rules and limits. */
#include "libckpt/class_rules.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXPERT "layers.3.ffn.experts.7.w1.weight"
#define MTP_EXPERT "mtp.0.ffn.experts.7.w1.weight"

static void test_names_have_classes(void **state)
{
    static const struct {
        const char *name;
        weight_class class;
    } cases[] = {
        { EXPERT, WEIGHT_EXPERTS },
        { MTP_EXPERT, WEIGHT_MTP_EXPERTS },
        { "layers.3.ffn.shared_experts.w1.weight", WEIGHT_SHARED },
        { "model.layers.3.mlp.shared_expert.up_proj.weight", WEIGHT_SHARED },
        { "layers.3.attn.wq_a.weight", WEIGHT_ATTENTION },
        { "layers.3.attn.indexer.wq_b.weight", WEIGHT_ATTENTION },
        { "model.layers.3.self_attn.q_proj.weight", WEIGHT_ATTENTION },
        { "mtp.0.attn.wq_a.weight", WEIGHT_MTP },
        { "mtp.0.e_proj.weight", WEIGHT_MTP },
        { "layers.3.linear_attn.in_proj.weight", WEIGHT_ATTENTION },
        { "layers.3.attn_norm.weight", WEIGHT_REST },
        { "attn", WEIGHT_ATTENTION },
        { "head.weight", WEIGHT_REST },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(weight_class_of(cases[i].name), cases[i].class);
}

static const char *rule_name(const char *words, const char *weight)
{
    class_rules rules;
    const quantise_rule *rule;

    assert_int_equal(class_rules_parse(words, &rules, NULL), CKPT_OK);
    rule = class_rules_find(&rules, weight);
    return rule == NULL ? "" : rule->name;
}

static void test_a_rule_that_stands_alone_is_for_all_that_is_not_named(void **state)
{
    (void)state;
    assert_string_equal(rule_name("fp8-ue8m0", EXPERT), "fp8-b128-ue8m0");
    assert_string_equal(rule_name("fp8-ue8m0,experts=fp4", EXPERT), "fp4-b32-deepseek");
    assert_string_equal(rule_name("experts=fp4", EXPERT), "fp4-b32-deepseek");
    assert_string_equal(rule_name("experts=fp4", "layers.0.attn.wkv.weight"), "");
    assert_string_equal(rule_name("experts=keep,rest=fp8-f32", EXPERT), "");
}

static void test_mtp_falls_back_on_what_it_is_elsewhere(void **state)
{
    (void)state;
    assert_string_equal(rule_name("experts=fp4", MTP_EXPERT), "fp4-b32-deepseek");
    assert_string_equal(rule_name("experts=fp4,mtp=keep", MTP_EXPERT), "");
    assert_string_equal(rule_name("experts=fp4,mtp=keep,mtp-experts=mxfp4", MTP_EXPERT),
                        "fp4-b32-floor");
    assert_string_equal(rule_name("attention=fp8-f32", "mtp.0.attn.wkv.weight"), "fp8-b128-f32");
    assert_string_equal(rule_name("mtp=fp8-f32", "layers.0.attn.wkv.weight"), "");
}

static void test_presets_may_be_changed_for_some_classes(void **state)
{
    class_rules rules;

    (void)state;
    assert_string_equal(rule_name("v4-release", EXPERT), "fp4-b32-deepseek");
    assert_string_equal(rule_name("v4-release,experts=mxfp4", EXPERT), "fp4-b32-floor");
    assert_string_equal(rule_name("v4-nvfp4", EXPERT), "nvfp4-cast");
    assert_string_equal(rule_name("v4-nvfp4", MTP_EXPERT), "fp4-b32-deepseek");
    assert_int_equal(class_rules_parse("v4-vllm-fp8", &rules, NULL), CKPT_OK);
    assert_string_equal(rules.preset, "v4-vllm-fp8");
    assert_int_equal(rules.scale_dtype, CKPT_F32);
}

static void test_odd_words_are_refused(void **state)
{
    static const char *const words[] = {
        "", ",", "fp8", "fp4,fp4", "fp4,rest=fp4", "experts=", "=fp4", "fp4=experts",
        "fp4,v4-release", "experts=v4-release", "v4-release,v4-release", "experts=fp4=fp4",
        "a-word-that-is-far-longer-than-any-name-of-a-rule-and-than-the-room-for-one"
        "=a-word-that-is-far-longer-than-any-name-of-a-rule-and-than-the-room-for-one"
    };
    class_rules rules;
    ckpt_error err;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        assert_int_equal(class_rules_parse(words[i], &rules, &err), CKPT_E_USAGE);
}

static void test_limits_are_of_classes_too(void **state)
{
    class_limits limits;
    ckpt_error err;

    (void)state;
    assert_int_equal(class_limits_parse("0.03,experts=1.5e-1", &limits, NULL), CKPT_OK);
    assert_true(class_limits_find(&limits, EXPERT) == 0.15);
    assert_true(class_limits_find(&limits, "head.weight") == 0.03);
    assert_int_equal(class_limits_parse("attention=0", &limits, NULL), CKPT_OK);
    assert_true(isinf(class_limits_find(&limits, EXPERT)));
    assert_true(class_limits_find(&limits, "layers.0.attn.wkv.weight") == 0.0);
    for (int i = 0; i < 6; i++) {
        static const char *const words[] = { "", "x", "-1", "nan", "inf", "0.1x" };

        assert_int_equal(class_limits_parse(words[i], &limits, &err), CKPT_E_USAGE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_have_classes),
        cmocka_unit_test(test_a_rule_that_stands_alone_is_for_all_that_is_not_named),
        cmocka_unit_test(test_mtp_falls_back_on_what_it_is_elsewhere),
        cmocka_unit_test(test_presets_may_be_changed_for_some_classes),
        cmocka_unit_test(test_odd_words_are_refused),
        cmocka_unit_test(test_limits_are_of_classes_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
