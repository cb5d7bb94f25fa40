/* test_machine.c: cores and memory that cgroups allow. */
#include "libckpt/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "libckpt/file.h"

static char root[] = "/tmp/ckpt-machine-XXXXXX";

static void put(const char *path, const char *text)
{
    char full[512];
    ckpt_error err;

    snprintf(full, sizeof full, "%s/%s", root, path);
    assert_int_equal(file_make_parents(full, &err), CKPT_OK);
    assert_int_equal(file_write_all(full, text, strlen(text), &err), CKPT_OK);
}

static int setup(void **state)
{
    (void)state;
    memcpy(root + sizeof root - 7, "XXXXXX", 6);
    return mkdtemp(root) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(root, NULL) != CKPT_OK;
}

static void test_without_cgroups_there_is_no_limit(void **state)
{
    (void)state;
    assert_true(machine_cgroup_cores(root) == UINT64_MAX);
    assert_true(machine_cgroup_memory(root) == UINT64_MAX);
}

static void test_a_quota_rounds_up_to_cores(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/job\n");
    put("sys/fs/cgroup/job/cpu.max", "250000 100000\n");
    assert_int_equal(machine_cgroup_cores(root), 3);
    put("sys/fs/cgroup/job/cpu.max", "200000 100000\n");
    assert_int_equal(machine_cgroup_cores(root), 2);
    put("sys/fs/cgroup/job/cpu.max", "1000 100000\n");
    assert_int_equal(machine_cgroup_cores(root), 1);
    put("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    assert_true(machine_cgroup_cores(root) == UINT64_MAX);
}

static void test_the_least_limit_on_the_way_up_counts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/slurm/job/step\n");
    put("sys/fs/cgroup/slurm/job/step/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/slurm/job/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/slurm/cpu.max", "900000 100000\n");
    put("sys/fs/cgroup/slurm/job/memory.max", "max\n");
    put("sys/fs/cgroup/slurm/memory.max", "1073741824\n");
    assert_int_equal(machine_cgroup_cores(root), 4);
    assert_int_equal(machine_cgroup_memory(root), 1 << 30);
}

/* A container sees the path of its host, and its own limits at the mount. */
static void test_a_path_that_is_not_there_is_at_the_mount(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/docker/0123\n");
    put("sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_int_equal(machine_cgroup_cores(root), 1);
}

static void test_version_1_has_a_file_for_each_number(void **state)
{
    (void)state;
    put("proc/self/cgroup", "5:memory:/m\n4:cpuacct:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/\n");
    put("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "4096000\n");
    assert_int_equal(machine_cgroup_cores(root), 2);
    assert_int_equal(machine_cgroup_memory(root), 4096000);
    put("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
    assert_true(machine_cgroup_cores(root) == UINT64_MAX);
}

static void test_this_machine_has_cores_and_memory(void **state)
{
    (void)state;
    assert_in_range(machine_cores(), 1, (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    assert_true(machine_memory_bytes() > (1 << 20) && machine_memory_bytes() < UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_without_cgroups_there_is_no_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_quota_rounds_up_to_cores, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_least_limit_on_the_way_up_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_path_that_is_not_there_is_at_the_mount, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_version_1_has_a_file_for_each_number, setup, teardown),
        cmocka_unit_test(test_this_machine_has_cores_and_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
