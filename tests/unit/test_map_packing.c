/* How maps pack tensors: row by row, against the formulas of those who pack them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "libckpt/encoding.h"
#include "libckpt/map.h"

#define HEAD "map f n\nscale .scale\n"

enum { COLS = 5 };

static const map_read_options strict = { .encodings = 1u << ENCODING_FP8_128 |
                                                      1u << ENCODING_FP4_32 };

static ckpt_map *parse(const char *text, const char *config)
{
    json_document *document = NULL;
    ckpt_error err = { .text = "" };
    ckpt_map *map;

    if (map_parse(text, strlen(text), "test", &map, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    if (config != NULL) {
        assert_int_equal(json_parse(config, strlen(config), "config", &document, NULL), CKPT_OK);
        if (map_bind(map, json_root(document), &err) != CKPT_OK)
            fail_msg("%s", err.text);
        json_free(document);
    }
    return map;
}

/* Dimensions up to the first 0. */
static void add(ckpt_catalog *catalog, const char *name, uint64_t a, uint64_t b, uint64_t c)
{
    ckpt_tensor t = { .name = name, .dtype = CKPT_BF16, .stored_dtype = CKPT_BF16,
                      .shape = { a, b, c } };

    t.rank = (uint32_t)((a > 0) + (b > 0) + (c > 0));
    assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
}

/* Where element `step` of the first dimension of a logical tensor is: stored tensor and row. */
static void find_step(const ckpt_layout *layout, size_t logical, uint64_t step, uint32_t *stored,
                      uint64_t *row)
{
    const int is_vector = ckpt_catalog_at(layout->logical, logical)->rank == 1;
    const layout_extent *e;
    const layout_extent *end;

    layout_extents(layout, logical, CKPT_DATA, &e, &end);
    for (; e < end; e++) {
        const uint64_t from = is_vector ? e->col : e->row;

        if (step < from || step - from >= (is_vector ? e->col_count : e->row_count))
            continue;
        *stored = e->stored;
        *row = (is_vector ? e->stored_col : e->stored_row) + step - from;
        return;
    }
    fail_msg("step %u of tensor %zu is nowhere", (unsigned)step, logical);
}

/* The map reads `stored`; then it writes what it read, and that is `stored` again, extent by
 * extent. */
