/* remote_check.h: whether remote files are still as they were when they were opened. */
#ifndef CKPT_REMOTE_CHECK_H
#define CKPT_REMOTE_CHECK_H

#include "remote_session.h"

/* CKPT_E_FORMAT if it is not. Files of a commit cannot change; ModelScope's are listed again, and
 * web servers are asked again. */
ckpt_code remote_check(remote_session *s, remote_entry *entry, ckpt_error *err);
/* The same for every file that was opened. Call it when nothing more is read. */
ckpt_code remote_check_all(remote_session *s, ckpt_error *err);

#endif
