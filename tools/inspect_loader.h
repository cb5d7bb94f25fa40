/* inspect_loader.h: will a program load this checkpoint? */
#ifndef CKPT_INSPECT_LOADER_H
#define CKPT_INSPECT_LOADER_H

#include "formats/format.h"
#include "verify/loaders.h"

/* Print the reasons why `loader` (a known name) will not load it. *status: set to CLI_DIFFERENT if
 * there are any. */
ckpt_code inspect_for(const ckpt_checkpoint *c, const char *loader, int as_json, int *status,
                      ckpt_error *err);

/* Add notes where the encodings in config.json differ from those of the files. */
ckpt_code inspect_note_config(ckpt_checkpoint *c, ckpt_error *err);

/* Compare the encodings in config.json with those of the files. */
ckpt_code inspect_judge_config(const ckpt_checkpoint *c, loader_verdict *out, ckpt_error *err);

#endif
