/*
 * old_glibc.c: system calls that the GNU C library got wrappers for after 2.17. The portable
 * programs bring their own, so that they start where the library has none. A kernel that lacks the
 * call says ENOSYS, as it would through the library.
 */
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fcntl.h>
#include <stdio.h>

ssize_t getrandom(void *out, size_t size, unsigned flags)               /* glibc 2.25 */
{
    return syscall(SYS_getrandom, out, size, flags);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size,
                        unsigned flags)                                 /* glibc 2.27 */
{
    return syscall(SYS_copy_file_range, in, in_offset, out, out_offset, size, flags);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to,
              unsigned flags)                                           /* glibc 2.28 */
{
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

pid_t gettid(void)                                                      /* glibc 2.30 */
{
    return (pid_t)syscall(SYS_gettid);
}
