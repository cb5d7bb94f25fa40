/* test_zfile.c: text files, plain and compressed. */
#include "libckpt/zfile.h"

#include "file_faults.h"

enum { TEXT_BYTES = 300000 };

static void write_pieces(const char *path, const char *bytes, size_t size, size_t piece)
{
    zfile_writer *w;

    assert_int_equal(zfile_create(path, &w, &err), CKPT_OK);
    for (size_t i = 0; i < size; i += piece)
        assert_int_equal(zfile_write(w, bytes + i, size - i < piece ? size - i : piece), 0);
    assert_int_equal(zfile_commit(w, &err), CKPT_OK);
}

/* Of a file that is found in its folder. */
static ckpt_code read_found(const char *path, uint64_t max_bytes, char **out, size_t *size)
{
    folder_place place;
    folder_text text;
    ckpt_code code;

    assert_int_equal(folder_open_place(path, &place, &err), CKPT_OK);
    code = zfile_read_in(place.folder, place.name, max_bytes, &text, &err);
    *out = text.bytes;
    *size = text.size;
    text.bytes = NULL;
    folder_text_release(&text);
    folder_place_release(&place);
    return code;
}

static void assert_reads(const char *path, const void *bytes, size_t size)
{
    char *back;
    size_t got;

    assert_int_equal(read_found(path, size, &back, &got), CKPT_OK);
    assert_int_equal(got, size);
    assert_memory_equal(back, bytes, size);
    assert_int_equal(back[size], 0);
    free(back);
}

static ckpt_code read_code(const char *path, uint64_t max_bytes)
{
    char *back = NULL;
    size_t got;
    const ckpt_code code = read_found(path, max_bytes, &back, &got);

    free(back);
    return code;
}

static int is_zstd(const char *path)
{
    char *bytes;
    size_t size;
    int found;

    assert_int_equal(file_read_all(path, UINT64_MAX, &bytes, &size, &err), CKPT_OK);
    found = size >= 4 && memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0;
    free(bytes);
    return found;
}

static void test_what_is_written_is_read_back(void **state)
{
    char *text = (char *)pattern(TEXT_BYTES);

    (void)state;
    for (size_t size = 0; size <= TEXT_BYTES; size = size * 7 + 1) {
        write_pieces(in_folder("plain"), text, size, 1000);
        write_pieces(in_folder("packed.zst"), text, size, 1000);
        assert_reads(in_folder("plain"), text, size);
        assert_reads(in_folder("packed.zst"), text, size);
    }
    assert_false(is_zstd(in_folder("plain")));
    assert_true(is_zstd(in_folder("packed.zst")));
    free(text);
}

static void test_the_file_does_not_depend_on_how_it_was_cut(void **state)
{
    char *text = (char *)pattern(TEXT_BYTES);
    char *bytes;
    size_t size;

    (void)state;
    write_pieces(in_folder("a.zst"), text, TEXT_BYTES, TEXT_BYTES);
    assert_int_equal(file_read_all(in_folder("a.zst"), UINT64_MAX, &bytes, &size, &err), CKPT_OK);
    for (size_t piece = 1; piece < TEXT_BYTES; piece = piece * 9 + 4) {
        write_pieces(in_folder("b.zst"), text, TEXT_BYTES, piece);
        assert_holds(in_folder("b.zst"), bytes, size);
    }
    free(bytes);
    free(text);
}

static void test_a_file_appears_whole_or_not_at_all(void **state)
{
    zfile_writer *w;

    (void)state;
    make_file(in_folder("a"), "old", 3);
    assert_int_equal(zfile_create(in_folder("a"), &w, &err), CKPT_OK);
    assert_int_equal(zfile_write(w, "new", 3), 0);
    assert_holds(in_folder("a"), "old", 3);
    assert_int_equal(count_names(), 2);
    zfile_abort(w);
    assert_holds(in_folder("a"), "old", 3);
    assert_int_equal(count_names(), 1);
    write_pieces(in_folder("a"), "new", 3, 3);
    assert_holds(in_folder("a"), "new", 3);
    assert_int_equal(count_names(), 1);
}

