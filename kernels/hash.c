/*
 * hash.c: XXH3 128-bit. The build compiles this file once per instruction set with
 * -DKERNELS_ISA=scalar|avx2|avx512 and that set's flags, which choose XXH3's vector code.
 * Integers have one canonical form, so their digest is here, hashing in place.
 */
#include "internal.h"
#include "isa.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

hash128 ISA_NAME(hash_bytes)(const void *src, size_t size, uint64_t seed)
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(src, size, seed);
    const hash128 result = { hash.low64, hash.high64 };

    return result;
}

void ISA_NAME(digest_row_i64)(const int64_t *src, size_t cols, uint64_t first_unit,
                                            hash128 *sum)
{
    const unsigned char *bytes = (const unsigned char *)src;

    for (size_t begin = 0; begin < cols; begin += HASH_UNIT_COLUMNS) {
        const size_t count = size_min(cols - begin, HASH_UNIT_COLUMNS);

        hash128_add(sum, ISA_NAME(hash_bytes)(
            bytes + begin * sizeof *src, count * sizeof *src,
            first_unit + begin / HASH_UNIT_COLUMNS));
    }
}
