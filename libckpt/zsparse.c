/* zstd blocks in which runs of zeros are the only matches. */
#include "zsparse.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "zcode.h"

/*
 * A run of zeros is a literal zero and a match with the byte before it: offset 1. That is the first
 * of the offsets that a frame begins with and there is no other, so that it always is the "repeated
 * offset 1", whose code takes no bits at all. Runs that are shorter than RUN_MIN are cheaper as
 * literals.
 */
enum {
    BLOCK_HEAD_BYTES = 3,
    RUN_MIN = 8,
    MATCH_MIN = 3,
    FEW = RUN_MIN,                  /* bytes that are copied at once */
    SEQUENCES_MAX = ZSPARSE_BLOCK_BYTES / RUN_MIN + 1,
    MARKS = ZSPARSE_BLOCK_BYTES / 64,
    MATCHES_NAMED = 1 << 11,
    WINDOW_LOG_MIN = 10
};

/* Types of blocks, and of literals; modes of the codes of sequences. */
enum { BLOCK_RAW, BLOCK_RLE, BLOCK_PACKED };
enum { LITERALS_RAW, LITERALS_RLE, LITERALS_HUFFMAN };
enum { MODE_KNOWN, MODE_RLE, MODE_FSE };

_Static_assert(ZSPARSE_BLOCK_BYTES + SEQUENCES_MAX * 50 / 8 + 1000 <= ZSPARSE_PACKED_BYTES,
               "room for literals as they are, and for sequences of at most 50 bits");

/* The codes of its two lengths, and their extra bits, those of the literals in front. */
typedef struct {
    uint32_t extra;
    uint8_t extra_bits;
    uint8_t literals_code;
    uint8_t match_code;
} sequence;

/* One of the two lengths of the sequences: how codes are numbered and told. */
typedef struct {
    unsigned mode;
    unsigned log_max;
    unsigned code_count;
    zfse known;                     /* the code that is not told */
    zfse made;                      /* for the block */
    const zfse *fse;                /* which of them is used */
    uint32_t counts[ZFSE_SYMBOLS_MAX];
} length_code;

/* The code of a match's length, and how many extra bits that has. */
typedef struct {
    uint8_t code;
    uint8_t bits;
} match_name;

struct zsparse {
    uint64_t marks[MARKS];
    match_name matches[MATCHES_NAMED];      /* by length */
    size_t literal_count;
    size_t sequence_count;
    length_code literals_code;
    length_code match_code;
    zhuffman huffman;
    uint32_t byte_counts[256];
    uint32_t positions[64 * MARK_WORDS + 1];
    sequence sequences[SEQUENCES_MAX];
    unsigned char literals[ZSPARSE_BLOCK_BYTES + FEW];
};

/* RFC 8878, 3.1.1.3.2.2: the shares of 64 that every decoder knows. */
enum { KNOWN_LOG = 6 };
static const short known_literals[36] = { 4, 3, 2, 2, 2, 2, 2, 2, 2, 2,  2,  2,
                                          2, 1, 1, 1, 2, 2, 2, 2, 2, 2,  2,  2,
                                          2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1 };
static const short known_match[53] = { 1, 4, 3, 2, 2, 2, 2, 2, 2,  1,  1,  1,  1,  1,
                                       1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,
                                       1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,
                                       1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1 };

static void init_code(length_code *l, const short *known, unsigned code_count)
{
    enum { LOG_MAX = 9 };

    l->log_max = LOG_MAX;
    l->code_count = code_count;
    zfse_take(&l->known, known, code_count, KNOWN_LOG);
}

void zsparse_free(zsparse *z)
{
    free(z);
}

static unsigned char *put_number(unsigned char *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> 8 * i);
    return to + bytes;
}

/* ---- numbers as codes and extra bits (RFC 8878, 3.1.1.3.2.1.1) ---- */

static unsigned highest_bit(uint32_t value)
{
    return 31 - (unsigned)__builtin_clz(value);
}

/* Codes of small numbers are unlike; large ones are named by their highest bit. */
static const uint8_t literals_codes[64] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18, 18,
    19, 19, 20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23,
    23, 23, 23, 23, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24
};
static const uint8_t literals_bits[36] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,
                                           0, 0, 0, 0, 1, 1, 1, 1, 2, 2,  3,  3,
                                           4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const uint8_t match_codes[128] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 36, 36,
    37, 37, 37, 37, 38, 38, 38, 38, 38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39, 40, 40,
    40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 41, 41, 41, 41, 41, 41, 41, 41,
    41, 41, 41, 41, 41, 41, 41, 41, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
    42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42
};
static const uint8_t match_bits[53] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,
                                        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,
                                        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3,  3,  4,  4,
                                        5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static match_name name_long_match(uint32_t length)
{
    const unsigned code = highest_bit(length) + 36;

    return (match_name){ (uint8_t)code, match_bits[code] };
}

