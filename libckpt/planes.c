/* Byte planes. */
#include "planes.h"

#include <string.h>

/* Plain loops over one width, which compilers turn into vector code. */

static void split_2(const uint8_t *from, uint8_t *to, size_t count, unsigned turn)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t x;

        memcpy(&x, from + 2 * i, sizeof x);
        x = (uint16_t)(x << turn | x >> (16 - turn) % 16);
        to[i] = (uint8_t)x;
        to[count + i] = (uint8_t)(x >> 8);
    }
}

static void join_2(const uint8_t *from, uint8_t *to, size_t count, unsigned turn)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t x = (uint16_t)(from[i] | from[count + i] << 8);

        x = (uint16_t)(x >> turn | x << (16 - turn) % 16);
        memcpy(to + 2 * i, &x, sizeof x);
    }
}

static void split_4(const uint8_t *from, uint8_t *to, size_t count, unsigned turn)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t x;

        memcpy(&x, from + 4 * i, sizeof x);
        x = x << turn | x >> (32 - turn) % 32;
        to[i] = (uint8_t)x;
        to[count + i] = (uint8_t)(x >> 8);
        to[2 * count + i] = (uint8_t)(x >> 16);
        to[3 * count + i] = (uint8_t)(x >> 24);
    }
}

static void join_4(const uint8_t *from, uint8_t *to, size_t count, unsigned turn)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t x = from[i] | (uint32_t)from[count + i] << 8 |
                     (uint32_t)from[2 * count + i] << 16 | (uint32_t)from[3 * count + i] << 24;

        x = x >> turn | x << (32 - turn) % 32;
        memcpy(to + 4 * i, &x, sizeof x);
    }
}

static size_t width_of(planes_kind kind)
{
    static const uint8_t widths[PLANES_KINDS] = {
        [PLANES_NONE] = 1, [PLANES_2] = 2, [PLANES_4] = 4, [PLANES_8] = 8, [PLANES_BF16] = 2,
        [PLANES_F32] = 4,
    };

    return widths[kind];
}

void planes_split(planes_kind kind, const void *from, void *to, size_t size)
{
    const size_t width = width_of(kind);
    const size_t count = size / width;
    const size_t whole = count * width;
    const uint8_t *bytes = from;
    uint8_t *out = to;

    if (width == 1)
        memcpy(out, bytes, whole);
    else if (width == 2)
        split_2(bytes, out, count, kind == PLANES_BF16);
    else if (width == 4)
        split_4(bytes, out, count, kind == PLANES_F32);
    else
        for (size_t b = 0; b < width; b++)
            for (size_t i = 0; i < count; i++)
                out[b * count + i] = bytes[width * i + b];
    memcpy(out + whole, bytes + whole, size - whole);
}

void planes_join(planes_kind kind, const void *from, void *to, size_t size)
{
    const size_t width = width_of(kind);
    const size_t count = size / width;
    const size_t whole = count * width;
    const uint8_t *bytes = from;
    uint8_t *out = to;

    if (width == 1)
        memcpy(out, bytes, whole);
    else if (width == 2)
        join_2(bytes, out, count, kind == PLANES_BF16);
    else if (width == 4)
        join_4(bytes, out, count, kind == PLANES_F32);
    else
        for (size_t b = 0; b < width; b++)
            for (size_t i = 0; i < count; i++)
                out[width * i + b] = bytes[b * count + i];
    memcpy(out + whole, bytes + whole, size - whole);
}
