/*
 * dispatch.c: chooses the instruction set. All sets return the same bits, so the choice never
 * changes a result.
 */
#include <stdlib.h>

#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* __builtin_cpu_supports also asks XGETBV whether the OS saves the registers. */
static int avx2_usable(void)
{
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;

    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi2"))
        return 0;
    /* clang 14 does not know the name "f16c"; its registers are AVX's, checked above. */
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

static int avx512_usable(void)
{
    return avx2_usable() &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2");
}
#endif

typedef enum { LEVEL_UNKNOWN, LEVEL_SCALAR, LEVEL_AVX2, LEVEL_AVX512 } level;

/* The best set of this CPU. Cached, because CPUID traps in a virtual machine. Threads that race for
 * the first call store the same value. */
static level cpu_level(void)
{
    static _Atomic level known = LEVEL_UNKNOWN;

    if (known == LEVEL_UNKNOWN) {
#if defined(__x86_64__)
        known = avx512_usable() ? LEVEL_AVX512 : avx2_usable() ? LEVEL_AVX2 : LEVEL_SCALAR;
#else
        known = LEVEL_SCALAR;
#endif
    }
    return known;
}

const ckpt_kernels *kernels_get(void)
{
    static const char *const names[] = { NULL, "scalar", "avx2", "avx512" };
    const char *forced = getenv("CKPT_KERNELS");

    if (forced != NULL && forced[0] != '\0')
        return kernels_find(forced);
    return kernels_find(names[cpu_level()]);
}

const ckpt_kernels *kernels_find(const char *name)
{
    if (strcmp(name, "scalar") == 0)
        return &kernels_scalar;
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0 && cpu_level() >= LEVEL_AVX2)
        return &kernels_avx2;
    if (strcmp(name, "avx512") == 0 && cpu_level() >= LEVEL_AVX512)
        return &kernels_avx512;
#endif
    return NULL;
}