static void test_two_writers_of_one_file_do_not_mix(void **state)
{
    zfile_writer *first;
    zfile_writer *second;

    (void)state;
    assert_int_equal(zfile_create(in_folder("a"), &first, &err), CKPT_OK);
    zfile_write(first, "the first one", 13);
    assert_int_equal(zfile_create(in_folder("a"), &second, &err), CKPT_OK);
    zfile_write(second, "second", 6);
    assert_int_equal(zfile_commit(first, &err), CKPT_OK);
    assert_holds(in_folder("a"), "the first one", 13);
    assert_int_equal(zfile_commit(second, &err), CKPT_OK);
    assert_holds(in_folder("a"), "second", 6);
    assert_int_equal(count_names(), 1);
}

static void test_a_link_that_lies_in_wait_is_not_followed(void **state)
{
    (void)state;
    make_file(in_folder("victim"), "precious", 8);
    assert_int_equal(symlink("victim", in_folder(".a.tmp")), 0);
    assert_int_equal(symlink("victim", in_folder("a")), 0);
    write_pieces(in_folder("a"), "new", 3, 3);
    assert_holds(in_folder("a"), "new", 3);
    assert_holds(in_folder("victim"), "precious", 8);
}

static void test_a_name_as_long_as_can_be_is_written(void **state)
{
    char name[NAME_MAX + 1];

    (void)state;
    memset(name, 'n', NAME_MAX);
    name[NAME_MAX] = '\0';
    write_pieces(in_folder(name), "text", 4, 4);
    assert_reads(in_folder(name), "text", 4);
    assert_int_equal(count_names(), 1);
}

static void test_a_full_disk_is_told_at_the_end(void **state)
{
    static const char *const names[] = { "a", "a.zst" };
    char *text = (char *)pattern(TEXT_BYTES);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        zfile_writer *w;
        int failed;

        assert_int_equal(zfile_create(in_folder(names[i]), &w, &err), CKPT_OK);
        faults.fail_errno = ENOSPC;
        failed = zfile_write(w, text, TEXT_BYTES);
        assert_true(failed);
        assert_int_equal(zfile_write(w, "more", 4), 1);
        assert_int_equal(zfile_commit(w, &err), CKPT_E_IO);
        assert_non_null(strstr(err.text, "No space left"));
        faults.fail_errno = 0;
        assert_int_equal(count_names(), 0);
    }
    free(text);
}

static void test_a_failed_sync_leaves_the_old_file(void **state)
{
    zfile_writer *w;

    (void)state;
    make_file(in_folder("a"), "old", 3);
    assert_int_equal(zfile_create(in_folder("a"), &w, &err), CKPT_OK);
    zfile_write(w, "new", 3);
    faults.sync_errno = EIO;
    assert_int_equal(zfile_commit(w, &err), CKPT_E_IO);
    faults.sync_errno = 0;
    assert_holds(in_folder("a"), "old", 3);
    assert_int_equal(count_names(), 1);
}

static void test_a_folder_that_is_not_there_is_told(void **state)
{
    zfile_writer *w;

    (void)state;
    assert_int_equal(zfile_create(in_folder("no/a"), &w, &err), CKPT_E_IO);
    assert_null(w);
    assert_int_equal(read_code(in_folder("no"), 10), CKPT_E_IO);
}

static void test_a_bomb_is_refused_while_it_goes_off(void **state)
{
    enum { BOMB_BYTES = 64 << 20 };
    char *zeros = calloc(1, BOMB_BYTES);

    (void)state;
    assert_non_null(zeros);
    write_pieces(in_folder("bomb.zst"), zeros, BOMB_BYTES, BOMB_BYTES);
    assert_int_equal(read_code(in_folder("bomb.zst"), 1 << 20), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "at most 1048576 bytes"));
    assert_int_equal(read_code(in_folder("bomb.zst"), BOMB_BYTES - 1), CKPT_E_FORMAT);
    assert_int_equal(read_code(in_folder("bomb.zst"), BOMB_BYTES), CKPT_OK);
    free(zeros);
}

