/* Draws the charts of a report as SVG. */
#include <inttypes.h>
#include <math.h>

#include "html_private.h"
#include "markup.h"
#include "libckpt/text.h"

enum {
    CELL = 12, LABEL = 250, HEAD = 18, MARGIN = 4,
    BAR_WIDTH = 8, BAR_HEIGHT = 100,
    POINTS_MAX = 600, LINE_HEIGHT = 120
};

/* ---- layers and kinds ---- */

/* By the share of tensors that differ. */
static const char *color_of_share(const grid_cell *cell)
{
    return cell->differing_count == 0                        ? "c0"
           : cell->differing_count == cell->tensor_count     ? "h3"
           : 4 * cell->differing_count >= cell->tensor_count ? "h2"
                                                             : "h1";
}

/* By the distance of a cell from the median of its row, in powers of two. */
static const char *color_of_spread(const grid_cell *cell)
{
    static const char *const low[] = { "c0", "l1", "l2", "l3" };
    static const char *const high[] = { "c0", "h1", "h2", "h3" };
    const double size = fabs(cell->deviation);
    const int step = size < 0.25 || isnan(size) ? 0 : size < 0.75 ? 1 : size < 2 ? 2 : 3;

    return cell->deviation < 0 ? low[step] : high[step];
}

/* Label every tenth column with its number, and columns like "rest" with their first letters. */
static void put_columns(FILE *out, const layer_grid *g)
{
    for (size_t l = 0; l < g->layer_count; l++) {
        const char *name = g->layers[l];
        size_t digits = 0;

        while (name[digits] != '\0')
            digits++;
        while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
            digits--;
        if (name[digits] != '\0' && l % 5 != 0)
            continue;
        fprintf(out, "<text x=\"%zu\" y=\"12\">", LABEL + l * CELL);
        markup_put(out, name[digits] == '\0' ? name : name + digits);
        fputs("</text>", out);
    }
}

/* Write the details of a cell as its tooltip. */
static void put_words(FILE *out, const grid_cell *cell, grid_kind kind)
{
    if (kind == GRID_DIFFERENCES) {
        fprintf(out, ": %zu of %zu differ", cell->differing_count, cell->tensor_count);
        if (cell->lone_count > 0)
            fprintf(out, ", %zu on one side only", cell->lone_count);
        return;
    }
    fprintf(out, ": %zu, ", cell->tensor_count);
    markup_put(out, cell->encoding);
    if (kind == GRID_SPREADS && !isnan(cell->deviation))
        fprintf(out, ", rms 2^%+.2f of the median", cell->deviation);
    if (cell->finding_count > 0)
        fprintf(out, ", %s", text_count(cell->finding_count, "finding", "findings").text);
}

static void put_cell(FILE *out, const layer_grid *g, size_t at, grid_kind kind)
{
    const grid_cell *cell = &g->cells[at];
    const size_t x = LABEL + at % g->layer_count * CELL;
    const size_t y = HEAD + at / g->layer_count * CELL;

    if (cell->tensor_count == 0)
        return;
    fprintf(out, "<g><title>");
    markup_put(out, g->layers[at % g->layer_count]);
    fputs(" ", out);
    markup_put(out, g->kinds[at / g->layer_count]);
    put_words(out, cell, kind);
    fprintf(out, "</title><rect class=\"%s\" x=\"%zu\" y=\"%zu\" width=\"11\" height=\"11\"/>",
            kind == GRID_DIFFERENCES ? color_of_share(cell) : color_of_spread(cell), x, y);
    if (cell->finding_count + cell->lone_count > 0)
        fprintf(out, "<path class=\"x\" d=\"M%zu %zul7 7m0-7l-7 7\"/>", x + 2, y + 2);
    fputs("</g>", out);
}

static void put_legend(FILE *out, grid_kind kind)
{
    static const char *const spreads[][2] = {
        { "l3", "2^-2 and less" }, { "l2", "2^-0.75" }, { "l1", "2^-0.25" }, { "c0", "as others" },
        { "h1", "2^0.25" }, { "h2", "2^0.75" }, { "h3", "2^2 and more" }, { NULL, NULL },
    };
    static const char *const shares[][2] = {
        { "c0", "the same" }, { "h1", "less than a quarter" }, { "h2", "more" }, { "h3", "all" },
        { NULL, NULL },
    };
    static const char *const none[][2] = { { NULL, NULL } };
    static const struct { const char *const (*steps)[2]; const char *text; } legends[] = {
        [GRID_TENSORS] = { none, "Values were not read: cells are the tensors that are there. A "
                                 "cross marks tensors with findings that fail." },
        [GRID_SPREADS] = { spreads, "<br>Root mean square of the values, against the median of the "
                                    "same kind in all layers. A cross marks tensors with findings "
                                    "that fail." },
        [GRID_DIFFERENCES] = { shares, "<br>Tensors that are not those of the reference, as a "
                                       "share of all. A cross marks tensors that are on one side "
                                       "only." },
    };
    const char *const (*step)[2] = legends[kind].steps;

    fputs("<p class=\"dim\">", out);
    for (; (*step)[0] != NULL; step++)
        fprintf(out, "<span class=\"k\"><svg viewBox=\"0 0 9 9\"><rect class=\"%s\" width=\"9\" "
                "height=\"9\"/></svg></span>%s", (*step)[0], (*step)[1]);
    fprintf(out, "%s</p>\n", legends[kind].text);
}

