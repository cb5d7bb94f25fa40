/*
 * delta_stream.h: a delta as one stream of bytes, for pipes: a tar archive (POSIX ustar) of the
 * files of its directory.
 *
 *   ckpt-delta.json       the first member: it has the SHA-256 of all others
 *   the other files       in any order, each once; no folders, links or other kinds of members
 *   two blocks of zeros   then only zeros
 *
 * Names of more than 100 bytes are divided into prefix and name. A size of 8 GiB or more is in base
 * 256, as GNU tar writes it. All times are 0, so that equal deltas give equal streams.
 */
#ifndef CKPT_DELTA_STREAM_H
#define CKPT_DELTA_STREAM_H

#include "libckpt/ckpt.h"
#include "libckpt/error.h"

/* Write the delta in `directory`, which must have a side file, to a descriptor. */
ckpt_code delta_stream_send(const char *directory, int fd, ckpt_error *err);

/*
 * Read a stream to its end and store its files in `directory`, a new folder. Each file is compared
 * with its SHA-256 as it arrives. A stream that ends before all files have come and the end of the
 * archive is CKPT_E_FORMAT. `run` may cancel it.
 */
ckpt_code delta_stream_receive(int fd, const char *directory, const ckpt_run_options *run,
                               ckpt_error *err);

/* The same for a packed checkpoint, whose file is the stream. Its index is at its end, so that it
 * waits in a file, too; reading that finds a stream that ended early. */
ckpt_code delta_stream_send_packed(const char *path, int fd, ckpt_error *err);
ckpt_code delta_stream_receive_packed(int fd, const char *path, const ckpt_run_options *run,
                                      ckpt_error *err);

/* A folder for a delta that is in a stream. */
typedef struct {
    char *folder;               /* a new hidden folder */
    char *path;                 /* of the delta in it */
} delta_spool;

/* Make one in the folder `where`; NULL: in $TMPDIR, else in /tmp. Release it, also after a
 * failure. */
ckpt_code delta_spool_make(const char *where, delta_spool *out, ckpt_error *err);
/* Replace the path in a message by '-', as the user gave it. */
void delta_spool_hide(const delta_spool *spool, char *text);
/* Removes the folder. */
void delta_spool_release(delta_spool *spool);

#endif
