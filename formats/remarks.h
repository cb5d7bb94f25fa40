/* remarks.h: notes on a readable checkpoint that may not be what the user expects. */
#ifndef CKPT_REMARKS_H
#define CKPT_REMARKS_H

#include "format.h"

enum { CONFIG_HINT_BYTES = 640 };

/* Notes for: one file of several, an adapter, weights quantised by other packages, Mistral's own
 * form, a decoder of Megatron without a config, an index with a wrong total. Call after the stored
 * tensors are listed. */
ckpt_code checkpoint_remark(ckpt_checkpoint *c, ckpt_error *err);

/* Where the config.json of a checkpoint without one may be, in parentheses, for the end of a
 * sentence that asks for it; "" if nothing is known. That place is only named, and never opened. */
void checkpoint_config_hint(const ckpt_checkpoint *c, char out[CONFIG_HINT_BYTES]);

#endif
