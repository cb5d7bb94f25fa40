/*
 * convert_feed.h: a conversion whose source comes file by file, and may go file by file.
 *
 * The whole is planned from the source's shape: a directory like the source, in which the tensor
 * files have their sizes and headers but no data. A tensor is converted when every file that holds
 * some of it has come. A file is finished when all that it holds is converted, synced and in the
 * journal: whatever happens then, a later run does not need it.
 */
#ifndef CKPT_CONVERT_FEED_H
#define CKPT_CONVERT_FEED_H

#include "libckpt/error.h"

/* What the result will still take of its disk, and what that has. */
typedef struct {
    uint64_t need_bytes;
    uint64_t free_bytes;         /* UINT64_MAX: it does not say */
    uint64_t device;
} convert_room;

typedef struct convert_feed convert_feed;
struct convert_feed {
    const char *shape;           /* the directory to plan from */
    /* Said once, first. */
    ckpt_code (*room)(convert_feed *self, const convert_room *room, ckpt_error *err);
    /* A file of which something is needed; NULL after the last one. */
    ckpt_code (*want)(convert_feed *self, const char *name, ckpt_error *err);
    /* Wait for the next file; it is whole now, in the source's own directory. */
    ckpt_code (*next)(convert_feed *self, const char **name, ckpt_error *err);
    /* Said of every file that came, and before the last `want` of those that an earlier run has
     * finished: it is finished, or the rest of it waits for other files (then
     * it is finished later). */
    ckpt_code (*answer)(convert_feed *self, const char *name, int is_finished, ckpt_error *err);
    /* The result has its name. Its journal goes only when this returns: by then somebody else has
     * noted that the source is to be cleaned away. */
    ckpt_code (*named)(convert_feed *self, const char *path, ckpt_error *err);
};

#endif
