/*
 * convert_feed.h: a conversion whose source arrives file by file, and may be deleted file by file.
 *
 * Everything is planned from a headers directory: like the source, but tensor files have only
 * their sizes and headers, no data. A tensor is converted when every file with data of it has
 * arrived. A file is finished when everything in it is converted, synced and journaled: a later
 * run never needs it.
 */
#ifndef CKPT_CONVERT_FEED_H
#define CKPT_CONVERT_FEED_H

#include "libckpt/error.h"

/* Disk space that the result still needs, and free space. */
typedef struct {
    uint64_t need_bytes;
    uint64_t free_bytes;         /* UINT64_MAX: unknown */
    uint64_t device;
} convert_room;

typedef struct convert_feed convert_feed;
struct convert_feed {
    const char *headers_dir;     /* the directory to plan from */
    /* Called once, first. */
    ckpt_code (*room)(convert_feed *self, const convert_room *room, ckpt_error *err);
    /* Announces a file that is needed; NULL after the last one. */
    ckpt_code (*want)(convert_feed *self, const char *name, ckpt_error *err);
    /* Wait for the next file; it is complete then, in the source's directory. */
    ckpt_code (*next)(convert_feed *self, const char **name, ckpt_error *err);
    /* Called for every file that arrived, and before the last `want` for those that an earlier run
     * has finished: it is finished, or the rest of it waits for other files (then it is finished
     * later). */
    ckpt_code (*answer)(convert_feed *self, const char *name, int is_finished, ckpt_error *err);
    /* The result was renamed into place. Its journal is removed only when this returns: by then
     * the caller has recorded that the source is to be deleted. */
    ckpt_code (*named)(convert_feed *self, const char *path, ckpt_error *err);
};

#endif
