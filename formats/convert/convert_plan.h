/*
 * convert_plan.h: the plan of a conversion. It is made before any tensor data is read and
 * immutable from then on.
 *
 * Its open files are handles: the run opens the target's for writing, and a feed replaces the
 * source's when their data arrives.
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
    ckpt_checkpoint *calibration;    /* of --input-scale, while the plan is made; or NULL */
    ckpt_source *picked;             /* every input tensor, in the order of the target */
    const char **origins;            /* by target tensor: fill_from, or NULL */
    outcome_drop *drops;             /* inputs that the target's layout cannot store */
    size_t drop_count;
    ckpt_catalog *targets;           /* logical tensors of the target */
    const quantise_rule **rules;     /* by target tensor, NULL: none; NULL: no tensor has one */
    float *input_scales;             /* by target tensor, of those that have none; or NULL */
    ckpt_map *map;                   /* of the target; NULL with like */
    ckpt_store *store;               /* target files, laid out */
    ckpt_layout *layout;
    char *config_text;               /* of the target, or NULL */
    char *inference_text;            /* CONFIG_INFERENCE_FILE, derived from it; or NULL */
    char *modelopt_text;             /* CONFIG_MODELOPT_FILE, likewise */
    side_data *side;                 /* of the source, or NULL */
    int writes_side_data;            /* FP4 -> FP8 */
    int is_recoded;                  /* some tensor changes its encoding */
    int with_index;
    hash128 fingerprint;
    uint8_t *share;                  /* by target tensor: this process writes it; NULL: all */
    uint64_t fixed_bytes;            /* memory of the catalogs */
    uint64_t tile_bytes;             /* memory of one thread's tile */
    uint64_t in_bytes;
    uint64_t out_bytes;
    uint64_t extra_bytes;            /* of the files copied along */
    file_list notes;                 /* of the inputs, and of what the target omits */
} job_plan;

/* *out is yours to free. The options' strings are borrowed. */
ckpt_code job_plan_make(const convert_options *options, job_plan **out, ckpt_error *err);
void job_plan_free(job_plan *plan);          /* NULL is fine */

/* Description of the target for its format; borrowed from the plan. (convert_files.c) */
format_target job_plan_target(const job_plan *plan);

/* ---- convert_space.c: also called with a complete plan ---- */

/* Space that a store's files still need below `directory`, with `extra_bytes` more, and free space
 * of its file system. */
ckpt_code convert_store_room(const ckpt_store *store, uint64_t extra_bytes, const char *directory,
                             convert_room *out, ckpt_error *err);
/* Refuse a room that is too small. `advice` ends the message, or is "". */
ckpt_code convert_require_room(const convert_room *room, const char *target, const char *advice,
                               ckpt_error *err);
/* The same as convert_store_room before TARGET.partial is made, or resumed. */
ckpt_code convert_target_room(const ckpt_store *store, uint64_t extra_bytes, const char *target,
                              convert_room *out, ckpt_error *err);
/* The same for all that the result of a plan needs. */
ckpt_code convert_find_room(const job_plan *plan, const char *directory, convert_room *out,
                            ckpt_error *err);
/* The same beside DST, before anything is written. */
ckpt_code convert_find_planned_room(const job_plan *plan, convert_room *out, ckpt_error *err);
ckpt_code convert_check_room(const job_plan *plan, const char *directory, ckpt_error *err);
/* 1 when this file beside the source's tensors is copied to the target. */
int convert_carries(const job_plan *plan, const char *name);
/* FP8 experts that are not converted keep the side data for the inverse conversion. */
int convert_carries_side_data(const job_plan *plan);
/* Append the names of the files that the run writes: weights and files copied along. */
ckpt_code convert_name_files(const job_plan *plan, file_list *out, ckpt_error *err);

/* ---- steps of planning, about in their order ---- */

/* convert_targets.c: names of the target; called before its tensors are picked, since a layout may
 * omit some. Then the encodings of those that were picked. */
ckpt_code convert_choose_map(job_plan *plan, ckpt_error *err);
ckpt_code convert_choose_targets(job_plan *plan, ckpt_error *err);
/* 1 if the target has the layout of the source. A single file counts as an HF directory. */
int convert_keeps_layout(const job_plan *plan);

/* convert_inputs.c: which tensor of the target comes from which input: `picked`, `origins` and
 * `drops`. Refuses inputs that do not have all of them. */
ckpt_code convert_pick_inputs(job_plan *plan, ckpt_error *err);

/* convert_config.c: refuse to change the encoding of a source with an unsupported quantisation. */
ckpt_code convert_check_method(const job_plan *plan, ckpt_error *err);
/* config.json of the target, and inference/config.json. Refuses encodings that they cannot
 * express. */
ckpt_code convert_plan_config(job_plan *plan, ckpt_error *err);

/* convert_notes.c: notes on the inputs and on choices made. */
ckpt_code convert_take_notes(job_plan *plan, ckpt_error *err);
/* Note the tensors that get other names, although source and target have the same naming style.
 * Needs the target's layout. */
ckpt_code convert_note_names(job_plan *plan, ckpt_error *err);
/* The stored name of a tensor's data; NULL: it has none. */
const char *convert_stored_name(const ckpt_layout *layout, size_t tensor);
/* convert_root.c: a note if the root that the source holds cannot be compared. */
ckpt_code convert_note_root(job_plan *plan, ckpt_error *err);

/* convert_files.c: stored tensors, files and positions of the target; by convert_like.c with
 * --like. */
ckpt_code convert_lay_out(job_plan *plan, ckpt_error *err);
ckpt_code convert_lay_out_like(job_plan *plan, ckpt_error *err);
/* convert_blocks.c: assign file numbers so that blocks of the model ("layers.3.", "mtp.0.") stay
 * whole and files are filled up to the limit with them. */
ckpt_code convert_number_blocks(ckpt_catalog *targets, uint64_t limit, uint32_t *file_count,
                                ckpt_error *err);
/* convert_metadata.c: `__metadata__` of target files that are not those of the source. */
ckpt_code convert_keep_metadata(job_plan *plan, ckpt_error *err);

/* convert_input_scales.c: find the scales of activations beside new NVFP4 weights. Needs the layout
 * of the target. */
ckpt_code convert_take_input_scales(job_plan *plan, ckpt_error *err);

/* convert_space.c: refuse deceptive file names and files that cannot be copied. */
ckpt_code convert_check_files(job_plan *plan, ckpt_error *err);

#endif
