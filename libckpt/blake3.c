/* BLAKE3: a binary tree over chunks of 1 KiB, built from left to right. */
#include "blake3.h"

#include <string.h>

enum { CHUNK_BLOCKS = 16, ROUNDS = 7 };
enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

static const uint32_t initial[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
static const unsigned char permutation[16] = { 2, 6, 3, 10, 7, 0, 4, 13,
                                               1, 11, 12, 5, 9, 14, 15, 8 };

/* The input of a compression. The output is a chaining value or, with the flag ROOT, the hash. */
typedef struct {
    uint32_t chain[8];
    unsigned char block[BLAKE3_BLOCK_BYTES];
    uint64_t counter;
    uint32_t block_bytes;
    uint32_t flags;
} node;

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

/* Mix one column or diagonal of the state, v[at[0..3]]. */
static inline void mix(uint32_t v[16], const unsigned char at[4], uint32_t x, uint32_t y)
{
    uint32_t a = v[at[0]];
    uint32_t b = v[at[1]];
    uint32_t c = v[at[2]];
    uint32_t d = v[at[3]];

    a += b + x;
    d = rotate(d ^ a, 16);
    c += d;
    b = rotate(b ^ c, 12);
    a += b + y;
    d = rotate(d ^ a, 8);
    c += d;
    b = rotate(b ^ c, 7);
    v[at[0]] = a;
    v[at[1]] = b;
    v[at[2]] = c;
    v[at[3]] = d;
}

static void compress(const node *n, uint32_t out[8])
{
    static const unsigned char lanes[8][4] = {
        { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 },
        { 0, 5, 10, 15 }, { 1, 6, 11, 12 }, { 2, 7, 8, 13 }, { 3, 4, 9, 14 },
    };
    uint32_t v[16];
    uint32_t m[16];
    uint32_t next[16];

    memcpy(v, n->chain, sizeof n->chain);
    memcpy(v + 8, initial, 4 * sizeof *v);
    v[12] = (uint32_t)n->counter;
    v[13] = (uint32_t)(n->counter >> 32);
    v[14] = n->block_bytes;
    v[15] = n->flags;
    for (int i = 0; i < 16; i++) {
        const unsigned char *p = n->block + 4 * i;

        m[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 8; i++)
            mix(v, lanes[i], m[2 * i], m[2 * i + 1]);
        for (int i = 0; i < 16; i++)
            next[i] = m[permutation[i]];
        memcpy(m, next, sizeof m);
    }
    for (int i = 0; i < 8; i++)
        out[i] = v[i] ^ v[i + 8];
}

static void put_words(const uint32_t words[8], unsigned char out[BLAKE3_OUT_BYTES])
{
    for (int i = 0; i < BLAKE3_OUT_BYTES; i++)
        out[i] = (unsigned char)(words[i / 4] >> 8 * (i % 4));
}

/* The last block of the current chunk. It is not compressed before more input arrives, because the
 * last block of all input needs the flag ROOT. */
static node last_block(const blake3 *h)
{
    node n = { .counter = h->chunk, .block_bytes = h->block_used, .flags = CHUNK_END };

    memcpy(n.chain, h->chain, sizeof n.chain);
    memcpy(n.block, h->block, h->block_used);
    n.flags |= h->block_count == 0 ? CHUNK_START : 0;
    return n;
}

static node parent_of(const uint32_t left[8], const uint32_t right[8])
{
    node n = { .block_bytes = BLAKE3_BLOCK_BYTES, .flags = PARENT };

    memcpy(n.chain, initial, sizeof n.chain);
    put_words(left, n.block);
    put_words(right, n.block + BLAKE3_OUT_BYTES);
    return n;
}

static void begin_chunk(blake3 *h, uint64_t chunk)
{
    memcpy(h->chain, initial, sizeof h->chain);
    h->chunk = chunk;
    h->block_count = 0;
    h->block_used = 0;
}

void blake3_begin(blake3 *h)
{
    memset(h, 0, sizeof *h);
    begin_chunk(h, 0);
}

/* Add a complete chunk to the tree when more bytes follow. The number of trailing zeros in the
 * count of complete chunks is the number of subtrees that are complete now: each is merged with the
 * one before it, its left sibling. */
static void end_chunk(blake3 *h)
{
    const node last = last_block(h);
    uint32_t chain[8];
    const uint64_t complete = h->chunk + 1;

    compress(&last, chain);
    for (uint64_t n = complete; (n & 1) == 0; n >>= 1) {
        const node parent = parent_of(h->stack[--h->stack_count], chain);

        compress(&parent, chain);
    }
    memcpy(h->stack[h->stack_count++], chain, sizeof chain);
    begin_chunk(h, complete);
}

/* The current block is full and more bytes follow: compress it. */
static void end_block(blake3 *h)
{
    node n;

    if (h->block_count + 1 == CHUNK_BLOCKS) {
        end_chunk(h);
        return;
    }
    n = last_block(h);
    n.flags &= ~(uint32_t)CHUNK_END;
    compress(&n, h->chain);
    h->block_count++;
    h->block_used = 0;
}

void blake3_add(blake3 *h, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;

    while (size > 0) {
        size_t take;

        if (h->block_used == BLAKE3_BLOCK_BYTES)
            end_block(h);
        take = BLAKE3_BLOCK_BYTES - h->block_used;
        take = size < take ? size : take;
        memcpy(h->block + h->block_used, at, take);
        h->block_used += (unsigned)take;
        at += take;
        size -= take;
    }
}

void blake3_end(const blake3 *h, unsigned char out[BLAKE3_OUT_BYTES])
{
    node n = last_block(h);
    uint32_t words[8];

    for (unsigned i = h->stack_count; i > 0; i--) {
        compress(&n, words);
        n = parent_of(h->stack[i - 1], words);
    }
    n.flags |= ROOT;
    compress(&n, words);
    put_words(words, out);
}
