/* test_store.c: tiles into files and back, through extents; and resuming by what is there. */
#include "file_faults.h"

#include "libckpt/output.h"
#include "libckpt/size.h"

#include <sys/time.h>

#include "memory_source.h"

enum { ROWS = 300, COLS = 64, SPLIT = 130 };

/*
 * Three logical tensors in two files. "cut" lies in two stored tensors, its first rows in one and
 * the rest in the other; "left" and "right" are the columns of one; "left" has a copy.
 */
typedef struct {
    memory_source *source;
    ckpt_store *store;
    ckpt_layout *layout;
} fixture;

static fixture f;

static uint32_t add_stored(const char *name, uint64_t rows, uint64_t cols, uint32_t file,
                           uint64_t offset)
{
    const ckpt_tensor t = { .name = name, .dtype = CKPT_U8, .rank = 2, .shape = { rows, cols },
                            .file = file, .offset = offset };

    assert_int_equal(catalog_add(f.store->catalog, &t, &err), CKPT_OK);
    return (uint32_t)ckpt_catalog_count(f.store->catalog) - 1;
}

static void add_extent(layout_extent extent)
{
    assert_int_equal(layout_add(f.layout, &extent, &err), CKPT_OK);
}

static int set_up_store(void **state)
{
    uint32_t number;

    assert_int_equal(set_up(state), 0);
    f.source = memory_source_create();
    for (size_t t = 0; t < 3; t++) {
        static const char *const names[] = { "cut", "left", "right" };
        unsigned char *bytes;

        assert_int_equal(memory_source_add(f.source, names[t], CKPT_U8, ROWS, COLS), t);
        bytes = memory_source_part(f.source, t, CKPT_DATA);
        for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
            bytes[i] = byte_at(i + t * 100000);
    }
    f.store = store_create(folder);
    assert_non_null(f.store);
    assert_int_equal(store_add_file(f.store, "one", &number, &err), CKPT_OK);
    assert_int_equal(store_add_file(f.store, "two", &number, &err), CKPT_OK);
    f.layout = layout_create(memory_source_catalog(f.source), f.store->catalog);
    add_extent((layout_extent){ .logical = 0, .stored = add_stored("top", SPLIT, COLS, 0, 10),
                                .row_count = SPLIT, .col_count = COLS });
    add_extent((layout_extent){ .logical = 0, .row = SPLIT, .row_count = ROWS - SPLIT,
                                .stored = add_stored("rest", ROWS - SPLIT, COLS, 1, 5),
                                .col_count = COLS });
    number = add_stored("both", ROWS, 2 * COLS, 0, 10 + SPLIT * COLS);
    add_extent((layout_extent){ .logical = 1, .stored = number, .row_count = ROWS,
                                .col_count = COLS });
    add_extent((layout_extent){ .logical = 2, .stored = number, .row_count = ROWS,
                                .col_count = COLS, .stored_col = COLS });
    number = add_stored("copy", ROWS, COLS, 1, 5 + (ROWS - SPLIT) * COLS);
    add_extent((layout_extent){ .logical = 1, .stored = number, .row_count = ROWS,
                                .col_count = COLS, .copy = 1 });
    assert_int_equal(layout_seal(f.layout, &err), CKPT_OK);
    for (size_t i = 0; i < 2; i++) {
        f.store->files[i].size_bytes = i == 0 ? 10 + SPLIT * COLS + 2 * ROWS * COLS
                                              : 5 + (ROWS - SPLIT) * COLS + ROWS * COLS;
        f.store->files[i].header_bytes = i == 0 ? 10 : 5;
        f.store->files[i].header = strdup(i == 0 ? "HEADER ONE" : "H TWO");
    }
    assert_int_equal(output_make_files(f.store, &err), CKPT_OK);
    return 0;
}

static int tear_down_store(void **state)
{
    layout_free(f.layout);
    store_free(f.store);
    memory_source_free(f.source);
    return tear_down(state);
}

static ckpt_sink *make_sink(ckpt_journal *journal)
{
    const file_sink_options options = { .store = f.store, .layout = f.layout, .journal = journal };
    ckpt_sink *sink = NULL;

    assert_int_equal(sink_files_create(&options, &sink, &err), CKPT_OK);
    return sink;
}

static void write_all(ckpt_journal *journal)
{
    const ckpt_run_options copy = { .thread_count = 3 };
    ckpt_sink *sink = make_sink(journal);

    assert_int_equal(ckpt_copy(memory_source_base(f.source), sink, &copy, &err), CKPT_OK);
    sink_files_free(sink);
}

static void flip(const char *name, uint64_t offset)
{
    ckpt_file *file;
    unsigned char byte;

    assert_int_equal(file_open_rw(folder, name, &file, &err), CKPT_OK);
    assert_int_equal(file_read_at(file, offset, &byte, 1, &err), CKPT_OK);
    byte ^= 0x10;
    assert_int_equal(file_write_at(file, offset, &byte, 1, &err), CKPT_OK);
    assert_int_equal(file_close(file, &err), CKPT_OK);
}

