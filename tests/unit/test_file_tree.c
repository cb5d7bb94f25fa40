/* test_file_tree.c: directories: listing, making, removing, syncing, renaming. */
#include "libckpt/file.h"

#include "file_faults.h"

/* ---- directories ---- */

static void test_parents_are_made_and_the_file_is_not(void **state)
{
    (void)state;
    assert_int_equal(file_make_parents(in_folder("x//y/z/file"), &err), CKPT_OK);
    assert_true(file_is_directory(in_folder("x/y/z")));
    assert_false(file_exists(in_folder("x/y/z/file")));
    assert_int_equal(file_make_parents(in_folder("x/y/z/file"), &err), CKPT_OK);
    assert_int_equal(file_make_parents("file", &err), CKPT_OK);
}

static void test_a_directory_is_not_made_over_a_file(void **state)
{
    (void)state;
    make_file(in_folder("a"), "", 0);
    assert_int_equal(file_make_directory(in_folder("a"), &err), CKPT_E_IO);
    assert_int_equal(file_make_parents(in_folder("a/b/c"), &err), CKPT_E_IO);
    assert_int_equal(file_make_directory(folder, &err), CKPT_OK);
}

static void test_a_dangling_link_exists(void **state)
{
    (void)state;
    assert_int_equal(symlink("nowhere", in_folder("link")), 0);
    assert_true(file_exists(in_folder("link")));
    assert_false(file_is_directory(in_folder("link")));
    assert_false(file_exists(in_folder("nowhere")));
}

static void test_removing_what_is_absent_is_fine(void **state)
{
    (void)state;
    assert_int_equal(file_remove(in_folder("absent"), &err), CKPT_OK);
    assert_int_equal(file_remove_tree(in_folder("absent"), &err), CKPT_OK);
    assert_int_equal(file_remove(folder, &err), CKPT_E_IO);
}

static void test_removing_a_tree_does_not_follow_links(void **state)
{
    (void)state;
    make_file(in_folder("keep/file"), "x", 1);
    make_file(in_folder("tree/a/b/c"), "x", 1);
    make_file(in_folder("tree/.hidden"), "x", 1);
    assert_int_equal(symlink("../keep", in_folder("tree/link")), 0);
    assert_int_equal(symlink("nowhere", in_folder("tree/dangling")), 0);
    assert_int_equal(file_remove_tree(in_folder("tree"), &err), CKPT_OK);
    assert_false(file_exists(in_folder("tree")));
    assert_holds(in_folder("keep/file"), "x", 1);
    assert_int_equal(symlink("keep", in_folder("link")), 0);
    assert_int_equal(file_remove_tree(in_folder("link"), &err), CKPT_OK);
    assert_holds(in_folder("keep/file"), "x", 1);
}

static void test_a_tree_can_be_synced(void **state)
{
    (void)state;
    make_file(in_folder("a/b"), "x", 1);
    assert_int_equal(file_sync_tree(folder, &err), CKPT_OK);
    assert_int_equal(file_sync_tree(in_folder("a/b"), &err), CKPT_OK);
    assert_int_equal(file_sync_tree(in_folder("absent"), &err), CKPT_E_IO);
}

static void test_a_file_system_that_cannot_sync_directories_is_fine(void **state)
{
    (void)state;
    make_file(in_folder("a"), "x", 1);
    faults.sync_errno = EINVAL;
    assert_int_equal(file_rename_durable(in_folder("a"), in_folder("b"), &err), CKPT_OK);
}

static void test_a_durable_rename_never_replaces(void **state)
{
    (void)state;
    make_file(in_folder("x/a"), "a", 1);
    make_file(in_folder("b"), "b", 1);
    assert_int_equal(file_rename_durable(in_folder("x/a"), in_folder("b"), &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "exists"));
    assert_holds(in_folder("b"), "b", 1);
    assert_int_equal(file_rename_durable(in_folder("x"), in_folder("y"), &err), CKPT_OK);
    assert_holds(in_folder("y/a"), "a", 1);
    assert_int_equal(file_rename_durable(in_folder("x"), in_folder("z"), &err), CKPT_E_IO);
    assert_int_equal(file_replace_durable(in_folder("y/a"), in_folder("b"), &err), CKPT_OK);
    assert_holds(in_folder("b"), "a", 1);
}

static void test_a_rename_whose_parent_does_not_sync_is_told(void **state)
{
    (void)state;
    make_file(in_folder("a"), "a", 1);
    faults.sync_errno = EIO;
    assert_int_equal(file_rename_durable(in_folder("a"), in_folder("b"), &err), CKPT_E_IO);
}

static void assert_joined(const char *directory, const char *name, const char *expected)
{
    char *path = file_join(directory, name);

    assert_string_equal(path, expected);
    free(path);
}

static void test_joining_puts_one_slash(void **state)
{
    (void)state;
    assert_joined("dir", "name", "dir/name");
    assert_joined("dir/", "name", "dir/name");
    assert_joined("", "name", "name");
    assert_joined("/", "name", "/name");
}

