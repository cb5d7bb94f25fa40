/* An F32 as the shortest text. */
#include "float_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void float_text(float value, char out[FLOAT_TEXT_BYTES])
{
    if (isnan(value)) {
        snprintf(out, FLOAT_TEXT_BYTES, "NaN");
        return;
    }
    if (isinf(value)) {
        snprintf(out, FLOAT_TEXT_BYTES, value > 0 ? "Infinity" : "-Infinity");
        return;
    }
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(out, FLOAT_TEXT_BYTES, "%.*g", digits, (double)value);
        if (strtof(out, NULL) == value)
            return;
    }
}
