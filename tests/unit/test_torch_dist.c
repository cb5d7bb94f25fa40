/* test_torch_dist.c: boxes, files and items of a torch_dist, against the numbers of Megatron. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/torch_dist/torch_dist.h"
#include "formats/torch_dist/torch_dist_state.h"
#include "libckpt/json.h"
#include "split_keys.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define LAYER(l) "decoder.layers." #l "."

static ckpt_error err;

/* Of DeepSeek-V4-Flash, four layers. */
static const split_key flash[] = {
    { "embedding.word_embeddings.weight", CKPT_BF16, 2, { 129280, 4096 } },
    { "output_layer.weight", CKPT_BF16, 2, { 129280, 4096 } },
    { "decoder.final_layernorm.weight", CKPT_BF16, 1, { 4096 } },
    { LAYER(0) "input_layernorm.weight", CKPT_BF16, 1, { 4096 } },
    { LAYER(0) "self_attention.wq_b.weight", CKPT_BF16, 2, { 32768, 1024 } },
    { LAYER(0) "self_attention.wo_a.weight", CKPT_BF16, 2, { 8192, 4096 } },
    { LAYER(0) "self_attention.wo_b.weight", CKPT_BF16, 2, { 4096, 8192 } },
    { LAYER(0) "self_attention.attn_sink", CKPT_F32, 1, { 64 } },
    { LAYER(0) "mlp.router.tid2eid", CKPT_I32, 2, { 129280, 6 } },
    { LAYER(0) "mlp.shared_experts.linear_fc1.weight", CKPT_BF16, 2, { 4096, 4096 } },
    { LAYER(0) "mlp.shared_experts.linear_fc2.weight", CKPT_BF16, 2, { 4096, 2048 } },
    { LAYER(0) "mlp.experts.experts.linear_fc1.weight", CKPT_BF16, 3, { 256, 4096, 4096 } },
    { LAYER(0) "mlp.experts.experts.linear_fc2.weight", CKPT_BF16, 3, { 256, 4096, 2048 } },
    { LAYER(1) "input_layernorm.weight", CKPT_BF16, 1, { 4096 } },
    { LAYER(2) "input_layernorm.weight", CKPT_BF16, 1, { 4096 } },
    { LAYER(3) "input_layernorm.weight", CKPT_BF16, 1, { 4096 } },
    { LAYER(3) "mlp.experts.experts.linear_fc2.weight", CKPT_BF16, 3, { 256, 4096, 2048 } },
};
static const split_model model = { &format_torch_dist, "deepseek_v4.torch_dist-v1.map", flash,
                                   COUNT(flash) };

static ckpt_store *split(const format_sharding *sharding)
{
    ckpt_store *store = split_keys(&model, sharding, &err);

    if (store == NULL)
        fail_msg("%s", err.text);
    return store;
}

/* Number of pieces of a key. */
static size_t count_boxes(const ckpt_store *store, const char *key)
{
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(store->catalog); i++) {
        const char *name = ckpt_catalog_at(store->catalog, i)->name;

        count += strncmp(name, key, strlen(key)) == 0 && name[strlen(key)] == '@';
    }
    return count;
}

typedef struct {
    const char *piece;
    uint64_t shape[3];
    uint64_t corner[3];
} box;

static void assert_boxes(const ckpt_store *store, const box *expected, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *piece = split_piece(store, expected[i].piece);
        uint64_t corner[CKPT_RANK_MAX];

        split_corner(store, expected[i].piece, corner);
        for (uint32_t d = 0; d < piece->rank; d++)
            if (piece->shape[d] != expected[i].shape[d] || corner[d] != expected[i].corner[d])
                fail_msg("%s, dimension %u: %llu at %llu", expected[i].piece, d,
                         (unsigned long long)piece->shape[d], (unsigned long long)corner[d]);
    }
}

/* ---- boxes ---- */

