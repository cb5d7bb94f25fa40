/*
 * number.h: the scalar functions that the model needs, with the same bits on every machine: they
 * use only additions, multiplications, divisions and square roots of IEEE 754, in a fixed order.
 */
#ifndef RUN_NUMBER_H
#define RUN_NUMBER_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Round to BF16 (nearest even), returned as F32. */
static inline float run_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFFu) < 0x7F800000u)     /* infinities and NaNs are only truncated */
        bits += 0x7FFFu + (bits >> 16 & 1);
    bits &= 0xFFFF0000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

static inline float run_round(float x, int round)
{
    return round ? run_bf16(x) : x;
}

/* e^x with a relative error of about 1e-16; 0 below -708, infinity above 709. */
static inline double run_exp(double x)
{
    static const double inverse[] = { 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                      1.0 / 362880,    1.0 / 40320,    1.0 / 5040,
                                      1.0 / 720,       1.0 / 120,      1.0 / 24,
                                      1.0 / 6,         1.0 / 2,        1.0,
                                      1.0 };
    const double shift = 0x1.8p52;              /* adding it rounds to an integer */
    double n;
    double r;
    double sum = 1.0 / 6227020800;
    uint64_t bits;

    if (!(x > -708))
        return x != x ? x : 0;
    if (x > 709)
        return INFINITY;
    n = (x * 0x1.71547652b82fep0 + shift) - shift;
    r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
    for (int i = 0; i < 13; i++)
        sum = sum * r + inverse[i];
    bits = (uint64_t)((int64_t)n + 1023) << 52;
    memcpy(&n, &bits, sizeof n);
    return sum * n;
}

static inline float run_expf(float x)
{
    return (float)run_exp((double)x);
}

static inline float run_sigmoid(float x)
{
    return (float)(1.0 / (1.0 + run_exp(-(double)x)));
}

/* x for x > 20, else log(1 + e^x). log1p of C libraries may differ in the last bits of F64, but the
 * result is rounded to F32, which hides them. */
static inline float run_softplus(float x)
{
    return x > 20 ? x : (float)log1p(run_exp((double)x));
}

#endif
