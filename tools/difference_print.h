/* difference_print.h: prints how much tensors differ. */
#ifndef CKPT_DIFFERENCE_PRINT_H
#define CKPT_DIFFERENCE_PRINT_H

#include "verify/difference_table.h"

enum { DIFFERENCE_LINES_MAX = 20 };

/* Print the first DIFFERENCE_LINES_MAX entries that changed, the total, and a histogram of the
 * distances of changed elements. */
void difference_print(const difference_table *list, difference_group group);

#endif
