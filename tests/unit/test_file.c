/* test_file.c: files, also on a bad day: short, interrupted and failing transfers. */
#include "libckpt/file.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "file_faults.h"

/* ---- reading and writing ---- */

static void test_what_is_written_is_read_back(void **state)
{
    unsigned char *bytes = pattern(10000);
    unsigned char back[5000];
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    assert_int_equal(file_size(f), 0);
    assert_string_equal(file_path(f), in_folder("a"));
    assert_int_equal(file_write_at(f, 5000, bytes + 5000, 5000, &err), CKPT_OK);
    assert_int_equal(file_write_at(f, 0, bytes, 5000, &err), CKPT_OK);
    assert_int_equal(file_read_at(f, 2500, back, 5000, &err), CKPT_OK);
    assert_memory_equal(back, bytes + 2500, 5000);
    assert_int_equal(file_sync(f, &err), CKPT_OK);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    assert_holds(in_folder("a"), bytes, 10000);
    free(bytes);
}

static void test_short_and_interrupted_transfers_go_on(void **state)
{
    unsigned char *bytes = pattern(1000);
    unsigned char back[1000];
    ckpt_file *f;

    (void)state;
    faults.most_bytes = 7;
    faults.interrupt_every = 3;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    assert_int_equal(file_write_at(f, 3, bytes, 1000, &err), CKPT_OK);
    assert_int_equal(file_read_at(f, 3, back, 1000, &err), CKPT_OK);
    assert_memory_equal(back, bytes, 1000);
    assert_true(faults.call_count > 2 * 1000 / 7);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    free(bytes);
}