zsparse *zsparse_create(void)
{
    zsparse *z = malloc(sizeof *z);

    if (z == NULL)
        return NULL;
    for (uint32_t i = 0; i < MATCHES_NAMED; i++)
        z->matches[i] = i < sizeof match_codes
                            ? (match_name){ match_codes[i], match_bits[match_codes[i]] }
                            : name_long_match(i);
    init_code(&z->literals_code, known_literals, sizeof known_literals / sizeof *known_literals);
    init_code(&z->match_code, known_match, sizeof known_match / sizeof *known_match);
    return z;
}

static unsigned code_of_literals(uint32_t count)
{
    return count < sizeof literals_codes ? literals_codes[count] : highest_bit(count) + 19;
}

/* Short and long runs mix, which a branch would guess wrong half of the time: few are longer than
 * what the table has. */
static inline match_name name_of_match(const zsparse *z, uint32_t length)
{
    return length < MATCHES_NAMED ? z->matches[length] : name_long_match(length);
}

/* ---- what is in a block ---- */

/* Where a block is cut. Not in `z`, which the compiler would write back when bytes are copied. */
typedef struct {
    const unsigned char *block;
    size_t begin;                   /* of the literals that are not taken yet */
    size_t next;                    /* behind the last byte that is not zero */
    unsigned char *literals;        /* where the next ones go */
    sequence *sequences;            /* the same */
} block_cut;

/* Add a sequence of `count` literals, whose code has `extra` extra bits, and a run of zeros. */
static inline void add_run(zsparse *z, block_cut *cut, size_t count, unsigned literals_code,
                           unsigned extra, size_t run)
{
    const uint32_t length = (uint32_t)(run - 1 - MATCH_MIN);
    const match_name name = name_of_match(z, length);

    *cut->sequences++ = (sequence){
        (length & ((1u << name.bits) - 1)) << extra | ((uint32_t)count & ((1u << extra) - 1)),
        (uint8_t)(extra + name.bits), (uint8_t)literals_code, name.code };
    z->literals_code.counts[literals_code]++;
    z->match_code.counts[name.code]++;
    cut->literals += count;
}

/* Continue at the next byte that is not zero, or at the end. The run that ends there is behind the
 * literals, so that its zeros can be copied with them. */
static inline void cut_before(zsparse *z, block_cut *cut, size_t at)
{
    const size_t count = cut->next + 1 - cut->begin;
    const size_t run = at - cut->next;

    if (run < RUN_MIN)
        return;
    if (count <= FEW) {                             /* almost always */
        memcpy(cut->literals, cut->block + cut->begin, FEW);
        add_run(z, cut, count, (unsigned)count, 0, run);
    } else {
        const unsigned code = code_of_literals((uint32_t)count);

        memcpy(cut->literals, cut->block + cut->begin, count);
        add_run(z, cut, count, code, literals_bits[code], run);
    }
    cut->begin = at;
}

/* The marks of a block, up to a multiple of MARK_WORDS. */
static const uint64_t *marks_of(zsparse *z, const zsparse_block *block)
{
    const size_t words = (block->size + 63) / 64;

    if (block->marks != NULL && block->size == ZSPARSE_BLOCK_BYTES)
        return block->marks;
    kernels_get()->nonzero_marks(block->bytes, block->size, z->marks);
    memset(z->marks + words, 0, (MARKS - words) * sizeof *z->marks);
    return z->marks;
}

/* Cut a block into literals and runs of zeros, and count what the codes are made for. */
static void take_block(zsparse *z, const zsparse_block *block)
{
    const ckpt_kernels *kernels = kernels_get();
    const uint64_t *marks = marks_of(z, block);
    block_cut cut = { block->bytes, 0, 0, z->literals, z->sequences };
    size_t nonzero = 0;

    memset(z->byte_counts, 0, sizeof z->byte_counts);
    memset(z->literals_code.counts, 0, sizeof z->literals_code.counts);
    memset(z->match_code.counts, 0, sizeof z->match_code.counts);
    for (size_t first = 0; 64 * first < block->size; first += MARK_WORDS) {
        const size_t count = kernels->mark_positions(marks + first, (uint32_t)(64 * first),
                                                     z->positions);

        nonzero += count;
        for (size_t i = 0; i < count; i++) {
            const size_t at = z->positions[i];

            z->byte_counts[block->bytes[at]]++;
            cut_before(z, &cut, at);
            cut.next = at + 1;
        }
    }
    cut_before(z, &cut, block->size);
    memcpy(cut.literals, block->bytes + cut.begin, block->size - cut.begin);
    z->literal_count = (size_t)(cut.literals - z->literals) + block->size - cut.begin;
    z->sequence_count = (size_t)(cut.sequences - z->sequences);
    z->byte_counts[0] = (uint32_t)(z->literal_count - nonzero);
}

