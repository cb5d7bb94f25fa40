/* The entropy codes of zstd. */
#include "zcode.h"

static unsigned highest_bit(uint32_t value)
{
    return 31 - (unsigned)__builtin_clz(value);
}

/* ---- FSE ---- */

/* How finely shares are told: enough for every symbol, no finer than so few numbers are worth. */
static unsigned choose_log(uint32_t total, unsigned symbol_count, unsigned log_max)
{
    enum { LOG_MIN = 5 };
    const unsigned fine = highest_bit(total);
    const unsigned need = highest_bit(symbol_count) + 2;
    unsigned log = fine > 2 ? fine - 2 : 0;

    log = log < need ? need : log;
    log = log > log_max ? log_max : log;
    return log < LOG_MIN ? LOG_MIN : log;
}

/* Shares of 1 << log of `total`, at least 1 for each symbol that occurs. */
static void normalise(const uint32_t *counts, unsigned symbol_count, uint32_t total, unsigned log,
                      short *shares)
{
    int left = 1 << log;

    for (unsigned s = 0; s < symbol_count; s++) {
        const uint32_t share = ((counts[s] << log) + total / 2) / total;

        shares[s] = (short)(counts[s] > 0 && share == 0 ? 1 : share);
        left -= shares[s];
    }
    while (left != 0) {            /* the largest share notices it least */
        unsigned largest = 0;

        for (unsigned s = 1; s < symbol_count; s++)
            if (shares[s] > shares[largest])
                largest = s;
        shares[largest] = (short)(shares[largest] + (left > 0 ? left : -1));
        left = left > 0 ? 0 : left + 1;
    }
}

/* A run of symbols that do not occur, behind one that does not: threes, then the rest. */
static unsigned skip_zeros(zbits *b, const short *shares, unsigned s)
{
    unsigned run = 0;

    while (shares[s + run] == 0)   /* some later symbol has the rest of the shares */
        run++;
    s += run;
    for (; run >= 3; run -= 3) {
        zbits_add(b, 3, 2);
        zbits_flush(b);
    }
    zbits_add(b, run, 2);
    return s;
}

/* RFC 8878, 4.1.1: a share takes as many bits as the largest that is left needs, or one less. */
static unsigned char *describe_shares(const short *shares, unsigned log,
                                      unsigned char *to)
{
    int left = (1 << log) + 1;
    int threshold = 1 << log;
    unsigned width = log + 1;
    unsigned s = 0;
    int after_zero = 0;
    zbits b = zbits_begin(to);

    zbits_add(&b, log - 5, 4);
    while (left > 1) {
        int value;
        int spare;

        if (after_zero)
            s = skip_zeros(&b, shares, s);
        value = shares[s] + 1;
        spare = 2 * threshold - 1 - left;
        left -= shares[s];
        after_zero = shares[s++] == 0;
        if (value >= threshold)
            value += spare;
        zbits_add(&b, (uint64_t)value, width - (value < spare));
        zbits_flush(&b);
        for (; left < threshold; threshold >>= 1)
            width--;
    }
    return b.at + (b.count > 0);
}

/* How the states are spread over the symbols (RFC 8878, 4.1.1): by steps. `shared` has the symbols
 * in order, each as often as its share; the last states are those of symbols of less than one. */
static void spread(const uint8_t *shared, unsigned log, unsigned end, uint8_t *owner)
{
    const unsigned size = 1u << log;
    const unsigned step = (size >> 1) + (size >> 3) + 3;
    unsigned position = 0;

    for (unsigned i = 0; i < end; i++) {
        owner[position] = shared[i];
        do
            position = (position + step) & (size - 1);
        while (position >= end);
    }
}

/* The encoder that the states imply. */
static void make_states(zfse *f, const short *shares, unsigned symbol_count)
{
    enum { AT_ONCE = 8 };           /* most shares are smaller: no branch for each of them */
    const unsigned size = 1u << f->log;
    uint16_t first[ZFSE_SYMBOLS_MAX];
    uint8_t shared[(1 << ZFSE_LOG_MAX) + AT_ONCE];
    uint8_t owner[1 << ZFSE_LOG_MAX];
    unsigned total = 0;
    unsigned used = 0;
    unsigned end = size;

    for (unsigned s = 0; s < symbol_count; s++) {
        const int is_less = shares[s] == ZFSE_LESS_THAN_ONE;
        const unsigned share = is_less ? 1 : (unsigned)shares[s];
        const unsigned bits = share < 2 ? f->log : f->log - highest_bit(share - 1);

        first[s] = (uint16_t)total;
        f->symbols[s].bits = (bits << 16) - (share << bits);
        f->symbols[s].find = (int32_t)total - (int32_t)share;
        total += share;
        if (is_less) {
            owner[--end] = (uint8_t)s;
            continue;
        }
        memset(shared + used, (int)s, AT_ONCE);
        if (share > AT_ONCE)
            memset(shared + used, (int)s, share);
        used += share;
    }
    spread(shared, f->log, end, owner);
    for (unsigned state = 0; state < size; state++)
        f->next[first[owner[state]]++] = (uint16_t)(size + state);
}