static void read_and_write(const ckpt_map *map, const ckpt_catalog *stored, map_reading *reading)
{
    ckpt_catalog *again = catalog_create();
    ckpt_layout *layout;
    ckpt_error err;

    if (map_read(map, stored, &strict, reading, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    const map_write_input input = { map, reading->logical, NULL };

    if (map_write(&input, again, &layout, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(ckpt_catalog_count(again), ckpt_catalog_count(stored));
    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(stored, i);
        const int64_t found = ckpt_catalog_find(again, t->name);

        assert_true(found >= 0);
        assert_true(catalog_same_shape(t, ckpt_catalog_at(again, (size_t)found)));
    }
    assert_int_equal(layout->count, reading->layout->count);
    for (size_t i = 0; i < layout->count; i++) {
        const layout_extent e = layout->extents[i];
        const layout_extent *other = &reading->layout->extents[i];

        assert_string_equal(ckpt_catalog_at(again, e.stored)->name,
                            ckpt_catalog_at(stored, other->stored)->name);
        assert_int_equal(e.part, other->part);
        assert_int_equal(e.row, other->row);
        assert_int_equal(e.col, other->col);
        assert_int_equal(e.row_count, other->row_count);
        assert_int_equal(e.col_count, other->col_count);
        assert_int_equal(e.stored_row, other->stored_row);
        assert_int_equal(e.stored_col, other->stored_col);
    }
    layout_free(layout);
    catalog_free(again);
}

static size_t find(const map_reading *reading, const char *name)
{
    const int64_t found = ckpt_catalog_find(reading->logical, name);

    if (found < 0)
        fail_msg("no '%s'", name);
    return (size_t)found;
}

/* ---- queries, keys and values ---- */

/* H heads of d rows in G groups: each group has its queries, then a key, then a value. */
static void check_groups(uint64_t H, uint64_t G, uint64_t d, int is_bias)
{
    const uint64_t n = H / G;
    const char *const names[] = { "q", "k", "v" };
    const uint64_t sizes[] = { H * d, G * d, G * d };
    ckpt_catalog *stored = catalog_create();
    char config[128];
    map_reading reading;
    ckpt_map *map;

    snprintf(config, sizeof config, "{\"text_config\": {\"heads\": %u, \"groups\": %u}}",
             (unsigned)H, (unsigned)G);
    map = parse(HEAD "tensor qkv = interleave(groups, q:heads/groups, k, v)\n", config);
    add(stored, "qkv", G * (n + 2) * d, is_bias ? 0 : COLS, 0);
    read_and_write(map, stored, &reading);
    for (int p = 0; p < 3; p++) {
        const size_t logical = find(&reading, names[p]);

        assert_int_equal(ckpt_catalog_at(reading.logical, logical)->shape[0], sizes[p]);
        for (uint64_t r = 0; r < sizes[p]; r++) {
            const uint64_t group = p == 0 ? r / (n * d) : r / d;
            const uint64_t inside = p == 0 ? r % (n * d) : (n + (uint64_t)p - 1) * d + r % d;
            uint32_t tensor;
            uint64_t row;

            find_step(reading.layout, logical, r, &tensor, &row);
            assert_int_equal(row, group * (n + 2) * d + inside);
        }
    }
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void test_query_groups_are_interleaved(void **state)
{
    (void)state;
    for (int is_bias = 0; is_bias < 2; is_bias++) {
        check_groups(8, 2, 3, is_bias);
        check_groups(4, 4, 2, is_bias);
        check_groups(6, 1, 4, is_bias);
    }
}

/* Qwen3.5: a head of q_proj has d rows of the query, then d of its gate; a group has all its
 * queries, all its gates, a key and a value. */
static void test_gated_queries_are_taken_apart_by_head(void **state)
{
    enum { H = 4, G = 2, N = H / G, D = 3, T = (2 * N + 2) * D };
    ckpt_map *map = parse(HEAD "tensor qkv = interleave(G, part(q, 0/2):H/G, "
                               "part(q, 1/2):H/G, k, v)\n",
                          "{\"H\": 4, \"G\": 2}");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    int seen[G * T] = { 0 };

    (void)state;
    add(stored, "qkv", G * T, COLS, 0);
    read_and_write(map, stored, &reading);
    assert_int_equal(ckpt_catalog_count(reading.logical), 3);
    assert_int_equal(ckpt_catalog_at(reading.logical, find(&reading, "q"))->shape[0], 2 * H * D);
    for (uint64_t s = 0; s < G * T; s++) {
        const uint64_t g = s / T;
        const uint64_t u = s % T;
        const char *name = u < 2 * N * D ? "q" : u < (2 * N + 1) * D ? "k" : "v";
        uint64_t r = g * D + (u - 2 * N * D) % D;
        uint32_t tensor;
        uint64_t row;

        if (u < N * D)
            r = (g * N + u / D) * 2 * D + u % D;
        else if (u < 2 * N * D)
            r = (g * N + (u - N * D) / D) * 2 * D + D + u % D;
        find_step(reading.layout, find(&reading, name), r, &tensor, &row);
        assert_int_equal(row, s);
        seen[row]++;
    }
    for (int s = 0; s < G * T; s++)
        assert_int_equal(seen[s], 1);
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

/* Stored row (h, j) is source row (h, (j + 64) mod 128). */
static void test_halves_of_heads_are_swapped(void **state)
{
    ckpt_map *map = parse(HEAD "tensor wq = interleave(heads, part(q, 1/2), part(q, 0/2))\n"
                               "tensor norm = concat(part(n, 1/2), part(n, 0/2))\n",
                          "{\"heads\": 3}");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;

    (void)state;
    add(stored, "wq", 3 * 128, COLS, 0);
    add(stored, "norm", 128, 0, 0);
    read_and_write(map, stored, &reading);
    assert_int_equal(ckpt_catalog_count(reading.logical), 2);
    for (uint64_t i = 0; i < 3 * 128; i++) {
        uint32_t tensor;
        uint64_t row;

        find_step(reading.layout, find(&reading, "q"), i / 128 * 128 + (i + 64) % 128, &tensor,
                  &row);
        assert_int_equal(row, i);
        if (i >= 128)
            continue;
        find_step(reading.layout, find(&reading, "n"), (i + 64) % 128, &tensor, &row);
        assert_int_equal(row, i);
    }
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

/* ---- unequal pieces ---- */

static void test_pieces_have_rows_in_proportion(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p = concat(a:kd, b:kd, c:vd)\n", "{\"kd\": 4, \"vd\": 6}");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    uint32_t tensor;
    uint64_t row;

    (void)state;
    add(stored, "p", 28, 1, COLS);             /* units of two */
    read_and_write(map, stored, &reading);
    assert_int_equal(ckpt_catalog_at(reading.logical, find(&reading, "a"))->shape[0], 8);
    assert_int_equal(ckpt_catalog_at(reading.logical, find(&reading, "c"))->shape[0], 12);
    find_step(reading.layout, find(&reading, "c"), 0, &tensor, &row);
    assert_int_equal(row, 16);
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

/* The query, key and value rows of one tensor of Qwen3.5 are three stored tensors. */
static void test_unequal_parts_make_one_tensor(void **state)
{
    ckpt_map *map = parse(HEAD "tensor q = part(p, 0, kd, 2*kd+vd)\n"
                               "tensor k = part(p, kd, kd, 2*kd+vd)\n"
                               "tensor v = part(p, 2*kd, vd, 2*kd+vd)\n",
                          "{\"kd\": 4, \"vd\": 6}");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    uint32_t tensor;
    uint64_t row;

    (void)state;
    add(stored, "v", 6, COLS, 0);
    add(stored, "q", 4, COLS, 0);
    add(stored, "k", 4, COLS, 0);
    read_and_write(map, stored, &reading);
    assert_int_equal(ckpt_catalog_count(reading.logical), 1);
    assert_int_equal(ckpt_catalog_at(reading.logical, 0)->shape[0], 14);
    find_step(reading.layout, 0, 5, &tensor, &row);
    assert_string_equal(ckpt_catalog_at(stored, tensor)->name, "k");
    assert_int_equal(row, 1);
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void test_parts_must_make_all_of_a_tensor(void **state)
{
    ckpt_map *map = parse(HEAD "tensor q = part(p, 0/3)\ntensor k = part(p, 1/3)\n"
                               "tensor v = part(p, 2/3)\n", NULL);
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    ckpt_error err;

    (void)state;
    add(stored, "q", 4, COLS, 0);
    add(stored, "v", 4, COLS, 0);
    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'p'"));
    add(stored, "k", 5, COLS, 0);
    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'k'"));
    catalog_free(stored);
    map_free(map);
}

/* ---- stacks ---- */

static void test_stacks_of_stacks_and_of_vectors(void **state)
{
    ckpt_map *map = parse(HEAD "tensor fc1 = stack({l}, stack({e}, concat(l.{l}.{e}.w1, "
                               "l.{l}.{e}.w3)))\n"
                               "tensor norm = stack({l}, l.{l}.norm)\n", NULL);
    ckpt_catalog *stored = catalog_create();
    ckpt_tensor fc1 = { .name = "fc1", .dtype = CKPT_BF16, .stored_dtype = CKPT_BF16, .rank = 4,
                        .shape = { 2, 3, 8, COLS } };
    map_reading reading;
    uint32_t tensor;
    uint64_t row;

    (void)state;
    assert_int_equal(catalog_add(stored, &fc1, NULL), CKPT_OK);
    add(stored, "norm", 2, 7, 0);
    read_and_write(map, stored, &reading);
    assert_int_equal(ckpt_catalog_count(reading.logical), 2 * 3 * 2 + 2);
    find_step(reading.layout, find(&reading, "l.1.2.w3"), 1, &tensor, &row);
    assert_int_equal(row, (1 * 3 + 2) * 8 + 4 + 1);
    assert_int_equal(ckpt_catalog_at(reading.logical, find(&reading, "l.1.norm"))->rank, 1);
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void test_a_stack_without_one_of_its_tensors_is_not_written(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p = stack({l}, stack({e}, l.{l}.{e}))\n", NULL);
    ckpt_catalog *logical = catalog_create();
    ckpt_catalog *stored = catalog_create();
    const map_write_input input = { map, logical, NULL };
    ckpt_layout *layout;
    ckpt_error err;

    (void)state;
    add(logical, "l.0.0", 2, COLS, 0);
    add(logical, "l.0.1", 2, COLS, 0);
    add(logical, "l.1.0", 2, COLS, 0);
    assert_int_equal(map_write(&input, stored, &layout, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "'p'"));
    catalog_free(stored);
    catalog_free(logical);
    map_free(map);
}

/* Two names that are one entry to the map: no entry is written twice while another is missing. */
static void test_one_piece_is_not_two(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p = stack({e}, {x}.{e})\n", NULL);
    ckpt_catalog *logical = catalog_create();
    ckpt_catalog *stored = catalog_create();
    const map_write_input input = { map, logical, NULL };
    ckpt_layout *layout;
    ckpt_error err;

    (void)state;
    add(logical, "a.1", 2, COLS, 0);
    add(logical, "b.1", 2, COLS, 0);
    assert_int_equal(map_write(&input, stored, &layout, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "missing"));
    catalog_free(stored);
    catalog_free(logical);
    map_free(map);
}

/* ---- layers after the last ---- */

static void test_names_are_shifted_by_a_number_of_the_config(void **state)
{
    ckpt_map *map = parse(HEAD "tensor model.layers.{m+layers}.{x*} = mtp.{m}.{x*}\n"
                               "tensor model.layers.{l}.{x*} = layers.{l}.{x*}\n",
                          "{\"layers\": 61}");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;

    (void)state;
    add(stored, "model.layers.60.w", 2, COLS, 0);
    add(stored, "model.layers.61.w", 2, COLS, 0);
    add(stored, "model.layers.70.w", 2, COLS, 0);
    read_and_write(map, stored, &reading);
    find(&reading, "layers.60.w");
    find(&reading, "mtp.0.w");
    find(&reading, "mtp.9.w");
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void test_a_map_that_lacks_its_config_reads_nothing(void **state)
{
    ckpt_map *map = parse(HEAD "tensor a.{m+layers} = b.{m}\n"
                               "tensor p = interleave(groups, q, k)\n", NULL);
    ckpt_catalog *stored = catalog_create();
    json_document *config;
    map_reading reading;
    ckpt_error err;

    (void)state;
    add(stored, "a.5", 2, COLS, 0);
    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
    catalog_free(stored);
    stored = catalog_create();
    add(stored, "p", 4, COLS, 0);
    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
    assert_int_equal(map_bind(map, NULL, &err), CKPT_E_FORMAT);
    catalog_free(stored);
    map_free(map);

    static const char text[] = "{\"layers\": 3, \"groups\": \"two\"}";

    map = parse(HEAD "tensor p = interleave(groups, q, k)\n", NULL);
    assert_int_equal(json_parse(text, strlen(text), "config", &config, NULL), CKPT_OK);
    assert_int_equal(map_bind(map, json_root(config), &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'groups'"));
    json_free(config);
    map_free(map);
}

/* ---- lines for some tensors only ---- */

static void test_a_line_may_ask_for_another_tensor(void **state)
{
    ckpt_map *map = parse(HEAD "tensor {l}.pre = {l}.norm when {l}.gate\n"
                               "tensor {l}.fused = {l}.norm\n"
                               "tensor {l}.router = {l}.gate\n", NULL);
    ckpt_catalog *stored = catalog_create();
    map_reading reading;

    (void)state;
    add(stored, "0.fused", 2, COLS, 0);
    add(stored, "1.pre", 2, COLS, 0);
    add(stored, "1.router", 2, COLS, 0);
    read_and_write(map, stored, &reading);
    find(&reading, "0.norm");
    find(&reading, "1.norm");
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

/* ---- blocks of scales ---- */

static void test_blocks_are_not_cut(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p.weight = interleave(groups, q.weight:2, k.weight, "
                               "v.weight)\n",
                          "{\"groups\": 2}");

    (void)state;
    for (uint64_t d = 64; d <= 128; d += 64) {
        ckpt_catalog *stored = catalog_create();
        ckpt_tensor w = { .name = "p.weight", .dtype = CKPT_F8_E4M3, .stored_dtype = CKPT_F8_E4M3,
                          .rank = 2, .shape = { 2 * 4 * d, 128 } };
        ckpt_tensor scale = { .name = "p.scale", .dtype = CKPT_F32, .stored_dtype = CKPT_F32,
                              .rank = 2, .shape = { 2 * 4 * d / 128, 1 } };
        map_reading reading;
        ckpt_error err;

        assert_int_equal(catalog_add(stored, &w, NULL), CKPT_OK);
        assert_int_equal(catalog_add(stored, &scale, NULL), CKPT_OK);
        if (d == 64) {
            assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
            assert_non_null(strstr(err.text, "'p.weight'"));
        } else {
            const layout_extent *e;
            const layout_extent *end;

            read_and_write(map, stored, &reading);
            layout_extents(reading.layout, find(&reading, "v.weight"), CKPT_SCALE, &e, &end);
            assert_int_equal(end - e, 2);
            assert_int_equal(e[1].row, 1);
            assert_int_equal(e[1].stored_row, 7);
            map_reading_release(&reading);
        }
        catalog_free(stored);
    }
    map_free(map);
}

/* Side by side: all rows of both, the columns of the first in front. */
static void test_columns_stand_side_by_side(void **state)
{
    enum { ROWS = 3, HALF = 4 };
    ckpt_map *map = parse(HEAD "tensor eh = cols(e, h)\n", NULL);
    ckpt_catalog *stored = catalog_create();
    const layout_extent *e;
    const layout_extent *end;
    map_reading reading;

    (void)state;
    add(stored, "eh", ROWS, 2 * HALF, 0);
    read_and_write(map, stored, &reading);
    for (uint64_t half = 0; half < 2; half++) {
        const size_t logical = find(&reading, half == 0 ? "e" : "h");

        assert_int_equal(ckpt_catalog_at(reading.logical, logical)->shape[0], ROWS);
        assert_int_equal(ckpt_catalog_at(reading.logical, logical)->shape[1], HALF);
        layout_extents(reading.layout, logical, CKPT_DATA, &e, &end);
        assert_int_equal(end - e, 1);
        assert_int_equal(e->stored_col, half * HALF);
        assert_int_equal(e->col_count, HALF);
        assert_int_equal(e->row_count, ROWS);
    }
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void test_columns_that_do_not_divide_are_refused(void **state)
{
    ckpt_map *map = parse(HEAD "tensor eh = cols(e, h)\n", NULL);
    const uint64_t shapes[][2] = { { 3, 7 }, { 8, 0 } };
    ckpt_map *bad = NULL;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        ckpt_catalog *stored = catalog_create();
        map_reading reading;

        add(stored, "eh", shapes[i][0], shapes[i][1], 0);
        assert_int_equal(map_read(map, stored, &strict, &reading, NULL), CKPT_E_FORMAT);
        catalog_free(stored);
    }
    map_free(map);
    assert_int_equal(map_parse(HEAD "tensor eh = cols(e:2, h)\n",
                               strlen(HEAD "tensor eh = cols(e:2, h)\n"), "test", &bad, NULL),
                     CKPT_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query_groups_are_interleaved),
        cmocka_unit_test(test_gated_queries_are_taken_apart_by_head),
        cmocka_unit_test(test_halves_of_heads_are_swapped),
        cmocka_unit_test(test_pieces_have_rows_in_proportion),
        cmocka_unit_test(test_unequal_parts_make_one_tensor),
        cmocka_unit_test(test_parts_must_make_all_of_a_tensor),
        cmocka_unit_test(test_columns_stand_side_by_side),
        cmocka_unit_test(test_columns_that_do_not_divide_are_refused),
        cmocka_unit_test(test_stacks_of_stacks_and_of_vectors),
        cmocka_unit_test(test_a_stack_without_one_of_its_tensors_is_not_written),
        cmocka_unit_test(test_one_piece_is_not_two),
        cmocka_unit_test(test_names_are_shifted_by_a_number_of_the_config),
        cmocka_unit_test(test_a_map_that_lacks_its_config_reads_nothing),
        cmocka_unit_test(test_a_line_may_ask_for_another_tensor),
        cmocka_unit_test(test_blocks_are_not_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
