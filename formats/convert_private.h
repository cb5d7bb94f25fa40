/* convert_private.h: what convert_plan.c asks of convert_layout.c. */
#ifndef CKPT_CONVERT_PRIVATE_H
#define CKPT_CONVERT_PRIVATE_H

#include "convert.h"

/* Names of the target; before its tensors are picked, since a layout may omit some. */
ckpt_code convert_choose_map(convert_job *job, ckpt_error *err);

/* Encodings of the target. */
ckpt_code convert_choose_targets(convert_job *job, ckpt_error *err);

/* Stored tensors, files and positions of the target. */
ckpt_code convert_lay_out(convert_job *job, ckpt_error *err);

#endif
