/* test_zsparse.c: frames of content that is mostly zeros, read back by zstd's own decoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zstd.h>

#include "kernels/kernels.h"
#include "libckpt/zframe.h"
#include "libckpt/zsparse.h"

enum { BLOCK = ZSPARSE_BLOCK_BYTES, LONGEST = 3 * BLOCK + 777 };

static ckpt_error err;
static char folder[] = "/tmp/ckpt-test-zsparse-XXXXXX";
static unsigned char content[LONGEST];
static unsigned char packed[2 * LONGEST];
static unsigned char unpacked[LONGEST];
static uint64_t draw_state = 88172645463325252;

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return file_remove_tree(folder, NULL) != CKPT_OK;
}

static uint32_t draw(void)
{
    draw_state ^= draw_state << 13;
    draw_state ^= draw_state >> 7;
    draw_state ^= draw_state << 17;
    return (uint32_t)(draw_state >> 16);
}

/* Add a piece, with its marks or without. */
static void add_piece(zframe_writer *w, const unsigned char *bytes, size_t size, int is_marked)
{
    static uint64_t marks[LONGEST / 64 + 1];

    kernels_get()->nonzero_marks(bytes, size, marks);
    assert_int_equal(is_marked ? zframe_add_marked(w, bytes, marks, size, &err)
                               : zframe_add(w, bytes, size, &err), CKPT_OK);
}

/* Write content[0 .. size) as one frame, in pieces; its size. It is left in `packed`. */
static size_t write_pieces(size_t size, size_t piece, int level, int is_marked)
{
    zframe_writer *w;
    ckpt_file *f;
    uint64_t got;

    assert_int_equal(file_open_rw(folder, "frame", &f, &err), CKPT_OK);
    assert_int_equal(zframe_writer_create(level, &w, &err), CKPT_OK);
    assert_int_equal(zframe_begin(w, f, 0, size, &err), CKPT_OK);
    for (size_t at = 0; at < size; at += piece)
        add_piece(w, content + at, size - at < piece ? size - at : piece, is_marked);
    assert_int_equal(zframe_end(w, &got, &err), CKPT_OK);
    assert_true(got <= sizeof packed);
    assert_int_equal(file_read_at(f, 0, packed, got, &err), CKPT_OK);
    zframe_writer_free(w);
    file_close(f, NULL);
    return got;
}

static size_t write_frame(size_t size, size_t piece, int level)
{
    return write_pieces(size, piece, level, 0);
}

static void check_frame(size_t size, size_t frame_bytes)
{
    assert_int_equal(ZSTD_getFrameContentSize(packed, frame_bytes), size);
    assert_int_equal(ZSTD_findFrameCompressedSize(packed, frame_bytes), frame_bytes);
    assert_int_equal(ZSTD_decompress(unpacked, size, packed, frame_bytes), size);
    assert_memory_equal(unpacked, content, size);
}

/* A frame of zsparse has a window of its own; the library's of such sizes has none. */
static int is_of_zsparse(void)
{
    return (packed[4] & 0x20) == 0 && packed[5] == 7 << 3;
}

/* One byte in about `gap` is not zero, and one of `kinds`. */
static void fill(size_t from, size_t to, uint32_t gap, uint32_t kinds)
{
    for (size_t i = from; i < to; i++)
        content[i] = draw() % gap == 0 ? (unsigned char)(255 - draw() % kinds) : 0;
}

static void test_content_of_every_density_is_read_back(void **state)
{
    static const uint32_t gaps[] = { 1, 2, 3, 5, 9, 14, 30, 100, 1000, 20000, 200000 };
    static const uint32_t kinds[] = { 1, 2, 3, 9, 60, 200, 255 };

    (void)state;
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            const size_t size = BLOCK + 1 + draw() % (LONGEST - BLOCK - 1);

            /* The first block chooses; the others have any density. */
            fill(0, BLOCK, 30, kinds[k]);
            fill(BLOCK, LONGEST, gaps[g], kinds[k]);
            check_frame(size, write_frame(size, 999 + draw() % 200000, 1));
            assert_true(is_of_zsparse());
        }
}

/* Whole blocks in pieces of any size: in those of 64 bytes and in others. */
static void test_marks_that_are_known_change_no_byte(void **state)
{
    static const size_t pieces[] = { BLOCK, 2 * BLOCK, LONGEST, BLOCK + 64, BLOCK + 1, 3000 };
    static unsigned char without[sizeof packed];

    (void)state;
    fill(0, LONGEST, 60, 9);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        for (size_t size = LONGEST - 1; size <= LONGEST; size++) {
            const size_t bytes = write_pieces(size, pieces[i], 1, 0);

            memcpy(without, packed, bytes);
            assert_int_equal(write_pieces(size, pieces[i], 1, 1), bytes);
            assert_memory_equal(packed, without, bytes);
            check_frame(size, bytes);
        }
}

/* A table of codes for so few numbers would be longer than what it saves. */
static void test_few_changes_take_hardly_more_than_by_the_library(void **state)
{
    static const uint32_t gaps[] = { 1000, 10000, 50000, 100000 };

    (void)state;
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        size_t ours = 0;
        size_t library = 0;

        for (int i = 0; i < 8; i++) {
            fill(0, LONGEST, gaps[g], 8);
            content[100] = 1;              /* else the first block may have no change */
            ours += write_frame(LONGEST, LONGEST, 1);
            assert_true(is_of_zsparse());
            library += ZSTD_compress(packed, sizeof packed, content, LONGEST, 1);
        }
        assert_in_range(ours, 1, library + library / 32);
    }
}

