/* Common to the layouts that are divided over ranks. */
#include "divide.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/config_number.h"

int divide_keeps_groups(const map_shard *shard, const json_value *config, uint32_t count)
{
    uint64_t groups;

    return shard->groups == NULL || !json_u64(config_member(config, shard->groups), &groups) ||
           groups % count == 0;
}

void divide_legal_text(divide_is_legal *is_legal, const void *context,
                       char out[DIVIDE_TEXT_BYTES])
{
    enum { COUNT_MAX = 256 };
    size_t used = 0;

    out[0] = '\0';
    for (uint32_t n = 1; n <= COUNT_MAX; n++)
        if (is_legal(context, n) && used + 8 < DIVIDE_TEXT_BYTES)
            used += (size_t)snprintf(out + used, DIVIDE_TEXT_BYTES - used, " %u", n);
    if (used == 0)
        memcpy(out, " none", sizeof " none");
}