static ckpt_code read_back(size_t tensor, unsigned char *out)
{
    ckpt_source *source = NULL;
    ckpt_code code;

    assert_int_equal(source_stored(f.store, f.layout, &source, &err), CKPT_OK);
    code = ckpt_source_read(source, tensor, CKPT_DATA, 0, ROWS, out, &err);
    ckpt_source_free(source);
    return code;
}

/* One tile of 128 rows or what is left. */
static ckpt_code read_band(size_t tensor, uint64_t row)
{
    const source_range range = { tensor, row, size_min(SOURCE_BAND_ROWS, ROWS - row),
                                 SOURCE_WANT_ALL };
    ckpt_source *source = NULL;
    ckpt_tile tile;
    arena scratch;
    ckpt_code code;

    assert_int_equal(source_stored(f.store, f.layout, &source, &err), CKPT_OK);
    assert_true(arena_init_fixed(&scratch, source_need(source, tensor, range.row_count)));
    code = source_read_tile(source, &range, &scratch, &tile, &err);
    arena_release(&scratch);
    ckpt_source_free(source);
    return code;
}

static void test_every_byte_goes_where_the_extents_say(void **state)
{
    const unsigned char *left = memory_source_part(f.source, 1, CKPT_DATA);
    const unsigned char *right = memory_source_part(f.source, 2, CKPT_DATA);
    const unsigned char *cut = memory_source_part(f.source, 0, CKPT_DATA);
    unsigned char *text;
    size_t size;

    (void)state;
    write_all(NULL);
    assert_int_equal(file_read_all(in_folder("one"), 1 << 20, (char **)&text, &size, &err),
                     CKPT_OK);
    assert_int_equal(size, f.store->files[0].size_bytes);
    assert_memory_equal(text, "HEADER ONE", 10);
    assert_memory_equal(text + 10, cut, SPLIT * COLS);
    for (size_t r = 0; r < ROWS; r++) {
        assert_memory_equal(text + 10 + SPLIT * COLS + r * 2 * COLS, left + r * COLS, COLS);
        assert_memory_equal(text + 10 + SPLIT * COLS + r * 2 * COLS + COLS, right + r * COLS,
                            COLS);
    }
    free(text);
    assert_int_equal(file_read_all(in_folder("two"), 1 << 20, (char **)&text, &size, &err),
                     CKPT_OK);
    assert_memory_equal(text, "H TWO", 5);
    assert_memory_equal(text + 5, cut + SPLIT * COLS, (ROWS - SPLIT) * COLS);
    assert_memory_equal(text + 5 + (ROWS - SPLIT) * COLS, left, ROWS * COLS);
    free(text);
}

static void test_what_was_written_reads_back(void **state)
{
    unsigned char bytes[ROWS * COLS];

    (void)state;
    faults.most_bytes = 37;
    faults.interrupt_every = 5;
    write_all(NULL);
    for (size_t t = 0; t < 3; t++) {
        assert_int_equal(read_back(t, bytes), CKPT_OK);
        assert_memory_equal(bytes, memory_source_part(f.source, t, CKPT_DATA), sizeof bytes);
    }
}

static void test_a_copy_that_differs_is_named_with_its_place(void **state)
{
    static const uint64_t rows[] = { 7, 127, 128, 200, 299 };
    const unsigned char *left = memory_source_part(f.source, 1, CKPT_DATA);
    unsigned char bytes[ROWS * COLS];

    (void)state;
    write_all(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uint64_t offset = 5 + (ROWS - SPLIT) * COLS + rows[i] * COLS + 3;
        const unsigned char expected = left[rows[i] * COLS + 3];
        char said[200];

        flip("two", offset);
        snprintf(said, sizeof said, "tensor 'left' has a copy that differs, 'copy' in 'two': row "
                 "%" PRIu64 " column 3: expected byte 0x%02x, got 0x%02x", rows[i], expected,
                 expected ^ 0x10);
        assert_int_equal(read_back(1, bytes), CKPT_E_FORMAT);
        assert_string_equal(err.text, said);
        assert_int_equal(read_band(1, rows[i] / SOURCE_BAND_ROWS * SOURCE_BAND_ROWS),
                         CKPT_E_FORMAT);
        assert_string_equal(err.text, said);
        assert_int_equal(read_back(0, bytes), CKPT_OK);
        flip("two", offset);
    }
}

static void test_a_write_that_fails_ends_the_copy(void **state)
{
    const ckpt_run_options copy = { .thread_count = 2 };
    ckpt_sink *sink = make_sink(NULL);

    (void)state;
    faults.fail_errno = ENOSPC;
    faults.fail_after = faults.call_count + 1;
    assert_int_equal(ckpt_copy(memory_source_base(f.source), sink, &copy, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "No space left"));
    sink_files_free(sink);
}