static void test_a_file_that_ends_early_is_bad_data(void **state)
{
    unsigned char back[16];
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    assert_int_equal(file_size(f), 10);
    assert_int_equal(file_read_at(f, 4, back, 6, &err), CKPT_OK);
    assert_int_equal(file_read_at(f, 4, back, 7, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "ends 1 bytes early"));
    assert_non_null(strstr(err.text, in_folder("a")));
    assert_int_equal(file_read_at(f, 1000, back, 1, &err), CKPT_E_FORMAT);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_positions_beyond_any_file_are_bad_data(void **state)
{
    unsigned char back[16] = { 0 };
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    assert_int_equal(file_read_at(f, UINT64_MAX, back, 1, &err), CKPT_E_FORMAT);
    assert_int_equal(file_read_at(f, (uint64_t)INT64_MAX, back, 1, &err), CKPT_E_FORMAT);
    assert_int_equal(file_write_at(f, UINT64_MAX - 2, back, 4, &err), CKPT_E_FORMAT);
    assert_int_equal(file_set_size(f, UINT64_MAX, &err), CKPT_E_FORMAT);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_a_read_error_is_the_systems(void **state)
{
    unsigned char back[4];
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    faults.fail_errno = EIO;
    assert_int_equal(file_read_at(f, 0, back, 4, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "Input/output error"));
    assert_non_null(strstr(err.text, in_folder("a")));
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_a_full_disk_is_told(void **state)
{
    const file_rect rect = { 0, 4, 4, 3 };
    unsigned char bytes[64] = { 0 };
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    faults.fail_errno = ENOSPC;
    assert_int_equal(file_write_at(f, 0, bytes, 64, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "/a': No space left on device"));
    memset(&err, 0, sizeof err);
    assert_int_equal(file_write_rect(f, &rect, bytes, 8, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "No space left"));
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_a_disk_that_fills_up_midway_is_told(void **state)
{
    unsigned char bytes[64] = { 0 };
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    faults.most_bytes = 10;
    faults.fail_errno = ENOSPC;
    faults.fail_after = 3;
    assert_int_equal(file_write_at(f, 0, bytes, 64, &err), CKPT_E_IO);
    assert_int_equal(faults.call_count, 4);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_a_failed_sync_is_told(void **state)
{
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    faults.sync_errno = EIO;
    assert_int_equal(file_sync(f, &err), CKPT_E_IO);
    assert_int_equal(file_sync_tree(folder, &err), CKPT_E_IO);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_directories_and_absent_files_do_not_open(void **state)
{
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open(folder, &f, &err), CKPT_E_IO);
    assert_null(f);
    assert_int_equal(file_open(in_folder("absent"), &f, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, in_folder("absent")));
    assert_null(f);
    assert_int_equal(file_open_rw(folder, "absent/b", &f, &err), CKPT_E_IO);
    assert_int_equal(file_close(NULL, &err), CKPT_OK);
}

static void test_opening_for_writing_keeps_what_is_there(void **state)
{
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    assert_int_equal(file_size(f), 10);
    assert_int_equal(file_write_at(f, 2, "xx", 2, &err), CKPT_OK);
    assert_int_equal(file_set_size(f, 12, &err), CKPT_OK);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    assert_holds(in_folder("a"), "01xx456789\0\0", 12);
}

static void test_the_time_of_a_file_is_in_nanoseconds(void **state)
{
    const struct timespec times[2] = { { 5, 6 }, { 1700000000, 123456789 } };
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "x", 1);
    assert_int_equal(utimensat(AT_FDCWD, in_folder("a"), times, 0), 0);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    assert_true(file_identity_of(f)->modified_ns == INT64_C(1700000000123456789));
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

/* ---- rectangles ---- */

typedef struct {
    file_rect rect;
    size_t memory_pitch_bytes;
} rect_case;

/* Gaps of 0, small, at and above the size that is read through; more rows than a batch. */
static const rect_case RECTS[] = {
    { { 0, 64, 64, 100 }, 64 },
    { { 3, 64, 64, 100 }, 80 },
    { { 5, 32, 57, 3000 }, 32 },
    { { 0, 1, 2, 5000 }, 3 },
    { { 100, 8, 8 + 4096, 40 }, 8 },
    { { 100, 8, 8 + 4097, 40 }, 11 },
    { { 0, 5000, 20000, 20 }, 5000 },
    { { 17, 333, 333, 1 }, 333 },
    { { 17, 333, 0, 1 }, 0 },
    { { 7, 16, 16, 2049 }, 17 },
    { { 7, 0, 16, 10 }, 17 },
    { { 7, 16, 16, 0 }, 17 },
};

static size_t file_span(const rect_case *c)
{
    const file_rect *r = &c->rect;

    return r->row_count == 0 ? 0 : (size_t)(r->offset + (r->row_count - 1) * r->pitch_bytes +
                                            r->row_bytes);
}

static size_t memory_span(const rect_case *c)
{
    return (size_t)(c->rect.row_count * c->memory_pitch_bytes + c->rect.row_bytes);
}

static void check_read_rect(const rect_case *c)
{
    const file_rect *r = &c->rect;
    const size_t span = file_span(c);
    const size_t memory_bytes = memory_span(c);
    unsigned char *bytes = pattern(span);
    unsigned char *memory = malloc(memory_bytes + 1);
    unsigned char *expected = malloc(memory_bytes + 1);
    ckpt_file *f;

    /* The file ends with the last row: nothing behind it may be needed. */
    make_file(in_folder("a"), bytes, span);
    memset(memory, 0xee, memory_bytes);
    memset(expected, 0xee, memory_bytes);
    for (size_t i = 0; i < r->row_count; i++)
        memcpy(expected + i * c->memory_pitch_bytes, bytes + r->offset + i * r->pitch_bytes,
               (size_t)r->row_bytes);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    assert_int_equal(file_read_rect(f, r, memory, c->memory_pitch_bytes, &err), CKPT_OK);
    assert_memory_equal(memory, expected, memory_bytes);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    free(bytes);
    free(memory);
    free(expected);
}

static void check_write_rect(const rect_case *c)
{
    const file_rect *r = &c->rect;
    const size_t span = file_span(c);
    unsigned char *memory = pattern(memory_span(c));
    unsigned char *expected = malloc(span + 1);
    ckpt_file *f;

    memset(expected, 0xee, span);
    make_file(in_folder("a"), expected, span);
    for (size_t i = 0; i < r->row_count; i++)
        memcpy(expected + r->offset + i * r->pitch_bytes, memory + i * c->memory_pitch_bytes,
               (size_t)r->row_bytes);
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    assert_int_equal(file_write_rect(f, r, memory, c->memory_pitch_bytes, &err), CKPT_OK);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    assert_holds(in_folder("a"), expected, span);
    free(memory);
    free(expected);
}

static void test_rectangles_read_rows_and_nothing_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof RECTS / sizeof RECTS[0]; i++)
        check_read_rect(&RECTS[i]);
}

static void test_rectangles_write_rows_and_leave_the_gaps(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof RECTS / sizeof RECTS[0]; i++)
        check_write_rect(&RECTS[i]);
}

static void test_rectangles_survive_short_and_interrupted_transfers(void **state)
{
    static const size_t mosts[] = { 1, 13, 64, 5000 };

    (void)state;
    for (size_t k = 0; k < sizeof mosts / sizeof mosts[0]; k++) {
        for (size_t i = 0; i < 4; i++) {
            faults.most_bytes = mosts[k];
            faults.interrupt_every = 5;
            check_read_rect(&RECTS[i]);
            check_write_rect(&RECTS[i]);
        }
    }
}

static void test_a_rectangle_costs_a_call_per_batch_not_per_row(void **state)
{
    const file_rect rect = { 0, 32, 57, 3000 };
    unsigned char *memory = malloc(32 * 3000);
    unsigned char *bytes = pattern(57 * 3000);
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), bytes, 57 * 3000);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    faults.call_count = 0;
    assert_int_equal(file_read_rect(f, &rect, memory, 32, &err), CKPT_OK);
    assert_in_range(faults.call_count, 1, 2 * 3000 / IOV_MAX + 2);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    free(memory);
    free(bytes);
}

