/*
 * replaceable.h: which paths --overwrite may replace. A folder may be replaced if it contains
 * nothing but a checkpoint: every file in it is listed by ckpt's manifest or journals, is listed by
 * the checkpoint's index, or has one of the names that checkpoints of the layout consist of.
 */
#ifndef CKPT_REPLACEABLE_H
#define CKPT_REPLACEABLE_H

#include "file.h"

/* Written by a conversion into its result; the member `files` lists the files that it wrote. */
#define MANIFEST_FILE "ckpt-manifest.json"

/* Refuse `path` unless it is a folder with a checkpoint and nothing else, an empty folder, one
 * .safetensors file, or a link (which is replaced itself, not its target). The error names the
 * first file that is not part of the checkpoint. `layout` is that of the new checkpoint ("hf",
 * "mp", "torch_dist"): an old one of another layout may be replaced only if ckpt wrote it. NULL:
 * any layout may be replaced. */
ckpt_code replaceable_check(const char *path, const char *layout, ckpt_error *err);

/*
 * Remove an unfinished output folder: first its other files, then the journals. Refused, with
 * nothing removed, while a process has one of the journals open, or if a file is not part of a
 * checkpoint. A folder without a journal is left alone: ckpt did not make it.
 */
ckpt_code replaceable_discard_partial(const char *directory, ckpt_error *err);
/* Refuse what that would refuse, and remove nothing. */
ckpt_code replaceable_check_partial(const char *directory, ckpt_error *err);

#endif
