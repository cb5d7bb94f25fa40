/* Parses limits, and prints a comparison of logits. */
#include "logits_command.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "libckpt/error.h"
#include "libckpt/text.h"

ckpt_code logits_parse_limits(const logits_limit_texts *texts, logits_limits limits,
                              ckpt_error *err)
{
    for (int m = 0; m < LOGITS_MEASURE_COUNT; m++) {
        const char *text = texts->texts[m];
        const double most = m == LOGITS_TOP1 || m == LOGITS_TOP5 ? 1 : HUGE_VAL;

        limits[m] = (double)NAN;
        if (text == NULL)
            continue;
        if (!cli_parse_number(text, &limits[m]) || limits[m] > most)
            return ckpt_fail(err, CKPT_E_USAGE, "--%s '%s': expected a number %s",
                             logits_limit_name((logits_measure)m), text,
                             most > 1 ? "of 0 or more" : "from 0 to 1");
    }
    return CKPT_OK;
}

static const char *place_text(const logits_position *p, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "prompt %u position %" PRIu64 "%s", p->prompt, p->position,
             p->is_mtp ? " (MTP)" : "");
    return out;
}

static void print_trace(const logits_trace *t)
{
    const logits_point *p = &t->first;

    if (!p->is_found) {
        printf("trace       all %s\n",
               text_count(t->point_count, "point is identical", "points are identical").text);
        return;
    }
    printf("trace       %zu of %s differ, first layer %" PRIu64 " '%s' of sequence %" PRIu64 "%s\n",
           t->different_count, text_count(t->point_count, "point", "points").text, p->layer,
           p->point, p->sequence, p->is_missing ? ", which B does not have" : "");
    p = &t->selection;
    if (!p->is_found) {
        printf("trace       experts and entries were selected identically everywhere\n");
        return;
    }
    printf("trace       selections differ from layer %" PRIu64 " '%s' of sequence %" PRIu64 " on: ",
           p->layer, p->point, p->sequence);
    if (isnan(t->gap))
        printf("the gap at the cut is unknown\n");
    else
        printf("%s, smallest gap %.3g at position %" PRIu64 "\n",
               t->is_near_tie ? "it starts at a near tie" : "not a near tie", t->gap,
               t->gap_position);
}

void logits_print(const logits_comparison *c, const logits_limits limits,
                  const logits_trace *trace)
{
    const double *m = c->measures;
    char place[64];

    printf("%s: %s, %s compared, %s\n", logits_is_same(c, limits) ? "same" : "different",
           text_count(c->position_count, "position", "positions").text,
           text_count(c->value_count, "logit", "logits").text,
           c->bit_identical ? "bit-identical" : "not bit-identical");
    if (c->different_count > 0)
        printf("differ      %s\n", text_count(c->different_count, "logit", "logits").text);
    if (c->unmatched_count > 0)
        printf("unmatched   %" PRIu64 " of A's best tokens are not among B's\n",
               c->unmatched_count);
    if (c->non_finite_count > 0)
        printf("non-finite  %s NaN or infinite\n",
               text_count(c->non_finite_count, "logit is", "logits are").text);
    if (c->has_generated && !c->is_generated_same)
        printf("generated   different tokens\n");
    printf("KL(A||B)    mean %.4g, P50 %.4g, P99 %.4g, max %.4g at %s%s\n", m[LOGITS_KL_MEAN],
           m[LOGITS_KL_P50], m[LOGITS_KL_P99], m[LOGITS_KL_MAX],
           place_text(&c->positions[c->worst], place, sizeof place),
           c->is_lower_bound ? " (lower bounds)" : "");
    printf("logits      max |a-b| %.4g, mean %.4g\n", m[LOGITS_ABS_MAX], m[LOGITS_ABS_MEAN]);
    printf("logprobs    max |a-b| %.4g, mean %.4g\n", m[LOGITS_LOGPROB_MAX],
           m[LOGITS_LOGPROB_MEAN]);
    printf("agreement   top-1 %.4f, top-%u %.4f\n", m[LOGITS_TOP1], c->top_count, m[LOGITS_TOP5]);
    if (c->has_first && c->first.id >= 0)
        printf("first       %s, token %" PRId64 ": %.9g in A, %.9g in B\n",
               place_text(&c->positions[c->first.position], place, sizeof place), c->first.id,
               (double)c->first.a, (double)c->first.b);
    else if (c->has_first)
        printf("first       %s: different best tokens or log-sum-exp\n",
               place_text(&c->positions[c->first.position], place, sizeof place));
    for (int i = 0; i < LOGITS_MEASURE_COUNT; i++)
        if (logits_is_exceeded(c, limits, (logits_measure)i))
            printf("exceeded    --%s %.9g, got %.9g\n", logits_limit_name((logits_measure)i),
                   limits[i], m[i]);
    if (trace != NULL)
        print_trace(trace);
}
