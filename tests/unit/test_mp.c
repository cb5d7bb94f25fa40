/* test_mp.c: which rank of model{i}-mp{N}.safetensors has what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "formats/mp.h"
#include "libckpt/json.h"
#include "split_keys.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static ckpt_error err;

/* Of DeepSeek-V4-Flash. */
static const split_key flash[] = {
    { "embed.weight", CKPT_BF16, 2, { 129280, 4096 } },
    { "norm.weight", CKPT_BF16, 1, { 4096 } },
    { "layers.2.attn.attn_sink", CKPT_F32, 1, { 64 } },
    { "layers.2.attn.wq_b.weight", CKPT_F8_E4M3, 2, { 32768, 1024 } },
    { "layers.2.attn.wq_b.scale", CKPT_F8_E8M0, 2, { 256, 8 } },
    { "layers.2.attn.wo_a.weight", CKPT_BF16, 2, { 8192, 4096 } },
    { "layers.2.attn.wo_b.weight", CKPT_F8_E4M3, 2, { 4096, 8192 } },
    { "layers.2.attn.wo_b.scale", CKPT_F8_E8M0, 2, { 32, 64 } },
    { "layers.2.attn.indexer.wq_b.weight", CKPT_F8_E4M3, 2, { 8192, 1024 } },
    { "layers.2.attn.indexer.weights_proj.weight", CKPT_BF16, 2, { 64, 4096 } },
    { "layers.2.ffn.experts.0.w1.weight", CKPT_F4, 2, { 2048, 4096 } },
    { "layers.2.ffn.experts.31.w1.weight", CKPT_F4, 2, { 2048, 4096 } },
    { "layers.2.ffn.experts.32.w2.weight", CKPT_F4, 2, { 4096, 2048 } },
    { "layers.2.ffn.experts.32.w2.scale", CKPT_F8_E8M0, 2, { 4096, 64 } },
    { "layers.2.ffn.experts.255.w3.weight", CKPT_F4, 2, { 2048, 4096 } },
    { "layers.2.ffn.shared_experts.w1.weight", CKPT_F8_E4M3, 2, { 2048, 4096 } },
    { "layers.2.ffn.gate.tid2eid", CKPT_I64, 2, { 129280, 6 } },
};
static const split_model model = { &format_mp, "deepseek_v4.mp.map", flash, COUNT(flash) };

static ckpt_store *split(uint32_t mp)
{
    const format_sharding sharding = { .mp = mp };
    ckpt_store *store = split_keys(&model, &sharding, &err);

    if (store == NULL)
        fail_msg("%s", err.text);
    return store;
}

static void test_files_are_named_by_rank(void **state)
{
    ckpt_store *store = split(4);

    (void)state;
    assert_int_equal(store->file_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        char name[64];

        snprintf(name, sizeof name, "model%u-mp4.safetensors", i);
        assert_string_equal(store->files[i].name, name);
        assert_memory_equal(store->files[i].prefix, name, strlen(name));
    }
    store_free(store);
}

static void test_a_rank_of_mp8_has_the_shapes_of_the_release(void **state)
{
    static const struct {
        const char *name;
        uint64_t shape[2];
        uint64_t corner[2];        /* of rank 3 */
    } expected[] = {
        { "embed.weight", { 16160, 4096 }, { 48480, 0 } },
        { "layers.2.attn.wq_b.weight", { 4096, 1024 }, { 12288, 0 } },
        { "layers.2.attn.wq_b.scale", { 32, 8 }, { 96, 0 } },
        { "layers.2.attn.wo_a.weight", { 1024, 4096 }, { 3072, 0 } },
        { "layers.2.attn.wo_b.weight", { 4096, 1024 }, { 0, 3072 } },
        { "layers.2.attn.wo_b.scale", { 32, 8 }, { 0, 24 } },
        { "layers.2.attn.indexer.wq_b.weight", { 1024, 1024 }, { 3072, 0 } },
        { "layers.2.attn.indexer.weights_proj.weight", { 8, 4096 }, { 24, 0 } },
    };
    ckpt_store *store = split(8);
    char name[256];

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++) {
        uint64_t corner[CKPT_RANK_MAX];
        const ckpt_tensor *piece;

        snprintf(name, sizeof name, "model3-mp8.safetensors:%s", expected[i].name);
        piece = split_piece(store, name);
        assert_int_equal(piece->file, 3);
        assert_memory_equal(piece->shape, expected[i].shape, sizeof expected[i].shape);
        split_corner(store, name, corner);
        assert_memory_equal(corner, expected[i].corner, sizeof expected[i].corner);
    }
    assert_int_equal(split_piece(store, "model7-mp8.safetensors:layers.2.attn.attn_sink")->shape[0],
                     8);
    store_free(store);
}

