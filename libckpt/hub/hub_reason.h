/*
 * hub_reason.h: why a download failed: finer than a ckpt_code. It travels in the error itself
 * (ckpt_error.detail), set where the error is made; nothing else remembers it.
 */
#ifndef CKPT_HUB_REASON_H
#define CKPT_HUB_REASON_H

#include "libckpt/error.h"

/* Told in --json. */
typedef enum {
    HUB_FINE,
    HUB_OTHER,
    HUB_USAGE,
    HUB_AUTH,            /* token missing, rejected, or without the right */
    HUB_NOT_FOUND,
    HUB_INTEGRITY,       /* bytes are not what the hub lists */
    HUB_DISK,            /* the system refused something about one file */
    HUB_DISK_FULL,       /* no space, or no quota: the same for every file */
    HUB_NETWORK,         /* tried again as often as allowed */
    HUB_PARTIAL,         /* some files failed, for more than one reason */
    HUB_INTERRUPTED
} hub_reason;
const char *hub_reason_name(hub_reason reason);

/* Fails with a reason. */
ckpt_code hub_fail(hub_reason reason, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The system refused: `error` is its errno, which is told at the end of the line. */
ckpt_code hub_fail_disk(int error, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
ckpt_code hub_fail_interrupted(ckpt_error *err);
/* The reason of an error, also of one that libckpt made. */
hub_reason hub_reason_of(const ckpt_error *err);

#endif