size_t zsparse_count(const void *block, size_t bytes)
{
    const unsigned char *at = block;
    size_t count = 0;

    for (size_t i = 0; i < bytes; i++)
        count += at[i] != 0;
    return count;
}

/* ---- the section of literals ---- */

static unsigned char *put_literals_head(unsigned char *to, unsigned type, size_t count)
{
    if (count < 1 << 5)
        return put_number(to, type | count << 3, 1);
    if (count < 1 << 12)
        return put_number(to, type | 1 << 2 | count << 4, 2);
    return put_number(to, type | 3 << 2 | count << 4, 3);
}

static unsigned char *put_plain_literals(const zsparse *z, unsigned char *to)
{
    const int is_rle = z->literal_count > 1 &&
                       z->byte_counts[z->literals[0]] == z->literal_count;

    to = put_literals_head(to, is_rle ? LITERALS_RLE : LITERALS_RAW, z->literal_count);
    memcpy(to, z->literals, is_rle ? 1 : z->literal_count);
    return to + (is_rle ? 1 : z->literal_count);
}

/* One stream of few literals, or four and the sizes of the first three. */
static unsigned char *put_streams(const zsparse *z, unsigned stream_count, unsigned char *to)
{
    const size_t quarter = (z->literal_count + 3) / 4;
    unsigned char *sizes = to;

    if (stream_count == 1)
        return zhuffman_add(&z->huffman, z->literals, z->literal_count, to);
    to += 6;
    for (size_t i = 0; i < 4; i++) {
        const size_t count = i < 3 ? quarter : z->literal_count - 3 * quarter;
        unsigned char *end = zhuffman_add(&z->huffman, z->literals + i * quarter, count, to);

        if (i < 3)
            put_number(sizes + 2 * i, (uint64_t)(end - to), 2);
        to = end;
    }
    return to;
}

static unsigned char *put_literals(zsparse *z, unsigned char *to)
{
    enum { WORTH_A_TREE = 24, ONE_STREAM_MAX = 1023 };
    const unsigned stream_count = z->literal_count <= ONE_STREAM_MAX ? 1 : 4;
    const unsigned width = stream_count == 1 ? 10 : z->literal_count < 1 << 14 ? 14 : 18;
    const unsigned format = width == 10 ? 0 : width == 14 ? 2 : 3;
    const unsigned head_bytes = (4 + 2 * width + 7) / 8;
    unsigned char *begin = to + head_bytes;
    unsigned char *end;

    if (z->literal_count < WORTH_A_TREE || z->byte_counts[z->literals[0]] == z->literal_count)
        return put_plain_literals(z, to);
    zhuffman_make(&z->huffman, z->byte_counts);
    if ((end = zhuffman_describe(&z->huffman, begin)) == NULL)
        return put_plain_literals(z, to);
    end = put_streams(z, stream_count, end);
    if ((size_t)(end - begin) >= z->literal_count)
        return put_plain_literals(z, to);
    put_number(to, LITERALS_HUFFMAN | format << 2 | (uint64_t)z->literal_count << 4 |
                   (uint64_t)(end - begin) << (4 + width), head_bytes);
    return end;
}

/* ---- the section of sequences ---- */

/* One code, a table, or the known one if that is shorter than a table with what it is for. */
static unsigned char *put_code(length_code *l, size_t sequence_count, unsigned char *to)
{
    unsigned last = l->code_count - 1;
    unsigned char *end;
    uint64_t cost;

    while (l->counts[last] == 0)
        last--;
    if (l->counts[last] == sequence_count) {
        l->mode = MODE_RLE;
        *to = (unsigned char)last;
        return to + 1;
    }
    end = zfse_make(&l->made, l->counts, last + 1, l->log_max, to);
    cost = zfse_cost(&l->made, l->counts, last + 1) + (uint64_t)(end - to) * 8 * ZFSE_COST_BIT;
    if (zfse_cost(&l->known, l->counts, last + 1) <= cost) {
        l->mode = MODE_KNOWN;
        l->fse = &l->known;
        return to;
    }
    l->mode = MODE_FSE;
    l->fse = &l->made;
    return end;
}

static unsigned char *put_sequence_count(size_t count, unsigned char *to)
{
    enum { TWO_BYTES = 0x80, THREE_BYTES = 0x7F00 };
    _Static_assert((int)SEQUENCES_MAX < (int)THREE_BYTES, "two bytes hold the count");

    if (count < TWO_BYTES)
        return put_number(to, count, 1);
    to[0] = (unsigned char)(TWO_BYTES | count >> 8);
    to[1] = (unsigned char)count;
    return to + 2;
}