static void test_a_rectangle_past_the_end_is_bad_data(void **state)
{
    const file_rect rect = { 0, 4, 8, 10 };
    unsigned char memory[64];
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    assert_int_equal(file_read_rect(f, &rect, memory, 4, &err), CKPT_E_FORMAT);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

static void test_impossible_rectangles_are_refused(void **state)
{
    static const rect_case bad[] = {
        { { 0, 16, 8, 2 }, 16 },                        /* rows overlap in the file */
        { { 0, 16, 16, 2 }, 8 },                        /* or in memory */
        { { UINT64_MAX, 1, 1, 1 }, 1 },
        { { 0, 1, UINT64_MAX, 3 }, 1 },
        { { 0, 8, 8, UINT64_MAX }, 8 },
        { { 0, UINT64_MAX, UINT64_MAX, 1 }, 1 },
        { { 0, 1, (uint64_t)1 << 62, 3 }, 1 },
    };
    unsigned char memory[64] = { 0 };
    ckpt_file *f;

    (void)state;
    assert_int_equal(file_open_rw(folder, "a", &f, &err), CKPT_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(file_read_rect(f, &bad[i].rect, memory, bad[i].memory_pitch_bytes, &err),
                         CKPT_E_FORMAT);
        assert_int_equal(file_write_rect(f, &bad[i].rect, memory, bad[i].memory_pitch_bytes,
                                         &err), CKPT_E_FORMAT);
    }
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

/* ---- whole files ---- */

static void test_reading_a_whole_file_respects_the_limit(void **state)
{
    char *bytes;
    size_t size;

    (void)state;
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(file_read_all(in_folder("a"), 9, &bytes, &size, &err), CKPT_E_FORMAT);
    assert_null(bytes);
    assert_int_equal(file_read_all(in_folder("a"), 10, &bytes, &size, &err), CKPT_OK);
    assert_string_equal(bytes, "0123456789");
    free(bytes);
    assert_int_equal(file_read_all(folder, 100, &bytes, &size, &err), CKPT_E_IO);
    assert_int_equal(file_read_all(in_folder("absent"), 10, &bytes, &size, &err), CKPT_E_IO);
}

static void test_a_file_without_a_size_is_read_to_its_end_or_the_limit(void **state)
{
    char *bytes;
    size_t size;

    (void)state;
    assert_int_equal(file_read_all("/proc/self/status", 1 << 20, &bytes, &size, &err), CKPT_OK);
    assert_true(size > 0);
    free(bytes);
    assert_int_equal(file_read_named("/dev/zero", 200000, &bytes, &size, &err), CKPT_E_FORMAT);
    assert_null(bytes);
}

static void make_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void test_what_is_found_is_a_file_or_refused_at_once(void **state)
{
    static const char *const kinds[] = { "pipe", "socket", "device", "directory" };
    ckpt_file *f;
    char *bytes;
    size_t size;
    int fd;

    (void)state;
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    make_socket(in_folder("socket"));
    assert_int_equal(symlink("/dev/zero", in_folder("device")), 0);
    assert_int_equal(mkdir(in_folder("directory"), 0700), 0);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char words[64];

        snprintf(words, sizeof words, "expected a file, got a %s%s", i == 0 ? "named " : "",
                 kinds[i]);
        assert_int_equal(file_open_fd(in_folder(kinds[i]), O_RDONLY, &fd, &err), CKPT_E_IO);
        assert_non_null(strstr(err.text, words));
        assert_int_equal(file_read_all(in_folder(kinds[i]), 10, &bytes, &size, &err), CKPT_E_IO);
        assert_non_null(strstr(err.text, words));
        assert_int_equal(file_open(in_folder(kinds[i]), &f, &err), CKPT_E_IO);
        assert_non_null(strstr(err.text, words));
    }
    make_file(in_folder("a"), "0123456789", 10);
    assert_int_equal(symlink("a", in_folder("link")), 0);
    assert_int_equal(file_open_fd(in_folder("link"), O_RDONLY, &fd, &err), CKPT_OK);
    close(fd);
}

static void test_a_written_file_replaces_the_old_one(void **state)
{
    (void)state;
    make_file(in_folder("a"), "a long text", 11);
    make_file(in_folder("a"), "short", 5);
    assert_holds(in_folder("a"), "short", 5);
    make_file(in_folder("a"), "", 0);
    assert_holds(in_folder("a"), "", 0);
}

static void test_a_failed_write_leaves_the_old_file_and_no_other(void **state)
{
    (void)state;
    make_file(in_folder("a"), "old", 3);
    faults.fail_errno = ENOSPC;
    assert_int_equal(file_write_all(in_folder("a"), "new", 3, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "No space left"));
    faults.fail_errno = 0;
    faults.sync_errno = EIO;
    assert_int_equal(file_write_all(in_folder("a"), "new", 3, &err), CKPT_E_IO);
    faults.sync_errno = 0;
    assert_holds(in_folder("a"), "old", 3);
    assert_int_equal(count_names(), 1);
}

static void test_a_new_file_is_not_what_is_there_or_behind_a_link(void **state)
{
    ckpt_file *f;

    (void)state;
    make_file(in_folder("a"), "old", 3);
    assert_int_equal(symlink("absent", in_folder("link")), 0);
    assert_int_equal(file_open_new(in_folder("a"), &f, &err), CKPT_E_IO);
    assert_int_equal(file_open_new(in_folder("link"), &f, &err), CKPT_E_IO);
    assert_false(file_exists(in_folder("absent")));
    assert_holds(in_folder("a"), "old", 3);
}

static void test_only_a_regular_file_is_replaced(void **state)
{
    (void)state;
    make_file(in_folder("a"), "old", 3);
    assert_int_equal(symlink("a", in_folder("link")), 0);
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(file_check_place(in_folder("a"), &err), CKPT_OK);
    assert_int_equal(file_check_place(in_folder("new"), &err), CKPT_OK);
    assert_int_equal(file_check_place(in_folder("link"), &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "expected a file, got a link"));
    assert_int_equal(file_check_place(in_folder("pipe"), &err), CKPT_E_USAGE);
    assert_int_equal(file_check_place("/dev/null", &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "expected a file, got a device"));
    assert_int_equal(file_check_place(folder, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "expected a file, got a directory"));
}

static void test_a_copy_has_the_same_bytes_by_every_way(void **state)
{
    static const int ways[] = { 0, EXDEV, EINVAL, ENOSYS, EOPNOTSUPP };
    const size_t size = ((size_t)3 << 20) + 11;
    unsigned char *bytes = pattern(size);

    (void)state;
    make_file(in_folder("a"), bytes, size);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        faults.kernel_copy_errno = ways[i];
        faults.most_bytes = 1000003;
        assert_int_equal(file_copy(in_folder("a"), in_folder("b"), &err), CKPT_OK);
        assert_holds(in_folder("b"), bytes, size);
    }
    free(bytes);
}

