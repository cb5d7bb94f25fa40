/* remote_check.h: whether remote files are still as they were when they were opened. Asked once, of
 * all files together: a listing or a round of requests serves any number of them. */
#ifndef CKPT_REMOTE_CHECK_H
#define CKPT_REMOTE_CHECK_H

#include "remote_session.h"

/* CKPT_E_FORMAT if a file that was opened is not. Files of a commit cannot change; ModelScope's are
 * listed again, and web servers are asked again. Call it when nothing more is read. */
ckpt_code remote_check_all(remote_session *s, ckpt_error *err);

#endif
