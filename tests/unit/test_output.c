/* test_output.c: PATH.partial on its way to PATH. */
#include "file_faults.h"

#include "libckpt/output.h"

static char name_a[] = "a";
static char name_b[] = "below/b";
static char *made_names[] = { name_a, name_b };
static const file_list made = { made_names, 2 };

static ckpt_code try_begin(const char *path, int overwrite, ckpt_output **out)
{
    const output_options options = { .path = path, .overwrite = overwrite,
                                     .fingerprint = { 5, 6 }, .tensor_count = 1, .files = &made };

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
    make_file(in_folder("out/model.safetensors"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 0, &err), CKPT_E_USAGE);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
    assert_int_equal(output_check("", NULL, 1, &err), CKPT_E_USAGE);
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
        assert_int_equal(output_check(in_folder("out"), NULL, overwrite, &err), CKPT_OK);
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
        .path = in_folder("out"), .fingerprint = { 5, 7 }, .tensor_count = 1, .files = &made
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
    make_file(in_folder("out/model.safetensors"), "x", 1);
    make_file(in_folder("out.ckpt-replaced/model.safetensors"), "x", 1);
    o = begin(in_folder("out"), 1);
    put(o, "a", "1");
    assert_holds(in_folder("out/model.safetensors"), "x", 1);
    assert_int_equal(output_commit(o, &err), CKPT_OK);
    assert_int_equal(count_entries(in_folder("out")), 1);
    assert_int_equal(count_names(), 1);
}

static void test_a_commit_that_cannot_sync_renames_nothing(void **state)
{
    ckpt_output *o;

    (void)state;
    make_file(in_folder("out/model.safetensors"), "x", 1);
    o = begin(in_folder("out"), 1);
    put(o, "a", "1");
    faults.sync_errno = EIO;
    assert_int_equal(output_commit(o, &err), CKPT_E_IO);
    assert_holds(in_folder("out/model.safetensors"), "x", 1);
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
    assert_int_equal(try_begin(in_folder("none/out"), 0, &o), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "none': No such file"));
}

/* ---- what may be lost ---- */

static void test_a_folder_with_anything_else_in_it_is_not_replaced(void **state)
{
    static const char *const strays[] = { "thesis.tex", "below/notes", ".hidden",
                                          "model.safetensors~", "a.ckpt-journal",
                                          "inference/mine.py", "x.safetensors" };
    char path[128];

    (void)state;
    make_file(in_folder("out/model.safetensors"), "x", 1);
    make_file(in_folder("out/config.json"), "x", 1);
    make_file(in_folder("out/inference/model.py"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) {
        snprintf(path, sizeof path, "out/%s", strays[i]);
        make_file(in_folder(path), "x", 1);
        assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, strays[i]));
        assert_int_equal(output_check(in_folder("out"), NULL, 0, &err), CKPT_E_USAGE);
        assert_null(strstr(err.text, "--overwrite"));
        assert_int_equal(file_remove(in_folder(path), &err), CKPT_OK);
    }
}

