/* Measures the difference of two rows of logits, and of all rows. */
#include "logits.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/error.h"
#include "logits_file.h"

enum { BEST_MAX = 5 };

typedef struct {
    logits_file a;
    logits_file b;
    logits_row a_row;
    logits_row b_row;
    logits_comparison *out;
} comparing;

static double larger(double a, double b)
{
    return isnan(a) || a > b ? a : b;              /* a NaN stays */
}

/* ---- one row ---- */

static double log_sum_exp(const logits_row *row)
{
    double max = -INFINITY;
    double sum = 0;

    if (row->is_top)
        return (double)row->sum;
    for (uint64_t i = 0; i < row->count; i++)
        max = larger((double)row->entries[i].value, max);
    for (uint64_t i = 0; i < row->count; i++)
        sum += exp((double)row->entries[i].value - max);
    return max + log(sum);
}

/*
 * The term of one token in KL(A||B), from log probabilities: p_a * (log p_a - log p_b) - p_a + p_b.
 * The last two parts sum to zero over all tokens. With them no term is negative, so no precision is
 * lost by cancellation.
 */
static double kl_term(double a, double b)
{
    const double t = b - a;

    if (!(fabs(t) < 1))
        return exp(b) - exp(a) - (exp(a) > 0 ? exp(a) * t : 0);
    return exp(a) * (expm1(t) - t);
}

/* Find the ids of the best logits, best first; of equal ones the lower id first. Returns their
 * number. */
static unsigned find_best(const logits_row *row, unsigned count, uint32_t ids[BEST_MAX])
{
    float values[BEST_MAX];
    unsigned used = 0;

    for (uint64_t i = 0; i < row->count; i++) {
        const float v = row->entries[i].value;
        unsigned at = used;

        if (used == count && !(v > values[used - 1]))
            continue;
        while (at > 0 && v > values[at - 1])
            at--;
        used += used < count;
        for (unsigned k = used - 1; k > at; k--) {
            values[k] = values[k - 1];
            ids[k] = ids[k - 1];
        }
        values[at] = v;
        ids[at] = row->entries[i].id;
    }
    return used;
}

static void compare_best(const comparing *c, logits_position *p)
{
    const unsigned count = c->out->top_count;
    uint32_t a[BEST_MAX];
    uint32_t b[BEST_MAX];
    const unsigned a_count = find_best(&c->a_row, count, a);
    const unsigned b_count = find_best(&c->b_row, count, b);

    p->top1 = a[0] == b[0];
    for (unsigned i = 0; i < a_count; i++)
        for (unsigned k = 0; k < b_count; k++)
            p->top5 += a[i] == b[k] ? 1 : 0;
}

static uint64_t count_non_finite(const logits_row *row)
{
    uint64_t count = row->is_top && !isfinite(row->sum) ? 1 : 0;

    for (uint64_t i = 0; i < row->count; i++)
        count += isfinite(row->entries[i].value) ? 0 : 1;
    return count;
}

static void note_first(comparing *c, const logits_entry *a, const logits_entry *b)
{
    logits_difference *d = &c->out->first;

    if (c->out->has_first)
        return;
    c->out->has_first = 1;
    d->position = c->out->position_count;
    d->id = a == NULL ? -1 : (int64_t)a->id;
    d->a = a == NULL ? 0 : a->value;
    d->b = a == NULL ? 0 : b->value;
}

/* Sums over a row. */
typedef struct {
    double a_sum;              /* log(sum(exp)) */
    double b_sum;
    double a_mass;             /* probability of the tokens known to both */
    double b_mass;
    double kl;
} row_sums;

static void add_pair(comparing *c, row_sums *s, const logits_entry *pair[2], logits_position *p)
{
    const double a = (double)pair[0]->value - s->a_sum;
    const double b = (double)pair[1]->value - s->b_sum;
    const double distance = fabs((double)pair[0]->value - (double)pair[1]->value);

    p->value_count++;
    if (memcmp(&pair[0]->value, &pair[1]->value, sizeof pair[0]->value) != 0) {
        p->different_count++;
        note_first(c, pair[0], pair[1]);
    }
    s->kl += kl_term(a, b);
    s->a_mass += exp(a);
    s->b_mass += exp(b);
    p->abs_sum += distance;
    p->abs_max = larger(distance, p->abs_max);
    p->logprob_sum += fabs(a - b);
    p->logprob_max = larger(fabs(a - b), p->logprob_max);
}

