/*
 * delta_target.h: a checkpoint in the layout of a delta: as it is stored, or as a planned
 * conversion would write it.
 */
#ifndef CKPT_DELTA_TARGET_H
#define CKPT_DELTA_TARGET_H

#include "delta_model.h"
#include "formats/convert/convert_pipeline.h"

/* How the target layout is chosen, as in ckpt-convert. All NULL: no plan. */
typedef struct {
    const char *target;             /* path of the delta, which must not be an input */
    convert_words words;
    const char *names;
    const char *like;
    int allow_lossy;
    quantise_policy quantise;       /* its `only` and `skip`; the rules are in `words` */
    int sticky_scale;               /* with words.quantise; see convert_options */
    int quantise_f32;
} delta_layout;

int delta_layout_is_given(const delta_layout *layout);

typedef struct {
    ckpt_checkpoint *checkpoint;    /* NULL if there is a plan */
    job_plan *plan;
    convert_pipeline pipeline;
    job_result result;
    delta_input in;
    const ckpt_checkpoint *source;  /* `checkpoint`, or that of the plan; borrowed */
    const char *config;             /* text of config.json in that layout, or NULL; borrowed */
} delta_target;

/* Release *out, also after a failure. */
ckpt_code delta_target_open(const char *path, const ckpt_open_options *open, delta_target *out,
                            ckpt_error *err);
ckpt_code delta_target_plan(const char *path, const delta_layout *layout,
                            const ckpt_open_options *open, delta_target *out, ckpt_error *err);
void delta_target_release(delta_target *target);

/* Compare the root that the source holds, if any, with `root`, that of `in`, after all tensors were
 * read; note in `notes` if that is not of the same values. */
ckpt_code delta_target_check_root(const delta_target *target, const char *root, file_list *notes,
                                  ckpt_error *err);

/* What rounding by rules lost, after all tensors were read. 0 in *is_there: nothing was rounded.
 * Refuses a loss above the limits. */
ckpt_code delta_target_loss(delta_target *target, int *is_there, quantise_loss *out,
                            ckpt_error *err);

#endif
