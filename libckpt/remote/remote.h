/*
 * remote.h: folders that are read over the network, without a copy on disk: repositories of hubs
 * and folders of web servers.
 *
 *   hf://OWNER/NAME[@REVISION][/PATH]      Hugging Face
 *   ms://OWNER/NAME[@REVISION][/PATH]      ModelScope
 *   https://HOST/PATH                      any server that serves ranges; addresses of pages of the
 *                                          two hubs mean the repository
 *
 * They are kinds of ckpt_folder and ckpt_file (folder.h, file_ops.h): formats see no difference.
 */
#ifndef CKPT_REMOTE_H
#define CKPT_REMOTE_H

#include <stdatomic.h>

#include "libckpt/folder.h"

typedef struct {
    uint64_t memory_bytes;       /* the limit of the process, of which a part is used; 0: default */
    int is_quiet;                /* print no warnings of hubs on stderr */
    const atomic_int *stop;      /* not 0: end */
} remote_options;

/* 1 for a URL that remote_open understands. */
int remote_is_url(const char *path);

/* Open the folder of a URL, or the folder of the file that it names. Call folder_place_release,
 * also after a failure. */
ckpt_code remote_open(const remote_options *options, const char *url, folder_place *out,
                      ckpt_error *err);

#endif
