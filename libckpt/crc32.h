/* crc32.h: the CRC-32 of zip files, of bytes that come in any order; zlib's Adler-32. */
#ifndef CKPT_CRC32_H
#define CKPT_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* CRC of bytes that follow those with CRC `crc`; start with 0. */
uint32_t crc32_add(uint32_t crc, const void *bytes, size_t size);
/*
 * The share of a piece in the whole's CRC: crc(AB) = shift(crc(A), |B|) ^ crc(B), so the CRC of a
 * whole cut in pieces is the XOR over all pieces of shift(crc(piece), bytes after the piece), in
 * any order. Takes O(log bytes_after).
 */
uint32_t crc32_shift(uint32_t crc, uint64_t bytes_after);

/* Adler-32 (RFC 1950) of bytes that follow those with `adler`; start with 1. */
uint32_t adler32_add(uint32_t adler, const void *bytes, size_t size);

#endif
