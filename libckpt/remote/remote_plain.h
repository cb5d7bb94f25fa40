/* remote_plain.h: folders of web servers, as a kind of hub without listing. */
#ifndef CKPT_REMOTE_PLAIN_H
#define CKPT_REMOTE_PLAIN_H

#include "remote_session.h"

/* Its endpoint is the URL of the folder. No token is ever sent. */
extern const hub_kind hub_plain;

/* 1 for the name of a file that is a checkpoint by itself: a URL that ends in it names the file. */
int remote_plain_is_weights(const char *name);

/* Try the names that checkpoints consist of, all at once, and begin to fetch the files that an
 * index names. With `file`, not "", nothing is tried: the URL names that file. */
ckpt_code remote_plain_look(remote_session *s, const char *file, ckpt_error *err);

#endif
