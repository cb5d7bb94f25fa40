/*
 * hub_reason.h: why a download failed, in more detail than a ckpt_code. It is passed in the error
 * itself (ckpt_error.detail), set where the error is made, and stored nowhere else.
 */
#ifndef CKPT_HUB_REASON_H
#define CKPT_HUB_REASON_H

#include "libckpt/error.h"

/* Printed by --json. */
typedef enum {
    HUB_FINE,
    HUB_OTHER,
    HUB_USAGE,
    HUB_AUTH,            /* token missing, rejected or without permission */
    HUB_NOT_FOUND,
    HUB_INTEGRITY,       /* data differs from the hub's listing */
    HUB_DISK,            /* a system call failed for one file */
    HUB_DISK_FULL,       /* no space or quota left: affects every file */
    HUB_NETWORK,         /* all retries failed */
    HUB_PARTIAL,         /* some files failed, for more than one reason */
    HUB_INTERRUPTED
} hub_reason;
const char *hub_reason_name(hub_reason reason);

/* ckpt_fail with a reason. */
ckpt_code hub_fail(hub_reason reason, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A system call failed: the text of errno `error` is appended to the line. */
ckpt_code hub_fail_disk(int error, ckpt_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
ckpt_code hub_fail_interrupted(ckpt_error *err);
/* The reason of an error, also of one from libckpt. */
hub_reason hub_reason_of(const ckpt_error *err);

#endif
