/*
 * feed.h: how ckpt-download --delete-source and a converter speak, over the converter's standard
 * input, a socket. Lines:
 *
 *   converter: room N F D   the result will take N more bytes of its disk D, of which F are free
 *              want NAME    something of this file is needed; one line each (or done NAME: an
 *                           earlier run has converted it; what is not named is not used)
 *              go           these were all
 *              done NAME    all of it is written and synced: no later run needs it
 *              held NAME    the rest of it waits for other files
 *              named PATH   the result has its name; nothing of the source is needed any more
 *   download:  NAME         this file is there, verified
 *              noted        the answer to `named`: the result's journal may go
 *
 * The end of either side ends the other; both can be killed at any time.
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

ckpt_code feed_send(const feed_stream *s, const char *word, const char *name, ckpt_error *err);
/* The next line, without its end, in `line`. 1: there it is; 0: not within wait_ms; -1: the other
 * side is gone, or speaks another language. */
int feed_receive(feed_stream *s, int wait_ms, char line[FEED_LINE_BYTES]);

/* The converter's side. */
typedef struct {
    convert_feed base;
    feed_stream stream;
    const atomic_int *stop;
    char name[FEED_LINE_BYTES];
} feed_converter;
void feed_converter_init(feed_converter *f, const char *shape, const atomic_int *stop);

#endif
