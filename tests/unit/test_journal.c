/* test_journal.c: what a killed run had finished, and whose folder it is. */
#include "file_faults.h"

#include "libckpt/journal.h"

#include <sys/file.h>

enum { TENSORS = 100 };

static const hash128 us = { 1, 2 };
static const hash128 them = { 1, 3 };
static const char first_line[] = "ckpt-journal 1 00000000000000020000000000000001\n";

static hash128 hash_of(uint64_t i)
{
    const hash128 hash = { i * 3 + 1, i * 7 + 2 };

    return hash;
}

static ckpt_journal *open_journal(void)
{
    ckpt_journal *j = NULL;

    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_OK);
    return j;
}

static const char *path(void)
{
    return in_folder(journal_name);
}

/* Finish tensors 10, 11, ... */
static void finish(ckpt_journal *j, size_t count)
{
    for (size_t i = 10; i < 10 + count; i++)
        assert_int_equal(journal_append(j, i, hash_of(i), hash_of(i + 500), &err), CKPT_OK);
}

/* The records are those of tensors 10, 11, ... and no others. */
static void assert_finished(ckpt_journal *j, size_t count)
{
    const journal_record *records = journal_records(j);

    for (size_t i = 0; i < TENSORS; i++) {
        const hash128 value = hash_of(i);
        const hash128 bytes = hash_of(i + 500);
        const int is_done = i >= 10 && i < 10 + count;

        assert_int_equal(records[i].is_done, is_done);
        if (!is_done)
            continue;
        assert_memory_equal(&records[i].value, &value, sizeof value);
        assert_memory_equal(&records[i].bytes, &bytes, sizeof bytes);
    }
}

static char *read_journal(size_t *size)
{
    char *text;

    assert_int_equal(file_read_all(path(), 1 << 20, &text, size, &err), CKPT_OK);
    return text;
}

static void test_a_new_journal_has_its_first_line_and_no_records(void **state)
{
    ckpt_journal *j = open_journal();

    (void)state;
    assert_finished(j, 0);
    assert_true(journal_side_bytes(j) == 0);
    journal_close(j);
    assert_holds(path(), first_line, strlen(first_line));
}

static void test_records_survive(void **state)
{
    ckpt_journal *j = open_journal();

    (void)state;
    finish(j, 30);
    assert_finished(j, 0);        /* what was read when it was opened, not what is appended */
    journal_close(j);
    j = open_journal();
    assert_finished(j, 30);
    journal_close(j);
    journal_close(NULL);
}

static void test_the_last_record_of_a_tensor_holds(void **state)
{
    ckpt_journal *j = open_journal();

    (void)state;
    assert_int_equal(journal_append(j, 10, hash_of(1), hash_of(2), &err), CKPT_OK);
    finish(j, 1);
    journal_close(j);
    j = open_journal();
    assert_finished(j, 1);
    journal_close(j);
}

static void test_side_bytes_only_grow(void **state)
{
    ckpt_journal *j = open_journal();
    size_t before;
    size_t after;

    (void)state;
    assert_int_equal(journal_append_side(j, UINT64_C(1) << 40, &err), CKPT_OK);
    free(read_journal(&before));
    assert_int_equal(journal_append_side(j, 16, &err), CKPT_OK);
    free(read_journal(&after));
    assert_int_equal(before, after);
    journal_close(j);
    j = open_journal();
    assert_true(journal_side_bytes(j) == UINT64_C(1) << 40);
    journal_close(j);
}

/* Whatever length is left of it: whole lines are believed, and appending goes on behind them. */
static void test_a_journal_cut_anywhere_is_used_as_far_as_it_goes(void **state)
{
    ckpt_journal *j = open_journal();
    size_t size;
    char *text;

    (void)state;
    finish(j, 3);
    journal_close(j);
    text = read_journal(&size);
    for (size_t cut = strlen(first_line); cut <= size; cut++) {
        size_t lines = 0;
        size_t now;

        for (size_t i = strlen(first_line); i < cut; i++)
            lines += text[i] == '\n';
        make_file(path(), text, cut);
        j = open_journal();
        assert_finished(j, lines);
        finish(j, 3);
        journal_close(j);
        j = open_journal();
        assert_finished(j, 3);
        journal_close(j);
        free(read_journal(&now));
        assert_int_equal(now, size + lines * (size - strlen(first_line)) / 3);
    }
    free(text);
}