/* Treat all tokens not known to both as one. Sums in files are F32: a remainder below their
 * rounding error may be zero. */
static double kl_of_rest(const row_sums *s)
{
    const double floor_of_a = 0x1p-23 * fmax(1, fabs(s->a_sum));
    const double floor_of_b = 0x1p-23 * fmax(1, fabs(s->b_sum));

    return kl_term(log(fmax(1 - s->a_mass, floor_of_a)), log(fmax(1 - s->b_mass, floor_of_b)));
}

static void compare_rows(comparing *c, logits_position *p)
{
    row_sums s = { .a_sum = log_sum_exp(&c->a_row), .b_sum = log_sum_exp(&c->b_row) };
    const logits_row *a = &c->a_row;
    const logits_row *b = &c->b_row;
    uint64_t i = 0;

    for (uint64_t k = 0; i < a->count && k < b->count;) {
        const logits_entry *pair[2] = { &a->entries[i], &b->entries[k] };

        if (pair[0]->id == pair[1]->id)
            add_pair(c, &s, pair, p);
        i += pair[0]->id <= pair[1]->id;
        k += pair[1]->id <= pair[0]->id;
    }
    if (a->is_top && b->is_top) {
        p->unmatched_count = a->count - p->value_count;
        if (memcmp(&a->sum, &b->sum, sizeof a->sum) != 0 || p->unmatched_count > 0) {
            note_first(c, NULL, NULL);
            c->out->bit_identical = 0;
        }
    }
    p->non_finite_count = count_non_finite(a) + count_non_finite(b);
    if (p->non_finite_count > 0) {
        p->kl = p->abs_sum = p->abs_max = p->logprob_sum = p->logprob_max = (double)NAN;
        return;
    }
    p->kl = s.kl + (a->is_top || b->is_top ? kl_of_rest(&s) : 0);
    compare_best(c, p);
}

/* ---- all rows ---- */

static ckpt_code compare_set(comparing *c, size_t set, ckpt_error *err)
{
    const logits_set *a = &c->a.sets[set];
    const logits_set *b = &c->b.sets[set];
    ckpt_code code;

    if ((code = logits_row_create(a, &c->a_row, err)) != CKPT_OK ||
        (code = logits_row_create(b, &c->b_row, err)) != CKPT_OK)
        goto out;
    for (uint64_t i = 0; i < a->count; i++) {
        logits_position *p = &c->out->positions[c->out->position_count];

        *p = (logits_position){ .prompt = a->prompt, .is_mtp = a->is_mtp,
                                .position = (uint64_t)a->positions[i] };
        if ((code = logits_row_read(&c->a, a, i, &c->a_row, err)) != CKPT_OK ||
            (code = logits_row_read(&c->b, b, i, &c->b_row, err)) != CKPT_OK)
            goto out;
        compare_rows(c, p);
        if (p->value_count == 0 || (a->is_top != b->is_top && p->value_count < b->width &&
                                    p->value_count < a->width)) {
            code = ckpt_fail(err, CKPT_E_FORMAT, "position %" PRIu64 " of '%s' and '%s' has %s",
                             p->position, c->a.input->path, c->b.input->path,
                             a->is_top != b->is_top ? "token ids beyond the other file's vocabulary"
                                                    : "no token in common");
            goto out;
        }
        c->out->position_count++;
    }
out:
    logits_row_release(&c->a_row);
    logits_row_release(&c->b_row);
    return code;
}

