/* Refuses options unknown to this version. */
#include "options.h"

ckpt_code options_check_reserved(const uint64_t *reserved, size_t count, ckpt_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (reserved[i] != 0)
            return ckpt_fail(err, CKPT_E_USAGE, "unknown option for libckpt %s: reserved members "
                             "must be zero", CKPT_VERSION);
    return CKPT_OK;
}

const char *ckpt_version(void)
{
    return CKPT_VERSION;
}

void run_begin_phase(const ckpt_run_options *run, const char *name, uint64_t later_bytes)
{
    if (run->phase != NULL)
        run->phase(run->context, name, later_bytes);
}
