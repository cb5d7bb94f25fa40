/* test_mutation.c: mutations change what they say, and nothing else. */
#include "verify/mutation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory_source.h"

enum { ROWS = 256, COLS = 256 };

static memory_source *source;
static ckpt_digest *digest;
static mutation_input input;
static mutation made;
static ckpt_error err;

static void fill(size_t tensor, ckpt_part part, unsigned seed)
{
    const ckpt_tensor *t = ckpt_catalog_at(memory_source_catalog(source), tensor);
    uint8_t *bytes = memory_source_part(source, tensor, part);
    uint32_t state = seed * 2654435761u + 1;

    for (uint64_t i = 0; i < ckpt_part_bytes(t, part); i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = part == CKPT_SCALE ? (uint8_t)(120 + (state >> 24) % 7)
                                      : (uint8_t)(state >> 24 & 0x3F);
    }
}

static size_t add(const char *name, ckpt_dtype dtype, uint64_t rows)
{
    const size_t i = memory_source_add(source, name, dtype, rows, COLS);

    fill(i, CKPT_DATA, (unsigned)i + 1);
    if (dtype == CKPT_F4 || dtype == CKPT_F8_E4M3)
        fill(i, CKPT_SCALE, (unsigned)i + 1);
    return i;
}

static void add_vector(const char *name, ckpt_dtype dtype)
{
    const ckpt_tensor t = { .name = name, .dtype = dtype, .rank = 1, .shape = { COLS } };

    const size_t i = memory_source_add_tensor(source, &t);

    fill(i, CKPT_DATA, (unsigned)i + 1);
}

static int set_up(void **state)
{
    const ckpt_run_options run = { .memory_bytes = 1 << 28, .thread_count = 1 };

    (void)state;
    source = memory_source_create();
    for (int layer = 0; layer < 2; layer++) {
        char name[64];

        snprintf(name, sizeof name, "layers.%d.wq.weight", layer);
        add(name, CKPT_F8_E4M3, ROWS);
        snprintf(name, sizeof name, "layers.%d.wk.weight", layer);
        add(name, CKPT_F8_E4M3, ROWS);
        snprintf(name, sizeof name, "layers.%d.gate.weight", layer);
        add(name, CKPT_F32, 16);
        snprintf(name, sizeof name, "layers.%d.a_norm.weight", layer);
        add_vector(name, CKPT_BF16);
        snprintf(name, sizeof name, "layers.%d.b_norm.weight", layer);
        add_vector(name, CKPT_BF16);
        snprintf(name, sizeof name, "layers.%d.bias", layer);
        add_vector(name, CKPT_F32);
        snprintf(name, sizeof name, "layers.%d.gate.tid2eid", layer);
        add(name, CKPT_I64, 8);
        for (int e = 0; e < 3; e++)
            for (int w = 1; w < 4; w++) {
                snprintf(name, sizeof name, "layers.%d.experts.%d.w%d.weight", layer, e, w);
                add(name, CKPT_F4, ROWS);
            }
    }
    add("embed.weight", CKPT_BF16, ROWS);
    add("head.weight", CKPT_BF16, ROWS);
    assert_int_equal(ckpt_digest_source(memory_source_base(source), &run, &digest, &err),
                     CKPT_OK);
    input = (mutation_input){ .source = memory_source_base(source), .digest = digest,
                              .config = "{\"rope_theta\": 10000, \"rms_norm_eps\": 1e-6}" };
    memset(&made, 0, sizeof made);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mutation_release(&made);
    ckpt_digest_free(digest);
    memory_source_free(source);
    return 0;
}

static void make(const char *name)
{
    mutation_release(&made);
    assert_true(mutation_find(name) < mutation_count());
    assert_int_equal(mutation_make(mutation_find(name), &input, &made, &err), CKPT_OK);
}

static size_t differing(void)
{
    const ckpt_run_options run = { .memory_bytes = 1 << 28, .thread_count = 2 };
    const ckpt_catalog *catalog = ckpt_source_catalog(made.source);
    ckpt_digest *other;
    size_t count = 0;

    assert_int_equal(ckpt_digest_source(made.source, &run, &other, &err), CKPT_OK);
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const int64_t was = ckpt_catalog_find(memory_source_catalog(source),
                                              ckpt_catalog_at(catalog, i)->name);
        const hash128 now = digest_get(other, i);
        hash128 before = { 0, 0 };

        if (was != CKPT_NOT_FOUND)
            before = digest_get(digest, (size_t)was);
        if (memcmp(&before, &now, sizeof now) == 0)
            continue;
        assert_true(made.touched[i]);
        count++;
    }
    ckpt_digest_free(other);
    return count;
}