/* ---- listing ---- */

static void test_a_listing_is_sorted_by_bytes_and_relative(void **state)
{
    static const char *const expected[] = { "B", "a-b", "a/.metadata", "a/b/c", "ab", "pipe",
                                            "\xc3\xa9" };
    file_list list;

    (void)state;
    make_file(in_folder("ab"), "", 0);
    make_file(in_folder("B"), "", 0);
    make_file(in_folder("a-b"), "", 0);
    make_file(in_folder("a/b/c"), "", 0);
    make_file(in_folder("a/.metadata"), "", 0);
    make_file(in_folder("a/.hidden"), "", 0);
    make_file(in_folder(".git/config"), "", 0);
    make_file(in_folder("\xc3\xa9"), "", 0);
    assert_int_equal(mkdir(in_folder("empty"), 0777), 0);
    assert_int_equal(mkfifo(in_folder("pipe"), 0666), 0);
    for (size_t slashes = 0; slashes < 3; slashes++) {
        char path[80];

        snprintf(path, sizeof path, "%s%.*s", folder, (int)slashes, "//");
        assert_int_equal(file_list_tree(path, &list, &err), CKPT_OK);
        assert_int_equal(list.count, sizeof expected / sizeof expected[0]);
        for (size_t i = 0; i < list.count; i++)
            assert_string_equal(list.names[i], expected[i]);
        file_list_free(&list);
    }
}

static void test_links_to_files_and_directories_are_followed(void **state)
{
    file_list list;

    (void)state;
    make_file(in_folder("blobs/x"), "", 0);
    make_file(in_folder("other/y"), "", 0);
    assert_int_equal(mkdir(in_folder("snapshot"), 0777), 0);
    assert_int_equal(symlink("../blobs/x", in_folder("snapshot/model")), 0);
    assert_int_equal(symlink("../other", in_folder("snapshot/other")), 0);
    assert_int_equal(symlink("snapshot", in_folder("link")), 0);
    assert_int_equal(file_list_tree(in_folder("link"), &list, &err), CKPT_OK);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.names[0], "model");
    assert_string_equal(list.names[1], "other/y");
    file_list_free(&list);
}

static void test_a_cycle_of_links_is_an_error(void **state)
{
    file_list list;

    (void)state;
    make_file(in_folder("a/b/c"), "", 0);
    assert_int_equal(symlink("../..", in_folder("a/b/up")), 0);
    assert_int_equal(file_list_tree(folder, &list, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "a/b/up"));
    assert_int_equal(list.count, 0);
    assert_null(list.names);
}

static void test_a_dangling_link_in_a_listing_is_an_error(void **state)
{
    file_list list;

    (void)state;
    assert_int_equal(symlink("nowhere", in_folder("link")), 0);
    assert_int_equal(file_list_tree(folder, &list, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "link"));
}

static void test_a_tree_that_is_too_deep_is_an_error(void **state)
{
    char path[256];
    size_t used = (size_t)snprintf(path, sizeof path, "%s", folder);
    file_list list;

    (void)state;
    for (size_t i = 0; i < 34; i++)
        used += (size_t)snprintf(path + used, sizeof path - used, "/d");
    make_file(path, "", 0);
    assert_int_equal(file_list_tree(folder, &list, &err), CKPT_E_FORMAT);
    assert_int_equal(rename(in_folder("d/d/d/d"), in_folder("e")), 0);     /* for tear_down */
}

static void test_listing_a_file_or_nothing_is_an_error(void **state)
{
    file_list list;

    (void)state;
    make_file(in_folder("a"), "", 0);
    assert_int_equal(file_list_tree(in_folder("a"), &list, &err), CKPT_E_IO);
    assert_int_equal(file_list_tree(in_folder("absent"), &list, &err), CKPT_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_parents_are_made_and_the_file_is_not),
        FOLDER_TEST(test_a_directory_is_not_made_over_a_file),
        FOLDER_TEST(test_a_dangling_link_exists),
        FOLDER_TEST(test_removing_what_is_absent_is_fine),
        FOLDER_TEST(test_removing_a_tree_does_not_follow_links),
        FOLDER_TEST(test_a_tree_can_be_synced),
        FOLDER_TEST(test_a_file_system_that_cannot_sync_directories_is_fine),
        FOLDER_TEST(test_a_durable_rename_never_replaces),
        FOLDER_TEST(test_a_rename_whose_parent_does_not_sync_is_told),
        FOLDER_TEST(test_joining_puts_one_slash),
        FOLDER_TEST(test_a_listing_is_sorted_by_bytes_and_relative),
        FOLDER_TEST(test_links_to_files_and_directories_are_followed),
        FOLDER_TEST(test_a_cycle_of_links_is_an_error),
        FOLDER_TEST(test_a_dangling_link_in_a_listing_is_an_error),
        FOLDER_TEST(test_a_tree_that_is_too_deep_is_an_error),
        FOLDER_TEST(test_listing_a_file_or_nothing_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
