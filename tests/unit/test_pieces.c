/* test_pieces.c: boxes of tensors as extents, against counting every element. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/pieces.h"

enum { DIMENSION_MAX = 4, PARTS_MAX = 3, RANK_MAX = 4, CELLS_MAX = 4 * 4 * 4 * 4 };

static ckpt_error err;
static uint64_t draw_state;

static uint64_t draw(uint64_t limit)
{
    draw_state = draw_state * 6364136223846793005u + 1442695040888963407u;
    return (draw_state >> 33) % limit;
}

static ckpt_store *new_store(uint32_t rank, const uint64_t *shape)
{
    ckpt_store *store = store_create("nowhere");
    ckpt_catalog *keys = catalog_create();
    ckpt_tensor key = { .name = "key", .dtype = CKPT_U8, .rank = rank };

    assert_non_null(store);
    assert_non_null(keys);
    for (uint32_t d = 0; d < rank; d++)
        key.shape[d] = shape[d];
    assert_int_equal(catalog_add(keys, &key, &err), CKPT_OK);
    assert_int_equal(pieces_begin(store, keys, &err), CKPT_OK);
    return store;
}

/* Position of an element in a row-major box of the key. */
static uint64_t place_in(const piece_box *box, uint32_t rank, const uint64_t *index)
{
    uint64_t place = 0;

    for (uint32_t d = 0; d < rank; d++)
        place = place * box->size[d] + index[d] - box->offset[d];
    return place;
}

/* What the extents say of every element: piece and place in it must be those of `boxes`. */
static void assert_extents_are(const ckpt_store *store, uint32_t rank, const uint64_t *shape,
                               const piece_box *boxes, size_t box_count)
{
    const uint64_t cols = rank > 0 ? shape[rank - 1] : 1;
    unsigned seen[CELLS_MAX] = { 0 };
    uint64_t cells = 0;

    for (size_t i = 0; i < store->pieces->count; i++) {
        const layout_extent *e = &store->pieces->extents[i];
        const piece_box *box = &boxes[e->stored];
        const uint64_t box_cols = rank > 0 ? box->size[rank - 1] : 1;

        assert_in_range(e->stored, 0, box_count - 1);
        for (uint64_t r = 0; r < e->row_count; r++)
            for (uint64_t c = 0; c < e->col_count; c++) {
                const uint64_t cell = (e->row + r) * cols + e->col + c;
                uint64_t index[RANK_MAX];
                uint64_t rest = cell;

                for (uint32_t d = rank; d > 0; d--) {
                    index[d - 1] = rest % shape[d - 1];
                    rest /= shape[d - 1];
                }
                assert_int_equal((e->stored_row + r) * box_cols + e->stored_col + c,
                                 place_in(box, rank, index));
                assert_int_equal(seen[cell]++, 0);
                cells++;
            }
    }
    assert_int_equal(cells, ckpt_tensor_rows(ckpt_catalog_at(store->keys, 0)) * cols);
}

/* Cut every dimension at random places; all pieces of the grid. */
static size_t add_grid(ckpt_store *store, uint32_t rank, const uint64_t *shape, piece_box *boxes)
{
    uint64_t cuts[RANK_MAX][PARTS_MAX + 1];
    size_t total = 1;

    for (uint32_t d = 0; d < rank; d++) {
        cuts[d][0] = 0;
        for (size_t p = 1; p < PARTS_MAX; p++)
            cuts[d][p] = cuts[d][p - 1] + draw(shape[d] - cuts[d][p - 1] + 1);
        cuts[d][PARTS_MAX] = shape[d];
        total *= PARTS_MAX;
    }
    for (size_t i = 0; i < total; i++) {
        char name[32];
        size_t rest = i;

        boxes[i] = (piece_box){ .name = name };
        snprintf(name, sizeof name, "piece%zu", i);
        for (uint32_t d = 0; d < rank; d++) {
            boxes[i].offset[d] = cuts[d][rest % PARTS_MAX];
            boxes[i].size[d] = cuts[d][rest % PARTS_MAX + 1] - boxes[i].offset[d];
            rest /= PARTS_MAX;
        }
        assert_int_equal(pieces_add(store, &boxes[i], &err), CKPT_OK);
    }
    return total;
}

