/* convert_private.h: what convert_plan.c asks of the files that decide what the target is. */
#ifndef CKPT_CONVERT_PRIVATE_H
#define CKPT_CONVERT_PRIVATE_H

#include "convert.h"

/* ---- convert_targets.c ---- */

/* Names of the target; before its tensors are picked, since a layout may omit some. */
ckpt_code convert_choose_map(convert_job *job, ckpt_error *err);

/* Encodings of the target. */
ckpt_code convert_choose_targets(convert_job *job, ckpt_error *err);

/* 1 when the target has the layout of the source. One file alone is a part of an HF directory. */
int convert_keeps_layout(const convert_job *job);

/* ---- convert_files.c, convert_like.c, convert_metadata.c ---- */

/* Stored tensors, files and positions of the target. */
ckpt_code convert_lay_out(convert_job *job, ckpt_error *err);
ckpt_code convert_lay_out_like(convert_job *job, ckpt_error *err);

/* `__metadata__` of target files that are not those of the source. */
ckpt_code convert_keep_metadata(convert_job *job, ckpt_error *err);

#endif
