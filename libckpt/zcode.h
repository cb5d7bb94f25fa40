/*
 * zcode.h: the two entropy codes of zstd (RFC 8878, section 4), for writers of blocks: FSE for
 * small numbers, Huffman for bytes. Encoding only; every buffer is the caller's.
 */
#ifndef CKPT_ZCODE_H
#define CKPT_ZCODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- bits, which the decoder reads from the last to the first ---- */

typedef struct {
    unsigned char *at;
    uint64_t bits;
    unsigned count;                 /* of `bits`, less than 8 after a flush */
} zbits;

enum { ZBITS_SLACK_BYTES = 8 };     /* written behind the end */

/* All of it is inline, so that a writer's bits stay in registers between its bytes. */
static inline zbits zbits_begin(unsigned char *to)
{
    return (zbits){ to, 0, 0 };
}
/* At most 56 bits between two flushes. `value` has no other bits. */
static inline void zbits_add(zbits *b, uint64_t value, unsigned count)
{
    b->bits |= value << b->count;
    b->count += count;
}
static inline void zbits_flush(zbits *b)
{
    const unsigned whole = b->count / 8;

    memcpy(b->at, &b->bits, sizeof b->bits);
    b->at += whole;
    b->bits >>= 8 * whole;
    b->count -= 8 * whole;
}
/* Add the mark of the end; the first byte behind. */
static inline unsigned char *zbits_end(zbits *b)
{
    zbits_add(b, 1, 1);
    zbits_flush(b);
    return b->at + (b->count > 0);
}

/* ---- FSE ---- */

enum { ZFSE_LOG_MAX = 9, ZFSE_SYMBOLS_MAX = 53 };

typedef struct {
    unsigned log;
    uint16_t next[1 << ZFSE_LOG_MAX];
    struct {
        uint32_t bits;              /* with the state, 16 bits up: how many to write */
        int32_t find;
    } symbols[ZFSE_SYMBOLS_MAX];
} zfse;

/* Make the code for numbers that occur so often; at least two of them do, and all together less
 * than 2^22 times. Its description is
 * written to `to`, which has room for 2 * symbol_count + 8 bytes; returned is the byte behind. */
unsigned char *zfse_make(zfse *f, const uint32_t *counts, unsigned symbol_count, unsigned log_max,
                         unsigned char *to);
/* A code that the decoder knows: its shares of 1 << log, or ZFSE_LESS_THAN_ONE. */
enum { ZFSE_LESS_THAN_ONE = -1 };
void zfse_take(zfse *f, const short *shares, unsigned symbol_count, unsigned log);
/* What numbers that occur so often take on average, in parts of a bit. */
enum { ZFSE_COST_BIT = 1 << 8 };
uint64_t zfse_cost(const zfse *f, const uint32_t *counts, unsigned symbol_count);
/* The state for the last symbol, which is the first to be encoded. */
unsigned zfse_begin(const zfse *f, unsigned symbol);
static inline unsigned zfse_add(const zfse *f, unsigned state, unsigned symbol, zbits *b)
{
    const unsigned count = (state + f->symbols[symbol].bits) >> 16;

    zbits_add(b, state & ((1u << count) - 1), count);
    return f->next[(int32_t)(state >> count) + f->symbols[symbol].find];
}
static inline void zfse_end(const zfse *f, unsigned state, zbits *b)
{
    zbits_add(b, state & ((1u << f->log) - 1), f->log);
}

/* ---- Huffman ---- */

enum { ZHUFFMAN_BITS_MAX = 11, ZHUFFMAN_TREE_BYTES = 160 };

typedef struct {
    uint16_t code[256];
    uint8_t bits[256];              /* 0: the byte does not occur */
    unsigned used_count;
    uint8_t used[256];              /* the bytes that occur, in order */
} zhuffman;

/* Make the code for bytes that occur so often; at least two of them do. */
void zhuffman_make(zhuffman *h, const uint32_t counts[256]);
/* Its description, to ZHUFFMAN_TREE_BYTES; NULL if it has none. */
unsigned char *zhuffman_describe(const zhuffman *h, unsigned char *to);
/* One stream of bytes, with ZBITS_SLACK_BYTES of room behind it. */
unsigned char *zhuffman_add(const zhuffman *h, const unsigned char *bytes, size_t size,
                            unsigned char *to);

#endif
