/* Differences as a table and bars. */
#include "difference_print.h"

#include <inttypes.h>
#include <stdio.h>

#include "histogram.h"
#include "libckpt/size.h"
#include "tools/cli/cli.h"

static void print_figures(const difference_statistics *s, int is_int, const char *name)
{
    if (is_int)
        printf("%12s  %12.4g  %12s", "-", s->max_error, "-");
    else
        printf("%12.4g  %12.4g  %12.9f", difference_relative(s), s->max_error,
               difference_cosine(s));
    printf("  %8.4f%%  %s", 100 * difference_changed(s), name);
    if (s->nonfinite > 0)
        printf("  (%" PRIu64 " with NaN or infinity)", s->nonfinite);
}

static void print_entry(const difference_entry *e)
{
    const difference_statistics *s = &e->statistics;

    print_figures(s, e->is_int, cli_name(e->name));
    if (e->tensor_count > 1)
        printf("  (%zu tensors)", e->tensor_count);
    else if (s->max_error > 0)
        printf("  (max at row %" PRIu64 " column %" PRIu64 ")", s->max_row, s->max_col);
    putchar('\n');
}

static void print_ulps(const char *unit, const uint64_t ulps[DIFFERENCE_ULPS])
{
    uint64_t most = 0;

    for (int i = 0; i < DIFFERENCE_ULPS; i++)
        most = size_max(most, ulps[i]);
    if (most == 0)
        return;
    printf("\nchanged elements by distance, in units of the last place of %s (0: less than one)\n",
           unit);
    for (unsigned i = 0; i < DIFFERENCE_ULPS; i++) {
        char text[DIFFERENCE_ULP_TEXT_BYTES];

        if (ulps[i] == 0)
            continue;
        difference_ulp_text(i, text);
        printf("%23s  %14" PRIu64, text, ulps[i]);
        histogram_print_bar(ulps[i], most);
    }
}

void difference_print(const difference_table *list, difference_group group)
{
    static const char *const titles[] = {
        [DIFFERENCE_TENSORS] = "tensor", [DIFFERENCE_LAYERS] = "layer", [DIFFERENCE_KINDS] = "kind"
    };
    size_t changed = 0;

    for (size_t i = 0; i < list->count; i++)
        changed += list->entries[i].statistics.changed > 0;
    printf("\n%12s  %12s  %12s  %9s  %s\n", "rel error", "max error", "cosine", "changed",
           titles[group]);
    for (size_t i = 0, printed = 0; i < list->count; i++) {
        if (list->entries[i].statistics.changed == 0)
            continue;
        if (printed++ == DIFFERENCE_LINES_MAX) {
            printf("... and %zu more; --json lists them all\n", changed - DIFFERENCE_LINES_MAX);
            break;
        }
        print_entry(&list->entries[i]);
    }
    print_figures(&list->total, 0, "all");
    putchar('\n');
    print_ulps("BF16", list->bf16_ulps);
    print_ulps("F32", list->f32_ulps);
}