/* Any bit of any line: the line and all behind it are not believed. */
static void test_a_flipped_bit_ends_what_is_believed(void **state)
{
    ckpt_journal *j = open_journal();
    size_t size;
    size_t line = 0;
    char *text;

    (void)state;
    finish(j, 3);
    journal_close(j);
    text = read_journal(&size);
    for (size_t i = strlen(first_line); i < size; i++) {
        const int ends_line = text[i] == '\n';

        for (int bit = 0; bit < 7; bit++) {
            text[i] = (char)(text[i] ^ 1 << bit);
            make_file(path(), text, size);
            j = open_journal();
            for (size_t t = line; t < 3; t++)
                assert_int_equal(journal_records(j)[10 + t].is_done, 0);
            for (size_t t = 0; t < line; t++)
                assert_int_equal(journal_records(j)[10 + t].is_done, 1);
            journal_close(j);
            text[i] = (char)(text[i] ^ 1 << bit);
        }
        line += (size_t)ends_line;
    }
    free(text);
}

static void test_lines_that_nobody_wrote_are_not_believed(void **state)
{
    static const char *const lines[] = {
        "\n", "done\n", "done 1\n", "side 16\n", "side 16 00000000\n", "side -1 0\n",
        "done 10 00 00 00000000\n", "done 18446744073709551616 0 0 0\n", "gone 10 0 0 0\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[256];
        ckpt_journal *j;

        snprintf(text, sizeof text, "%s%s", first_line, lines[i]);
        make_file(path(), text, strlen(text));
        j = open_journal();
        assert_finished(j, 0);
        assert_true(journal_side_bytes(j) == 0);
        journal_close(j);
        assert_holds(path(), first_line, strlen(first_line));
    }
}

static void test_a_tensor_that_does_not_exist_is_not_believed(void **state)
{
    ckpt_journal *j = NULL;

    (void)state;
    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS + 1 },
                                  &j, &err), CKPT_OK);
    assert_int_equal(journal_append(j, TENSORS, us, us, &err), CKPT_OK);
    journal_close(j);
    j = open_journal();
    assert_finished(j, 0);
    journal_close(j);
}

static void test_another_command_is_refused_and_changes_nothing(void **state)
{
    ckpt_journal *j = open_journal();
    size_t size;
    char *text;

    (void)state;
    finish(j, 2);
    journal_close(j);
    text = read_journal(&size);
    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = them,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "an unfinished run with different options"));
    assert_holds(path(), text, size);
    free(text);
}

static ckpt_code open_share(hash128 fingerprint, unsigned share, unsigned share_count,
                           ckpt_journal **out)
{
    return journal_open(&(journal_options){ .directory = folder, .fingerprint = fingerprint,
                                            .tensor_count = TENSORS, .share = share,
                                            .share_count = share_count }, out, &err);
}

static void test_another_command_is_refused_under_any_journal_name(void **state)
{
    static const struct {
        unsigned share;
        unsigned share_count;
        const char *name;
    } ways[] = { { 1, 1, ".ckpt-journal" }, { 1, 2, ".ckpt-journal.1-of-2" },
                 { 3, 4, ".ckpt-journal.3-of-4" } };

    (void)state;
    for (size_t a = 0; a < sizeof ways / sizeof *ways; a++) {
        ckpt_journal *ours = NULL;

        assert_int_equal(open_share(us, ways[a].share, ways[a].share_count, &ours), CKPT_OK);
        for (size_t b = 0; b < sizeof ways / sizeof *ways; b++) {
            ckpt_journal *theirs = NULL;

            if (a == b)
                continue;
            assert_int_equal(open_share(them, ways[b].share, ways[b].share_count, &theirs),
                             CKPT_E_USAGE);
            assert_non_null(strstr(err.text, "an unfinished run with different options"));
            assert_non_null(strstr(err.text, ways[a].name));
            assert_false(file_exists(in_folder(ways[b].name)));
        }
        journal_close(ours);
        assert_int_equal(file_remove(in_folder(ways[a].name), &err), CKPT_OK);
    }
}

static void test_a_part_refused_is_no_reason_to_take_the_next(void **state)
{
    (void)state;
    make_file(in_folder("theirs"), "x", 1);
    make_file(in_folder(".ckpt-journal.4-of-4"), "", 0);       /* about to be refused as well */
    for (unsigned share = 1; share <= 3; share++) {
        ckpt_journal *j = NULL;

        assert_int_equal(open_share(us, share, 4, &j), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, "has files but no journal"));
    }
}