static ckpt_code check_sets(const comparing *c, size_t set, ckpt_error *err)
{
    const logits_set *a = &c->a.sets[set];
    const logits_set *b = &c->b.sets[set];
    const char *what = NULL;

    if (a->prompt != b->prompt || a->is_mtp != b->is_mtp)
        what = "different prompts, or MTP logits in only one of them";
    else if (a->token_count != b->token_count ||
             memcmp(a->tokens, b->tokens, a->token_count * sizeof *a->tokens) != 0)
        what = "different tokens";
    else if (a->count != b->count ||
             memcmp(a->positions, b->positions, a->count * sizeof *a->positions) != 0)
        what = "different positions";
    else if (a->is_top == b->is_top && a->width != b->width)
        what = "rows of different lengths";
    if (what == NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "cannot compare '%s' with '%s': they have %s (prompt %u: "
                     "%" PRIu64 " and %" PRIu64 " tokens, %" PRIu64 " and %" PRIu64
                     " positions, %" PRIu64 " and %" PRIu64 " columns)", c->a.input->path,
                     c->b.input->path, what, a->prompt, a->token_count, b->token_count, a->count,
                     b->count, a->width, b->width);
}

/* Generated tokens are compared if both files have them. */
static ckpt_code compare_generated(const comparing *c, const logits_set *set, ckpt_error *err)
{
    const int is_numbered =
        ckpt_catalog_find(ckpt_source_catalog(c->a.source), "tokens") == CKPT_NOT_FOUND;
    int64_t *a = NULL;
    int64_t *b = NULL;
    uint64_t a_count;
    uint64_t b_count;
    char name[32];
    ckpt_code code;

    snprintf(name, sizeof name, is_numbered ? "generated.%u" : "generated", set->prompt);
    if ((code = logits_read_integers(&c->a, name, &a, &a_count, err)) == CKPT_OK &&
        (code = logits_read_integers(&c->b, name, &b, &b_count, err)) == CKPT_OK && a != NULL &&
        b != NULL) {
        c->out->has_generated = 1;
        if (a_count != b_count || memcmp(a, b, a_count * sizeof *a) != 0)
            c->out->is_generated_same = 0;
    }
    free(a);
    free(b);
    return code;
}

static int order_numbers(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Linear interpolation between the two nearest ranks. `sorted` has no NaN. */
static double percentile(const double *sorted, size_t count, double share)
{
    const double at = share * (double)(count - 1);
    const size_t below = (size_t)at;
    const size_t above = below + 1 < count ? below + 1 : below;

    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

static ckpt_code take_percentiles(logits_comparison *out, ckpt_error *err)
{
    double *sorted = malloc(out->position_count * sizeof *sorted);

    if (sorted == NULL)
        return ckpt_fail_memory(err, "positions", out->position_count);
    for (size_t i = 0; i < out->position_count; i++)
        sorted[i] = out->positions[i].kl;
    qsort(sorted, out->position_count, sizeof *sorted, order_numbers);
    out->measures[LOGITS_KL_P50] = percentile(sorted, out->position_count, 0.5);
    out->measures[LOGITS_KL_P99] = percentile(sorted, out->position_count, 0.99);
    if (isnan(out->measures[LOGITS_KL_MAX]))
        out->measures[LOGITS_KL_P50] = out->measures[LOGITS_KL_P99] = (double)NAN;
    free(sorted);
    return CKPT_OK;
}

static ckpt_code sum_up(logits_comparison *out, ckpt_error *err)
{
    const double count = (double)out->position_count;
    double *m = out->measures;

    for (size_t i = 0; i < out->position_count; i++) {
        const logits_position *p = &out->positions[i];

        if (!(p->kl <= out->positions[out->worst].kl) && !isnan(out->positions[out->worst].kl))
            out->worst = i;
        m[LOGITS_KL_MAX] = larger(p->kl, m[LOGITS_KL_MAX]);
        m[LOGITS_KL_MEAN] += p->kl / count;
        m[LOGITS_ABS_MAX] = larger(p->abs_max, m[LOGITS_ABS_MAX]);
        m[LOGITS_ABS_MEAN] += p->abs_sum;
        m[LOGITS_LOGPROB_MAX] = larger(p->logprob_max, m[LOGITS_LOGPROB_MAX]);
        m[LOGITS_LOGPROB_MEAN] += p->logprob_sum;
        m[LOGITS_TOP1] += p->top1;
        m[LOGITS_TOP5] += p->top5;
        out->value_count += p->value_count;
        out->different_count += p->different_count;
        out->unmatched_count += p->unmatched_count;
        out->non_finite_count += p->non_finite_count;
    }
    m[LOGITS_ABS_MEAN] /= (double)out->value_count;
    m[LOGITS_LOGPROB_MEAN] /= (double)out->value_count;
    m[LOGITS_TOP1] /= count;
    m[LOGITS_TOP5] /= count * out->top_count;
    if (out->different_count > 0 || !out->is_generated_same)
        out->bit_identical = 0;
    return take_percentiles(out, err);
}

static ckpt_code compare_files(comparing *c, ckpt_error *err)
{
    logits_comparison *out = c->out;
    uint64_t total = 0;
    ckpt_code code;

    out->bit_identical = out->is_generated_same = 1;
    out->top_count = BEST_MAX;
    if (c->a.set_count != c->b.set_count)
        return ckpt_fail(err, CKPT_E_USAGE, "cannot compare '%s' with '%s': %zu and %zu sets of "
                         "logits (prompts, and MTP of prompts)", c->a.input->path,
                         c->b.input->path, c->a.set_count, c->b.set_count);
    for (size_t i = 0; i < c->a.set_count; i++) {
        const logits_set *a = &c->a.sets[i];
        const logits_set *b = &c->b.sets[i];
        const uint64_t width = a->width < b->width ? a->width : b->width;

        if ((code = check_sets(c, i, err)) != CKPT_OK)
            return code;
        total += a->count;
        out->is_lower_bound |= a->is_top || b->is_top;
        out->top_count = width < out->top_count ? (unsigned)width : out->top_count;
    }
    if ((out->positions = calloc(total, sizeof *out->positions)) == NULL)
        return ckpt_fail_memory(err, "positions", total);
    for (size_t i = 0; i < c->a.set_count; i++)
        if ((code = compare_set(c, i, err)) != CKPT_OK ||
            (code = compare_generated(c, &c->a.sets[i], err)) != CKPT_OK)
            return code;
    return sum_up(out, err);
}

ckpt_code logits_compare(const logits_input *a, const logits_input *b, logits_comparison *out,
                         ckpt_error *err)
{
    comparing c = { .out = out };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = logits_file_open(a, &c.a, err)) == CKPT_OK &&
        (code = logits_file_open(b, &c.b, err)) == CKPT_OK)
        code = compare_files(&c, err);
    logits_file_release(&c.a);
    logits_file_release(&c.b);
    if (code != CKPT_OK)
        logits_release(out);
    return code;
}

