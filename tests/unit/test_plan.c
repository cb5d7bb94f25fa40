/* test_plan.c: which tensors a policy changes, and into what. */
#include "libckpt/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DENSE "layers.0.attn.wq_a.weight"
#define EXPERT "layers.0.ffn.experts.3.w1.weight"
#define SHARED "layers.0.ffn.shared_experts.w1.weight"
#define NORM "layers.0.attn_norm.weight"

typedef enum { BF16, FP8, FP8_F32, FP4, FP4_U8 } form;

static void add(ckpt_catalog *catalog, const char *name, form f)
{
    const int is_fp4 = f == FP4 || f == FP4_U8;
    const ckpt_tensor t = {
        .name = name,
        .dtype = f == BF16 ? CKPT_BF16 : is_fp4 ? CKPT_F4 : CKPT_F8_E4M3,
        .stored_dtype = f == FP4 ? CKPT_I8 : f == FP4_U8 ? CKPT_U8 : CKPT_NONE,
        .scale_dtype = f == BF16 ? CKPT_NONE : f == FP8_F32 ? CKPT_F32 : CKPT_F8_E8M0,
        .block_rows = f == BF16 ? 0 : is_fp4 ? 1 : 128,
        .block_cols = f == BF16 ? 0 : is_fp4 ? 32 : 128,
        .rank = 2,
        .shape = { 128, 128 },
    };

    assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
}

static ckpt_catalog *model(form dense, form expert)
{
    ckpt_catalog *catalog = catalog_create();

    add(catalog, DENSE, dense);
    add(catalog, EXPERT, expert);
    add(catalog, SHARED, dense);
    add(catalog, NORM, BF16);
    return catalog;
}

/* Plan, and compare the encodings of the dense and the expert weight with what is expected. */
static void check(ckpt_catalog *from, const ckpt_catalog *official, plan_policy policy,
                  const char *expected[2])
{
    static const char *const names[] = { DENSE, EXPERT, SHARED, NORM };
    ckpt_catalog *targets;
    ckpt_error err;

    if (plan_targets(from, official, &policy, &targets, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < 4; i++) {
        const char *wanted = i == 3 ? "BF16" : expected[i % 2];
        char text[64];

        ckpt_tensor_encoding(
            ckpt_catalog_at(targets, (size_t)ckpt_catalog_find(targets, names[i])), text,
            sizeof text);
        assert_string_equal(text, wanted);
    }
    catalog_free(targets);
    catalog_free(from);
}

#define E8M0_BLOCKS "F8_E4M3 128x128 F8_E8M0"
#define F32_BLOCKS "F8_E4M3 128x128 F32"
#define GROUPS "F4 1x32 F8_E8M0"

static void test_keep_changes_nothing(void **state)
{
    (void)state;
    check(model(FP8, FP4), NULL, (plan_policy){ .dtype = PLAN_KEEP },
          (const char *[]){ E8M0_BLOCKS, GROUPS });
    check(model(FP8_F32, FP8_F32), NULL, (plan_policy){ .dtype = PLAN_KEEP },
          (const char *[]){ F32_BLOCKS, F32_BLOCKS });
}

static void test_experts_go_their_own_way(void **state)
{
    (void)state;
    check(model(FP8, FP4), NULL, (plan_policy){ PLAN_BF16, PLAN_BF16, CKPT_NONE, 0 },
          (const char *[]){ "BF16", "BF16" });
    check(model(FP8, FP4), NULL, (plan_policy){ PLAN_KEEP, PLAN_FP8, CKPT_NONE, 0 },
          (const char *[]){ E8M0_BLOCKS, E8M0_BLOCKS });
    check(model(FP8, FP4), NULL, (plan_policy){ PLAN_BF16, PLAN_KEEP, CKPT_NONE, 0 },
          (const char *[]){ "BF16", GROUPS });
    check(model(FP8, FP8), NULL, (plan_policy){ PLAN_KEEP, PLAN_FP4, CKPT_NONE, 0 },
          (const char *[]){ E8M0_BLOCKS, GROUPS });
}

static void test_the_scale_dtype_is_told_or_kept(void **state)
{
    (void)state;
    check(model(FP8, FP4), NULL, (plan_policy){ PLAN_FP8, PLAN_FP8, CKPT_F32, 0 },
          (const char *[]){ F32_BLOCKS, F32_BLOCKS });
    check(model(FP8_F32, FP8_F32), NULL, (plan_policy){ PLAN_FP8, PLAN_FP8, CKPT_NONE, 0 },
          (const char *[]){ F32_BLOCKS, F32_BLOCKS });
    check(model(FP8_F32, FP8_F32), NULL, (plan_policy){ PLAN_KEEP, PLAN_KEEP, CKPT_F8_E8M0, 0 },
          (const char *[]){ E8M0_BLOCKS, E8M0_BLOCKS });
}

static void test_scales_follow_experts_that_change(void **state)
{
    const plan_policy to_fp8 = { PLAN_KEEP, PLAN_FP8, CKPT_NONE, 1 };
    const plan_policy to_fp4 = { PLAN_KEEP, PLAN_FP4, CKPT_NONE, 1 };
    ckpt_catalog *official = model(FP8, FP4);

    (void)state;
    check(model(FP8, FP4), NULL, to_fp8, (const char *[]){ F32_BLOCKS, F32_BLOCKS });
    check(model(FP8, BF16), official, to_fp8, (const char *[]){ F32_BLOCKS, F32_BLOCKS });
    check(model(FP8_F32, FP8_F32), NULL, to_fp4, (const char *[]){ E8M0_BLOCKS, GROUPS });
    check(model(FP8, FP4), NULL, (plan_policy){ PLAN_KEEP, PLAN_FP8, CKPT_F8_E8M0, 1 },
          (const char *[]){ E8M0_BLOCKS, E8M0_BLOCKS });
    /* Experts that are what was asked for do not change. */
    check(model(FP8, FP8), NULL, to_fp8, (const char *[]){ E8M0_BLOCKS, E8M0_BLOCKS });
    check(model(FP8_F32, FP4), NULL, to_fp4, (const char *[]){ F32_BLOCKS, GROUPS });
    catalog_free(official);
}

static void test_bf16_is_quantised_where_the_family_says(void **state)
{
    ckpt_catalog *official = model(FP8, FP4);

    (void)state;
    check(model(BF16, BF16), official, (plan_policy){ PLAN_FP8, PLAN_FP4, CKPT_NONE, 0 },
          (const char *[]){ E8M0_BLOCKS, GROUPS });
    check(model(BF16, BF16), official, (plan_policy){ PLAN_KEEP, PLAN_KEEP, CKPT_NONE, 0 },
          (const char *[]){ "BF16", "BF16" });
    catalog_free(official);
}

static void test_nothing_to_quantise_is_an_error(void **state)
{
    ckpt_catalog *from = model(BF16, BF16);
    const plan_policy policies[] = { { PLAN_FP8, PLAN_FP8, CKPT_NONE, 0 },
                                     { PLAN_KEEP, PLAN_FP4, CKPT_NONE, 0 } };

    (void)state;
    for (int i = 0; i < 2; i++) {
        ckpt_catalog *targets;
        ckpt_error err;

        assert_int_equal(plan_targets(from, NULL, &policies[i], &targets, &err), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, "--like"));
    }
    catalog_free(from);
}