static void test_skewed_bytes_get_codes_of_at_most_eleven_bits(void **state)
{
    (void)state;
    memset(content, 0, sizeof content);
    for (size_t i = 0; i < sizeof content; i += 40 + draw() % 40) {
        unsigned kind = 0;

        while (kind < 40 && draw() % 2 == 0)        /* Fibonacci-like counts make long codes */
            kind++;
        content[i] = (unsigned char)(1 + 6 * kind);
    }
    check_frame(sizeof content, write_frame(sizeof content, sizeof content, 1));
    assert_true(is_of_zsparse());
}

static void test_changes_at_the_edges_of_blocks_are_read_back(void **state)
{
    static const size_t places[] = { 0, 1, 62, 63, 64, BLOCK - 9, BLOCK - 8, BLOCK - 1, BLOCK,
                                     BLOCK + 7, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK - 1 };
    static const size_t sizes[] = { BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1,
                                    3 * BLOCK, LONGEST };

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            memset(content, 0, sizeof content);
            content[places[p]] = 0xA5;
            content[sizes[s] - 1] ^= (unsigned char)(p % 2);
            check_frame(sizes[s], write_frame(sizes[s], BLOCK, 1));
        }
}

/* Also longer than a block in which only zeros were seen. */
static void test_pieces_do_not_change_a_frame(void **state)
{
    static const size_t pieces[] = { 1000, BLOCK - 1, BLOCK, BLOCK + 1, LONGEST };
    unsigned char *first = malloc(sizeof packed);
    size_t first_bytes;

    (void)state;
    assert_non_null(first);
    for (uint32_t gap = 2; gap <= 50; gap += 48) {
        memset(content, 0, BLOCK + 5);
        fill(BLOCK + 5, LONGEST, gap, 20);
        first_bytes = write_frame(LONGEST, 777, 1);
        memcpy(first, packed, first_bytes);
        assert_int_equal(is_of_zsparse(), gap == 50);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
            assert_int_equal(write_frame(LONGEST, pieces[i], 1), first_bytes);
            assert_memory_equal(packed, first, first_bytes);
        }
        check_frame(LONGEST, first_bytes);
    }
    free(first);
}

static void test_sparse_content_is_smaller_than_the_library_makes_it(void **state)
{
    (void)state;
    for (uint32_t gap = 12; gap <= 400; gap *= 3) {
        fill(0, LONGEST, gap, 4);
        for (int level = 1; level <= 3; level++) {
            const size_t ours = write_frame(LONGEST, LONGEST, level);
            const size_t theirs = ZSTD_compress(packed, sizeof packed, content, LONGEST, level);

            assert_true(ours < theirs);
        }
    }
}

static void test_dense_and_short_content_is_packed_by_the_library(void **state)
{
    static const size_t sizes[] = { 100, BLOCK, LONGEST };
    unsigned char *theirs = malloc(sizeof packed);

    (void)state;
    assert_non_null(theirs);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t frame_bytes;
        size_t their_bytes;

        fill(0, LONGEST, 3, 255);
        frame_bytes = write_frame(sizes[i], 999, 1);
        their_bytes = ZSTD_compress(theirs, sizeof packed, content, sizes[i], 1);
        assert_int_equal(frame_bytes, their_bytes);
        assert_memory_equal(packed, theirs, frame_bytes);
        check_frame(sizes[i], frame_bytes);
    }
    free(theirs);
}

/* A mask of 0 and 1, of which the first rows are sparse; sparse content that repeats itself, from
 * the first byte on or behind zeros; something else follows each. */
static void fill_repeats(unsigned kind)
{
    enum { COLS = 4096 };

    memset(content, 0, sizeof content);
    for (size_t i = 0; i < sizeof content; i++)
        if (kind == 0)
            content[i] = i % COLS <= 12 * (i / COLS);
        else if (kind == 1 || i > BLOCK + 1000)
            content[i] = i % 8 == 0;
    fill(LONGEST - 9000, LONGEST, 40, 9);
}

static void test_content_that_repeats_itself_is_left_to_the_library(void **state)
{
    static const size_t sizes[] = { 2 * BLOCK, 3 * BLOCK - 5000, 3 * BLOCK + 1, LONGEST };
    unsigned char *first = malloc(sizeof packed);

    (void)state;
    assert_non_null(first);
    for (unsigned kind = 0; kind < 3; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t ours;
            size_t theirs;

            fill_repeats(kind);
            theirs = ZSTD_compress(first, sizeof packed, content, sizes[s], 1);
            ours = write_frame(sizes[s], BLOCK, 1);
            check_frame(sizes[s], ours);
            assert_true(is_of_zsparse());
            assert_in_range(ours, 1, 2 * theirs + 50);
            memcpy(first, packed, ours);
            for (size_t piece = 999; piece < LONGEST; piece *= 9) {
                assert_int_equal(write_frame(sizes[s], piece, 1), ours);
                assert_memory_equal(packed, first, ours);
            }
        }
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_of_every_density_is_read_back),
        cmocka_unit_test(test_marks_that_are_known_change_no_byte),
        cmocka_unit_test(test_few_changes_take_hardly_more_than_by_the_library),
        cmocka_unit_test(test_skewed_bytes_get_codes_of_at_most_eleven_bits),
        cmocka_unit_test(test_changes_at_the_edges_of_blocks_are_read_back),
        cmocka_unit_test(test_pieces_do_not_change_a_frame),
        cmocka_unit_test(test_sparse_content_is_smaller_than_the_library_makes_it),
        cmocka_unit_test(test_dense_and_short_content_is_packed_by_the_library),
        cmocka_unit_test(test_content_that_repeats_itself_is_left_to_the_library),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
