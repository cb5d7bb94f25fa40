/*
 * losses.h: sums of quantisation losses over tensors and classes of weights.
 *
 * The relative error of a group is computed from sums of squares; it is not a mean of ratios.
 */
#ifndef CKPT_LOSSES_H
#define CKPT_LOSSES_H

#include "libckpt/class_rules.h"
#include "libckpt/json.h"
#include "libckpt/outcome.h"

typedef struct {
    size_t exact_count;            /* tensors without a changed value */
    size_t restored_count;         /* tensors with only original blocks */
    size_t rounded_count;          /* all other tensors */
    size_t worst;                  /* target tensor with the largest relative error */
    double worst_error;            /* its error; 0: no tensor lost anything */
    uint64_t replaced;             /* NaN and infinite values that became 0, before rounding */
    quantise_loss total;
    quantise_loss classes[WEIGHT_CLASS_COUNT];
} loss_summary;

/* Sum up the losses of an outcome with rules. */
void losses_add_up(const ckpt_outcome *outcome, loss_summary *out);

/*
 * Put the members of one loss: elements, blocks, kept_blocks (they have the original's bytes),
 * rounded (elements that changed), saturated (beyond the largest code before they were rounded),
 * underflowed (nonzero before, 0 now), dropped_signs (-0 before, +0 now), max_abs, relative_error
 * (of x as it was quantised, see quantise_loss_relative), sqnr_db (null: nothing was lost).
 */
void losses_put(json_writer *w, const quantise_loss *loss);

/* Put the member "quantised": rules (tensors by rule), exact_tensors, restored_tensors,
 * rounded_tensors, worst_tensor, worst_relative_error, replaced, total, classes. Puts nothing if no
 * tensor was quantised. */
void losses_put_summary(json_writer *w, const ckpt_outcome *outcome);

/* "fp4-b32-deepseek (48 tensors), fp8-b128-ue8m0 (31 tensors)", into out. */
void losses_rules_text(const ckpt_outcome *outcome, char *out, size_t out_bytes);

#endif
