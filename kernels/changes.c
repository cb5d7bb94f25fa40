/* changes.c: XOR of tiles, and counts of the nonzero bytes and elements in it. */
#include "changes.h"

#include <string.h>

#define REPEAT(byte) (UINT64_C(0x0101010101010101) * (byte))

void bytes_xor(void *into, const void *from, size_t size)
{
    unsigned char *a = into;
    const unsigned char *b = from;

    for (size_t i = 0; i < size; i++)
        a[i] = (unsigned char)(a[i] ^ b[i]);
}

/* Bit 7 of each byte of the result is set if that byte of `word` is not zero. Adding 0x7f to the
 * low seven bits carries into bit 7 unless they are all zero, and never into the next byte. */
static uint64_t mark_bytes(uint64_t word)
{
    return (((word & REPEAT(0x7f)) + REPEAT(0x7f)) | word) & REPEAT(0x80);
}

/* How many of the bits 7, 15 ... 63 are set: the product sums them in its highest byte. A popcount
 * is a call where the compiler may not assume the instruction. */
static unsigned count_marks(uint64_t marks)
{
    return (unsigned)((marks >> 7) * REPEAT(1) >> 56);
}

static unsigned count_elements(uint64_t word, uint64_t marks, unsigned element_bits)
{
    switch (element_bits) {
    case 4:                          /* at most 16, so each half counts its own */
        word |= word >> 1;
        word |= word >> 2;
        return count_marks((word & REPEAT(0x01)) << 7) + count_marks((word & REPEAT(0x10)) << 3);
    case 16:
        return count_marks((marks | marks >> 8) & UINT64_C(0x0080008000800080));
    case 32:
        marks |= marks >> 8;
        return count_marks((marks | marks >> 16) & UINT64_C(0x0000008000000080));
    case 64:
        return word != 0;
    default:
        return count_marks(marks);
    }
}

static void add_word(uint64_t word, unsigned element_bits, difference_count *count)
{
    const uint64_t marks = mark_bytes(word);

    count->byte_count += count_marks(marks);
    count->element_count += count_elements(word, marks, element_bits);
}

void difference_add(const void *bytes, size_t size, unsigned element_bits, difference_count *count)
{
    const unsigned char *at = bytes;
    uint64_t words[4];
    uint64_t word = 0;

    /* Most of a delta is zeros. */
    for (; size >= sizeof words; at += sizeof words, size -= sizeof words) {
        memcpy(words, at, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3]) != 0)
            for (int i = 0; i < 4; i++)
                if (words[i] != 0)
                    add_word(words[i], element_bits, count);
    }
    for (; size >= sizeof word; at += sizeof word, size -= sizeof word) {
        memcpy(&word, at, sizeof word);
        if (word != 0)
            add_word(word, element_bits, count);
    }
    word = 0;
    memcpy(&word, at, size);         /* the bytes past the end stay zero and are not counted */
    if (word != 0)
        add_word(word, element_bits, count);
}