void html_put_grid(FILE *out, const layer_grid *g, grid_kind kind)
{
    const size_t width = LABEL + g->layer_count * CELL + 3 * CELL;
    const size_t height = HEAD + g->kind_count * CELL + MARGIN;

    if (g->cells == NULL) {
        fprintf(out, "<p class=\"dim\">%zu layers with %zu kinds of tensors are too many for a "
                "picture.</p>\n", g->layer_count, g->kind_count);
        return;
    }
    fprintf(out, "<div class=\"s\"><svg role=\"img\" aria-label=\"layers and kinds\" width=\"%zu\" "
            "height=\"%zu\" viewBox=\"0 0 %zu %zu\">\n", width, height, width, height);
    put_columns(out, g);
    for (size_t k = 0; k < g->kind_count; k++) {
        fprintf(out, "\n<text x=\"0\" y=\"%zu\">", HEAD + k * CELL + 10);
        markup_put(out, g->kinds[k]);
        fputs("</text>", out);
        for (size_t l = 0; l < g->layer_count; l++)
            put_cell(out, g, k * g->layer_count + l, kind);
    }
    fputs("</svg></div>\n", out);
    put_legend(out, kind);
}

/* ---- histograms ---- */

void html_put_histogram(FILE *out, const html_histogram *h)
{
    uint64_t most = 0;
    uint64_t total = 0;
    int first = h->count;
    int last = -1;

    for (int i = 0; i < h->count; i++) {
        if (h->counts[i] == 0)
            continue;
        first = i < first ? i : first;
        last = i;
        most = h->counts[i] > most ? h->counts[i] : most;
        total += h->counts[i];
    }
    if (last < 0)
        return;
    fprintf(out, "<h3>%s</h3><div class=\"s\"><svg role=\"img\" aria-label=\"%s\" width=\"%d\" "
            "height=\"%d\">", h->title, h->title, (last - first + 5) * BAR_WIDTH,
            BAR_HEIGHT + HEAD);
    for (int i = first; i <= last; i++) {
        const double height = (double)h->counts[i] / (double)most * BAR_HEIGHT;
        const int x = (i - first) * BAR_WIDTH;

        fputs("<g><title>", out);
        fprintf(out, h->unit, i + h->offset);
        fprintf(out, ": %" PRIu64 " (%.3g %%)</title><rect class=\"b\" x=\"%d\" y=\"%.1f\" "
                "width=\"%d\" height=\"%.1f\"/></g>", h->counts[i],
                100 * (double)h->counts[i] / (double)total, x, BAR_HEIGHT - height, BAR_WIDTH - 1,
                height);
        if ((i - first) % 8 == 0) {
            fprintf(out, "<text x=\"%d\" y=\"%d\">", x, BAR_HEIGHT + 13);
            fprintf(out, h->unit, i + h->offset);
            fputs("</text>", out);
        }
    }
    fprintf(out, "</svg></div><p class=\"dim\">%" PRIu64 " in all</p>\n", total);
}

/* ---- logits ---- */

static double kl_height(double kl)
{
    const double decades = kl > 1e-12 ? (log10(kl) + 12) / 14 : 0;

    return decades > 1 ? 1 : decades;
}

void html_put_logits(FILE *out, const logits_comparison *r)
{
    const size_t step = (r->position_count + POINTS_MAX - 1) / POINTS_MAX;
    int x = 0;

    fprintf(out,
            "<p>%s: %s. Largest KL %.3g, mean %.3g; largest difference of a logit "
            "%.3g; the same best token in %.2f %%.</p>\n",
            text_count(r->position_count, "position", "positions").text,
            r->bit_identical ? "bit-identical" : "different", r->measures[LOGITS_KL_MAX],
            r->measures[LOGITS_KL_MEAN], r->measures[LOGITS_ABS_MAX],
            100 * r->measures[LOGITS_TOP1]);
    if (r->has_first)
        fprintf(out, "<p>First difference: position %" PRIu64 ", token %" PRId64 ": %.9g and "
                "%.9g.</p>\n", r->positions[r->first.position].position, r->first.id,
                (double)r->first.a, (double)r->first.b);
    if (r->position_count == 0)
        return;
    fprintf(out, "<div class=\"s\"><svg role=\"img\" aria-label=\"KL by position\" width=\"%zu\" "
            "height=\"%d\">", r->position_count / step + 2, LINE_HEIGHT);
    for (size_t i = 0; i < r->position_count; i += step, x++) {
        double most = 0;

        for (size_t k = i; k < i + step && k < r->position_count; k++)
            most = isnan(r->positions[k].kl) ? INFINITY : fmax(most, r->positions[k].kl);
        fprintf(out, "<rect class=\"b\" x=\"%d\" y=\"%.1f\" width=\"1\" height=\"%.1f\"/>", x,
                LINE_HEIGHT - 1 - kl_height(most) * (LINE_HEIGHT - 1),
                kl_height(most) * (LINE_HEIGHT - 1) + 1);
    }
    fputs("</svg></div><p class=\"dim\">KL by position, from 1e-12 to 100, in powers of ten.</p>\n",
          out);
}
