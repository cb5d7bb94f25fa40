/* CRC-32 of bytes, and combining CRCs. The only file that uses libdeflate. */
#include "crc32.h"

#include <libdeflate.h>

/* x^0 is the top bit: polynomials are reflected, as in zip files. */
static const uint32_t POLYNOMIAL = UINT32_C(0xedb88320);
static const uint32_t X_TO_THE_8 = UINT32_C(1) << (31 - 8);

uint32_t crc32_add(uint32_t crc, const void *bytes, size_t size)
{
    return libdeflate_crc32(crc, bytes, size);
}

uint32_t adler32_add(uint32_t adler, const void *bytes, size_t size)
{
    return libdeflate_adler32(adler, bytes, size);
}

/* Product of two polynomials over GF(2), modulo the CRC's. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = UINT32_C(1) << 31; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* Appending n bytes multiplies the remainder by x^(8n). The initial and final inversions of the two
 * CRCs cancel, so that nothing else is needed to combine them. */
uint32_t crc32_shift(uint32_t crc, uint64_t bytes_after)
{
    uint32_t power = X_TO_THE_8;

    for (; bytes_after != 0; bytes_after >>= 1) {
        if (bytes_after & 1)
            crc = multiply(power, crc);
        power = multiply(power, power);
    }
    return crc;
}