/* The bits of a sequence, the first that is read last, in one piece: so that they do not wait for
 * those of the sequence before. */
static inline void add_sequence(const sequence *s, uint64_t states, unsigned state_bits, zbits *b)
{
    zbits_add(b, states | (uint64_t)s->extra << state_bits, state_bits + s->extra_bits);
    zbits_flush(b);
}

/* Encoded from the last to the first, as the decoder reads from the end. Inline, for each of the
 * modes: with what it does not need left out, both states stay in registers. */
static inline __attribute__((always_inline)) unsigned char *put_states(const zsparse *z,
                                                                       int has_literals,
                                                                       int has_match,
                                                                       unsigned char *to)
{
    const zfse *literals = z->literals_code.fse;
    const zfse *match = z->match_code.fse;
    const sequence *first = z->sequences;
    const sequence *s = first + z->sequence_count - 1;
    unsigned match_state = has_match ? zfse_begin(match, s->match_code) : 0;
    unsigned literals_state = has_literals ? zfse_begin(literals, s->literals_code) : 0;
    zbits b = zbits_begin(to);

    add_sequence(s, 0, 0, &b);
    while (s > first) {
        zbits states = { NULL, 0, 0 };

        s--;
        if (has_match)
            match_state = zfse_add(match, match_state, s->match_code, &states);
        if (has_literals)
            literals_state = zfse_add(literals, literals_state, s->literals_code, &states);
        add_sequence(s, states.bits, states.count, &b);
    }
    if (has_match)
        zfse_end(match, match_state, &b);
    if (has_literals)
        zfse_end(literals, literals_state, &b);
    zbits_flush(&b);
    return zbits_end(&b);
}

static unsigned char *put_bits(const zsparse *z, unsigned char *to)
{
    const int has_literals = z->literals_code.mode != MODE_RLE;

    if (z->match_code.mode == MODE_RLE)
        return has_literals ? put_states(z, 1, 0, to) : put_states(z, 0, 0, to);
    return has_literals ? put_states(z, 1, 1, to) : put_states(z, 0, 1, to);
}

static unsigned char *put_sequences(zsparse *z, unsigned char *to)
{
    length_code *literals = &z->literals_code;
    length_code *match = &z->match_code;
    unsigned char *modes;

    to = put_sequence_count(z->sequence_count, to);
    if (z->sequence_count == 0)
        return to;
    modes = to++;
    to = put_code(literals, z->sequence_count, to);
    *to++ = 0;                      /* the code of every offset: the repeated one */
    to = put_code(match, z->sequence_count, to);
    *modes = (unsigned char)(literals->mode << 6 | MODE_RLE << 4 | match->mode << 2);
    return put_bits(z, to);
}

/* ---- frames ---- */

static unsigned char *put_block_head(unsigned char *to, unsigned type, size_t size, int is_last)
{
    return put_number(to, (unsigned)(is_last != 0) | type << 1 | size << 3, BLOCK_HEAD_BYTES);
}

size_t zsparse_begin(uint64_t content_bytes, unsigned char *to)
{
    const int is_long = content_bytes > UINT32_MAX;
    unsigned char *at = put_number(to, 0xFD2FB528, 4);

    *at++ = (unsigned char)((is_long ? 3 : 2) << 6);
    *at++ = (ZSPARSE_WINDOW_LOG - WINDOW_LOG_MIN) << 3;
    return (size_t)(put_number(at, content_bytes, is_long ? 8 : 4) - to);
}

size_t zsparse_pack_zeros(size_t bytes, int is_last, unsigned char *to)
{
    *put_block_head(to, BLOCK_RLE, bytes, is_last) = 0;
    return BLOCK_HEAD_BYTES + 1;
}

size_t zsparse_pack(zsparse *z, const zsparse_block *block, int is_last, unsigned char *to)
{
    unsigned char *begin = to + BLOCK_HEAD_BYTES;
    const size_t bytes = block->size;
    size_t packed;

    take_block(z, block);
    if (z->sequence_count == 1 && z->literal_count == 1)
        return zsparse_pack_zeros(bytes, is_last, to);
    packed = (size_t)(put_sequences(z, put_literals(z, begin)) - begin);
    if (packed < bytes) {
        put_block_head(to, BLOCK_PACKED, packed, is_last);
        return BLOCK_HEAD_BYTES + packed;
    }
    put_block_head(to, BLOCK_RAW, bytes, is_last);
    memcpy(begin, block->bytes, bytes);
    return BLOCK_HEAD_BYTES + bytes;
}
