/* histogram.h: bars on a terminal. */
#ifndef CKPT_HISTOGRAM_H
#define CKPT_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_WIDTH = 40 };

/* Print a bar of HISTOGRAM_WIDTH * count / most characters, at least one if count > 0, and end the
 * line. */
void histogram_print_bar(uint64_t count, uint64_t most);

#endif
