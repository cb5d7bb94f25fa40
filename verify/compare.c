/* A sink that receives tiles of A and compares them with the same tiles of B. */
#include "compare.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "compare_scales.h"
#include "manifest.h"
#include "libckpt/text.h"

enum { NOT_COMPARED = -1 };

/* State of one tensor of A. */
typedef struct {
    int64_t match;                 /* tensor of B, or NOT_COMPARED */
    compare_found found;
    difference_statistics *statistics;   /* NULL: not measured */
    const quantise_rule *rule;     /* rule that B must follow; NULL: compare values */
    float tensor_scale;            /* by that rule */
} compare_state;

typedef struct {
    ckpt_sink base;
    ckpt_source *a;
    ckpt_source *b;
    const compare_options *options;
    compare_state *states;         /* by tensor of A */
    compare_blocks blocks;         /* of tensors that are compared by a rule */
    pthread_mutex_t lock;          /* protects states and blocks */
} compare_sink;

/* ---- tiles ---- */

static ckpt_code compare_tiles(compare_sink *s, const source_range *range, const ckpt_tile *a_tile,
                               arena *scratch, ckpt_error *err)
{
    compare_state *state = &s->states[range->tensor];
    source_range b_range = *range;
    ckpt_tile b_tile;
    const compare_pair pair = { ckpt_catalog_at(s->a->catalog, range->tensor),
                                ckpt_catalog_at(s->b->catalog, (size_t)state->match),
                                range, &b_range, a_tile, &b_tile, s->options->form,
                                state->rule, state->tensor_scale, 0 };
    compare_found found = { 0 };
    compare_found by_value = { 0 };
    compare_blocks blocks = { 0 };
    difference_statistics statistics;
    difference_statistics *sums = state->statistics == NULL ? NULL : &statistics;
    ckpt_code code;

    memset(&statistics, 0, sizeof statistics);
    b_range.tensor = (size_t)state->match;
    if ((code = source_read_tile(s->b, &b_range, scratch, &b_tile, err)) != CKPT_OK)
        return code;
    if (state->rule != NULL)
        code = compare_by_rule(&pair, &found, &blocks, scratch, err);
    if (code == CKPT_OK && (state->rule == NULL || sums != NULL))
        code = compare_rows(&pair, state->rule == NULL ? &found : &by_value, sums, scratch, err);
    if (code != CKPT_OK)
        return code;
    pthread_mutex_lock(&s->lock);
    s->blocks.made += blocks.made;
    s->blocks.kept += blocks.kept;
    s->blocks.wrong += blocks.wrong;
    compare_found_merge(&state->found, &found, range->row);
    if (sums != NULL)
        difference_merge(state->statistics, sums);
    pthread_mutex_unlock(&s->lock);
    return CKPT_OK;
}

static int compare_wants(const ckpt_sink *self, size_t tensor)
{
    return ((const compare_sink *)self)->states[tensor].match != NOT_COMPARED;
}

static ckpt_code compare_put_tile(ckpt_sink *self, const source_range *range,
                                  const ckpt_tile *tile, arena *scratch, ckpt_error *err)
{
    const size_t mark = arena_mark(scratch);
    const ckpt_code code = compare_tiles((compare_sink *)self, range, tile, scratch, err);

    arena_rewind(scratch, mark);
    return code;
}

static uint64_t compare_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    const compare_sink *s = (const compare_sink *)self;
    const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, tensor);
    const compare_state *state = &s->states[tensor];
    const ckpt_tensor *b;

    if (state->match == NOT_COMPARED)
        return 0;
    b = ckpt_catalog_at(s->b->catalog, (size_t)state->match);
    return source_need(s->b, (size_t)state->match, row_count) +
           compare_rows_need(a, b, row_count) +
           (state->rule == NULL ? 0 : compare_rule_need(a, b));
}

/* ---- matching ---- */

static int is_left_out(const ckpt_tensor *t, const compare_options *options)
{
    return (options->asked.main_only && digest_is_mtp(t->name)) ||
           (options->glob_count > 0 &&
            !text_matches_any(t->name, options->globs, options->glob_count));
}

