/*
 * download_head.h: the shape of a repository: its tensor files as far as their headers, so that a
 * conversion can be planned before the data is there.
 *
 *   SIDE/KEY.HASH.head    the size of the whole file, but only the header has bytes: the rest is a
 *                         hole. Its time is made of the hash: who tells files apart by name, size,
 *                         time and header, tells contents apart.
 *   SIDE/shape/           the repository with links: to heads, and to the other files themselves
 */
#ifndef CKPT_DOWNLOAD_HEAD_H
#define CKPT_DOWNLOAD_HEAD_H

#include "download_place.h"

/* A selected file of tensors that is worth taking away at once: it is large enough to have a
 * journal. */
int head_is_shard(const hub_file *file);

/*
 * Make the head of a shard, if it is not there, of what has come of the file. *need_bytes: 0 when
 * it is made, else so many bytes from the first on must be there, in the partial.
 */
ckpt_code head_make(const place *p, const hub_file *file, uint64_t *need_bytes, ckpt_error *err);

/* Make shape/ of the selected files anew. *path is yours to free. */
ckpt_code head_make_shape(const place *p, const hub_listing *listing, char **path,
                          ckpt_error *err);

/* Shape and heads are of no more use. */
ckpt_code head_remove_all(const place *p, const hub_listing *listing, ckpt_error *err);

#endif