static void test_every_element_is_where_its_box_says(void **state)
{
    static piece_box boxes[PARTS_MAX * PARTS_MAX * PARTS_MAX * PARTS_MAX];

    (void)state;
    draw_state = 1;
    for (int round = 0; round < 2000; round++) {
        const uint32_t rank = (uint32_t)draw(RANK_MAX + 1);
        uint64_t shape[RANK_MAX];
        ckpt_store *store;
        size_t count;

        for (uint32_t d = 0; d < rank; d++)
            shape[d] = 1 + draw(DIMENSION_MAX);
        store = new_store(rank, shape);
        count = add_grid(store, rank, shape, boxes);
        assert_int_equal(pieces_seal(store, &err), CKPT_OK);
        assert_extents_are(store, rank, shape, boxes, count);
        store_free(store);
    }
}

/* ---- what is no division of a key ---- */

static const uint64_t square[] = { 4, 6 };

static ckpt_store *with_boxes(const piece_box *boxes, size_t count)
{
    ckpt_store *store = new_store(2, square);

    for (size_t i = 0; i < count; i++)
        assert_int_equal(pieces_add(store, &boxes[i], &err), CKPT_OK);
    return store;
}

static void test_a_hole_is_refused(void **state)
{
    const piece_box boxes[] = { { .name = "a", .size = { 4, 3 } },
                                { .name = "b", .offset = { 0, 3 }, .size = { 3, 3 } } };
    ckpt_store *store = with_boxes(boxes, 2);

    (void)state;
    assert_int_equal(pieces_seal(store, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'key'"));
    assert_non_null(strstr(err.text, "21 of 24"));
    store_free(store);
}

static void test_an_overlap_is_refused_even_if_the_areas_add_up(void **state)
{
    const piece_box boxes[] = { { .name = "a", .size = { 4, 3 } },
                                { .name = "b", .offset = { 0, 2 }, .size = { 4, 3 } } };
    ckpt_store *store = with_boxes(boxes, 2);

    (void)state;
    assert_int_equal(pieces_seal(store, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "stored twice"));
    store_free(store);
}

static void test_a_copy_may_repeat_and_does_not_fill(void **state)
{
    const piece_box boxes[] = { { .name = "a", .size = { 4, 6 } },
                                { .name = "b", .size = { 4, 6 }, .copy = 1 } };
    ckpt_store *store = with_boxes(boxes, 2);

    (void)state;
    assert_int_equal(pieces_seal(store, &err), CKPT_OK);
    store_free(store);
    store = with_boxes(boxes + 1, 1);
    assert_int_equal(pieces_seal(store, &err), CKPT_E_FORMAT);
    store_free(store);
}

static void test_a_box_outside_of_its_key_is_refused(void **state)
{
    static const piece_box boxes[] = {
        { .name = "wide", .size = { 4, 7 } },
        { .name = "late", .offset = { 1, 0 }, .size = { 4, 6 } },
        { .name = "far", .offset = { UINT64_MAX, 0 }, .size = { 2, 6 } },
        { .name = "huge", .size = { UINT64_MAX, 6 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        ckpt_store *store = new_store(2, square);

        assert_int_not_equal(pieces_add(store, &boxes[i], &err), CKPT_OK);
        assert_non_null(strstr(err.text, boxes[i].name));
        store_free(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_element_is_where_its_box_says),
        cmocka_unit_test(test_a_hole_is_refused),
        cmocka_unit_test(test_an_overlap_is_refused_even_if_the_areas_add_up),
        cmocka_unit_test(test_a_copy_may_repeat_and_does_not_fill),
        cmocka_unit_test(test_a_box_outside_of_its_key_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
