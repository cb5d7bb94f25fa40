/* Scales of whole tensors. */
#include "whole_scale.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/text.h"

int whole_scale_partner(const char *name, char out[WHOLE_SCALE_NAME_BYTES])
{
    static const struct {
        const char *gate;
        const char *up;
    } pairs[] = { { ".w1.weight", ".w3.weight" }, { ".gate_proj.weight", ".up_proj.weight" } };

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const int stem = (int)(strlen(name) - strlen(pairs[i].gate));

        if (text_ends_with(name, pairs[i].gate))
            return snprintf(out, WHOLE_SCALE_NAME_BYTES, "%.*s%s", stem, name, pairs[i].up) <
                   WHOLE_SCALE_NAME_BYTES;
    }
    return 0;
}
