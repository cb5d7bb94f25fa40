/*
 * delta_apply.h: applies deltas to a checkpoint and writes the result, or only verifies that they
 * fit. One pass over the base: the bytes that are checked and digested are those that are written.
 */
#ifndef CKPT_DELTA_APPLY_H
#define CKPT_DELTA_APPLY_H

#include "delta_chain.h"
#include "delta_model.h"
#include "formats/convert/convert_feed.h"

typedef enum {
    DELTA_CHECK_TOUCHED,        /* check the base's tensors that the deltas change */
    DELTA_CHECK_FULL,           /* and the root of the whole base */
    DELTA_CHECK_NONE            /* check neither, nor the root of the result */
} delta_base_check;

typedef struct {
    const char *base;
    char *const *deltas;
    size_t delta_count;
    const char *target;         /* NULL: nothing is written */
    int in_place;               /* the base becomes the result; no target */
    delta_base_check check;
    int restart;                /* discard another command's unfinished output */
    int no_space_check;
    int dry_run;                /* read no tensor data, write nothing */
    ckpt_open_options open;
    ckpt_run_options run;
} delta_apply_options;

typedef struct {
    delta_roots base;           /* empty: not known */
    delta_roots result;
    size_t tensor_count;        /* stored tensors */
    size_t changed_count;
    size_t kept_count;          /* tensors that an earlier run had written */
    uint64_t bytes;             /* of all tensors */
    uint64_t packed_bytes;      /* of the deltas' frames */
    char version[DELTA_VERSION_BYTES];      /* of the last delta; empty: there was none */
    convert_room room;          /* with dry_run and a target */
    size_t shared_count;        /* files that began with the blocks of the base's */
    file_list notes;
} delta_outcome;

/* Release *out, also after a failure. A target appears complete or not at all; the same call
 * resumes a run that was killed. */
ckpt_code delta_apply(const delta_apply_options *options, delta_outcome *out, ckpt_error *err);
void delta_outcome_release(delta_outcome *outcome);

#endif
