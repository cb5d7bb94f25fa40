/* inspect_loader.h: will a program load this checkpoint? */
#ifndef CKPT_INSPECT_LOADER_H
#define CKPT_INSPECT_LOADER_H

#include "formats/format.h"
#include "verify/loaders.h"

/* Print what speaks against loading it by this loader, which there is. *status becomes
 * CLI_DIFFERENT where something does. */
ckpt_code inspect_for(const ckpt_checkpoint *c, const char *loader, int as_json, int *status,
                      ckpt_error *err);

/* Notes where config.json does not say what the files hold. */
ckpt_code inspect_note_config(ckpt_checkpoint *c, ckpt_error *err);

/* Does config.json say what the files hold? */
ckpt_code inspect_judge_config(const ckpt_checkpoint *c, loader_verdict *out, ckpt_error *err);

#endif
