/* temporary.h: bytes as a file that is open and has no name any more. */
#ifndef CKPT_TESTS_TEMPORARY_H
#define CKPT_TESTS_TEMPORARY_H

#include <stdlib.h>
#include <unistd.h>

#include "libckpt/file.h"

/* The bytes begin at `offset`, behind zeros. */
static inline ckpt_file *temporary_file(const void *bytes, size_t size, uint64_t offset)
{
    char path[] = "/tmp/ckpt-test-XXXXXX";
    const int fd = mkstemp(path);
    ckpt_file *file;
    ckpt_error err;

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, (off_t)offset), size);
    close(fd);
    assert_int_equal(file_open(path, &file, &err), CKPT_OK);
    assert_int_equal(unlink(path), 0);
    return file;
}

#endif
