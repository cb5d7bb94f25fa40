/*
 * no_memory.c: an LD_PRELOAD library that lets one allocation fail.
 *
 * CKPT_NO_MEMORY=N: the Nth call of malloc, calloc or realloc from the program's own code, in
 * whichever thread, returns NULL with ENOMEM. 0, or more than there are: none does. Calls from
 * libraries work: glibc's fts_open and OpenSSL's start are known to crash without memory. So do
 * those before main: the CUDA runtime, which is linked into the program, crashes there without.
 * CKPT_NO_MEMORY_LEAST=BYTES: smaller allocations work, and are not counted.
 * CKPT_NO_MEMORY_LOG: at its end the process writes to this file how many allocations there were.
 *
 * Not for builds with a sanitizer, which has an allocator of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The C library's own, under the names that it exports them by. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

#define EXPORT __attribute__((visibility("default")))

static atomic_ulong seen;
static unsigned long fails_at;
static size_t least_bytes;
static int is_given;
static atomic_int counts;
static uintptr_t code_begin;         /* of the program */
static uintptr_t code_end;

static int fails(const void *caller, size_t size)
{
    const uintptr_t at = (uintptr_t)caller;

    if (!counts || size < least_bytes || at < code_begin || at >= code_end || ++seen != fails_at)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0), size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0), count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0), size) ? NULL : __libc_realloc(old, size);
}

/* The first object is the program. */
static int take_program(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];

        if (part->p_type != PT_LOAD || (part->p_flags & PF_X) == 0)
            continue;
        code_begin = info->dlpi_addr + part->p_vaddr;
        code_end = code_begin + part->p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("CKPT_NO_MEMORY");
    const char *least = getenv("CKPT_NO_MEMORY_LEAST");

    if (text == NULL)
        return;
    least_bytes = least == NULL ? 0 : strtoul(least, NULL, 10);
    fails_at = strtoul(text, NULL, 10);
    is_given = 1;
    dl_iterate_phdr(take_program, NULL);
}

typedef int main_fn(int argc, char **argv, char **env);
typedef int start_fn(main_fn *run, int argc, char **argv, void (*init)(void), void (*fini)(void),
                     void (*loader_fini)(void), void *stack_end);

start_fn __libc_start_main;

static main_fn *program;

static int counted_main(int argc, char **argv, char **env)
{
    counts = is_given;
    return program(argc, argv, env);
}

/* What the C library's start-up code calls, with the program's main. */
EXPORT int __libc_start_main(main_fn *run, int argc, char **argv, void (*init)(void),
                             void (*fini)(void), void (*loader_fini)(void), void *stack_end)
{
    start_fn *const start = (start_fn *)dlsym(RTLD_NEXT, "__libc_start_main");

    program = run;
    return start(counted_main, argc, argv, init, fini, loader_fini, stack_end);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("CKPT_NO_MEMORY_LOG");
    char line[32];
    int fd;

    counts = 0;
    if (path == NULL || (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666)) < 0)
        return;
    snprintf(line, sizeof line, "%lu\n", (unsigned long)seen);
    if (write(fd, line, strlen(line)) < 0)
        _exit(99);
    close(fd);
}
