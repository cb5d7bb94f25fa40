/* test_output.c: PATH.partial on its way to PATH. */
#include "file_faults.h"

#include "libckpt/output.h"

static ckpt_code try_begin(const char *path, int overwrite, ckpt_output **out)
{
    const output_options options = {
        .path = path, .overwrite = overwrite, .fingerprint = { 5, 6 }, .tensor_count = 1
    };

    *out = NULL;
    return output_begin(&options, out, &err);
}

static ckpt_output *begin(const char *path, int overwrite)
{
    ckpt_output *o;

    assert_int_equal(try_begin(path, overwrite, &o), CKPT_OK);
    return o;
}

static void put(const ckpt_output *o, const char *name, const char *text)
{
    char *path = file_join(output_directory(o), name);

    assert_non_null(path);
    make_file(path, text, strlen(text));
    free(path);
}

static void test_a_commit_renames_all_of_it(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    put(o, "below/b", "2");
    assert_false(file_exists(in_folder("out")));
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_holds(in_folder("out/a"), "1", 1);
    assert_holds(in_folder("out/below/b"), "2", 1);
    assert_int_equal(count_entries(in_folder("out")), 2);
    assert_int_equal(count_names(), 1);
}

static void test_a_trailing_slash_means_the_same(void **state)
{
    ckpt_output *o = begin(in_folder("out//"), 0);

    (void)state;
    assert_string_equal(output_directory(o), in_folder("out.partial"));
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_true(file_is_directory(in_folder("out")));
}

static void test_closing_leaves_what_is_there(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    output_close(o);
    output_close(NULL);
    assert_false(file_exists(in_folder("out")));
    assert_holds(in_folder("out.partial/a"), "1", 1);
    o = begin(in_folder("out"), 0);
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_holds(in_folder("out/a"), "1", 1);
}

static void test_what_exists_is_refused_early_and_late(void **state)
{
    ckpt_output *o;

    (void)state;
    make_file(in_folder("out/old"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), 0, &err), CKPT_E_USAGE);
    assert_int_equal(output_check(in_folder("out"), 1, &err), CKPT_OK);
    assert_int_equal(output_check("", 1, &err), CKPT_E_USAGE);
    assert_int_equal(try_begin(in_folder("out"), 0, &o), CKPT_E_USAGE);
    assert_int_equal(count_names(), 1);
}

/* As a run leaves it that is killed between the rename and the removal of its journal. */
static void leave_named(const char *name)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    put(o, "a", "1");
    output_close(o);
    assert_int_equal(rename(in_folder("out.partial"), in_folder(name)), 0);
}

static void test_a_result_with_its_journal_is_gone_on_with(void **state)
{
    (void)state;
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        ckpt_output *o;

        leave_named("out");
        assert_int_equal(output_check(in_folder("out"), overwrite, &err), CKPT_OK);
        o = begin(in_folder("out"), overwrite);
        assert_false(file_exists(in_folder("out")));
        assert_holds(in_folder("out.partial/a"), "1", 1);
        assert_int_equal(output_commit(o, &err), CKPT_OK);
        assert_int_equal(count_entries(in_folder("out")), 1);
        assert_int_equal(count_names(), 1);
        assert_int_equal(file_remove_tree(in_folder("out"), &err), CKPT_OK);
    }
}

static void test_a_result_with_the_journal_of_others_is_left_alone(void **state)
{
    const output_options options = {
        .path = in_folder("out"), .fingerprint = { 5, 7 }, .tensor_count = 1
    };
    ckpt_output *o = NULL;

    (void)state;
    leave_named("out");
    assert_int_equal(output_begin(&options, &o, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "--overwrite"));
    assert_holds(in_folder("out/a"), "1", 1);
    assert_int_equal(count_entries(in_folder("out")), 2);
    assert_int_equal(count_names(), 1);
}

