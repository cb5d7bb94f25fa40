/* mix.h: the step of hashes and random words. */
#ifndef CKPT_MIX_H
#define CKPT_MIX_H

#include <stdint.h>

/* The whole 128-bit product, folded into 64 bits. */
static inline uint64_t mix_words(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