/* The first rule whose encoding this tensor has, or NULL. */
static const quantise_rule *find_rule(const compare_options *options, const ckpt_tensor *b)
{
    for (size_t i = 0; i < options->rule_count; i++)
        if (compare_rule_makes(options->rules[i], b))
            return options->rules[i];
    return NULL;
}

/* Pair the tensors by name; those of equal shape and class are compared. `out` has room. */
static void match_tensors(compare_sink *s, const compare_options *options, const size_t *order,
                          ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->a->catalog); i++) {
        const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, order[i]);
        const int64_t match = ckpt_catalog_find(s->b->catalog, a->name);
        compare_state *state = &s->states[order[i]];
        const ckpt_tensor *b;

        state->match = NOT_COMPARED;
        if (is_left_out(a, options))
            continue;
        if (match == CKPT_NOT_FOUND) {
            out->missing_in_b[out->missing_in_b_count++] = a->name;
            continue;
        }
        b = ckpt_catalog_at(s->b->catalog, (size_t)match);
        out->compared++;
        out->other_encoding_count += !catalog_same_encoding(a, b);
        if (!catalog_same_shape(a, b) || ckpt_tensor_is_int(a) != ckpt_tensor_is_int(b))
            continue;
        out->element_count += ckpt_tensor_rows(a) * ckpt_tensor_cols(a);
        state->match = match;
        state->rule = find_rule(options, b);
        out->by_rule_count += state->rule != NULL;
        if (out->measured != NULL) {
            state->statistics = &out->measured[out->measured_count].statistics;
            out->measured[out->measured_count++] = (compare_measured){ .a = a, .b = b };
        }
    }
}

static void find_missing_in_a(const compare_sink *s, const compare_options *options,
                              const size_t *order, ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->b->catalog); i++) {
        const ckpt_tensor *b = ckpt_catalog_at(s->b->catalog, order[i]);

        if (!is_left_out(b, options) &&
            ckpt_catalog_find(s->a->catalog, b->name) == CKPT_NOT_FOUND)
            out->missing_in_a[out->missing_in_a_count++] = b->name;
    }
}

/* ---- the result ---- */

/* 1 when one side has different copies of the tensor. */
static int find_copy(const compare_sink *s, const size_t tensors[2], ckpt_difference *out)
{
    for (int side = 0; side < 2; side++) {
        const ckpt_store *store = s->options->stores[side];
        const store_copy *copy = store == NULL ? NULL : &store->copies[tensors[side]];

        if (copy == NULL || !copy->is_found)
            continue;
        out->kind = CKPT_DIFFERENT_COPY;
        out->row = copy->row;
        out->col = copy->col;
        out->file = store->files[copy->file].name;
        out->side = side;
        return 1;
    }
    return 0;
}

/* The result for a tensor of A that exists in B; 0: nothing to report. */
static int judge(const compare_sink *s, size_t tensor, const compare_options *options,
                 ckpt_difference *out)
{
    const compare_found *state = &s->states[tensor].found;
    size_t tensors[2] = { tensor, 0 };

    memset(out, 0, sizeof *out);
    out->a = ckpt_catalog_at(s->a->catalog, tensor);
    tensors[1] = (size_t)ckpt_catalog_find(s->b->catalog, out->a->name);
    out->b = ckpt_catalog_at(s->b->catalog, tensors[1]);
    if (ckpt_tensor_is_int(out->a) != ckpt_tensor_is_int(out->b)) {
        out->kind = CKPT_DIFFERENT_CLASS;
    } else if (!catalog_same_shape(out->a, out->b)) {
        out->kind = CKPT_DIFFERENT_SHAPE;
    } else if (state->count > 0) {
        out->kind = CKPT_DIFFERENT_VALUES;
        out->row = state->row;
        out->col = state->col;
        out->count = state->count;
        out->a_value = state->a_value;
        out->b_value = state->b_value;
    } else if (find_copy(s, tensors, out)) {
        return 1;
    } else if (options->asked.bits && !catalog_same_encoding(out->a, out->b)) {
        out->kind = CKPT_DIFFERENT_ENCODING;
    } else if (state->byte_count > 0) {
        out->kind = CKPT_DIFFERENT_BITS;
        out->row = state->byte_row;
        out->col = state->byte_col;
        out->count = state->byte_count;
    } else {
        return 0;
    }
    return 1;
}