static void test_a_file_is_not_copied_onto_itself(void **state)
{
    (void)state;
    make_file(in_folder("a"), "text", 4);
    assert_int_equal(symlink("a", in_folder("link")), 0);
    assert_int_equal(file_copy(in_folder("a"), in_folder("a"), &err), CKPT_E_USAGE);
    assert_int_equal(file_copy(in_folder("a"), in_folder("link"), &err), CKPT_E_USAGE);
    assert_holds(in_folder("a"), "text", 4);
}

static void test_a_copy_to_a_full_disk_is_told(void **state)
{
    (void)state;
    make_file(in_folder("a"), "text", 4);
    assert_int_equal(file_copy(in_folder("a"), "/dev/full", &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "No space left"));
    assert_true(file_exists("/dev/full"));
    assert_int_equal(file_copy(folder, in_folder("b"), &err), CKPT_E_IO);
    assert_int_equal(file_copy(in_folder("absent"), in_folder("b"), &err), CKPT_E_IO);
    assert_false(file_exists(in_folder("b")));
}

/* ---- what is written lands below the folder ---- */

static void test_nothing_is_written_through_a_link(void **state)
{
    ckpt_file *f = NULL;

    (void)state;
    make_file(in_folder("outside"), "theirs", 6);
    make_file(in_folder("in/x/a"), "1", 1);
    assert_int_equal(symlink("../outside", in_folder("in/link")), 0);
    assert_int_equal(symlink("..", in_folder("in/up")), 0);
    assert_int_equal(symlink("in", in_folder("alias")), 0);
    assert_int_equal(link(in_folder("outside"), in_folder("in/twin")), 0);
    assert_int_equal(file_open_rw(in_folder("in"), "link", &f, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "link"));
    assert_int_equal(file_open_rw(in_folder("in"), "up/outside", &f, &err), CKPT_E_IO);
    assert_int_equal(file_open_rw(in_folder("in"), "up/new", &f, &err), CKPT_E_IO);
    assert_int_equal(file_open_rw(in_folder("in"), "twin", &f, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "2 names"));
    assert_int_equal(file_open_rw(in_folder("alias"), "x/a", &f, &err), CKPT_E_IO);
    assert_int_equal(file_make_parents_below(in_folder("in"), "up/x/y", &err), CKPT_E_IO);
    assert_int_equal(file_make_parents_below(in_folder("in"), "x/y/z", &err), CKPT_OK);
    assert_int_equal(file_open_rw(in_folder("in"), "x/a", &f, &err), CKPT_OK);
    assert_int_equal(file_close(f, &err), CKPT_OK);
    assert_holds(in_folder("outside"), "theirs", 6);
}

