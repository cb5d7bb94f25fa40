/* test_tensor_class.c: what a tensor is, by its name, canonical or as writers have it. */
#include "libckpt/tensor_class.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static void test_names_have_classes(void **state)
{
    static const struct {
        const char *name;
        tensor_class class;
    } cases[] = {
        { "layers.3.ffn.experts.7.w1.weight", TENSOR_EXPERT },
        { "mtp.0.mlp.experts.7.gate_proj.weight", TENSOR_EXPERT },
        { "layers.3.ffn.shared_experts.w1.weight", TENSOR_SHARED_EXPERT },
        { "model.layers.3.mlp.shared_expert.up_proj.weight", TENSOR_SHARED_EXPERT },
        { "model.layers.3.mlp.experts.gate_up_proj", TENSOR_EXPERT_STACK },
        { "decoder.layers.3.mlp.experts.experts.linear_fc1.weight", TENSOR_EXPERT_STACK },
        { "layers.3.ffn.experts.7.w1.scale", TENSOR_SCALE },
        { "model.layers.3.self_attn.q_proj.weight_scale_inv", TENSOR_SCALE },
        { "model.layers.3.self_attn.q_proj.weight_scale_2", TENSOR_SCALE },
        { "layers.3.hc_attn_scale", TENSOR_ATTENTION },
        { "layers.3.attn.q_norm.weight", TENSOR_NORM },
        { "decoder.layers.mlp.linear_fc1.layer_norm_weight", TENSOR_NORM },
        { "layers.3.attn.compressor.wgate.weight", TENSOR_ATTENTION },
        { "model.layers.3.linear_attn.in_proj_qkv.weight", TENSOR_ATTENTION },
        { "decoder.layers.3.self_attention.linear_qkv.weight", TENSOR_ATTENTION },
        { "model.layers.3.mlp.gate_proj.weight", TENSOR_DENSE },
        { "model.layers.3.mlp.gate.weight", TENSOR_ROUTER },
        { "layers.0.ffn.gate.tid2eid", TENSOR_ROUTER },
        { "embed.weight", TENSOR_EMBEDDING },
        { "lm_head.weight", TENSOR_EMBEDDING },
        { "image_start", TENSOR_OTHER },
        { "", TENSOR_OTHER },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tensor_class got = tensor_class_of(cases[i].name);

        if (got != cases[i].class)
            fail_msg("'%s': %d, expected %d", cases[i].name, got, cases[i].class);
    }
}

static void test_the_number_of_an_expert_is_found(void **state)
{
    static const char name[] = "layers.3.ffn.experts.127.w1.weight";
    size_t digits;

    (void)state;
    assert_string_equal(tensor_expert_number(name, &digits), "127.w1.weight");
    assert_int_equal(digits, 3);
    assert_null(tensor_expert_number("layers.3.ffn.shared_experts.0.w1.weight", &digits));
    assert_null(tensor_expert_number("layers.3.mlp.experts.gate_up_proj", &digits));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_have_classes),
        cmocka_unit_test(test_the_number_of_an_expert_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
