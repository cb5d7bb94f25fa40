/* html_private.h: what the html_*.c files share with each other only. */
#ifndef CKPT_HTML_PRIVATE_H
#define CKPT_HTML_PRIVATE_H

#include <stdio.h>

#include "html_report.h"
#include "layer_grid.h"

extern const char html_style[];

/* What the colours of a grid say. */
typedef enum {
    GRID_TENSORS,                  /* which are there */
    GRID_SPREADS,                  /* how far rms is from that of other layers */
    GRID_DIFFERENCES               /* how many are not those of the reference */
} grid_kind;

/* Layers and kinds as an SVG; the legend below it. */
void html_put_grid(FILE *out, const layer_grid *grid, grid_kind kind);

/* A bar for each count from `first` on, of those between the first and the last that is not 0;
 * `name` of bar i is its number plus `offset`. */
typedef struct {
    const char *title;
    const uint64_t *counts;
    int count;
    int offset;
    const char *unit;              /* "2^%d", "0x%02X": a format of the number */
} html_histogram;
void html_put_histogram(FILE *out, const html_histogram *histogram);

/* KL by position, and the first difference. */
void html_put_logits(FILE *out, const logits_comparison *logits);

#endif
