/* Dispatches to the three kinds of checksums. */
#include "checksum.h"

#include <stdio.h>
#include <string.h>

#include "crc32.h"
#include "digest.h"

static const struct {
    const char *name;
    size_t digits;
} kinds[CHECKSUM_COUNT] = {
    [CHECKSUM_XXH3_128] = { "xxh3-128", 32 },
    [CHECKSUM_BLAKE3] = { "blake3", 2 * BLAKE3_OUT_BYTES },
    [CHECKSUM_ADLER32] = { "adler32", 8 },
};

const char *checksum_name(checksum_kind kind)
{
    return kinds[kind].name;
}

int checksum_find(const char *name, checksum_kind *out)
{
    for (int i = 0; i < CHECKSUM_COUNT; i++) {
        if (strcmp(name, kinds[i].name) == 0) {
            *out = (checksum_kind)i;
            return 1;
        }
    }
    return 0;
}

int checksum_is_text(checksum_kind kind, const char *text)
{
    return strlen(text) == kinds[kind].digits &&
           strspn(text, "0123456789abcdef") == kinds[kind].digits;
}

void checksum_begin(checksum *sum, checksum_kind kind)
{
    sum->kind = kind;
    if (kind == CHECKSUM_XXH3_128)
        kernels_get()->hash_begin(&sum->state.xxh3);
    else if (kind == CHECKSUM_BLAKE3)
        blake3_begin(&sum->state.tree);
    else
        sum->state.adler = 1;
}

void checksum_add(checksum *sum, const void *bytes, size_t size)
{
    if (sum->kind == CHECKSUM_XXH3_128)
        kernels_get()->hash_add(&sum->state.xxh3, bytes, size);
    else if (sum->kind == CHECKSUM_BLAKE3)
        blake3_add(&sum->state.tree, bytes, size);
    else
        sum->state.adler = adler32_add(sum->state.adler, bytes, size);
}

void checksum_end(const checksum *sum, char out[CHECKSUM_HEX])
{
    unsigned char tree[BLAKE3_OUT_BYTES];

    if (sum->kind == CHECKSUM_XXH3_128) {
        hash128_hex(kernels_get()->hash_end(&sum->state.xxh3), out);
    } else if (sum->kind == CHECKSUM_BLAKE3) {
        blake3_end(&sum->state.tree, tree);
        for (size_t i = 0; i < sizeof tree; i++)
            snprintf(out + 2 * i, 3, "%02x", tree[i]);
    } else {
        snprintf(out, CHECKSUM_HEX, "%08x", sum->state.adler);
    }
}
