/* delta_private.h: what the readers of deltas share. */
#ifndef CKPT_DELTA_PRIVATE_H
#define CKPT_DELTA_PRIVATE_H

#include <stdio.h>

#include "delta.h"
#include "libckpt/values.h"

#endif
