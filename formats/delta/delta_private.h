/* delta_private.h: private to the readers of deltas. */
#ifndef CKPT_DELTA_PRIVATE_H
#define CKPT_DELTA_PRIVATE_H

#include <stdio.h>

#include "delta.h"
#include "libckpt/values.h"

#endif