static void test_a_result_that_is_being_given_its_name_is_left_alone(void **state)
{
    ckpt_output *first = begin(in_folder("out"), 0);
    ckpt_output *o;

    (void)state;
    assert_int_equal(rename(in_folder("out.partial"), in_folder("out")), 0);
    assert_int_equal(try_begin(in_folder("out"), 0, &o), CKPT_E_USAGE);
    assert_true(file_exists(in_folder("out")));
    output_close(first);
}

static void test_what_appears_meanwhile_is_not_replaced(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    make_file(in_folder("out/theirs"), "x", 1);
    assert_int_equal(output_commit(o, &err), CKPT_E_IO);
    assert_int_equal(count_entries(in_folder("out")), 1);
    assert_holds(in_folder("out.partial/a"), "1", 1);
    assert_true(file_exists(in_folder("out.partial/.ckpt-journal")));
}

static void test_overwriting_leaves_nothing_of_the_old(void **state)
{
    ckpt_output *o;

    (void)state;
    make_file(in_folder("out/old"), "x", 1);
    make_file(in_folder("out.ckpt-replaced/older"), "x", 1);     /* of a run that was killed */
    o = begin(in_folder("out"), 1);
    put(o, "a", "1");
    assert_holds(in_folder("out/old"), "x", 1);
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_int_equal(count_entries(in_folder("out")), 1);
    assert_int_equal(count_names(), 1);
}

static void test_a_commit_that_cannot_sync_renames_nothing(void **state)
{
    ckpt_output *o;

    (void)state;
    make_file(in_folder("out/old"), "x", 1);
    o = begin(in_folder("out"), 1);
    put(o, "a", "1");
    faults.sync_errno = EIO;
    assert_int_equal(output_commit(o, &err), CKPT_E_IO);
    assert_holds(in_folder("out/old"), "x", 1);
    assert_true(file_exists(in_folder("out.partial/.ckpt-journal")));
}

static void test_half_written_files_of_a_killed_run_go(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    put(o, ".a.0badcafe.tmp", "half");
    put(o, "below/.b.tmp", "half");
    put(o, "below/c.tmp", "not hidden");
    put(o, ".hidden", "not temporary");
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_int_equal(count_entries(in_folder("out")), 3);
    assert_int_equal(count_entries(in_folder("out/below")), 1);
    assert_true(file_exists(in_folder("out/.hidden")));
}

static void test_two_at_once_are_refused_until_the_name_is_there(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);
    ckpt_output *second;

    (void)state;
    assert_int_equal(try_begin(in_folder("out"), 0, &second), CKPT_E_IO);
    assert_non_null(strstr(err.text, "another process"));
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_int_equal(try_begin(in_folder("out"), 0, &second), CKPT_E_USAGE);
    assert_int_equal(count_names(), 1);
}

static void test_a_parent_that_is_missing_is_named(void **state)
{
    ckpt_output *o;

    (void)state;
    assert_int_equal(try_begin(in_folder("none/out"), 0, &o), CKPT_E_IO);
    assert_non_null(strstr(err.text, "none/out.partial"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_a_commit_renames_all_of_it),
        FOLDER_TEST(test_a_trailing_slash_means_the_same),
        FOLDER_TEST(test_closing_leaves_what_is_there),
        FOLDER_TEST(test_what_exists_is_refused_early_and_late),
        FOLDER_TEST(test_a_result_with_its_journal_is_gone_on_with),
        FOLDER_TEST(test_a_result_with_the_journal_of_others_is_left_alone),
        FOLDER_TEST(test_a_result_that_is_being_given_its_name_is_left_alone),
        FOLDER_TEST(test_what_appears_meanwhile_is_not_replaced),
        FOLDER_TEST(test_overwriting_leaves_nothing_of_the_old),
        FOLDER_TEST(test_a_commit_that_cannot_sync_renames_nothing),
        FOLDER_TEST(test_half_written_files_of_a_killed_run_go),
        FOLDER_TEST(test_two_at_once_are_refused_until_the_name_is_there),
        FOLDER_TEST(test_a_parent_that_is_missing_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
