/*
 * convert_plan.h: what a conversion will do. Decided before any tensor data is read; from then on
 * it does not change: the run and everybody who tells of it only read it.
 *
 * The files that it has opened are handles: the run opens the target's for writing, and a feed
 * replaces the source's when their data comes.
 */
#ifndef CKPT_CONVERT_PLAN_H
#define CKPT_CONVERT_PLAN_H

#include "convert.h"
#include "formats/format.h"
#include "side_data.h"

typedef struct {
    convert_options options;
    ckpt_checkpoint *source;
    ckpt_checkpoint *like;           /* or NULL */
    ckpt_checkpoint *fill;           /* or NULL */
    ckpt_source *picked;             /* every input tensor, in the order of the target */
    const char **origins;            /* by target tensor: fill_from, or NULL */
    outcome_drop *drops;             /* inputs that the target's layout cannot carry */
    size_t drop_count;
    ckpt_catalog *targets;           /* logical tensors as they shall be */
    ckpt_map *map;                   /* of the target; NULL with like */
    ckpt_store *store;               /* target files, laid out */
    ckpt_layout *layout;
    char *config_text;               /* of the target, or NULL */
    char *inference_text;            /* CONFIG_INFERENCE_FILE, made of it; or NULL */
    side_data *side;                 /* of the source, or NULL */
    int writes_side_data;            /* FP4 -> FP8 */
    int with_index;
    hash128 fingerprint;
    uint8_t *share;                  /* by target tensor: this process writes it; NULL: all */
    uint64_t fixed_bytes;            /* what the catalogs take */
    uint64_t tile_bytes;             /* memory of one thread's tile */
    uint64_t in_bytes;
    uint64_t out_bytes;
    uint64_t extra_bytes;            /* of the files that are carried along */
    file_list notes;                 /* of the inputs, and what the target leaves out */
} job_plan;

/* *out is yours to free. The options' strings are borrowed. */
ckpt_code job_plan_make(const convert_options *options, job_plan **out, ckpt_error *err);
void job_plan_free(job_plan *plan);          /* NULL is fine */

/* ---- convert_space.c: asked of a plan that is made, too ---- */

/* What the result still takes below `directory`, and what its file system has. */
ckpt_code convert_find_room(const job_plan *plan, const char *directory, convert_room *out,
                            ckpt_error *err);
/* The same beside DST, before anything of it is there. */
ckpt_code convert_find_planned_room(const job_plan *plan, convert_room *out, ckpt_error *err);
ckpt_code convert_check_room(const job_plan *plan, const char *directory, ckpt_error *err);
/* FP8 experts that stay what they are keep the way back to FP4. */
int convert_carries_side_data(const job_plan *plan);
/* Append the names of what the run makes: weights, and what is carried along. */
ckpt_code convert_name_files(const job_plan *plan, file_list *out, ckpt_error *err);

/* ---- steps of planning ---- */

/* Refuse file names that are not what they look like, and what cannot be carried along. */
ckpt_code convert_check_files(job_plan *plan, ckpt_error *err);

/* The notes of what was opened, and of what was chosen. */
ckpt_code convert_take_notes(job_plan *plan, ckpt_error *err);

/* Names of the target; before its tensors are picked, since a layout may omit some. */
ckpt_code convert_choose_map(job_plan *plan, ckpt_error *err);

/* Encodings of the target. */
ckpt_code convert_choose_targets(job_plan *plan, ckpt_error *err);

/* 1 when the target has the layout of the source. One file alone is a part of an HF directory. */
int convert_keeps_layout(const job_plan *plan);

/* Refuse another encoding for a source that is quantised in a way that no conversion knows. */
ckpt_code convert_check_method(const job_plan *plan, ckpt_error *err);

/* config.json of the target, and inference/config.json. Refuses encodings that they cannot say. */
ckpt_code convert_plan_config(job_plan *plan, ckpt_error *err);

/* Stored tensors, files and positions of the target. */
ckpt_code convert_lay_out(job_plan *plan, ckpt_error *err);
ckpt_code convert_lay_out_like(job_plan *plan, ckpt_error *err);

/* `__metadata__` of target files that are not those of the source. */
ckpt_code convert_keep_metadata(job_plan *plan, ckpt_error *err);

#endif