static void test_a_file_that_changed_is_noticed(void **state)
{
    struct timeval times[2] = { { 1, 0 }, { 1, 0 } };

    (void)state;
    assert_int_equal(store_close_files(f.store, &err), CKPT_OK);
    assert_int_equal(store_open_file(f.store, 1, 0, &err), CKPT_OK);
    assert_int_equal(store_check_unchanged(f.store, NULL, &err), CKPT_OK);
    assert_int_equal(utimes(in_folder("two"), times), 0);
    assert_int_equal(store_check_unchanged(f.store, NULL, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "was changed"));
}

/* ---- resuming ---- */

enum { JOURNAL_TENSORS = 3 };

static ckpt_journal *open_journal(void)
{
    ckpt_journal *journal = NULL;

    assert_int_equal(file_make_directory(in_folder("journal"), &err), CKPT_OK);
    assert_int_equal(journal_open(&(journal_options){ .directory = in_folder("journal"),
                                                        .fingerprint = { 1, 1 },
                                                        .tensor_count = JOURNAL_TENSORS },
                                  &journal, &err), CKPT_OK);
    return journal;
}

/* Resume, and say which tensors are kept: bit t for tensor t. The rest is written again. */
static unsigned resume(void)
{
    const ckpt_run_options copy = { .thread_count = 2 };
    ckpt_journal *journal = open_journal();
    ckpt_sink *sink = make_sink(journal);
    unsigned kept = 0;
    size_t kept_count = 99;

    assert_int_equal(sink_files_resume(sink, &copy, &kept_count, &err), CKPT_OK);
    for (size_t t = 0; t < JOURNAL_TENSORS; t++)
        if (sink_files_kept(sink, t))
            kept |= 1u << t;
    assert_int_equal(kept_count, __builtin_popcount(kept));
    assert_int_equal(ckpt_copy(memory_source_base(f.source), sink, &copy, &err), CKPT_OK);
    sink_files_free(sink);
    journal_close(journal);
    return kept;
}

static void write_and_journal(void)
{
    ckpt_journal *journal = open_journal();

    write_all(journal);
    journal_close(journal);
}

static void test_everything_that_is_there_is_kept(void **state)
{
    (void)state;
    assert_int_equal(resume(), 0);
    assert_int_equal(resume(), 7);
}

/* Every byte counts, that of a copy too; the other tensors are kept. */
static void test_a_tensor_with_a_wrong_byte_is_written_again(void **state)
{
    static const struct {
        const char *file;
        uint64_t offset;
        unsigned kept;
    } damages[] = {
        { "one", 10, 6 },                                          /* cut */
        { "two", 5 + (ROWS - SPLIT) * COLS - 1, 6 },               /* cut, its end */
        { "one", 10 + SPLIT * COLS, 5 },                           /* left */
        { "one", 10 + SPLIT * COLS + COLS, 3 },                    /* right */
        { "two", 5 + (ROWS - SPLIT) * COLS + 999, 5 },             /* the copy of left */
    };

    (void)state;
    write_and_journal();
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        unsigned char bytes[ROWS * COLS];

        flip(damages[i].file, damages[i].offset);
        assert_int_equal(resume(), damages[i].kept);
        for (size_t t = 0; t < 3; t++) {
            assert_int_equal(read_back(t, bytes), CKPT_OK);
            assert_memory_equal(bytes, memory_source_part(f.source, t, CKPT_DATA), sizeof bytes);
        }
    }
    assert_int_equal(resume(), 7);
}

static void test_a_read_error_is_no_wrong_byte(void **state)
{
    const ckpt_run_options copy = { .thread_count = 1 };
    ckpt_journal *journal;
    ckpt_sink *sink;
    size_t kept_count;

    (void)state;
    write_and_journal();
    journal = open_journal();
    sink = make_sink(journal);
    faults.fail_errno = EIO;
    faults.fail_after = faults.call_count;
    assert_int_equal(sink_files_resume(sink, &copy, &kept_count, &err), CKPT_E_IO);
    sink_files_free(sink);
    journal_close(journal);
}

#define STORE_TEST(function)                                                                      \
    cmocka_unit_test_setup_teardown(function, set_up_store, tear_down_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_every_byte_goes_where_the_extents_say),
        STORE_TEST(test_what_was_written_reads_back),
        STORE_TEST(test_a_copy_that_differs_is_named_with_its_place),
        STORE_TEST(test_a_write_that_fails_ends_the_copy),
        STORE_TEST(test_a_file_that_changed_is_noticed),
        STORE_TEST(test_everything_that_is_there_is_kept),
        STORE_TEST(test_a_tensor_with_a_wrong_byte_is_written_again),
        STORE_TEST(test_a_read_error_is_no_wrong_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