/* The names of all kinds that change tensors, and how many have other values then. */
static void test_values_change_where_they_are_said_to(void **state)
{
    static const struct {
        const char *name;
        size_t count;
    } kinds[] = {
        { "swap_experts", 6 }, { "duplicate_expert", 3 }, { "swap_gate_up", 2 },
        { "swap_projections", 2 }, { "swap_norms", 2 }, { "swap_layers", 2 },
        { "swap_embedding_head", 2 }, { "drop_tensor", 0 }, { "add_tensor", 1 },
        { "transpose_square", 1 }, { "rotate_rows", 1 }, { "swap_rows", 1 },
        { "swap_columns", 1 }, { "negate_tensor", 1 }, { "zero_row", 1 }, { "zero_tensor", 1 },
        { "set_nan", 1 }, { "set_infinity", 1 }, { "scale_up", 1 }, { "scale_all_up", 1 },
        { "swap_scales", 1 }, { "swap_nibbles", 1 }, { "narrow_vector", 1 },
        { "narrow_matrix", 1 }, { "id_out_of_range", 1 }, { "id_repeated", 1 },
        { "flip_bit_f32", 1 }, { "flip_bit_bf16", 1 }, { "flip_bit_fp8", 1 },
        { "flip_bit_fp8_scale", 1 }, { "flip_bit_fp4", 1 }, { "flip_bit_fp4_scale", 1 },
        { "flip_bit_int", 1 }, { "flip_bit_every_kind", 12 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        make(kinds[i].name);
        if (made.reason != NULL || differing() != kinds[i].count)
            fail_msg("%s: %s, %zu", kinds[i].name, made.reason == NULL ? "made" : made.reason,
                     made.reason == NULL ? differing() : 0);
    }
}

static void test_a_matrix_is_transposed_with_its_scales(void **state)
{
    float before[ROWS];
    float after[ROWS];
    size_t t = 0;

    (void)state;
    make("transpose_square");
    while (!made.touched[t])
        t++;
    for (uint64_t r = 0; r < ROWS; r += 51) {
        assert_int_equal(ckpt_source_read_f32(made.source, t, r, 1, after, &err), CKPT_OK);
        for (uint64_t c = 0; c < COLS; c += 17) {
            assert_int_equal(ckpt_source_read_f32(input.source, t, c, 1, before, &err), CKPT_OK);
            assert_true(after[c] == before[r]);
        }
    }
}

static void test_experts_change_places(void **state)
{
    const ckpt_catalog *catalog = memory_source_catalog(source);
    float before[COLS];
    float after[COLS];
    size_t equal = 0;

    (void)state;
    make("swap_experts");
    for (size_t t = 0; t < ckpt_catalog_count(catalog); t++) {
        if (!made.touched[t])
            continue;
        assert_int_equal(ckpt_source_read_f32(made.source, t, 3, 1, after, &err), CKPT_OK);
        for (size_t o = 0; o < ckpt_catalog_count(catalog); o++) {
            if (!made.touched[o])
                continue;
            assert_int_equal(ckpt_source_read_f32(input.source, o, 3, 1, before, &err), CKPT_OK);
            if (memcmp(before, after, sizeof after) != 0)
                continue;
            assert_string_not_equal(ckpt_catalog_at(catalog, t)->name,
                                    ckpt_catalog_at(catalog, o)->name);
            equal++;
        }
    }
    assert_int_equal(equal, 6);
}

static void test_a_config_has_another_number(void **state)
{
    (void)state;
    make("config_rope_theta");
    assert_string_equal(made.config, "{\"rope_theta\": 10001, \"rms_norm_eps\": 1e-6}");
    make("config_top_k");
    assert_non_null(made.reason);
    input.config = NULL;
    make("config_norm_eps");
    assert_non_null(made.reason);
    make("change_tokenizer");
    assert_non_null(made.reason);
}

static void test_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < mutation_count(); i++)
        assert_int_equal(mutation_find(mutation_name(i)), i);
    assert_int_equal(mutation_find("nothing"), mutation_count());
    assert_true(mutation_count() >= 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_change_where_they_are_said_to, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_matrix_is_transposed_with_its_scales, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_experts_change_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_config_has_another_number, set_up, tear_down),
        cmocka_unit_test(test_names_are_unique),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
