/*
 * machine.h: how many cores and how much memory this process may use: cores by its affinity and the
 * CPU quota of its cgroups, memory by their limit. On a shared node, a job with a thread for every
 * core of the machine runs slower, and one that uses all memory is killed.
 */
#ifndef CKPT_MACHINE_H
#define CKPT_MACHINE_H

#include <stdint.h>

/* The number of cores, at least 1; a fraction of a core is rounded up. */
unsigned machine_cores(void);
/* Bytes of memory of the machine, or the limit of the cgroup if that is less. */
uint64_t machine_memory_bytes(void);

/* The limits of the cgroups in `root`/proc/self/cgroup, whose files are below `root`/sys/fs/cgroup.
 * UINT64_MAX: no limit. `root` is "" except in tests. */
uint64_t machine_cgroup_cores(const char *root);
uint64_t machine_cgroup_memory(const char *root);

#endif
