/* histogram.h: bars on a terminal. */
#ifndef CKPT_HISTOGRAM_H
#define CKPT_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_WIDTH = 40 };

/* A bar as long as the share of `count` of `most`, at most HISTOGRAM_WIDTH characters; what is
 * there has one at least. Ends the line. */
void histogram_print_bar(uint64_t count, uint64_t most);

#endif
