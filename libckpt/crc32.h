/* crc32.h: the CRC-32 of zip files, also for data that is processed out of order; Adler-32. */
#ifndef CKPT_CRC32_H
#define CKPT_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Extend `crc`, the CRC of the bytes so far, by more bytes; start with 0. */
uint32_t crc32_add(uint32_t crc, const void *bytes, size_t size);
/*
 * Shift a CRC by a number of bytes, to combine CRCs: crc(AB) = shift(crc(A), |B|) ^ crc(B). So the
 * CRC of data cut in pieces is the XOR over all pieces of shift(crc(piece), bytes after the piece),
 * in any order. Takes O(log bytes_after).
 */
uint32_t crc32_shift(uint32_t crc, uint64_t bytes_after);

/* Extend an Adler-32 (RFC 1950) by more bytes; start with 1. */
uint32_t adler32_add(uint32_t adler, const void *bytes, size_t size);

#endif
