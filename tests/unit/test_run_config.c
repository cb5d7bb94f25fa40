/* The runner's config: spellings of one model agree, contradictions are refused. */
#include "reference-runner/model_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SIZES                                                                                    \
    "\"vocab_size\":512,\"hidden_size\":256,\"num_hidden_layers\":3,"                             \
    "\"num_nextn_predict_layers\":1,\"num_attention_heads\":4,\"head_dim\":128,"                  \
    "\"q_lora_rank\":64,\"o_groups\":2,\"o_lora_rank\":64,\"sliding_window\":16,"                 \
    "\"n_routed_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":64,"              \
    "\"index_n_heads\":4,\"index_head_dim\":64,\"index_topk\":8,\"hc_mult\":4,"                   \
    "\"hc_sinkhorn_iters\":20,\"routed_scaling_factor\":1.5,\"swiglu_limit\":10"
#define RELEASE                                                                                  \
    "\"num_hash_layers\":1,\"qk_rope_head_dim\":64,\"rope_theta\":10000,"                         \
    "\"compress_rope_theta\":160000,\"compress_ratios\":[0,4,128,0],\"rope_scaling\":"            \
    "{\"type\":\"yarn\",\"factor\":16,\"beta_fast\":32,\"beta_slow\":1,"                          \
    "\"original_max_position_embeddings\":65536}"
#define KINDS "\"mlp_layer_types\":[\"hash_moe\",\"moe\",\"moe\"]"
#define TYPES                                                                                    \
    "\"layer_types\":[\"sliding_attention\",\"compressed_sparse_attention\","                     \
    "\"heavily_compressed_attention\"]"
#define RATES                                                                                    \
    "\"compress_rates\":{\"compressed_sparse_attention\":4,"                                     \
    "\"heavily_compressed_attention\":128}"
#define ROPE                                                                                     \
    "\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"compress\":{\"rope_type\":\"yarn\","    \
    "\"factor\":16,\"beta_fast\":32,\"beta_slow\":1,\"rope_theta\":160000,"                       \
    "\"original_max_position_embeddings\":65536},\"main\":{\"rope_theta\":10000}}"

static ckpt_code read_text(const char *text, run_config *out, ckpt_error *err)
{
    json_document *document;
    ckpt_code code;

    assert_int_equal(json_parse(text, strlen(text), "config", &document, err), CKPT_OK);
    code = run_config_read(json_root(document), "config", out, err);
    json_free(document);
    return code;
}

static void test_the_form_of_transformers_says_the_same(void **state)
{
    run_config release;
    run_config later;
    ckpt_error err;

    (void)state;
    assert_int_equal(read_text("{" SIZES "," RELEASE "}", &release, &err), CKPT_OK);
    assert_int_equal(
        read_text("{" SIZES "," KINDS "," TYPES "," RATES "," ROPE "}", &later, &err), CKPT_OK);
    assert_string_equal(release.digest, later.digest);
    assert_int_equal(later.hash_layer_count, 1);
    assert_int_equal(later.rope_dim, 64);
    assert_int_equal(later.ratios[2], 128);
    assert_true(later.original_length == 65536);
}

static void refuse(const char *text, const char *said)
{
    run_config config;
    ckpt_error err;

    assert_int_equal(read_text(text, &config, &err), CKPT_E_FORMAT);
    if (strstr(err.text, said) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_what_contradicts_itself_is_refused(void **state)
{
    (void)state;
    refuse("{" SIZES "," KINDS "," RATES "," ROPE "}", "compress_ratios");
    refuse("{" SIZES "," KINDS "," TYPES "," ROPE "}", "compress_rates");
    refuse("{" SIZES "," TYPES "," RATES "," ROPE "}", "num_hash_layers");
    refuse("{" SIZES "," TYPES "," RATES "," KINDS "}", "missing");
    refuse("{" SIZES "," TYPES "," RATES "," ROPE
           ",\"mlp_layer_types\":[\"moe\",\"hash_moe\",\"moe\"]}", "mlp_layer_types");
    refuse("{" SIZES "," KINDS "," RATES "," ROPE ",\"layer_types\":[\"sliding_attention\"]}",
           "layer_types");
    refuse("{" SIZES "," RELEASE ",\"hidden_act\":\"gelu\"}", "hidden_act");
}

/* `a` in place of what a RELEASE or ROPE has there. */
static void refuse_scaling(const char *scaling, const char *said)
{
    char text[4096];
    char saved[4096];

    snprintf(text, sizeof text, "{" SIZES ",\"num_hash_layers\":1,\"qk_rope_head_dim\":64,"
             "\"rope_theta\":10000,\"compress_rope_theta\":160000,"
             "\"compress_ratios\":[0,4,128,0],\"rope_scaling\":{%s}}", scaling);
    refuse(text, said);
    snprintf(saved, sizeof saved, "{" SIZES "," TYPES "," RATES "," KINDS
             ",\"partial_rotary_factor\":0.5,\"rope_parameters\":{\"main\":{\"rope_theta\":10000},"
             "\"compress\":{\"rope_theta\":160000,%s}}}", scaling);
    refuse(saved, said);
}

static void test_a_scaling_that_would_be_computed_otherwise_is_refused(void **state)
{
    (void)state;
    refuse_scaling("\"factor\":16,\"original_max_position_embeddings\":0",
                   "original_max_position_embeddings");
    refuse_scaling("\"factor\":16", "original_max_position_embeddings");
    refuse_scaling("\"factor\":16,\"original_max_position_embeddings\":65536,"
                   "\"attention_factor\":2", "attention_factor");
    refuse_scaling("\"factor\":16,\"original_max_position_embeddings\":65536,"
                   "\"mscale\":1", "mscale");
    refuse_scaling("\"factor\":16,\"original_max_position_embeddings\":65536,"
                   "\"beta_fast\":1,\"beta_slow\":32", "beta_fast");
    refuse("{" SIZES "," TYPES "," RATES "," KINDS ",\"partial_rotary_factor\":0.5,"
           "\"rope_parameters\":{\"compress\":{\"rope_theta\":160000},"
           "\"main\":{\"rope_theta\":10000,\"rope_type\":\"linear\"}}}", "rope_type");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_form_of_transformers_says_the_same),
        cmocka_unit_test(test_what_contradicts_itself_is_refused),
        cmocka_unit_test(test_a_scaling_that_would_be_computed_otherwise_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
