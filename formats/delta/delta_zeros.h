/* delta_zeros.h: a source of stored tensors that are all zeros. */
#ifndef CKPT_DELTA_ZEROS_H
#define CKPT_DELTA_ZEROS_H

#include "libckpt/source.h"

/* Of the tensors of a catalog, which is borrowed. Nothing is to be freed. */
ckpt_source delta_zeros(const ckpt_catalog *catalog);

#endif