unsigned char *zfse_make(zfse *f, const uint32_t *counts, unsigned symbol_count, unsigned log_max,
                         unsigned char *to)
{
    short shares[ZFSE_SYMBOLS_MAX];
    uint32_t total = 0;

    for (unsigned s = 0; s < symbol_count; s++)
        total += counts[s];
    f->log = choose_log(total, symbol_count, log_max);
    normalise(counts, symbol_count, total, f->log, shares);
    make_states(f, shares, symbol_count);
    return describe_shares(shares, f->log, to);
}

void zfse_take(zfse *f, const short *shares, unsigned symbol_count, unsigned log)
{
    f->log = log;
    make_states(f, shares, symbol_count);
}

/* A symbol takes one of two numbers of bits: the larger in so many of the states. */
uint64_t zfse_cost(const zfse *f, const uint32_t *counts, unsigned symbol_count)
{
    uint64_t total = (uint64_t)f->log * ZFSE_COST_BIT;

    for (unsigned s = 0; s < symbol_count; s++) {
        const uint32_t sum = f->symbols[s].bits + (2u << f->log);
        const unsigned larger = sum >> 16;
        const unsigned share = ((sum & 0xffff) * ZFSE_COST_BIT) >> f->log;

        if (counts[s] > 0)
            total += (uint64_t)counts[s] * ((larger - 1) * ZFSE_COST_BIT + share);
    }
    return total;
}

unsigned zfse_begin(const zfse *f, unsigned symbol)
{
    const uint32_t bits = f->symbols[symbol].bits;
    const unsigned count = (bits + (1u << 15)) >> 16;

    return f->next[(int32_t)(((count << 16) - bits) >> count) + f->symbols[symbol].find];
}

/* ---- Huffman ---- */

typedef struct {
    uint32_t count;
    uint16_t parent;
    uint16_t byte;
} node;

/* The bytes that occur, rarest first; equal ones in order, so that the code is the only one. */
static unsigned sort_bytes(zhuffman *h, const uint32_t counts[256], node *nodes)
{
    unsigned used = 0;

    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned at = used;

        if (counts[byte] == 0)
            continue;
        h->used[used] = (uint8_t)byte;
        for (; at > 0 && nodes[at - 1].count > counts[byte]; at--)
            nodes[at] = nodes[at - 1];
        nodes[at] = (node){ counts[byte], 0, (uint16_t)byte };
        used++;
    }
    return used;
}

/* Join the two rarest until one is left: leaves come sorted, and joined nodes do, too. Returns the
 * length of the longest code. */
static unsigned grow(node *nodes, unsigned leaves, uint8_t *depths)
{
    const unsigned root = 2 * leaves - 2;
    unsigned leaf = 0;
    unsigned joined = leaves;
    unsigned longest = 0;

    for (unsigned made = leaves; made <= root; made++) {
        nodes[made] = (node){ .count = 0 };
        for (int i = 0; i < 2; i++) {
            const int is_leaf = leaf < leaves &&
                                (joined == made || nodes[leaf].count <= nodes[joined].count);
            node *rarest = is_leaf ? &nodes[leaf++] : &nodes[joined++];

            nodes[made].count += rarest->count;
            rarest->parent = (uint16_t)made;
        }
    }
    depths[root] = 0;
    for (unsigned i = root; i-- > 0;) {
        depths[i] = (uint8_t)(depths[nodes[i].parent] + 1);
        longest = depths[i] > longest ? depths[i] : longest;
    }
    return longest;
}

