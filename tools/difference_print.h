/* difference_print.h: how far tensors are apart, for people. */
#ifndef CKPT_DIFFERENCE_PRINT_H
#define CKPT_DIFFERENCE_PRINT_H

#include "verify/difference_table.h"

enum { DIFFERENCE_LINES_MAX = 20 };

/* A line for each entry that changed, the first ones; the total; distances of changed elements. */
void difference_print(const difference_table *list, difference_group group);

#endif
