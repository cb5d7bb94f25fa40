/*
 * machine.h: what of the machine this process may use: cores by affinity and by the CPU quota of
 * its cgroups, memory by their limit. On a node that it shares, a job that starts a thread for
 * every core there is gets slower, and one that uses all memory is killed.
 */
#ifndef CKPT_MACHINE_H
#define CKPT_MACHINE_H

#include <stdint.h>

/* At least 1; a part of a core counts as one. */
unsigned machine_cores(void);
/* Of the machine, or of the cgroup where that is less. */
uint64_t machine_memory_bytes(void);

/* The limits of the cgroups that `root`/proc/self/cgroup tells, with their files below
 * `root`/sys/fs/cgroup. UINT64_MAX: no limit. The root is "" but in tests. */
uint64_t machine_cgroup_cores(const char *root);
uint64_t machine_cgroup_memory(const char *root);

#endif
