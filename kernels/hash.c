/*
 * hash.c: XXH3 128-bit. The build compiles this file once per instruction set with
 * -DKERNELS_ISA=scalar|avx2|avx512 and that set's flags, which choose XXH3's vector code.
 */
#include "internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#ifndef KERNELS_ISA
#define KERNELS_ISA scalar
#endif
#define HASH_PASTE(name, isa) name##_##isa
#define HASH_NAME(name, isa) HASH_PASTE(name, isa)

hash128 HASH_NAME(hash_bytes, KERNELS_ISA)(const void *src, size_t size, uint64_t seed)
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(src, size, seed);
    const hash128 result = { hash.low64, hash.high64 };

    return result;
}
