/*
 * test_kernels.h: what the kernel tests share: small floats defined by ldexp in double, the
 * instruction sets of this machine, random bits, and buffers that notice a stray write.
 */
#ifndef TEST_KERNELS_H
#define TEST_KERNELS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- small floats ---- */

typedef struct {
    unsigned exponent_bits;
    unsigned mantissa_bits;
    uint32_t last;              /* largest finite magnitude code */
} small_format;

static const small_format FORMAT_E4M3 = { 4, 3, 0x7E };
static const small_format FORMAT_E5M2 = { 5, 2, 0x7B };
static const small_format FORMAT_E2M1 = { 2, 1, 7 };
static const small_format FORMAT_F16 = { 5, 10, 0x7BFF };
static const small_format FORMAT_BF16 = { 8, 7, 0x7F7F };

/* Value of a magnitude code. The code after `last` has the value that would come next. */
static inline double small_value(small_format f, uint32_t code)
{
    const int bias = (1 << (f.exponent_bits - 1)) - 1;
    const int exponent = (int)(code >> f.mantissa_bits);
    const int implicit = 1 << f.mantissa_bits;
    const int mantissa = (int)code & (implicit - 1);

    if (exponent == 0)
        return ldexp(mantissa, 1 - bias - (int)f.mantissa_bits);
    return ldexp(implicit + mantissa, exponent - bias - (int)f.mantissa_bits);
}

/* The nearest code of a finite x >= 0, ties to the even code; `last` + 1 when it overflows. */
static inline uint32_t small_nearest(small_format f, double x)
{
    uint32_t low = 0;
    uint32_t high = f.last + 1;
    double below;
    double above;

    if (x >= small_value(f, high))
        return high;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;

        if (small_value(f, middle) <= x)
            low = middle;
        else
            high = middle;
    }
    below = x - small_value(f, low);
    above = small_value(f, high) - x;
    if (below != above)
        return below < above ? low : high;
    return low % 2 == 0 ? low : high;
}

static inline uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double e4m3_reference(uint32_t code)
{
    const double value = small_value(FORMAT_E4M3, code & 0x7F);

    if ((code & 0x7F) == 0x7F)
        return (double)NAN;
    return (code & 0x80) != 0 ? -value : value;
}

static inline double e2m1_reference(uint32_t code)
{
    static const double magnitudes[8] = { 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0 };

    return (code & 8) != 0 ? -magnitudes[code & 7] : magnitudes[code & 7];
}

static inline double e8m0_reference(uint32_t code)
{
    return code == 255 ? (double)NAN : ldexp(1.0, (int)code - 127);
}

/* BF16 code of an F32 value: nearest, ties to even; NaN is 0x7FC0. */
static inline uint16_t bf16_reference(float value)
{
    const double magnitude = fabs((double)value);
    const uint32_t sign = signbit(value) ? 0x8000u : 0;

    if (isnan(value))
        return 0x7FC0;
    if (isinf(value))
        return (uint16_t)(sign | 0x7F80);
    return (uint16_t)(sign | small_nearest(FORMAT_BF16, magnitude));
}

/* ---- sets, random bits ---- */

/* All instruction sets of this machine, scalar first; returns how many. */
static inline size_t kernel_sets(const ckpt_kernels *sets[3])
{
    static const char *const names[3] = { "scalar", "avx2", "avx512" };
    static int is_told;
    size_t count = 0;

    for (size_t i = 0; i < COUNT(names); i++) {
        const ckpt_kernels *k = kernels_find(names[i]);

        if (k != NULL)
            sets[count++] = k;
        else if (!is_told)
            print_message("not tested: this CPU has no %s kernels\n", names[i]);
    }
    is_told = 1;
    assert_true(count >= 1);
    return count;
}

static inline uint64_t random64(void)
{
    static uint64_t state = 0x9E3779B97F4A7C15u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static inline uint32_t random32(void)
{
    return (uint32_t)(random64() >> 32);
}

static inline void random_fill(void *dst, size_t size)
{
    uint8_t *bytes = dst;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random32();
}

/* A value whose exponent lies `from` .. `to`, random sign and mantissa. */
static inline float random_float(int from, int to)
{
    const uint32_t exponent = (uint32_t)(from + 127) + random32() % (uint32_t)(to - from + 1);

    return float_of((random32() & 0x807FFFFFu) | exponent << 23);
}

/* ---- buffers ---- */

static inline void *buffer_new(size_t size)
{
    void *buffer = malloc(size > 0 ? size : 1);

    assert_non_null(buffer);
    return buffer;
}

enum { GUARD_BYTES = 64, GUARD_FILL = 0xA5 };

/* A destination of `size` bytes at an odd distance from any alignment, guards on both sides. */
typedef struct {
    uint8_t *base;
    uint8_t *dst;
    size_t size;
} guarded;

static inline guarded guarded_new(size_t size, size_t misalign)
{
    const size_t total = GUARD_BYTES + misalign + size + GUARD_BYTES;
    guarded g;

    g.base = buffer_new(total);
    memset(g.base, GUARD_FILL, total);
    g.dst = g.base + GUARD_BYTES + misalign;
    g.size = size;
    return g;
}

/* Fails unless dst equals `expected` and every guard byte is untouched; frees the buffer. */
static inline void guarded_check(guarded g, const void *expected, const char *name)
{
    for (const uint8_t *p = g.base; p < g.dst; p++)
        if (*p != GUARD_FILL)
            fail_msg("%s wrote before its destination", name);
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (g.dst[g.size + i] != GUARD_FILL)
            fail_msg("%s wrote behind its destination of %zu bytes", name, g.size);
    if (g.size > 0 && memcmp(g.dst, expected, g.size) != 0)
        fail_msg("%s gives other bytes than scalar", name);
    free(g.base);
}

/* A copy of `size` bytes at a chosen misalignment, ending where the allocation ends. */
static inline uint8_t *misaligned_copy(const void *src, size_t size, size_t misalign,
                                       uint8_t **base)
{
    *base = buffer_new(size + misalign);
    memcpy(*base + misalign, src, size);
    return *base + misalign;
}

static const size_t odd_lengths[] = { 0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129,
                                      1023, 1024, 1025, 4097 };

#endif
