/* machine.c: cores and memory that this process may use. */
#include "machine.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "size.h"

enum { PATH_BYTES = 4096, LINE_BYTES = 1024 };

/* Read the first line of a file, without its newline; 0: there is none. */
static int read_line(const char *path, char line[LINE_BYTES])
{
    FILE *file = fopen(path, "re");
    const int is_read = file != NULL && fgets(line, LINE_BYTES, file) != NULL;

    if (file != NULL)
        fclose(file);
    if (is_read)
        line[strcspn(line, "\n")] = '\0';
    return is_read;
}

/* Read one limit of a cgroup from the files in `folder`; UINT64_MAX: none. */
typedef uint64_t read_limit(const char *folder);

static uint64_t limit_of_file(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    char line[LINE_BYTES];
    int64_t number;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path ||
        !read_line(path, line) || sscanf(line, "%" SCNd64, &number) != 1 || number < 0)
        return UINT64_MAX;                   /* "max", -1 */
    return (uint64_t)number;
}

static uint64_t divide_up(uint64_t quota, uint64_t period)
{
    return quota == UINT64_MAX || period == UINT64_MAX || period == 0
               ? UINT64_MAX
               : quota / period + (quota % period != 0);
}

/* "QUOTA PERIOD" */
static uint64_t read_cores_2(const char *folder)
{
    char path[PATH_BYTES];
    char line[LINE_BYTES];
    uint64_t quota;
    uint64_t period;

    if ((size_t)snprintf(path, sizeof path, "%s/cpu.max", folder) >= sizeof path ||
        !read_line(path, line) || sscanf(line, "%" SCNu64 " %" SCNu64, &quota, &period) != 2)
        return UINT64_MAX;
    return divide_up(quota, period);
}

static uint64_t read_cores_1(const char *folder)
{
    return divide_up(limit_of_file(folder, "cpu.cfs_quota_us"),
                     limit_of_file(folder, "cpu.cfs_period_us"));
}

static uint64_t read_memory_2(const char *folder)
{
    return limit_of_file(folder, "memory.max");
}

static uint64_t read_memory_1(const char *folder)
{
    return limit_of_file(folder, "memory.limit_in_bytes");
}

/* The least limit of all folders from `mount``path` up to `mount`. In a container the path may not
 * exist, because its own cgroup is mounted at `mount`: that is read in any case. */
static uint64_t find_least(const char *mount, const char *path, read_limit *read)
{
    char folder[PATH_BYTES];
    const size_t root_bytes = strlen(mount);
    uint64_t limit = UINT64_MAX;

    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, path) >= sizeof folder)
        return UINT64_MAX;
    for (;;) {
        char *slash = strrchr(folder, '/');

        limit = size_min(limit, read(folder));
        if (strlen(folder) <= root_bytes || slash == NULL)
            return limit;
        *slash = '\0';
    }
}

/* 1 when `name` is in a list "a,b,c". */
static int has_controller(const char *list, size_t list_size, const char *name)
{
    const size_t size = strlen(name);

    for (size_t i = 0; i + size <= list_size; i++)
        if (memcmp(list + i, name, size) == 0 && (i == 0 || list[i - 1] == ',') &&
            (i + size == list_size || list[i + size] == ','))
            return 1;
    return 0;
}

typedef struct {
    const char *controller;        /* cgroup version 1: its name */
    read_limit *one;
    read_limit *two;
} limit_kind;

/* A line of /proc/self/cgroup: "NUMBER:CONTROLLERS:PATH"; version 2 has no controllers. */
static uint64_t limit_of_line(const char *root, const char *line, const limit_kind *kind)
{
    const char *list = strchr(line, ':');
    const char *path = list == NULL ? NULL : strchr(list + 1, ':');
    char mount[PATH_BYTES];

    if (path == NULL)
        return UINT64_MAX;
    list++;
    if (path == list) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        return find_least(mount, path + 1, kind->two);
    }
    if (!has_controller(list, (size_t)(path - list), kind->controller))
        return UINT64_MAX;
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, kind->controller);
    return find_least(mount, path + 1, kind->one);
}

static uint64_t cgroup_limit(const char *root, const limit_kind *kind)
{
    char path[PATH_BYTES];
    char line[LINE_BYTES];
    uint64_t limit = UINT64_MAX;
    FILE *file;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if ((file = fopen(path, "re")) == NULL)
        return UINT64_MAX;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        limit = size_min(limit, limit_of_line(root, line, kind));
    }
    fclose(file);
    return limit;
}

uint64_t machine_cgroup_cores(const char *root)
{
    static const limit_kind kind = { "cpu", read_cores_1, read_cores_2 };
    const uint64_t cores = cgroup_limit(root, &kind);

    return cores == 0 ? 1 : cores;
}

uint64_t machine_cgroup_memory(const char *root)
{
    static const limit_kind kind = { "memory", read_memory_1, read_memory_2 };

    return cgroup_limit(root, &kind);
}

unsigned machine_cores(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t cores = online > 0 ? (uint64_t)online : 1;
    cpu_set_t allowed;

    /* Fails on machines with more cores than a cpu_set_t can hold; then only the quota is used. */
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) > 0)
        cores = size_min(cores, (uint64_t)CPU_COUNT(&allowed));
    return (unsigned)size_min(cores, machine_cgroup_cores(""));
}

uint64_t machine_memory_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = UINT64_MAX;

    if (pages > 0 && page_bytes > 0)
        bytes = (uint64_t)pages * (uint64_t)page_bytes;
    return size_min(bytes, machine_cgroup_memory(""));
}
