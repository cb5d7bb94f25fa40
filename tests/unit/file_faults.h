/*
 * file_faults.h: a folder for each test, and file calls that fail on request.
 *
 * Include it in one file of a program: it defines pread and its kin in place of the C library's.
 * They can be told to be short, interrupted, or to fail.
 */
#ifndef CKPT_TESTS_FILE_FAULTS_H
#define CKPT_TESTS_FILE_FAULTS_H

#include "libckpt/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

/* A stand-in for a function of the C library. */
#define EXPORT __attribute__((visibility("default")))

/* ---- faults ---- */

static struct {
    size_t most_bytes;       /* of one transfer; 0: no limit */
    int interrupt_every;     /* 3: every third call is interrupted; 0: none */
    int fail_errno;          /* every transfer fails with this, once `fail_after` are done */
    int fail_after;
    int sync_errno;
    int kernel_copy_errno;
    int call_count;
} faults;

/* -1 with errno set when this call has to fail. */
static inline int fault(void)
{
    const int call = __atomic_fetch_add(&faults.call_count, 1, __ATOMIC_RELAXED);

    if (faults.interrupt_every > 0 && call % faults.interrupt_every == 0) {
        errno = EINTR;
        return -1;
    }
    if (faults.fail_errno != 0 && call >= faults.fail_after) {
        errno = faults.fail_errno;
        return -1;
    }
    return 0;
}

static inline size_t shortened(size_t size)
{
    return faults.most_bytes > 0 && size > faults.most_bytes ? faults.most_bytes : size;
}

EXPORT ssize_t pread(int fd, void *out, size_t size, off_t offset)
{
    return fault() ? -1 : (ssize_t)syscall(SYS_pread64, fd, out, shortened(size), offset);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return fault() ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, data, shortened(size), offset);
}

/* A short vector: the first pieces, the last of them cut. */
static inline ssize_t vector(long call, int fd, const struct iovec *pieces, int count, off_t offset)
{
    struct iovec cut[IOV_MAX];
    size_t left = faults.most_bytes > 0 ? faults.most_bytes : SIZE_MAX;
    int cut_count = 0;

    if (fault())
        return -1;
    assert_in_range(count, 1, IOV_MAX);
    while (cut_count < count && left > 0) {
        cut[cut_count] = pieces[cut_count];
        if (cut[cut_count].iov_len > left)
            cut[cut_count].iov_len = left;
        left -= cut[cut_count].iov_len;
        cut_count++;
    }
    return syscall(call, fd, cut, cut_count, offset, 0L);
}

EXPORT ssize_t preadv(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return vector(SYS_preadv, fd, pieces, count, offset);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
    return vector(SYS_pwritev, fd, pieces, count, offset);
}

EXPORT int fsync(int fd)
{
    if (faults.sync_errno != 0) {
        errno = faults.sync_errno;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

EXPORT ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset,
                               size_t size, unsigned flags)
{
    if (faults.kernel_copy_errno != 0) {
        errno = faults.kernel_copy_errno;
        return -1;
    }
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, shortened(size), flags);
}

/* ---- a folder for each test ---- */

static char folder[64];
static ckpt_error err;

static inline int set_up(void **state)
{
    (void)state;
    memset(&faults, 0, sizeof faults);
    memset(&err, 0, sizeof err);
    snprintf(folder, sizeof folder, "/tmp/ckpt-file-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static inline int tear_down(void **state)
{
    (void)state;
    memset(&faults, 0, sizeof faults);
    return file_remove_tree(folder, NULL) != CKPT_OK || file_exists(folder);
}

/* Path in the test's folder, good until the eighth call after. */
static inline const char *in_folder(const char *name)
{
    static char paths[8][sizeof folder + NAME_MAX + 2];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* How many names there are in a folder, hidden ones included. */
static inline size_t count_entries(const char *path)
{
    DIR *directory = opendir(path);
    size_t count = 0;

    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count - 2;       /* "." and ".." */
}

/* In the test's folder. */
static inline size_t count_names(void)
{
    return count_entries(folder);
}

static inline unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 2654435761U >> 13);
}

static inline unsigned char *pattern(size_t size)
{
    unsigned char *bytes = malloc(size + 1);

    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(i);
    return bytes;
}

static inline void make_file(const char *path, const void *data, size_t size)
{
    assert_int_equal(file_make_parents(path, &err), CKPT_OK);
    assert_int_equal(file_write_all(path, data, size, &err), CKPT_OK);
}

static inline void assert_holds(const char *path, const void *data, size_t size)
{
    char *bytes;
    size_t got;

    assert_int_equal(file_read_all(path, UINT64_MAX, &bytes, &got, &err), CKPT_OK);
    assert_int_equal(got, size);
    assert_memory_equal(bytes, data, size);
    assert_int_equal(bytes[size], 0);
    free(bytes);
}

#define FOLDER_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

#endif