static void test_a_part_started_again_is_not_finished(void **state)
{
    const journal_options options = { .directory = folder, .fingerprint = us,
                                      .tensor_count = TENSORS, .share = 1, .share_count = 2 };
    journal_record records[TENSORS] = { { 0 } };
    uint64_t side_bytes[2];
    ckpt_journal *j[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(open_share(us, i + 1, 2, &j[i]), CKPT_OK);
        assert_int_equal(journal_finish(j[i], &err), CKPT_OK);
        journal_close(j[i]);
    }
    for (int round = 0; round < 2; round++) {
        unsigned unfinished;

        assert_int_equal(journal_collect(&options, records, side_bytes, &unfinished, &err),
                         CKPT_OK);
        assert_int_equal(unfinished, 0);
        assert_int_equal(open_share(us, 1, 2, &j[0]), CKPT_OK);
        assert_int_equal(journal_collect(&options, records, side_bytes, &unfinished, &err),
                         CKPT_OK);
        assert_int_equal(unfinished, 1);
        assert_int_equal(journal_finish(j[0], &err), CKPT_OK);
        journal_close(j[0]);
    }
}

static void test_a_journal_of_another_format_is_refused(void **state)
{
    static const char later[] = "ckpt-journal 2 00000000000000020000000000000001\n";
    ckpt_journal *j = NULL;

    (void)state;
    make_file(path(), later, strlen(later));
    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_E_USAGE);
    assert_holds(path(), later, strlen(later));
}

static void test_a_second_process_is_refused(void **state)
{
    ckpt_journal *j = open_journal();
    ckpt_journal *second = NULL;

    (void)state;
    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &second, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "another process is writing here"));
    assert_null(second);
    journal_close(j);
    journal_close(open_journal());
}

static void test_a_folder_with_files_but_no_journal_is_refused(void **state)
{
    static const size_t lengths[] = { 0, 1, 20, sizeof first_line - 2 };

    (void)state;
    make_file(in_folder("theirs"), "x", 1);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        ckpt_journal *j = NULL;

        make_file(path(), first_line, lengths[i]);
        assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, "has files but no journal"));
    }
    assert_holds(in_folder("theirs"), "x", 1);
}

static void test_a_first_line_that_was_torn_is_written_again(void **state)
{
    (void)state;
    for (size_t cut = 0; cut < strlen(first_line); cut++) {
        make_file(path(), first_line, cut);
        journal_close(open_journal());
        assert_holds(path(), first_line, strlen(first_line));
    }
}

static void test_a_first_line_that_cannot_be_synced_is_an_error(void **state)
{
    ckpt_journal *j = NULL;

    (void)state;
    faults.sync_errno = EIO;
    assert_int_equal(journal_open(&(journal_options){ .directory = folder, .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_E_IO);
    assert_null(j);
}

static void test_a_folder_that_is_missing_is_an_error(void **state)
{
    ckpt_journal *j = NULL;

    (void)state;
    assert_int_equal(journal_open(&(journal_options){ .directory = in_folder("none"),
                                                        .fingerprint = us,
                                                        .tensor_count = TENSORS },
                                  &j, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_a_new_journal_has_its_first_line_and_no_records),
        FOLDER_TEST(test_records_survive),
        FOLDER_TEST(test_the_last_record_of_a_tensor_holds),
        FOLDER_TEST(test_side_bytes_only_grow),
        FOLDER_TEST(test_a_journal_cut_anywhere_is_used_as_far_as_it_goes),
        FOLDER_TEST(test_a_flipped_bit_ends_what_is_believed),
        FOLDER_TEST(test_lines_that_nobody_wrote_are_not_believed),
        FOLDER_TEST(test_a_tensor_that_does_not_exist_is_not_believed),
        FOLDER_TEST(test_another_command_is_refused_and_changes_nothing),
        FOLDER_TEST(test_another_command_is_refused_under_any_journal_name),
        FOLDER_TEST(test_a_part_refused_is_no_reason_to_take_the_next),
        FOLDER_TEST(test_a_part_started_again_is_not_finished),
        FOLDER_TEST(test_a_journal_of_another_format_is_refused),
        FOLDER_TEST(test_a_second_process_is_refused),
        FOLDER_TEST(test_a_folder_with_files_but_no_journal_is_refused),
        FOLDER_TEST(test_a_first_line_that_was_torn_is_written_again),
        FOLDER_TEST(test_a_first_line_that_cannot_be_synced_is_an_error),
        FOLDER_TEST(test_a_folder_that_is_missing_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