static void test_the_limit_is_exact(void **state)
{
    (void)state;
    write_pieces(in_folder("a"), "0123456789", 10, 10);
    write_pieces(in_folder("a.zst"), "0123456789", 10, 10);
    assert_int_equal(read_code(in_folder("a"), 9), CKPT_E_FORMAT);
    assert_int_equal(read_code(in_folder("a"), 10), CKPT_OK);
    assert_int_equal(read_code(in_folder("a.zst"), 9), CKPT_E_FORMAT);
    assert_int_equal(read_code(in_folder("a.zst"), 10), CKPT_OK);
}

static void test_every_truncation_is_noticed(void **state)
{
    char *text = (char *)pattern(5000);
    char *bytes;
    size_t size;

    (void)state;
    write_pieces(in_folder("a.zst"), text, 5000, 5000);
    assert_int_equal(file_read_all(in_folder("a.zst"), UINT64_MAX, &bytes, &size, &err), CKPT_OK);
    for (size_t cut = 0; cut < size; cut += 13) {
        make_file(in_folder("b.zst"), bytes, cut);
        assert_int_equal(read_code(in_folder("b.zst"), 5000), CKPT_E_FORMAT);
    }
    bytes[size] = 'x';             /* over the NUL: garbage after the stream */
    make_file(in_folder("b.zst"), bytes, size + 1);
    assert_int_equal(read_code(in_folder("b.zst"), 5000), CKPT_E_FORMAT);
    free(bytes);
    free(text);
}

static void test_every_changed_byte_is_noticed(void **state)
{
    char *text = (char *)pattern(500);
    char *bytes;
    size_t size;

    (void)state;
    write_pieces(in_folder("a.zst"), text, 500, 500);
    assert_int_equal(file_read_all(in_folder("a.zst"), UINT64_MAX, &bytes, &size, &err), CKPT_OK);
    for (size_t i = 0; i < size; i++) {
        char *back = NULL;
        size_t got;

        bytes[i] = (char)(bytes[i] ^ 0x10);
        make_file(in_folder("b.zst"), bytes, size);
        /* A reserved bit of the frame header may be ignored, but the text never changes. */
        if (read_found(in_folder("b.zst"), 500, &back, &got) == CKPT_OK) {
            assert_int_equal(got, 500);
            assert_memory_equal(back, text, 500);
            free(back);
        }
        bytes[i] = (char)(bytes[i] ^ 0x10);
    }
    free(bytes);
    free(text);
}

static void test_compression_is_told_by_content_and_by_name(void **state)
{
    char *bytes;
    size_t size;

    (void)state;
    write_pieces(in_folder("a.zst"), "text", 4, 4);
    assert_int_equal(file_read_all(in_folder("a.zst"), UINT64_MAX, &bytes, &size, &err), CKPT_OK);
    make_file(in_folder("renamed"), bytes, size);
    assert_reads(in_folder("renamed"), "text", 4);
    make_file(in_folder("plain.zst"), "text", 4);
    assert_int_equal(read_code(in_folder("plain.zst"), 100), CKPT_E_FORMAT);
    free(bytes);
}

/* ---- lines ---- */

