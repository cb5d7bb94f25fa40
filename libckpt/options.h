/* options.h: the structs of options in ckpt.h, which grow into members that are reserved. */
#ifndef CKPT_OPTIONS_H
#define CKPT_OPTIONS_H

#include "error.h"

/* Refuse what a caller asks for that was built with a later ckpt.h: it must not be ignored. */
ckpt_code options_check_reserved(const uint64_t *reserved, size_t count, ckpt_error *err);

/* Tell the caller which phase begins; see ckpt_run_options. */
void run_begin_phase(const ckpt_run_options *run, const char *name, uint64_t later_bytes);

#endif
