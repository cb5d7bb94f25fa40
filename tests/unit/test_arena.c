/* test_arena.c: memory that is given back all at once. */
#include "libckpt/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int is_aligned(const void *memory, uintptr_t align)
{
    return (uintptr_t)memory % align == 0;
}

static void test_large_pieces_are_aligned_to_64_and_small_ones_to_8(void **state)
{
    arena a;

    (void)state;
    arena_init(&a);
    for (size_t size = 1; size < 200; size++) {
        void *memory = arena_alloc(&a, size);

        assert_non_null(memory);
        assert_true(is_aligned(memory, size >= 64 ? 64 : 8));
        memset(memory, 0xab, size);
    }
    arena_release(&a);
}

static void test_pieces_do_not_overlap_over_many_blocks(void **state)
{
    enum { COUNT = 400, STEP = 9973 };
    unsigned char *pieces[COUNT];
    arena a;

    (void)state;
    arena_init(&a);
    for (size_t i = 0; i < COUNT; i++) {
        pieces[i] = arena_alloc(&a, i * STEP % 60000 + 1);
        assert_non_null(pieces[i]);
        memset(pieces[i], (int)(i % 251), i * STEP % 60000 + 1);
    }
    for (size_t i = 0; i < COUNT; i++)
        for (size_t k = 0; k < i * STEP % 60000 + 1; k++)
            if (pieces[i][k] != i % 251)
                fail_msg("piece %zu was overwritten", i);
    assert_true(a.total_bytes >= (size_t)8 << 20);
    arena_release(&a);
    assert_int_equal(a.total_bytes, 0);
}

static void test_a_piece_larger_than_any_block_gets_its_own(void **state)
{
    const size_t size = (size_t)100 << 20;
    unsigned char *memory;
    arena a;

    (void)state;
    arena_init(&a);
    memory = arena_alloc(&a, size);
    assert_non_null(memory);
    memory[0] = 1;
    memory[size - 1] = 1;
    assert_non_null(arena_alloc(&a, 1));
    arena_release(&a);
}

static void test_sizes_that_cannot_exist_are_refused(void **state)
{
    arena a;

    (void)state;
    arena_init(&a);
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 64));
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_strdup(&a, "x", SIZE_MAX));
    assert_non_null(arena_alloc(&a, 1));
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_release(&a);
}

static void test_an_empty_piece_is_not_null(void **state)
{
    arena a;

    (void)state;
    arena_init(&a);
    assert_non_null(arena_alloc(&a, 0));
    assert_non_null(arena_calloc(&a, 0, 8));
    assert_string_equal(arena_strdup(&a, "", 0), "");
    arena_release(&a);
}

static void test_calloc_clears_memory_that_was_used_before(void **state)
{
    unsigned char *memory;
    arena a;

    (void)state;
    assert_true(arena_init_fixed(&a, 256));
    memset(arena_alloc(&a, 256), 0xff, 256);
    arena_rewind(&a, 0);
    memory = arena_calloc(&a, 16, 16);
    for (size_t i = 0; i < 256; i++)
        assert_int_equal(memory[i], 0);
    arena_release(&a);
}

static void test_strdup_takes_a_part_and_ends_it(void **state)
{
    arena a;

    (void)state;
    arena_init(&a);
    assert_string_equal(arena_strdup(&a, "layers.0", 6), "layers");
    arena_release(&a);
}

static void test_a_fixed_arena_gives_all_it_has_and_no_byte_more(void **state)
{
    arena a;

    (void)state;
    assert_true(arena_init_fixed(&a, 1000));
    assert_null(arena_alloc(&a, 1001));
    assert_non_null(arena_alloc(&a, 1000));
    assert_null(arena_alloc(&a, 1));
    arena_release(&a);
}

static void test_rewinding_gives_the_same_memory_again(void **state)
{
    size_t mark;
    void *first;
    arena a;

    (void)state;
    assert_true(arena_init_fixed(&a, 4096));
    assert_non_null(arena_alloc(&a, 100));
    mark = arena_mark(&a);
    first = arena_alloc(&a, 3000);
    assert_non_null(first);
    assert_null(arena_alloc(&a, 3000));
    arena_rewind(&a, mark);
    assert_ptr_equal(arena_alloc(&a, 3000), first);
    arena_release(&a);
}

static void test_the_sum_of_costs_is_always_enough(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (size_t round = 0; round < 200; round++) {
        size_t sizes[20];
        uint64_t need = 0;
        arena a;

        for (size_t i = 0; i < 20; i++) {
            random = random * 1664525 + 1013904223;
            sizes[i] = random >> 20;
            need += arena_cost(sizes[i]);
        }
        assert_true(arena_init_fixed(&a, (size_t)need));
        for (size_t i = 0; i < 20; i++)
            assert_non_null(arena_alloc(&a, sizes[i]));
        arena_release(&a);
    }
}

static void test_the_cost_of_an_impossible_size_does_not_wrap(void **state)
{
    (void)state;
    assert_true(arena_cost(UINT64_MAX) == UINT64_MAX);
    assert_true(arena_cost(UINT64_MAX - 3) == UINT64_MAX);
}

static void test_a_released_arena_can_be_used_again(void **state)
{
    arena a;

    (void)state;
    arena_init(&a);
    assert_non_null(arena_alloc(&a, 10));
    arena_release(&a);
    assert_non_null(arena_alloc(&a, 10));
    arena_release(&a);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_pieces_are_aligned_to_64_and_small_ones_to_8),
        cmocka_unit_test(test_pieces_do_not_overlap_over_many_blocks),
        cmocka_unit_test(test_a_piece_larger_than_any_block_gets_its_own),
        cmocka_unit_test(test_sizes_that_cannot_exist_are_refused),
        cmocka_unit_test(test_an_empty_piece_is_not_null),
        cmocka_unit_test(test_calloc_clears_memory_that_was_used_before),
        cmocka_unit_test(test_strdup_takes_a_part_and_ends_it),
        cmocka_unit_test(test_a_fixed_arena_gives_all_it_has_and_no_byte_more),
        cmocka_unit_test(test_rewinding_gives_the_same_memory_again),
        cmocka_unit_test(test_the_sum_of_costs_is_always_enough),
        cmocka_unit_test(test_the_cost_of_an_impossible_size_does_not_wrap),
        cmocka_unit_test(test_a_released_arena_can_be_used_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
