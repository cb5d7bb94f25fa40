/* html_private.h: private to the html_*.c files. */
#ifndef CKPT_HTML_PRIVATE_H
#define CKPT_HTML_PRIVATE_H

#include <stdio.h>

#include "html_report.h"
#include "layer_grid.h"

extern const char html_style[];

/* What the colours of a grid show. */
typedef enum {
    GRID_TENSORS,                  /* which tensors exist */
    GRID_SPREADS,                  /* distance of the rms from that of other layers */
    GRID_DIFFERENCES               /* share of tensors that differ from the reference */
} grid_kind;

/* Write layers and kinds as an SVG with a legend below it. */
void html_put_grid(FILE *out, const layer_grid *grid, grid_kind kind);

/* A histogram with a bar for each count from the first to the last that is not 0. The label of bar
 * i is i + offset. */
typedef struct {
    const char *title;
    const uint64_t *counts;
    int count;
    int offset;
    const char *unit;              /* "2^%d", "0x%02X": a format of the number */
} html_histogram;
void html_put_histogram(FILE *out, const html_histogram *histogram);

/* Draw the KL divergence by position, and the first difference. */
void html_put_logits(FILE *out, const logits_comparison *logits);

#endif
