/* fuzz_side_data.c: the reader of fp4_scales.zst, after decompression. */
#include "formats/convert/side_data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    side_data *side;
    ckpt_catalog *empty;
    size_t count;

    if (side_data_parse((const char *)data, size, MEMORY_BYTES, &side, NULL) != CKPT_OK)
        return 0;
    if (side_data_table(side)->find(side_data_table(side), "a", &count) == NULL && count != 0)
        abort();
    if (side_data_bytes(side) > 2 * MEMORY_BYTES)
        abort();
    empty = catalog_create();
    if (empty != NULL)
        side_data_check(side, empty, NULL);
    catalog_free(empty);
    side_data_free(side);
    return 0;
}
