/* convert_private.h: what the files of a conversion ask of each other. */
#ifndef CKPT_CONVERT_PRIVATE_H
#define CKPT_CONVERT_PRIVATE_H

#include "convert.h"

/* ---- convert_run.c ---- */

/* Picked inputs -> digest tap -> encodings, and where --verify needs it another digest tap. */
typedef struct {
    ckpt_source *tap;
    ckpt_source *encoded;
    ckpt_source *written;            /* what is copied: `encoded`, or the tap on it */
    side_data_writer *spill;         /* or NULL */
} convert_pipeline;

ckpt_run_options convert_copy_with(const convert_job *job);

/* FP8 experts that stay what they are keep the way back to FP4. */
int convert_carries_side_data(const convert_job *job);

/* ---- convert_parts.c ---- */

typedef struct {
    side_data_writer *spill;
    ckpt_journal *journal;
} convert_spill_sync;

/* Exceptions reach the disk before the journal says that their tensor is done. `context` is a
 * convert_spill_sync. */
ckpt_code convert_sync_spill(void *context, ckpt_error *err);
/* What the format puts around the data of some tensors; NULL: of all. */
ckpt_code convert_seal(convert_job *job, const uint8_t *tensors, ckpt_error *err);
/* This part is done. The last one checks what the others wrote and goes on: job->is_waiting. */
ckpt_code convert_join(convert_job *job, const convert_pipeline *p, ckpt_error *err);
/* job->is_there: DST exists, and holds what this part would write. */
ckpt_code convert_find_result(convert_job *job, const convert_pipeline *p, ckpt_error *err);

/* ---- convert_space.c ---- */

/* What the result still takes below `directory`, and what its file system has. */
ckpt_code convert_find_room(const convert_job *job, const char *directory, convert_room *out,
                            ckpt_error *err);
ckpt_code convert_check_room(const convert_job *job, ckpt_error *err);
/* Refuse file names that are not what they look like, and what cannot be carried along. */
ckpt_code convert_check_files(convert_job *job, ckpt_error *err);

/* ---- convert_feed.c ---- */

/* The result has its name: named of output_options, the job is its context. */
ckpt_code convert_feed_named(void *job, ckpt_error *err);

/* What moves tensors, for convert_feed_copy: `to` takes those that are ready. */
typedef struct {
    ckpt_source *from;
    ckpt_sink *to;
    const ckpt_run_options *options;
    uint8_t *ready;                  /* by target tensor */
} feed_copy;

/* Refuse what does not go with a source that comes file by file. */
ckpt_code convert_feed_check(const convert_job *job, ckpt_error *err);
/* ckpt_copy, as the files come. */
ckpt_code convert_feed_copy(convert_job *job, const feed_copy *copy, ckpt_error *err);

/* ---- convert_notes.c ---- */

/* The notes of what was opened, and of what was chosen. */
ckpt_code convert_take_notes(convert_job *job, ckpt_error *err);

/* ---- convert_targets.c ---- */

/* Names of the target; before its tensors are picked, since a layout may omit some. */
ckpt_code convert_choose_map(convert_job *job, ckpt_error *err);

/* Encodings of the target. */
ckpt_code convert_choose_targets(convert_job *job, ckpt_error *err);

/* 1 when the target has the layout of the source. One file alone is a part of an HF directory. */
int convert_keeps_layout(const convert_job *job);

/* ---- convert_config.c ---- */

/* Refuse another encoding for a source that is quantised in a way that no conversion knows. */
ckpt_code convert_check_method(const convert_job *job, ckpt_error *err);

/* config.json of the target, and inference/config.json. Refuses encodings that they cannot say. */
ckpt_code convert_plan_config(convert_job *job, ckpt_error *err);

/* ---- convert_files.c, convert_like.c, convert_metadata.c ---- */

/* Stored tensors, files and positions of the target. */
ckpt_code convert_lay_out(convert_job *job, ckpt_error *err);
ckpt_code convert_lay_out_like(convert_job *job, ckpt_error *err);

/* `__metadata__` of target files that are not those of the source. */
ckpt_code convert_keep_metadata(convert_job *job, ckpt_error *err);

#endif