/* Codes in the order of RFC 8878, 4.2.1: the longest first, bytes of one length in their order. */
static void number_codes(zhuffman *h)
{
    unsigned next[ZHUFFMAN_BITS_MAX + 2] = { 0 };
    unsigned of_length[ZHUFFMAN_BITS_MAX + 2] = { 0 };

    for (unsigned i = 0; i < h->used_count; i++)
        of_length[h->bits[h->used[i]]]++;
    for (unsigned length = ZHUFFMAN_BITS_MAX; length > 0; length--)
        next[length] = (next[length + 1] + of_length[length + 1]) >> 1;
    for (unsigned i = 0; i < h->used_count; i++) {
        const uint8_t byte = h->used[i];

        h->code[byte] = (uint16_t)next[h->bits[byte]]++;
    }
}

void zhuffman_make(zhuffman *h, const uint32_t counts[256])
{
    node nodes[2 * 256];
    uint8_t depths[2 * 256];
    const unsigned leaves = sort_bytes(h, counts, nodes);

    h->used_count = leaves;
    memset(h->bits, 0, sizeof h->bits);
    while (grow(nodes, leaves, depths) > ZHUFFMAN_BITS_MAX)
        for (unsigned i = 0; i < leaves; i++)       /* keeps their order; ends at equal counts */
            nodes[i].count = (nodes[i].count + 1) / 2;
    for (unsigned i = 0; i < leaves; i++)
        h->bits[nodes[i].byte] = depths[i];
    number_codes(h);
}

/* Weights as FSE: two states take turns. NULL: their code has no use, or no description. */
static unsigned char *describe_by_fse(const zhuffman *h, const uint8_t *weights, unsigned count,
                                      unsigned char *to)
{
    enum { WEIGHTS = ZHUFFMAN_BITS_MAX + 1, LOG_MAX = 6, BYTES_MAX = 128, AT_A_TIME = 8 };
    uint32_t counts[WEIGHTS] = { 0 };
    unsigned largest = 0;
    unsigned char *end;
    unsigned states[2];
    zfse f;
    zbits b;

    counts[0] = count - (h->used_count - 1);
    for (unsigned i = 0; i + 1 < h->used_count; i++) {
        const uint8_t weight = weights[h->used[i]];

        counts[weight]++;
        largest = weight > largest ? weight : largest;
    }
    if (count <= 2 || counts[largest] == count)
        return NULL;
    end = zfse_make(&f, counts, largest + 1, LOG_MAX, to + 1);
    b = zbits_begin(end);
    states[(count - 1) % 2] = zfse_begin(&f, weights[count - 1]);
    states[(count - 2) % 2] = zfse_begin(&f, weights[count - 2]);
    for (unsigned i = count - 2; i-- > 0;) {
        states[i % 2] = zfse_add(&f, states[i % 2], weights[i], &b);
        if (i % AT_A_TIME == 0)
            zbits_flush(&b);
    }
    zfse_end(&f, states[1], &b);
    zfse_end(&f, states[0], &b);
    end = zbits_end(&b);
    if (end - (to + 1) >= BYTES_MAX)
        return NULL;
    to[0] = (unsigned char)(end - (to + 1));
    return end;
}

unsigned char *zhuffman_describe(const zhuffman *h, unsigned char *to)
{
    enum { PLAIN_MAX = 128 };
    const unsigned count = h->used[h->used_count - 1];  /* its weight follows from the others */
    const unsigned plain = (count + 1) / 2;
    uint8_t weights[256];
    unsigned longest = 0;
    unsigned char *end;

    for (unsigned i = 0; i < h->used_count; i++)
        longest = h->bits[h->used[i]] > longest ? h->bits[h->used[i]] : longest;
    memset(weights, 0, count + 1);
    for (unsigned i = 0; i + 1 < h->used_count; i++)
        weights[h->used[i]] = (uint8_t)(longest + 1 - h->bits[h->used[i]]);
    end = describe_by_fse(h, weights, count, to);
    if (count > PLAIN_MAX || (end != NULL && (unsigned)(end - (to + 1)) <= plain))
        return end;
    to[0] = (unsigned char)(127 + count);
    for (unsigned i = 0; i < plain; i++)
        to[1 + i] = (unsigned char)(weights[2 * i] << 4 | weights[2 * i + 1]);
    return to + 1 + plain;
}

unsigned char *zhuffman_add(const zhuffman *h, const unsigned char *bytes, size_t size,
                            unsigned char *to)
{
    enum { AT_A_TIME = 5 };
    zbits b = zbits_begin(to);

    for (size_t i = size; i > 0;) {
        const size_t stop = i > AT_A_TIME ? i - AT_A_TIME : 0;

        for (; i > stop; i--)
            zbits_add(&b, h->code[bytes[i - 1]], h->bits[bytes[i - 1]]);
        zbits_flush(&b);
    }
    return zbits_end(&b);
}
