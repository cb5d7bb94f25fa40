/*
 * layer_grid.h: summarises tensors by layer and kind, to draw a whole model. A cell stands for all
 * tensors of a layer whose names differ only in numbers ("ffn.experts.*.w1.weight").
 */
#ifndef CKPT_LAYER_GRID_H
#define CKPT_LAYER_GRID_H

#include "certificate.h"
#include "statistics.h"

typedef struct {
    size_t tensor_count;           /* 0: the layer has none */
    size_t finding_count;          /* findings that fail */
    size_t differing_count;        /* in a comparison: tensors that differ; */
    size_t lone_count;             /* of these: tensors on one side only */
    uint64_t value_count;          /* finite ones */
    double squares;                /* their sum */
    double deviation;              /* log2(rms) minus the median of its row; NaN: no values */
    char encoding[64];             /* of its first tensor */
} grid_cell;

enum { GRID_CELLS_MAX = 1 << 15 };

typedef struct {
    char **layers;                 /* columns, in natural order; "rest" is the last */
    size_t layer_count;
    char **kinds;                  /* rows, without the layer: "attn.wq_a.weight" */
    size_t kind_count;
    grid_cell *cells;              /* by kind, then layer; NULL: more than GRID_CELLS_MAX */
} layer_grid;

/* Make the grid of checkpoint `i`; statistics (of its tensors) may be NULL. *out is yours to
 * release, also on failure. */
ckpt_code layer_grid_make(const certificate *c, size_t i, const source_statistics *statistics,
                          layer_grid *out, ckpt_error *err);
/* Compare checkpoint `i` with the reference by digests, or by shapes if one has no digests. A
 * tensor of both is counted once. */
ckpt_code layer_grid_compare(const certificate *c, size_t i, layer_grid *out, ckpt_error *err);
void layer_grid_release(layer_grid *grid);

#endif
