/* remote_folder.h: a kind of ckpt_folder (folder.h): a folder of a remote session. */
#ifndef CKPT_REMOTE_FOLDER_H
#define CKPT_REMOTE_FOLDER_H

#include "remote_session.h"

/* The folder `path` of the session, "" for its root. Holds the session. *out is yours to close. */
ckpt_code remote_folder_open(remote_session *s, const char *path, ckpt_folder **out,
                             ckpt_error *err);
/* 1 if a file is in it. */
int remote_folder_exists(const ckpt_folder *f);

#endif