ckpt_code logits_check(const logits_input *input, ckpt_error *err)
{
    logits_file f;
    const ckpt_code code = logits_file_open(input, &f, err);

    logits_file_release(&f);
    return code;
}

void logits_release(logits_comparison *comparison)
{
    free(comparison->positions);
    memset(comparison, 0, sizeof *comparison);
}

/* ---- limits ---- */

const char *logits_limit_name(logits_measure measure)
{
    static const char *const names[LOGITS_MEASURE_COUNT] = {
        [LOGITS_KL_MAX] = "max-kl",
        [LOGITS_KL_MEAN] = "max-mean-kl",
        [LOGITS_KL_P99] = "max-p99-kl",
        [LOGITS_KL_P50] = "max-p50-kl",
        [LOGITS_ABS_MAX] = "max-abs",
        [LOGITS_ABS_MEAN] = "max-mean-abs",
        [LOGITS_LOGPROB_MAX] = "max-logprob",
        [LOGITS_LOGPROB_MEAN] = "max-mean-logprob",
        [LOGITS_TOP1] = "min-top1",
        [LOGITS_TOP5] = "min-top5",
    };

    return names[measure];
}

int logits_is_exceeded(const logits_comparison *comparison, const logits_limits limits,
                       logits_measure measure)
{
    const double value = comparison->measures[measure];

    if (isnan(limits[measure]))
        return 0;
    if (measure == LOGITS_TOP1 || measure == LOGITS_TOP5)
        return !(value >= limits[measure]);
    return !(value <= limits[measure]);            /* a NaN exceeds every limit */
}

int logits_is_same(const logits_comparison *comparison, const logits_limits limits)
{
    int limited = 0;

    for (int m = 0; m < LOGITS_MEASURE_COUNT; m++) {
        limited |= !isnan(limits[m]);
        if (logits_is_exceeded(comparison, limits, (logits_measure)m))
            return 0;
    }
    return comparison->non_finite_count == 0 && (limited || comparison->bit_identical);
}
