/* remarks.h: what a checkpoint that can be read may not be: notes for a person. */
#ifndef CKPT_REMARKS_H
#define CKPT_REMARKS_H

#include "format.h"

/* One file of several, an adapter, an index whose total is wrong: a note each. The stored tensors
 * are listed. */
ckpt_code checkpoint_remark(ckpt_checkpoint *c, ckpt_error *err);

#endif