static void collect(const compare_sink *s, const compare_options *options, const size_t *order,
                    ckpt_comparison *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->a->catalog); i++) {
        const ckpt_tensor *a = ckpt_catalog_at(s->a->catalog, order[i]);
        ckpt_difference difference;

        if (is_left_out(a, options) ||
            ckpt_catalog_find(s->b->catalog, a->name) == CKPT_NOT_FOUND ||
            !judge(s, order[i], options, &difference))
            continue;
        if (difference.kind == CKPT_DIFFERENT_BITS)
            out->re_encoded[out->re_encoded_count++] = a->name;
        if (difference.kind != CKPT_DIFFERENT_BITS || options->asked.bits)
            out->differing[out->differing_count++] = difference;
    }
}

static int make_lists(ckpt_comparison *out, size_t a_count, size_t b_count,
                      const compare_options *options)
{
    memset(out, 0, sizeof *out);
    out->differing = calloc(a_count + 1, sizeof *out->differing);
    out->missing_in_b = calloc(a_count + 1, sizeof *out->missing_in_b);
    out->re_encoded = calloc(a_count + 1, sizeof *out->re_encoded);
    out->missing_in_a = calloc(b_count + 1, sizeof *out->missing_in_a);
    out->form = options->form;
    out->measured = options->measure ? calloc(a_count + 1, sizeof *out->measured) : NULL;
    return out->differing != NULL && out->missing_in_b != NULL && out->re_encoded != NULL &&
           out->missing_in_a != NULL && (out->measured != NULL || !options->measure);
}

/* Rules with a scale of the whole tensor need A's largest values first. */
static ckpt_code find_tensor_scales(compare_sink *s, const size_t *order,
                                    const ckpt_run_options *run, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(s->a->catalog);
    compare_scales scales = { .items = calloc(count + 1, sizeof *scales.items) };
    ckpt_code code = CKPT_OK;

    if (scales.items == NULL)
        return ckpt_fail_memory(err, "scales", count);
    for (size_t i = 0; i < count; i++) {
        const compare_state *state = &s->states[order[i]];

        s->states[order[i]].tensor_scale = 1.0f;
        if (state->rule != NULL && state->rule->has_tensor_scale)
            scales.items[scales.count++] = (compare_scale){
                .a = order[i], .b = (size_t)state->match, .rule = state->rule
            };
    }
    if (scales.count > 0)
        code = compare_find_scales(s->a, s->b, &scales, run, err);
    for (size_t i = 0; i < scales.count && code == CKPT_OK; i++)
        s->states[scales.items[i].a].tensor_scale = scales.items[i].scale;
    free(scales.items);
    return code;
}

/* 1 when a compared tensor of B has the encoding of this rule. */
static int has_rule(const compare_sink *s, const quantise_rule *rule)
{
    for (size_t i = 0; i < ckpt_catalog_count(s->a->catalog); i++)
        if (s->states[i].match != NOT_COMPARED &&
            compare_rule_makes(rule, ckpt_catalog_at(s->b->catalog, (size_t)s->states[i].match)))
            return 1;
    return 0;
}

/* Refuse a comparison of no tensors, and rules or patterns that match none: it would report that
 * nothing differs. */