static void test_lines_are_read_as_they_were_written(void **state)
{
    static const char *const names[] = { "a", "a.zst" };
    enum { LINES = 400 };          /* of 0, 1, 2, 4, ... bytes */
    char *text = (char *)pattern(1 << 18);

    (void)state;
    for (size_t i = 0; i < 1 << 18; i++)
        text[i] = (char)(text[i] == '\n' ? ' ' : text[i]);
    for (size_t i = 0; i < 2; i++) {
        zfile_writer *w;
        zfile_reader *r;
        const char *line;
        size_t size;

        assert_int_equal(zfile_create(in_folder(names[i]), &w, &err), CKPT_OK);
        for (unsigned n = 0; n < LINES; n++) {
            zfile_write(w, text, n % 19 == 0 ? 0 : (size_t)1 << (n % 19 - 1));
            zfile_write(w, "\n", 1);
        }
        assert_int_equal(zfile_commit(w, &err), CKPT_OK);
        assert_int_equal(zfile_open(in_folder(names[i]), &r, &err), CKPT_OK);
        for (unsigned n = 0; n < LINES; n++) {
            assert_int_equal(zfile_read_line(r, &line, &size, &err), CKPT_OK);
            assert_non_null(line);
            assert_int_equal(size, n % 19 == 0 ? 0 : 1 << (n % 19 - 1));
            assert_memory_equal(line, text, size);
        }
        assert_int_equal(zfile_read_line(r, &line, &size, &err), CKPT_OK);
        assert_null(line);
        zfile_close(r);
    }
    free(text);
}

/* What reading all lines ends with. */
static ckpt_code read_lines(const char *path)
{
    const char *line = "";
    zfile_reader *r;
    size_t size;
    ckpt_code code = zfile_open(path, &r, &err);

    while (code == CKPT_OK && line != NULL)
        code = zfile_read_line(r, &line, &size, &err);
    zfile_close(r);
    return code;
}

static void test_lines_that_are_cut_or_endless_are_refused(void **state)
{
    char *text = calloc(1, ZFILE_LINE_BYTES_MAX + 2);
    char *packed;
    size_t size;

    (void)state;
    assert_non_null(text);
    write_pieces(in_folder("cut"), "one\ntwo", 7, 7);
    assert_int_equal(read_lines(in_folder("cut")), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "in the middle of a line"));
    write_pieces(in_folder("endless.zst"), text, ZFILE_LINE_BYTES_MAX + 2, 4096);
    assert_int_equal(read_lines(in_folder("endless.zst")), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "too long"));
    text[ZFILE_LINE_BYTES_MAX - 1] = '\n';
    write_pieces(in_folder("long"), text, ZFILE_LINE_BYTES_MAX, 4096);
    assert_int_equal(read_lines(in_folder("long")), CKPT_OK);
    write_pieces(in_folder("a.zst"), "one\ntwo\n", 8, 8);
    assert_int_equal(file_read_all(in_folder("a.zst"), 100, &packed, &size, &err), CKPT_OK);
    for (size_t cut = 0; cut < size; cut++) {
        make_file(in_folder("a.zst"), packed, cut);
        assert_int_equal(read_lines(in_folder("a.zst")), CKPT_E_FORMAT);
    }
    free(packed);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_what_is_written_is_read_back),
        FOLDER_TEST(test_the_file_does_not_depend_on_how_it_was_cut),
        FOLDER_TEST(test_a_file_appears_whole_or_not_at_all),
        FOLDER_TEST(test_two_writers_of_one_file_do_not_mix),
        FOLDER_TEST(test_a_link_that_lies_in_wait_is_not_followed),
        FOLDER_TEST(test_a_name_as_long_as_can_be_is_written),
        FOLDER_TEST(test_a_full_disk_is_told_at_the_end),
        FOLDER_TEST(test_a_failed_sync_leaves_the_old_file),
        FOLDER_TEST(test_a_folder_that_is_not_there_is_told),
        FOLDER_TEST(test_a_bomb_is_refused_while_it_goes_off),
        FOLDER_TEST(test_the_limit_is_exact),
        FOLDER_TEST(test_every_truncation_is_noticed),
        FOLDER_TEST(test_every_changed_byte_is_noticed),
        FOLDER_TEST(test_compression_is_told_by_content_and_by_name),
        FOLDER_TEST(test_lines_are_read_as_they_were_written),
        FOLDER_TEST(test_lines_that_are_cut_or_endless_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