static void test_a_users_cache_is_not_what_a_download_keeps(void **state)
{
    static const char blob[] = ".cache/huggingface/hub/models--o--m/blobs/1";
    char path[128];

    (void)state;
    make_file(in_folder("out/model.safetensors"), "x", 1);
    make_file(in_folder("out/.cache/huggingface/download/config.json.metadata"), "x", 1);
    make_file(in_folder("out/.cache/huggingface/ckpt/listing.json"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
    snprintf(path, sizeof path, "out/%s", blob);
    make_file(in_folder(path), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, blob));
}

/* A conversion wrote one iteration, and training went on from it in the same folder. */
static void test_a_training_run_is_not_replaced(void **state)
{
    static const char manifest[] = "{\"files\": [\"release/__0_0.distcp\"], \"tensors\": []}";

    (void)state;
    make_file(in_folder("out/ckpt-manifest.json"), manifest, sizeof manifest - 1);
    make_file(in_folder("out/latest_checkpointed_iteration.txt"), "100", 3);
    make_file(in_folder("out/release/__0_0.distcp"), "x", 1);
    make_file(in_folder("out/release/.metadata"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
    make_file(in_folder("out/iter_0000100/__0_0.distcp"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    assert_int_equal(file_remove_tree(in_folder("out/release"), &err), CKPT_OK);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
    make_file(in_folder("out/iter_0000200/common.pt"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "iter_0000200/common.pt"));
}

static void test_a_checkpoint_below_that_is_no_iteration_is_not_replaced(void **state)
{
    (void)state;
    make_file(in_folder("out/iter_1/model.safetensors"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
}

static void test_what_manifest_and_index_name_may_be_replaced(void **state)
{
    static const char manifest[] = "{\"files\": [\"notes/a b.txt\"], \"tensors\": []}";
    static const char index[] = "{\"weight_map\": {\"x\": \"x.safetensors\"}}";

    (void)state;
    make_file(in_folder("out/notes/a b.txt"), "x", 1);
    make_file(in_folder("out/x.safetensors"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    make_file(in_folder("out/ckpt-manifest.json"), manifest, sizeof manifest - 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "x.safetensors"));
    make_file(in_folder("out/model.safetensors.index.json"), index, sizeof index - 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_OK);
}

static void test_a_folder_that_only_looks_a_little_like_a_checkpoint_is_not_replaced(void **state)
{
    (void)state;
    make_file(in_folder("out/README.md"), "x", 1);
    make_file(in_folder("out/config.json"), "x", 1);
    assert_int_equal(output_check(in_folder("out"), NULL, 1, &err), CKPT_E_USAGE);
    assert_int_equal(output_check(in_folder("out/README.md"), NULL, 1, &err), CKPT_E_USAGE);
    assert_int_equal(mkdir(in_folder("empty"), 0777), 0);
    assert_int_equal(output_check(in_folder("empty"), NULL, 1, &err), CKPT_OK);
}

static void test_what_comes_into_the_folder_meanwhile_is_not_replaced(void **state)
{
    ckpt_output *o;

    (void)state;
    make_file(in_folder("out/model.safetensors"), "x", 1);
    o = begin(in_folder("out"), 1);
    put(o, "a", "1");
    make_file(in_folder("out/theirs"), "x", 1);
    assert_int_equal(output_commit(o, &err), CKPT_E_USAGE);
    assert_holds(in_folder("out/theirs"), "x", 1);
    assert_holds(in_folder("out.partial/a"), "1", 1);
}

static void test_no_name_of_its_own_is_refused_at_once(void **state)
{
    static const char *const names[] = { "-", ".", "..", "/", "./", "a/..", "//" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int overwrite = 0; overwrite < 2; overwrite++)
            assert_int_equal(output_check(names[i], NULL, overwrite, &err), CKPT_E_USAGE);
    assert_int_equal(output_check("/proc", NULL, 1, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "mount point"));
}

/* ---- an unfinished run goes, and nothing else ---- */

static ckpt_code restart(int keep_others, ckpt_output **out)
{
    const output_options options = { .path = in_folder("out"), .fingerprint = { 7, 7 },
                                     .tensor_count = 1, .restart = 1,
                                     .keep_others = keep_others, .files = &made };

    return output_begin(&options, out, &err);
}

static void test_restart_discards_what_another_job_left(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);
    ckpt_output *second = NULL;

    (void)state;
    put(o, "a", "1");
    put(o, "below/b", "1");
    put(o, ".config.json.12345678.tmp", "1");
    assert_int_equal(restart(0, &second), CKPT_E_IO);       /* it runs */
    output_close(o);
    assert_holds(in_folder("out.partial/a"), "1", 1);
    assert_int_equal(restart(0, &second), CKPT_OK);
    assert_int_equal(count_entries(in_folder("out.partial")), 1);
    output_close(second);
}

static void test_restart_leaves_what_the_journal_does_not_name(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    put(o, "thesis.tex", "1");
    output_close(o);
    assert_int_equal(restart(0, &o), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "thesis.tex"));
    assert_int_equal(file_remove(in_folder("out.partial/thesis.tex"), &err), CKPT_OK);
    assert_int_equal(restart(1, &o), CKPT_E_USAGE);         /* its source may be gone */
    assert_holds(in_folder("out.partial/a"), "1", 1);
    assert_int_equal(restart(0, &o), CKPT_OK);
    assert_false(file_exists(in_folder("out.partial/a")));
    output_close(o);
}

static void test_a_discarded_run_leaves_nothing(void **state)
{
    ckpt_output *o = begin(in_folder("out"), 0);

    (void)state;
    put(o, "a", "1");
    put(o, "below/b", "1");
    assert_int_equal(output_discard(o, &err), CKPT_OK);
    assert_int_equal(count_names(), 0);
}

static void test_the_last_part_that_runs_discards(void **state)
{
    output_options options = { .path = in_folder("out"), .fingerprint = { 5, 6 },
                               .tensor_count = 1, .share = 1, .share_count = 2, .files = &made };
    journal_record records[1];
    uint64_t side_bytes[2];
    ckpt_output *first;
    ckpt_output *second;
    int committer;

    (void)state;
    assert_int_equal(output_begin(&options, &first, &err), CKPT_OK);
    options.share = 2;
    assert_int_equal(output_begin(&options, &second, &err), CKPT_OK);
    put(first, "a", "1");
    assert_int_equal(output_discard(first, &err), CKPT_OK);
    assert_holds(in_folder("out.partial/a"), "1", 1);
    assert_int_equal(output_join(second, records, side_bytes, &committer, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "share 1 of 2 was refused"));
    assert_int_equal(output_discard(second, &err), CKPT_OK);
    assert_int_equal(count_names(), 0);
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
        FOLDER_TEST(test_a_folder_with_anything_else_in_it_is_not_replaced),
        FOLDER_TEST(test_a_users_cache_is_not_what_a_download_keeps),
        FOLDER_TEST(test_a_training_run_is_not_replaced),
        FOLDER_TEST(test_a_checkpoint_below_that_is_no_iteration_is_not_replaced),
        FOLDER_TEST(test_what_manifest_and_index_name_may_be_replaced),
        FOLDER_TEST(test_a_folder_that_only_looks_a_little_like_a_checkpoint_is_not_replaced),
        FOLDER_TEST(test_what_comes_into_the_folder_meanwhile_is_not_replaced),
        FOLDER_TEST(test_no_name_of_its_own_is_refused_at_once),
        FOLDER_TEST(test_restart_discards_what_another_job_left),
        FOLDER_TEST(test_restart_leaves_what_the_journal_does_not_name),
        FOLDER_TEST(test_a_discarded_run_leaves_nothing),
        FOLDER_TEST(test_the_last_part_that_runs_discards),
        FOLDER_TEST(test_overwriting_leaves_nothing_of_the_old),
        FOLDER_TEST(test_a_commit_that_cannot_sync_renames_nothing),
        FOLDER_TEST(test_half_written_files_of_a_killed_run_go),
        FOLDER_TEST(test_two_at_once_are_refused_until_the_name_is_there),
        FOLDER_TEST(test_a_parent_that_is_missing_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
