/* What a config says of the forward pass, whatever its spelling. */
#include "libckpt/config_compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static config_meaning meanings[2];
static config_comparison found;
static ckpt_error err;

static int release(void **state)
{
    (void)state;
    config_comparison_release(&found);
    config_meaning_release(&meanings[0]);
    config_meaning_release(&meanings[1]);
    return 0;
}

static void read_text(const char *text, config_meaning *out)
{
    json_document *document;

    assert_int_equal(json_parse(text, strlen(text), "config", &document, &err), CKPT_OK);
    assert_int_equal(config_meaning_read(json_root(document), out, &err), CKPT_OK);
    json_free(document);
}

static size_t count_differences(const char *a, const char *b)
{
    release(NULL);
    read_text(a, &meanings[0]);
    read_text(b, &meanings[1]);
    assert_int_equal(config_meaning_compare(&meanings[0], &meanings[1], 0, &found, &err), CKPT_OK);
    return found.count;
}

/* What a config says of next-token blocks, as GGUF without them has it. */
static void test_without_next_token_blocks(void **state)
{
    static const char layers[] = "{\"model_type\":\"deepseek_v4\",\"num_hidden_layers\":3,"
        "\"num_nextn_predict_layers\":%d,\"compress_ratios\":%s}";
    static const struct {
        const char *ratios;
        size_t differing;              /* with main_only */
    } others[] = {
        { "[0,4,128]", 0 }, { "[0,4,128,0]", 0 }, { "[0,4,128,4]", 0 }, { "[0,4]", 1 },
        { "[0,4,12]", 1 }, { "[0,128,4]", 1 }, { "[]", 1 },
    };
    char whole[256];

    (void)state;
    snprintf(whole, sizeof whole, layers, 1, "[0,4,128,0]");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char other[256];

        snprintf(other, sizeof other, layers, 0, others[i].ratios);
        assert_true(count_differences(whole, other) >= 1);
        config_comparison_release(&found);
        assert_int_equal(config_meaning_compare(&meanings[0], &meanings[1], 1, &found, &err),
                         CKPT_OK);
        assert_int_equal(found.count, others[i].differing);
    }
}

/* The saved configs say the same as the released ones: nothing of it was made here. */
static void test_what_transformers_saves_means_what_was_released(void **state)
{
    static const char *const models[] = { "flash", "pro" };
    json_document *saved;

    (void)state;
    assert_int_equal(json_parse_file("tests/data/v4-transformers-5.23.json", 1 << 20, &saved,
                                     &err), CKPT_OK);
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        json_document *released;
        const json_value *config =
            json_member(json_member(json_root(saved), "configs"), models[i]);

        snprintf(path, sizeof path, "formats/maps/deepseek_v4.%s.json", models[i]);
        assert_int_equal(json_parse_file(path, 1 << 20, &released, &err), CKPT_OK);
        assert_int_equal(config_meaning_read(json_root(released), &meanings[0], &err), CKPT_OK);
        assert_int_equal(config_meaning_read(config, &meanings[1], &err), CKPT_OK);
        json_free(released);
        assert_int_equal(config_meaning_compare(&meanings[0], &meanings[1], 0, &found, &err),
                         CKPT_OK);
        if (found.count > 0)
            fail_msg("%s: %s: %s, %s", models[i], found.differing[0].name, found.differing[0].a,
                     found.differing[0].b);
        assert_true(found.compared > 35);
        release(NULL);
    }
    json_free(saved);
}

#define V4 "\"model_type\":\"deepseek_v4\",\"num_hidden_layers\":3,\"hidden_size\":8"
#define RELEASE "{" V4 ",\"compress_ratios\":[0,4,128,0],\"num_hash_layers\":2}"
#define SAVED(last, second)                                                                       \
    "{" V4 ",\"layer_types\":[\"sliding_attention\",\"compressed_sparse_attention\","             \
    "\"" last "\"],"                                                                              \
    "\"mlp_layer_types\":[\"hash_moe\",\"" second "\",\"moe\"]}"

static void test_kinds_of_layers_are_compared_with_ratios(void **state)
{
    (void)state;
    assert_int_equal(
        count_differences(RELEASE, SAVED("heavily_compressed_attention", "hash_moe")), 0);
    assert_int_equal(count_differences(RELEASE, SAVED("sliding_attention", "hash_moe")), 1);
    assert_string_equal(found.differing[0].name, "compress_ratios");
    assert_string_equal(found.differing[0].b, "[0,4,0,0]");
    assert_int_equal(count_differences(RELEASE, SAVED("heavily_compressed_attention", "moe")), 1);
    assert_string_equal(found.differing[0].name, "num_hash_layers");
}

static void test_the_spelling_of_the_inference_code_is_read(void **state)
{
    (void)state;
    assert_int_equal(count_differences("{" V4 ",\"rms_norm_eps\":1e-6,\"rope_scaling\":"
                                       "{\"factor\":16}}",
                                       "{\"dim\":8,\"n_layers\":3,\"norm_eps\":0.000001,"
                                       "\"rope_factor\":16.0,\"dtype\":\"fp8\","
                                       "\"max_batch_size\":4}"), 0);
    assert_int_equal(count_differences("{" V4 "}", "{\"dim\":9,\"n_layers\":3}"), 1);
    assert_string_equal(found.differing[0].name, "hidden_size");
    assert_string_equal(found.differing[0].a, "8");
    assert_string_equal(found.differing[0].b, "9");
}

