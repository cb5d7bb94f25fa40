/* changes.c: XOR of tiles, and counts of the nonzero bytes and elements in it. */
#include "changes.h"

#include "kernels.h"

void bytes_xor(void *into, const void *from, size_t size)
{
    unsigned char *a = into;
    const unsigned char *b = from;

    for (size_t i = 0; i < size; i++)
        a[i] = (unsigned char)(a[i] ^ b[i]);
}

/* The nonzero halves among 64 bytes. */
static unsigned count_halves(const unsigned char *bytes, uint64_t marks)
{
    unsigned count = 0;

    for (; marks != 0; marks &= marks - 1) {
        const unsigned char byte = bytes[__builtin_ctzll(marks)];

        count += (byte & 0x0f) != 0;
        count += (byte & 0xf0) != 0;
    }
    return count;
}

void difference_xor(void *into, const void *from, size_t size, unsigned element_bits,
                    const difference_found *out)
{
    enum { MARKS = 64, MARK_BYTES = 64 };        /* marks at a time, and bytes of one */
    difference_count *count = out->count;
    const ckpt_kernels *kernels = kernels_get();
    const int is_known = element_bits == 16 || element_bits == 32 || element_bits == 64;
    const unsigned element_bytes = is_known ? element_bits / 8 : 1;
    uint64_t *marks = out->marks;
    unsigned char *a = into;
    const unsigned char *b = from;

    while (size > 0) {
        const size_t take = size < MARKS * MARK_BYTES ? size : MARKS * MARK_BYTES;
        xor_found found = { .marks = marks };

        kernels->xor_marks(a, b, take, element_bytes, &found);
        count->byte_count += found.byte_count;
        for (size_t i = 0; element_bits == 4 && i < (take + MARK_BYTES - 1) / MARK_BYTES; i++)
            count->element_count += count_halves(a + MARK_BYTES * i, marks[i]);
        count->element_count += element_bits == 4 ? 0 : found.element_count;
        marks += MARKS;
        a += take;
        b += take;
        size -= take;
    }
}