static void test_experts_are_whole_and_with_one_rank(void **state)
{
    static const struct {
        const char *name;
        uint32_t rank;
    } expected[] = {
        { "layers.2.ffn.experts.0.w1.weight", 0 },  { "layers.2.ffn.experts.31.w1.weight", 0 },
        { "layers.2.ffn.experts.32.w2.weight", 1 }, { "layers.2.ffn.experts.32.w2.scale", 1 },
        { "layers.2.ffn.experts.255.w3.weight", 7 },
    };
    ckpt_store *store = split(8);

    (void)state;
    for (size_t i = 0; i < COUNT(expected); i++)
        for (uint32_t rank = 0; rank < 8; rank++) {
            char name[256];

            snprintf(name, sizeof name, "model%u-mp8.safetensors:%s", rank, expected[i].name);
            assert_int_equal(ckpt_catalog_find(store->catalog, name) >= 0,
                             rank == expected[i].rank);
        }
    store_free(store);
}

static void test_the_rest_is_whole_on_every_rank(void **state)
{
    static const char *const names[] = { "norm.weight", "layers.2.ffn.shared_experts.w1.weight",
                                         "layers.2.ffn.gate.tid2eid" };
    ckpt_store *store = split(8);
    size_t copies = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++)
        for (uint32_t rank = 0; rank < 8; rank++) {
            const ckpt_tensor *key =
                ckpt_catalog_at(store->keys, (size_t)ckpt_catalog_find(store->keys, names[i]));
            char name[256];

            snprintf(name, sizeof name, "model%u-mp8.safetensors:%s", rank, names[i]);
            assert_memory_equal(split_piece(store, name)->shape, key->shape,
                                key->rank * sizeof key->shape[0]);
        }
    for (size_t i = 0; i < store->pieces->count; i++)
        copies += store->pieces->extents[i].copy;
    assert_int_equal(copies, COUNT(names) * 7);
    store_free(store);
}

static void test_what_ranks_cannot_divide_is_refused_with_what_they_can(void **state)
{
    const char *config = "{\"o_groups\": 8}";
    json_document *document;
    format_sharding sharding = { .mp = 3 };

    (void)state;
    assert_null(split_keys(&model, &sharding, &err));
    assert_non_null(strstr(err.text, "'embed.weight' BF16 [129280, 4096] cannot be divided by "
                                     "--mp 3, legal values are: 1 2 4 8 16 32 64"));
    assert_int_equal(json_parse(config, strlen(config), "config", &document, &err), CKPT_OK);
    sharding = (format_sharding){ .mp = 16, .config = json_root(document) };
    assert_null(split_keys(&model, &sharding, &err));
    assert_non_null(strstr(err.text, "'layers.2.attn.wo_a.weight'"));
    assert_non_null(strstr(err.text, "legal values are: 1 2 4 8"));
    assert_null(strstr(err.text, "8 16"));
    sharding = (format_sharding){ .mp = 0 };
    assert_null(split_keys(&model, &sharding, &err));
    json_free(document);
}

static void test_blocks_of_a_scaled_weight_stay_together(void **state)
{
    static const split_key narrow[] = {
        { "layers.0.attn.wq_b.weight", CKPT_F8_E4M3, 2, { 192, 128 } },
    };
    const split_model two_blocks = { &format_mp, "deepseek_v4.mp.map", narrow, 1 };
    format_sharding sharding = { .mp = 2 };
    ckpt_store *store;

    (void)state;
    assert_null(split_keys(&two_blocks, &sharding, &err));
    assert_non_null(strstr(err.text, "legal values are: 1"));
    assert_null(strstr(err.text, ": 1 "));
    sharding.mp = 1;                   /* cuts nothing */
    store = split_keys(&two_blocks, &sharding, &err);
    assert_non_null(store);
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_are_named_by_rank),
        cmocka_unit_test(test_a_rank_of_mp8_has_the_shapes_of_the_release),
        cmocka_unit_test(test_experts_are_whole_and_with_one_rank),
        cmocka_unit_test(test_the_rest_is_whole_on_every_rank),
        cmocka_unit_test(test_what_ranks_cannot_divide_is_refused_with_what_they_can),
        cmocka_unit_test(test_blocks_of_a_scaled_weight_stay_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