static void test_without_ranks_boxes_suit_every_tp_up_to_8(void **state)
{
    static const box expected[] = {
        { LAYER(0) "self_attention.wq_b.weight@7", { 4096, 1024 }, { 28672, 0 } },
        { LAYER(0) "self_attention.wo_b.weight@1", { 4096, 1024 }, { 0, 1024 } },
        { LAYER(0) "mlp.shared_experts.linear_fc1.weight@8", { 256, 4096 }, { 2048, 0 } },
        { LAYER(0) "mlp.shared_experts.linear_fc2.weight@7", { 4096, 256 }, { 0, 1792 } },
        { LAYER(0) "mlp.router.tid2eid@0", { 129280, 6 }, { 0, 0 } },
        { LAYER(0) "mlp.experts.experts.linear_fc1.weight@511", { 1, 2048, 4096 },
          { 255, 2048, 0 } },
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@7", { 1, 4096, 2048 }, { 7, 0, 0 } },
        { "embedding.word_embeddings.weight@63", { 2020, 4096 }, { 127260, 0 } },
    };
    const format_sharding none = { 0 };
    ckpt_store *store = split(&none);

    (void)state;
    assert_boxes(store, expected, COUNT(expected));
    assert_int_equal(count_boxes(store, LAYER(0) "mlp.shared_experts.linear_fc1.weight"), 16);
    assert_int_equal(count_boxes(store, LAYER(0) "mlp.experts.experts.linear_fc1.weight"), 512);
    assert_int_equal(count_boxes(store, LAYER(0) "input_layernorm.weight"), 1);
    store_free(store);
}

/* Expert e, half h, rank r of ETP: [1, F/ETP, H] at (e, h F + r F/ETP, 0); fc2 [1, H, F/ETP]. */
static void test_expert_boxes_are_those_of_megatrons_ranks(void **state)
{
    static const box expected[] = {
        { LAYER(0) "mlp.experts.experts.linear_fc1.weight@5", { 1, 1024, 4096 }, { 1, 1024, 0 } },
        { LAYER(0) "mlp.experts.experts.linear_fc1.weight@6", { 1, 1024, 4096 }, { 1, 2048, 0 } },
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@3", { 1, 4096, 1024 }, { 1, 0, 1024 } },
    };
    const format_sharding sharding = { .tp = 2, .ep = 4, .etp = 2 };
    ckpt_store *store = split(&sharding);

    (void)state;
    assert_boxes(store, expected, COUNT(expected));
    assert_int_equal(count_boxes(store, LAYER(0) "mlp.experts.experts.linear_fc1.weight"), 1024);
    store_free(store);
}

/* SwiGLU halves: rank r of T holds rows r F/T of gate and the same of up. */
static void test_tp_cuts_each_half_of_gate_and_up(void **state)
{
    static const box expected[] = {
        { LAYER(0) "mlp.shared_experts.linear_fc1.weight@1", { 512, 4096 }, { 512, 0 } },
        { LAYER(0) "mlp.shared_experts.linear_fc1.weight@5", { 512, 4096 }, { 2560, 0 } },
        { LAYER(0) "self_attention.attn_sink@3", { 16 }, { 48 } },
        { "output_layer.weight@1", { 32320, 4096 }, { 32320, 0 } },
    };
    const format_sharding sharding = { .tp = 4, .per_rank_files = 1 };
    ckpt_store *store = split(&sharding);

    (void)state;
    assert_boxes(store, expected, COUNT(expected));
    /* Both halves are the same rank's. */
    assert_int_equal(
        split_piece(store, LAYER(0) "mlp.shared_experts.linear_fc1.weight@1")->file, 1);
    assert_int_equal(
        split_piece(store, LAYER(0) "mlp.shared_experts.linear_fc1.weight@5")->file, 1);
    store_free(store);
}

/* ---- files ---- */

static void test_a_file_is_a_layer_and_the_first_what_is_of_none(void **state)
{
    const format_sharding sharding = { .iteration = "iter_0000012" };
    ckpt_store *store = split(&sharding);

    (void)state;
    assert_int_equal(store->file_count, 5);
    assert_string_equal(store->files[0].name, "iter_0000012/__0_0.distcp");
    assert_string_equal(store->files[4].name, "iter_0000012/__4_0.distcp");
    assert_int_equal(split_piece(store, "embedding.word_embeddings.weight@0")->file, 0);
    assert_int_equal(split_piece(store, "output_layer.weight@63")->file, 0);
    assert_int_equal(split_piece(store, LAYER(3) "input_layernorm.weight@0")->file, 4);
    store_free(store);
}

