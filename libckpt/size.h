/* size.h: arithmetic on sizes from untrusted files. These functions return 0 on overflow. */
#ifndef CKPT_SIZE_H
#define CKPT_SIZE_H

#include <stdint.h>

static inline int size_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline int size_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* a / b rounded up; b > 0. Cannot overflow. */
static inline uint64_t size_div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static inline uint64_t size_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t size_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
