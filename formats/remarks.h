/* remarks.h: notes on a readable checkpoint that may not be what the user expects. */
#ifndef CKPT_REMARKS_H
#define CKPT_REMARKS_H

#include "format.h"

/* Notes for: one file of several, an adapter, weights quantised by other packages, Mistral's own
 * form, a decoder of Megatron without a config, an index with a wrong total. Call after the stored
 * tensors are listed. */
ckpt_code checkpoint_remark(ckpt_checkpoint *c, ckpt_error *err);

#endif
