/*
 * feed.h: the protocol between ckpt-download --delete-source and a converter, over the converter's
 * standard input, a socket. Lines:
 *
 *   converter: room N F D   the result needs N more bytes on its disk D, which has F free
 *              want NAME    something of this file is needed; one line each (or done NAME: an
 *                           earlier run has converted it; what is not named is not used)
 *              go           end of the list
 *              done NAME    everything made from it is synced: no later run needs it
 *              held NAME    partly converted; waits for other files
 *              named PATH   the result was renamed; the source is no longer needed
 *   download:  NAME         this file is present and verified
 *              noted        the answer to `named`: the result's journal may go
 *
 * If either side ends, so does the other; both can be killed at any time.
 */
#ifndef CKPT_FEED_H
#define CKPT_FEED_H

#include <stdatomic.h>

#include "formats/convert/convert_feed.h"

enum { FEED_LINE_BYTES = 4352 };
#define FEED_NOTED "noted"

typedef struct {
    int fd;
    size_t used;
    char text[2 * FEED_LINE_BYTES];
} feed_stream;

/* Errors: CKPT_E_INTERRUPTED when the other side has ended; hub_reason.h's. */
ckpt_code feed_send(const feed_stream *s, const char *word, const char *name, ckpt_error *err);
/* The next line, without its end, in `line`. 1: received; 0: not within wait_ms; -1: connection
 * closed or protocol error. */
int feed_receive(feed_stream *s, int wait_ms, char line[FEED_LINE_BYTES]);

/* The converter's side. */
typedef struct {
    convert_feed base;
    feed_stream stream;
    const atomic_int *stop;
    char name[FEED_LINE_BYTES];
} feed_converter;
void feed_converter_init(feed_converter *f, const char *headers_dir, const atomic_int *stop);

#endif