static ckpt_code check_compared(const compare_sink *s, const ckpt_comparison *out,
                                ckpt_error *err)
{
    const compare_options *options = s->options;

    for (size_t i = 0; i < options->glob_count; i++)
        if (!catalog_has_match(s->a->catalog, options->globs[i]) &&
            !catalog_has_match(s->b->catalog, options->globs[i]))
            return ckpt_fail(err, CKPT_E_USAGE, "no tensor of either checkpoint matches '%s'",
                             options->globs[i]);
    for (size_t i = 0; i < options->rule_count && out->compared > 0; i++)
        if (!has_rule(s, options->rules[i]))
            return ckpt_fail(err, CKPT_E_USAGE, "no tensor that is compared has in the second "
                             "checkpoint the encoding that rule '%s' makes",
                             options->rules[i]->name);
    if (out->compared > 0)
        return CKPT_OK;
    if (options->glob_count > 0)
        return ckpt_fail(err, CKPT_E_USAGE, "nothing to compare: no tensor that both checkpoints "
                         "have matches '%s'", options->globs[0]);
    return ckpt_fail(err, CKPT_E_USAGE,
                     "nothing to compare: the checkpoints (%zu and %s) have "
                     "no tensor name in common",
                     ckpt_catalog_count(s->a->catalog),
                     text_count(ckpt_catalog_count(s->b->catalog), "tensor", "tensors").text);
}

ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err)
{
    static const sink_ops ops = { compare_wants, compare_put_tile, compare_need, NULL };
    const size_t a_count = ckpt_catalog_count(a->catalog);
    const size_t b_count = ckpt_catalog_count(b->catalog);
    compare_sink sink = { .base = { &ops }, .a = a, .b = b, .options = options };
    size_t *a_order = manifest_order(a->catalog);
    size_t *b_order = manifest_order(b->catalog);
    ckpt_run_options copy = options->asked.run;
    ckpt_code code = CKPT_OK;

    pthread_mutex_init(&sink.lock, NULL);
    sink.states = calloc(a_count + 1, sizeof *sink.states);
    if (!make_lists(out, a_count, b_count, options) || sink.states == NULL || a_order == NULL ||
        b_order == NULL) {
        code = ckpt_fail_memory(err, "a comparison", a_count + b_count);
        goto out;
    }
    match_tensors(&sink, options, a_order, out);
    find_missing_in_a(&sink, options, b_order, out);
    if ((code = check_compared(&sink, out, err)) != CKPT_OK)
        goto out;
    copy.fixed_bytes += a_count * (sizeof *sink.states + sizeof *out->differing +
                                   (options->measure ? sizeof *out->measured : 0));
    if ((code = find_tensor_scales(&sink, a_order, &copy, err)) == CKPT_OK &&
        (code = ckpt_copy(a, &sink.base, &copy, err)) == CKPT_OK)
        collect(&sink, options, a_order, out);
    out->blocks = sink.blocks;
    if (code == CKPT_OK && out->element_count == 0 && ckpt_comparison_is_same(out))
        code = ckpt_fail(err, CKPT_E_USAGE, "nothing to compare: the tensors of both checkpoints "
                         "(%zu) have no elements", out->compared);
out:
    if (code != CKPT_OK)
        compare_release(out);
    pthread_mutex_destroy(&sink.lock);
    free(sink.states);
    free(a_order);
    free(b_order);
    return code;
}

void compare_release(ckpt_comparison *comparison)
{
    free(comparison->differing);
    free(comparison->missing_in_a);
    free(comparison->missing_in_b);
    free(comparison->re_encoded);
    free(comparison->measured);
    config_verdict_release(&comparison->config);
    companions_release(&comparison->companions);
    for (int i = 0; i < 2; i++)
        certificate_checkpoint_release(&comparison->files[i]);
    memset(comparison, 0, sizeof *comparison);
}

int ckpt_comparison_is_same(const ckpt_comparison *comparison)
{
    return comparison->differing_count == 0 && comparison->missing_in_a_count == 0 &&
           comparison->missing_in_b_count == 0 && comparison->config.comparison.count == 0 &&
           companions_changed(&comparison->companions) == 0;
}

size_t compare_count_beyond(const ckpt_comparison *comparison, double tolerance,
                            const compare_measured **farthest)
{
    size_t count = 0;

    *farthest = NULL;
    for (size_t i = 0; i < comparison->measured_count; i++) {
        const compare_measured *m = &comparison->measured[i];

        if (difference_is_within(&m->statistics, tolerance, ckpt_tensor_is_int(m->a)))
            continue;
        count++;
        if (*farthest == NULL || difference_relative(&m->statistics) >
                                     difference_relative(&(*farthest)->statistics))
            *farthest = m;
    }
    return count;
}

int compare_is_within(const ckpt_comparison *comparison, double tolerance)
{
    const compare_measured *farthest;

    for (size_t i = 0; i < comparison->differing_count; i++)
        if (comparison->differing[i].kind != CKPT_DIFFERENT_VALUES)
            return 0;
    return compare_count_beyond(comparison, tolerance, &farthest) == 0 &&
           comparison->missing_in_a_count == 0 && comparison->missing_in_b_count == 0 &&
           comparison->config.comparison.count == 0 &&
           companions_changed(&comparison->companions) == 0;
}
