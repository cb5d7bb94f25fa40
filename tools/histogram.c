/* Prints bars as text. */
#include "histogram.h"

#include <stdio.h>

void histogram_print_bar(uint64_t count, uint64_t most)
{
    int width = most == 0 ? 0 : (int)((double)count / (double)most * HISTOGRAM_WIDTH + 0.5);

    if (count > 0 && width == 0)
        width = 1;
    if (width > 0)
        printf("  ");
    while (width-- > 0)
        putchar('#');
    putchar('\n');
}
