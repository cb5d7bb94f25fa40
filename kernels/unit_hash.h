/*
 * unit_hash.h: XXH3 128-bit of a whole unit, 2048 bytes, for the vector sets that unroll it. Not
 * for files outside kernels/.
 *
 * https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, "XXH3 algorithm (for large
 * inputs)": two blocks of 16 stripes with a scramble between them; the last stripe has a key of its
 * own. Even lanes of the secret have the seed added, odd ones subtracted.
 */
#ifndef CKPT_KERNELS_UNIT_HASH_H
#define CKPT_KERNELS_UNIT_HASH_H

#include "internal.h"

#define XXH_PRIME32_1 0x9E3779B1u
#define XXH_PRIME32_2 0x85EBCA77u
#define XXH_PRIME32_3 0xC2B2AE3Du
#define XXH_PRIME64_1 0x9E3779B185EBCA87u
#define XXH_PRIME64_2 0xC2B2AE3D27D4EB4Fu
#define XXH_PRIME64_3 0x165667B19E3779F9u
#define XXH_PRIME64_4 0x85EBCA77C2B2AE63u
#define XXH_PRIME64_5 0x27D4EB2F165667C5u
#define XXH_PRIME_MX1 0x165667919E3779F9u

enum {
    UNIT_BYTES = HASH_UNIT_COLUMNS * 2,
    SECRET_WORDS = 24,
    SECRET_BYTES = 8 * SECRET_WORDS,
    BLOCK_STRIPES = (SECRET_BYTES - 64) / 8,
    BLOCK_PAIRS = BLOCK_STRIPES / 2,
    LAST_KEY = SECRET_BYTES - 64 - 7,   /* offsets in the secret of these keys */
    LOW_KEY = 11,
    HIGH_KEY = SECRET_BYTES - 64 - 11
};

#define UNIT_LOW_START (UNIT_BYTES * XXH_PRIME64_1)
#define UNIT_HIGH_START (~(UNIT_BYTES * XXH_PRIME64_2))

/* The default secret as little-endian words. */
static const uint64_t secret_words[SECRET_WORDS] = {
    0xBE4BA423396CFEB8, 0x1CAD21F72C81017C, 0xDB979083E96DD4DE, 0x1F67B3B7A4A44072,
    0x78E5C0CC4EE679CB, 0x2172FFCC7DD05A82, 0x8E2443F7744608B8, 0x4C263A81E69035E0,
    0xCB00C391BB52283C, 0xA32E531B8B65D088, 0x4EF90DA297486471, 0xD8ACDEA946EF1938,
    0x3F349CE33F76FAA8, 0x1D4F0BC7C7BBDCF9, 0x3159B4CD4BE0518A, 0x647378D9C97E9FC8,
    0xC3EBD33483ACC5EA, 0xEB6313FAFFA081C5, 0x49DAF0B751DD0D17, 0x9E68D429265516D3,
    0xFCA1477D58BE162B, 0xCE31D07AD1B8F88F, 0x280416958F3ACB45, 0x7E404BBBCAFBD7AF
};

/* The accumulators at first. */
static const uint64_t unit_begin[8] = { XXH_PRIME32_3, XXH_PRIME64_1, XXH_PRIME64_2, XXH_PRIME64_3,
                                        XXH_PRIME64_4, XXH_PRIME32_2, XXH_PRIME64_5,
                                        XXH_PRIME32_1 };

static inline uint64_t unit_fold(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Half of the hash, of accumulators that have been mixed with their key. */
static inline uint64_t unit_merge(const uint64_t lane[8], uint64_t start)
{
    uint64_t hash = start;

    for (int i = 0; i < 8; i += 2)
        hash += unit_fold(lane[i], lane[i + 1]);
    hash ^= hash >> 37;
    hash *= XXH_PRIME_MX1;
    return hash ^ hash >> 32;
}

#endif
