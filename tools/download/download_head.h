/*
 * download_head.h: the headers of a repository's tensor files, so that a conversion can be planned
 * before the data is downloaded.
 *
 *   SIDE/KEY.HASH.head    the size of the whole file, but only the header has bytes: the rest is a
 *                         hole. Its time is derived from the hash: comparing name, size, time and
 *                         header then distinguishes contents.
 *   SIDE/shape/           the repository with links: to heads, and to the other files themselves
 */
#ifndef CKPT_DOWNLOAD_HEAD_H
#define CKPT_DOWNLOAD_HEAD_H

#include "download_place.h"

/* A selected tensor file that is worth deleting early: it is large enough to have a journal. */
int head_is_shard(const hub_file *file);

/*
 * Make the head of a shard from the received bytes, if it does not exist. *need_bytes: 0 if it
 * exists now, else the number of bytes that the partial must have from the start of the file.
 */
ckpt_code head_make(const place *p, const hub_file *file, uint64_t *need_bytes, ckpt_error *err);

/* Recreate the headers folder (SIDE/shape) of the selected files. *path is yours to free. */
ckpt_code head_make_headers_dir(const place *p, const hub_listing *listing, char **path,
                          ckpt_error *err);

/* Remove the headers folder and the heads. */
ckpt_code head_remove_all(const place *p, const hub_listing *listing, ckpt_error *err);

#endif
