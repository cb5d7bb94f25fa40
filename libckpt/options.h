/* options.h: helpers for the options structs of ckpt.h and their reserved members. */
#ifndef CKPT_OPTIONS_H
#define CKPT_OPTIONS_H

#include "error.h"

/* Refuse non-zero reserved members: a caller built with a later ckpt.h asks for something that this
 * version would silently ignore. */
ckpt_code options_check_reserved(const uint64_t *reserved, size_t count, ckpt_error *err);

/* Call the caller's `phase` function; see ckpt_run_options. */
void run_begin_phase(const ckpt_run_options *run, const char *name, uint64_t later_bytes);

#endif
