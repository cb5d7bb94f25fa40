/*
 * replaceable.h: what may be lost. A folder may be replaced when it holds nothing but a checkpoint:
 * every file in it is listed by ckpt's manifest or journals, named by the index beside it, or one
 * of the names that checkpoints of the layout consist of.
 */
#ifndef CKPT_REPLACEABLE_H
#define CKPT_REPLACEABLE_H

#include "file.h"

/* Left beside a result by a conversion; its member `files` lists what the conversion wrote. */
#define MANIFEST_FILE "ckpt-manifest.json"

/* Refuse unless what is at `path` is a checkpoint and nothing else, or an empty folder, or a link
 * (which alone would go). The first file that is none of it is named. `layout`: of what comes in
 * its place ("hf", "mp", "torch_dist"): a checkpoint of another one must have been written by ckpt;
 * NULL: any may go. */
ckpt_code replaceable_check(const char *path, const char *layout, ckpt_error *err);

/*
 * Remove a folder that is being written, or what is left of it: first what its journals make ours,
 * then the journals. Refused, with nothing removed, while a process has one of them open. What has
 * no journal at all is not ours.
 */
ckpt_code replaceable_discard_partial(const char *directory, ckpt_error *err);

#endif