static void test_a_copy_replaces_a_link_and_leaves_what_it_leads_to(void **state)
{
    (void)state;
    make_file(in_folder("from"), "new", 3);
    make_file(in_folder("theirs"), "old", 3);
    assert_int_equal(symlink("theirs", in_folder("link")), 0);
    assert_int_equal(link(in_folder("theirs"), in_folder("twin")), 0);
    assert_int_equal(file_copy(in_folder("from"), in_folder("link"), &err), CKPT_OK);
    assert_int_equal(file_copy(in_folder("from"), in_folder("twin"), &err), CKPT_OK);
    assert_holds(in_folder("theirs"), "old", 3);
    assert_holds(in_folder("link"), "new", 3);
    assert_holds(in_folder("twin"), "new", 3);
}

static void test_a_time_that_is_put_back_still_tells(void **state)
{
    struct stat before;
    struct timespec times[2];
    int is_touched = 0;
    ckpt_file *f;
    ckpt_file *writer;

    (void)state;
    make_file(in_folder("a"), "1", 1);
    assert_int_equal(stat(in_folder("a"), &before), 0);
    assert_int_equal(file_open(in_folder("a"), &f, &err), CKPT_OK);
    assert_int_equal(file_check_unchanged(f, &is_touched, &err), CKPT_OK);
    assert_int_equal(is_touched, 0);
    do {                                       /* until the clock of the file system has moved */
        struct stat now;

        assert_int_equal(file_open_rw(folder, "a", &writer, &err), CKPT_OK);
        assert_int_equal(file_write_at(writer, 0, "2", 1, &err), CKPT_OK);
        assert_int_equal(file_close(writer, &err), CKPT_OK);
        times[0] = before.st_atim;
        times[1] = before.st_mtim;
        assert_int_equal(utimensat(AT_FDCWD, in_folder("a"), times, 0), 0);
        assert_int_equal(stat(in_folder("a"), &now), 0);
        is_touched = now.st_ctim.tv_nsec != before.st_ctim.tv_nsec;
    } while (!is_touched);
    is_touched = 0;
    assert_int_equal(file_check_unchanged(f, &is_touched, &err), CKPT_OK);
    assert_int_equal(is_touched, 1);
    assert_int_equal(file_close(f, &err), CKPT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(test_nothing_is_written_through_a_link),
        FOLDER_TEST(test_a_copy_replaces_a_link_and_leaves_what_it_leads_to),
        FOLDER_TEST(test_a_time_that_is_put_back_still_tells),
        FOLDER_TEST(test_what_is_written_is_read_back),
        FOLDER_TEST(test_short_and_interrupted_transfers_go_on),
        FOLDER_TEST(test_a_file_that_ends_early_is_bad_data),
        FOLDER_TEST(test_positions_beyond_any_file_are_bad_data),
        FOLDER_TEST(test_a_read_error_is_the_systems),
        FOLDER_TEST(test_a_full_disk_is_told),
        FOLDER_TEST(test_a_disk_that_fills_up_midway_is_told),
        FOLDER_TEST(test_a_failed_sync_is_told),
        FOLDER_TEST(test_directories_and_absent_files_do_not_open),
        FOLDER_TEST(test_opening_for_writing_keeps_what_is_there),
        FOLDER_TEST(test_the_time_of_a_file_is_in_nanoseconds),
        FOLDER_TEST(test_rectangles_read_rows_and_nothing_else),
        FOLDER_TEST(test_rectangles_write_rows_and_leave_the_gaps),
        FOLDER_TEST(test_rectangles_survive_short_and_interrupted_transfers),
        FOLDER_TEST(test_a_rectangle_costs_a_call_per_batch_not_per_row),
        FOLDER_TEST(test_a_rectangle_past_the_end_is_bad_data),
        FOLDER_TEST(test_impossible_rectangles_are_refused),
        FOLDER_TEST(test_reading_a_whole_file_respects_the_limit),
        FOLDER_TEST(test_a_file_without_a_size_is_read_to_its_end_or_the_limit),
        FOLDER_TEST(test_what_is_found_is_a_file_or_refused_at_once),
        FOLDER_TEST(test_a_written_file_replaces_the_old_one),
        FOLDER_TEST(test_a_failed_write_leaves_the_old_file_and_no_other),
        FOLDER_TEST(test_a_new_file_is_not_what_is_there_or_behind_a_link),
        FOLDER_TEST(test_only_a_regular_file_is_replaced),
        FOLDER_TEST(test_a_copy_has_the_same_bytes_by_every_way),
        FOLDER_TEST(test_a_file_is_not_copied_onto_itself),
        FOLDER_TEST(test_a_copy_to_a_full_disk_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