static void test_fp4_keeps_its_word_on_disk(void **state)
{
    ckpt_catalog *from = model(FP8, FP4_U8);
    const plan_policy policy = { PLAN_FP8, PLAN_FP4, CKPT_NONE, 0 };
    ckpt_catalog *targets;
    ckpt_error err;

    (void)state;
    assert_int_equal(plan_targets(from, NULL, &policy, &targets, &err), CKPT_OK);
    assert_int_equal(ckpt_catalog_at(targets, 1)->stored_dtype, CKPT_U8);
    catalog_free(targets);
    catalog_free(from);
}

static void test_what_a_routed_expert_is(void **state)
{
    static const char *const experts[] = { "layers.0.ffn.experts.0.w1.weight",
                                           "experts.12.w", "mtp.0.ffn.experts.255.w2.weight" };
    static const char *const others[] = { "layers.0.ffn.shared_experts.w1.weight",
                                          "layers.0.ffn.shared_experts.0.w1.weight",
                                          "x.experts.gate_up_proj", "x.experts", "",
                                          "x.experts..w" };

    (void)state;
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
        assert_true(plan_is_expert(experts[i]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(plan_is_expert(others[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_changes_nothing),
        cmocka_unit_test(test_experts_go_their_own_way),
        cmocka_unit_test(test_the_scale_dtype_is_told_or_kept),
        cmocka_unit_test(test_scales_follow_experts_that_change),
        cmocka_unit_test(test_bf16_is_quantised_where_the_family_says),
        cmocka_unit_test(test_nothing_to_quantise_is_an_error),
        cmocka_unit_test(test_fp4_keeps_its_word_on_disk),
        cmocka_unit_test(test_what_a_routed_expert_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
