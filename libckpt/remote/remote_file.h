/* remote_file.h: a kind of ckpt_file (file_ops.h): a file of a remote session. */
#ifndef CKPT_REMOTE_FILE_H
#define CKPT_REMOTE_FILE_H

#include "remote_session.h"

/* Holds the session. *out is yours to close. */
ckpt_code remote_file_open(remote_session *s, remote_entry *entry, ckpt_file **out,
                           ckpt_error *err);

#endif
