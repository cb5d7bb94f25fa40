/* remote_check.h: whether a remote file is still as it was when it was opened. */
#ifndef CKPT_REMOTE_CHECK_H
#define CKPT_REMOTE_CHECK_H

#include "remote_session.h"

/* CKPT_E_FORMAT if it is not. Files of a commit cannot change; ModelScope's are listed again, and
 * web servers are asked again. */
ckpt_code remote_check(remote_session *s, remote_entry *entry, ckpt_error *err);

#endif