static void test_files_of_ranks_hold_what_the_ranks_own(void **state)
{
    static const struct {
        const char *piece;
        uint32_t rank;
    } expected[] = {
        /* Stages of 1, 2 and 1 layers, of 8 ranks each: tp 8 or ep 4 x etp 2. */
        { "embedding.word_embeddings.weight@0", 0 },
        { "embedding.word_embeddings.weight@7", 7 },
        { LAYER(0) "self_attention.wo_b.weight@5", 5 },
        { LAYER(0) "input_layernorm.weight@0", 0 },
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@0", 0 },
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@1", 1 },       /* etp rank 1 */
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@127", 1 },     /* expert 63 */
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight@128", 2 },     /* expert 64: ep rank 1 */
        { LAYER(0) "mlp.experts.experts.linear_fc1.weight@1023", 7 },
        { LAYER(1) "input_layernorm.weight@0", 8 },
        { LAYER(2) "input_layernorm.weight@0", 8 },
        { LAYER(3) "input_layernorm.weight@0", 16 },
        { LAYER(3) "mlp.experts.experts.linear_fc2.weight@511", 23 },
        { "decoder.final_layernorm.weight@0", 16 },
        { "output_layer.weight@3", 19 },
    };
    const format_sharding sharding = { .tp = 8, .pp = 3, .ep = 4, .etp = 2,
                                       .first_stage_layers = 1, .last_stage_layers = 1,
                                       .per_rank_files = 1 };
    ckpt_store *store = split(&sharding);

    (void)state;
    assert_int_equal(store->file_count, 24);
    for (size_t i = 0; i < COUNT(expected); i++)
        if (split_piece(store, expected[i].piece)->file != expected[i].rank)
            fail_msg("%s is in file %u", expected[i].piece,
                     split_piece(store, expected[i].piece)->file);
    store_free(store);
}

/* Neither 2 nor 3 ranks hold whole groups of tp 2 and of ep 3: 6 do. */
static void test_a_stage_has_the_ranks_of_both_kinds_of_groups(void **state)
{
    static const split_key few[] = {
        { LAYER(0) "mlp.experts.experts.linear_fc2.weight", CKPT_BF16, 3, { 6, 4, 4 } },
        { LAYER(1) "mlp.experts.experts.linear_fc2.weight", CKPT_BF16, 3, { 6, 4, 4 } },
        { LAYER(1) "self_attention.wo_b.weight", CKPT_BF16, 2, { 4, 4 } },
    };
    const split_model six = { &format_torch_dist, "deepseek_v4.torch_dist-v1.map", few,
                              COUNT(few) };
    const format_sharding sharding = { .tp = 2, .pp = 2, .ep = 3, .per_rank_files = 1 };
    ckpt_store *store = split_keys(&six, &sharding, &err);

    (void)state;
    assert_non_null(store);
    assert_int_equal(
        split_piece(store, LAYER(0) "mlp.experts.experts.linear_fc2.weight@5")->file, 2);
    assert_int_equal(
        split_piece(store, LAYER(1) "mlp.experts.experts.linear_fc2.weight@5")->file, 8);
    assert_int_equal(split_piece(store, LAYER(1) "self_attention.wo_b.weight@1")->file, 7);
    store_free(store);
}

static void test_ranks_that_cut_a_group_are_refused_with_those_that_do_not(void **state)
{
    static const char config[] = "{\"o_groups\": 2, \"num_attention_heads\": 64}";
    json_document *document;
    format_sharding sharding = { .tp = 8 };

    (void)state;
    assert_int_equal(json_parse(config, strlen(config), "config", &document, &err), CKPT_OK);
    sharding.config = json_root(document);
    assert_null(split_keys(&model, &sharding, &err));
    assert_non_null(strstr(err.text, "self_attention.wo_a.weight' [8192, 4096] cannot be divided "
                                     "by --tp 8, legal values are: 1 2"));
    sharding = (format_sharding){ .ep = 3 };
    assert_null(split_keys(&model, &sharding, &err));
    assert_non_null(strstr(err.text, "legal values are: 1 2 4 8 16 32 64 128 256"));
    sharding = (format_sharding){ .pp = 3 };
    assert_null(split_keys(&model, &sharding, &err));
    assert_non_null(strstr(err.text, "4 layers cannot be divided over --pp 3"));
    json_free(document);
}

