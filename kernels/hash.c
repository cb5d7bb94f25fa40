/*
 * hash.c: XXH3 128-bit. The build compiles this file once per instruction set with
 * -DKERNELS_ISA=scalar|avx2|avx512 and that set's flags, which choose XXH3's vector code.
 * The digest of integers is here, too: they are always canonical, so it hashes them in place.
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

/* XXH3 needs its state aligned; the caller's hash_stream may have any alignment. */
_Static_assert(sizeof(XXH3_state_t) + HASH_STREAM_ALIGNMENT <= HASH_STREAM_BYTES,
               "a hash_stream holds XXH3's state");

static XXH3_state_t *state_of(const hash_stream *stream)
{
    const uintptr_t at = (uintptr_t)stream->state + HASH_STREAM_ALIGNMENT - 1;

    return (XXH3_state_t *)(at - at % HASH_STREAM_ALIGNMENT);
}

void ISA_NAME(hash_begin)(hash_stream *stream)
{
    XXH3_128bits_reset(state_of(stream));
}

void ISA_NAME(hash_add)(hash_stream *stream, const void *src, size_t size)
{
    XXH3_128bits_update(state_of(stream), src, size);
}

hash128 ISA_NAME(hash_end)(const hash_stream *stream)
{
    const XXH128_hash_t hash = XXH3_128bits_digest(state_of(stream));
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
