/*
 * remote_session.h: one repository, or one folder of a web server, while it is read.
 *
 * Readers ask the session's thread (remote_network.h) for blocks of files, and wait for them here.
 */
#ifndef CKPT_REMOTE_SESSION_H
#define CKPT_REMOTE_SESSION_H

#include "remote_state.h"

void remote_session_hold(remote_session *s);
void remote_session_drop(remote_session *s);         /* the last one frees it */

/* The file of this path, or NULL if there is none, in *out. Tries it at a server without
 * listing. A file that may not be read is an error, unless the server says the same of files that
 * do not exist. */
ckpt_code remote_session_find(remote_session *s, const char *path, remote_entry **out,
                              ckpt_error *err);
/* Fail because remote_session_find found no file of this path. */
ckpt_code remote_session_fail_absent(const remote_session *s, const char *path, ckpt_error *err);
/* For servers without listing: try the file without waiting. */
ckpt_code remote_session_expect(remote_session *s, const char *path, ckpt_error *err);
/* Read bytes, which are within the file, into `out`. */
typedef struct {
    uint64_t offset;
    size_t size_bytes;
    uint64_t needed_end;         /* the caller will read on up to here */
} remote_range;
ckpt_code remote_session_read(remote_session *s, remote_entry *entry, const remote_range *range,
                              void *out, ckpt_error *err);

#endif