/* ---- items ---- */

/* The reference item of a BF16 [2, 3]: head 384, payload 12, end at 664, the next one at 704. */
static void test_items_follow_each_other_on_multiples_of_64(void **state)
{
    static const split_key two[] = { { "a", CKPT_BF16, 2, { 2, 3 } },
                                     { "b", CKPT_BF16, 2, { 2, 3 } },
                                     { LAYER(0) "a", CKPT_BF16, 2, { 2, 3 } } };
    const split_model plain = { &format_torch_dist, "generic.torch_dist.map", two, COUNT(two) };
    const format_sharding none = { 0 };
    ckpt_store *store = split_keys(&plain, &none, &err);

    (void)state;
    assert_non_null(store);
    assert_int_equal(split_piece(store, "a@0")->offset, 384);
    assert_int_equal(split_piece(store, "b@0")->offset, 704 + 384);
    assert_int_equal(store->files[0].size_bytes, 2 * 704);
    assert_int_equal(split_piece(store, LAYER(0) "a@0")->offset, 384);
    assert_int_equal(store->files[1].size_bytes, 704);
    store_free(store);
}

static void test_extra_state_stands_behind_the_tensors(void **state)
{
    static const uint64_t experts = 2 * 256 + 256;
    const format_sharding none = { 0 };
    const format_sharding with = { .extra_state = 1 };
    ckpt_store *plain = split(&none);
    ckpt_store *store = split(&with);
    const dist_watch *w = torch_dist_watch(store);
    size_t nones = 0;

    (void)state;
    assert_int_equal(torch_dist_watch(plain)->extra_count, 0);
    for (size_t i = 0; i < ckpt_catalog_count(plain->catalog); i++)
        assert_int_equal(ckpt_catalog_at(plain->catalog, i)->offset,
                         ckpt_catalog_at(store->catalog, i)->offset);
    /* Modules: the final norm, four input norms, wq_b, wo_a, wo_b, shared fc1 and fc2. */
    assert_int_equal(w->extra_count, experts + 1 + 4 + 5);
    for (size_t i = 0; i < w->extra_count; i++) {
        const uint32_t file = ckpt_catalog_at(store->catalog, w->extras[i].piece)->file;
        const char *key = ckpt_catalog_at(store->keys, w->extras[i].key)->name;
        const int by_expert = strstr(key, ".experts.experts.") != NULL;

        assert_in_range(w->extras[i].offset, plain->files[file].size_bytes,
                        store->files[file].size_bytes - 1);
        assert_int_equal(w->extras[i].count[0], by_expert ? 256 : 1);
        assert_in_range(w->extras[i].index[0], 0, by_expert ? 255 : 0);
        assert_int_equal(w->extras[i].is_none, strstr(key, ".wo_a.") != NULL);
        nones += (size_t)w->extras[i].is_none;
    }
    assert_int_equal(nones, 1);
    store_free(plain);
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_ranks_boxes_suit_every_tp_up_to_8),
        cmocka_unit_test(test_expert_boxes_are_those_of_megatrons_ranks),
        cmocka_unit_test(test_tp_cuts_each_half_of_gate_and_up),
        cmocka_unit_test(test_a_file_is_a_layer_and_the_first_what_is_of_none),
        cmocka_unit_test(test_files_of_ranks_hold_what_the_ranks_own),
        cmocka_unit_test(test_a_stage_has_the_ranks_of_both_kinds_of_groups),
        cmocka_unit_test(test_ranks_that_cut_a_group_are_refused_with_those_that_do_not),
        cmocka_unit_test(test_items_follow_each_other_on_multiples_of_64),
        cmocka_unit_test(test_extra_state_stands_behind_the_tensors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