static void test_a_member_that_only_one_has_is_a_difference(void **state)
{
    (void)state;
    assert_int_equal(count_differences("{\"rope_theta\":1}", "{\"eps\":2,\"dtype\":3}"), 2);
    assert_null(found.differing[0].b);
    assert_null(found.differing[1].a);
    assert_int_equal(count_differences("{" V4 ",\"rope_theta\":1}", "{" V4 "}"), 1);
}

/* Only configs of one spelling can show that one lacks what no table knows. */
static void test_a_member_of_tomorrow_that_only_one_has(void **state)
{
    static const char *const saved = "{" V4 ",\"rope_parameters\":{}}";

    (void)state;
    assert_int_equal(count_differences("{" V4 ",\"tomorrow\":1}", "{" V4 "}"), 1);
    assert_string_equal(found.differing[0].name, "tomorrow");
    assert_int_equal(found.lone_count, 0);
    assert_int_equal(count_differences("{" V4 ",\"tomorrow\":1}", saved), 0);
    assert_int_equal(found.lone_count, 1);
    assert_string_equal(found.lone[0], "tomorrow");
    assert_int_equal(count_differences("{\"dim\":8,\"n_layers\":3,\"tomorrow\":1}",
                                       "{\"dim\":8,\"n_layers\":3}"), 1);
    assert_int_equal(count_differences("{\"dim\":8,\"n_layers\":3,\"tomorrow\":1}",
                                       "{" V4 ",\"layer_types_of_tomorrow\":1}"), 0);
    assert_int_equal(found.lone_count, 2);
    assert_int_equal(count_differences("{" V4 ",\"tomorrow\":1}",
                                       "{\"dim\":8,\"n_layers\":3,\"tomorrow\":2}"), 1);
}

#define RELEASED(more) "{" V4 ",\"rope_scaling\":{\"factor\":4" more "}}"
#define MOVED(more) "{" V4 ",\"rope_parameters\":{\"compress\":{\"factor\":4" more "}}}"

/* Under both spellings, and where only one has it. */
static void test_a_scaling_that_the_table_does_not_know_is_compared(void **state)
{
    static const char *const one = RELEASED(",\"mscale\":1");

    (void)state;
    assert_int_equal(count_differences(one, RELEASED(",\"mscale\":1.0")), 0);
    assert_int_equal(count_differences(one, MOVED(",\"mscale\":1")), 0);
    assert_int_equal(count_differences(one, RELEASED("")), 1);
    assert_int_equal(count_differences(MOVED(""), one), 1);
    assert_int_equal(count_differences(one, MOVED(",\"mscale\":2")), 1);
    assert_string_equal(found.differing[0].name, "rope_scaling.mscale");
    assert_int_equal(count_differences(RELEASED(",\"type\":\"yarn\""),
                                       MOVED(",\"rope_type\":\"yarn\"")), 0);
}

static void test_a_record_reads_back_as_it_was(void **state)
{
    json_document *document;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    json_writer w;

    (void)state;
    read_text("{" V4 ",\"compress_ratios\":[0,4,128],\"rope_theta\":1e4,\"hc_eps\":1e-6,"
              "\"later\":{\"a\":[true,null,\"\\u0022\"]}}", &meanings[0]);
    json_writer_begin(&w, json_write_stdio, stream, 0);
    config_meaning_put(&w, &meanings[0]);
    fclose(stream);
    assert_int_equal(json_parse(text, size, "record", &document, &err), CKPT_OK);
    assert_int_equal(config_meaning_read_record(json_root(document), &meanings[1], &err), CKPT_OK);
    json_free(document);
    free(text);
    assert_int_equal(config_meaning_compare(&meanings[0], &meanings[1], 0, &found, &err), CKPT_OK);
    assert_int_equal(found.count, 0);
    assert_int_equal(found.compared, meanings[0].count - 1);     /* but the name of the spelling */
}

/* Members are searched one by one: hostile numbers of them, names and depths are refused. */
static void test_hostile_configs_are_refused(void **state)
{
    static char text[400000];
    json_document *document;
    size_t used = 1;

    (void)state;
    text[0] = '{';
    for (int i = 0; i < 20000; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\"m%d\":1",
                                 i > 0 ? "," : "", i);
    text[used++] = '}';
    assert_int_equal(json_parse(text, used, "config", &document, &err), CKPT_OK);
    assert_int_equal(config_meaning_read(json_root(document), &meanings[0], &err), CKPT_E_FORMAT);
    json_free(document);
    release(NULL);
    memset(text, 'x', sizeof text);
    memcpy(text, "{\"", 2);
    memcpy(text + 5000, "\":1}", 4);
    assert_int_equal(json_parse(text, 5004, "config", &document, &err), CKPT_OK);
    assert_int_equal(config_meaning_read(json_root(document), &meanings[0], &err), CKPT_E_FORMAT);
    json_free(document);
}

#define TEST(name) cmocka_unit_test_teardown(name, release)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_next_token_blocks),
        TEST(test_what_transformers_saves_means_what_was_released),
        TEST(test_kinds_of_layers_are_compared_with_ratios),
        TEST(test_the_spelling_of_the_inference_code_is_read),
        TEST(test_a_member_that_only_one_has_is_a_difference),
        TEST(test_a_member_of_tomorrow_that_only_one_has),
        TEST(test_a_scaling_that_the_table_does_not_know_is_compared),
        TEST(test_a_record_reads_back_as_it_was),
        TEST(test_hostile_configs_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
