/* hub_reason.c: why a download failed. */
#include "hub_reason.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

const char *hub_reason_name(hub_reason reason)
{
    static const char *const names[] = { "fine", "other", "usage", "auth", "not-found",
                                         "integrity", "disk", "disk", "network", "partial",
                                         "interrupted" };

    return names[reason];
}

static ckpt_code fail_with(hub_reason reason, ckpt_error *err, const char *text)
{
    static const ckpt_code codes[] = { CKPT_OK,       CKPT_E_IO,        CKPT_E_USAGE,
                                       CKPT_E_IO,     CKPT_E_IO,        CKPT_E_DIFFERENT,
                                       CKPT_E_IO,     CKPT_E_IO,        CKPT_E_IO,
                                       CKPT_E_IO,     CKPT_E_INTERRUPTED };

    ckpt_fail(err, codes[reason], "%s", text);
    if (err != NULL)
        err->detail = (int)reason;
    return codes[reason];
}

ckpt_code hub_fail(hub_reason reason, ckpt_error *err, const char *format, ...)
{
    char text[CKPT_ERROR_BYTES];
    va_list args;

    va_start(args, format);
    error_format(text, format, args);
    va_end(args);
    return fail_with(reason, err, text);
}

ckpt_code hub_fail_disk(int error, ckpt_error *err, const char *format, ...)
{
    const hub_reason reason = error == ENOSPC || error == EDQUOT ? HUB_DISK_FULL : HUB_DISK;
    char text[CKPT_ERROR_BYTES];
    va_list args;

    va_start(args, format);
    error_format(text, format, args);
    va_end(args);
    return hub_fail(reason, err, "%s: %s", text, strerror(error));
}

ckpt_code hub_fail_interrupted(ckpt_error *err)
{
    return hub_fail(HUB_INTERRUPTED, err, "interrupted; run the same command again to resume");
}

hub_reason hub_reason_of(const ckpt_error *err)
{
    if (err->detail != 0)
        return (hub_reason)err->detail;
    switch (err->code) {
    case CKPT_OK:
        return HUB_FINE;
    case CKPT_E_IO:          /* errors of libckpt concern files, not the network */
        return HUB_DISK;
    case CKPT_E_USAGE:
        return HUB_USAGE;
    case CKPT_E_DIFFERENT:
        return HUB_INTEGRITY;
    case CKPT_E_INTERRUPTED:
        return HUB_INTERRUPTED;
    default:
        return HUB_OTHER;
    }
}
