/* Levenshtein's distance, computed with one row of the usual table. */
#include "nearest.h"

#include <string.h>

enum { NAME_BYTES_MAX = 63 };

unsigned name_distance(const char *a, const char *b)
{
    const size_t a_length = strnlen(a, NAME_BYTES_MAX);
    const size_t b_length = strnlen(b, NAME_BYTES_MAX);
    unsigned row[NAME_BYTES_MAX + 1];

    for (unsigned j = 0; j <= b_length; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            const unsigned replaced = diagonal + (a[i - 1] != b[j - 1]);
            const unsigned longer = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = replaced < longer ? replaced : longer;
        }
    }
    return row[b_length];
}
