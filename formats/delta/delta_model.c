/* Stored tensors as streams of the parts of logical ones. */
#include "delta_model.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/digest.h"
#include "libckpt/encoding.h"
#include "libckpt/pick.h"
#include "libckpt/stored_form.h"

delta_input delta_input_of(const ckpt_checkpoint *c)
{
    return (delta_input){ c->place.path, c->logical, c->layout, c->store->catalog, c->stored,
                          ckpt_checkpoint_bytes(c) };
}

/* 1 when the extent covers a whole part and a whole stored tensor. */
static int is_whole(const ckpt_layout *layout, const layout_extent *e)
{
    const ckpt_tensor *t = ckpt_catalog_at(layout->logical, e->logical);
    const ckpt_part part = (ckpt_part)e->part;

    return e->row == 0 && e->col == 0 && e->stored_row == 0 && e->stored_col == 0 &&
           e->row_count == ckpt_part_rows(t, part) && e->col_count == ckpt_part_cols(t, part) &&
           ckpt_part_bytes(t, part) ==
               ckpt_part_bytes(ckpt_catalog_at(layout->stored, e->stored), CKPT_DATA);
}

int delta_input_needs_stored(const delta_input *in)
{
    const size_t count = ckpt_catalog_count(in->stored);

    if (in->layout->count != count)
        return 1;
    for (size_t i = 0; i < in->layout->count; i++)
        if (!is_whole(in->layout, &in->layout->extents[i]))
            return 1;
    return 0;
}

static ckpt_code make_own_layout(delta_model *m, ckpt_error *err)
{
    const ckpt_code code = layout_of_stored(m->in.stored, &m->own_layout, err);

    m->layout = m->own_layout;
    return code;
}

/* List the stored tensors of each part; at[i]: index in the source of tensor i of the layout. */
static ckpt_code list_streams(delta_model *m, const size_t *at, ckpt_error *err)
{
    const size_t tensors = ckpt_catalog_count(m->tensors->catalog);
    const size_t stored = ckpt_catalog_count(m->in.stored);

    m->first = malloc((CKPT_PART_COUNT * tensors + 1) * sizeof *m->first);
    m->next = malloc((stored + 1) * sizeof *m->next);
    if (m->first == NULL || m->next == NULL)
        return ckpt_fail_memory(err, "a list of tensors", stored);
    for (size_t i = 0; i < CKPT_PART_COUNT * tensors; i++)
        m->first[i] = DELTA_NO_TENSOR;
    /* Backwards, so that the original comes before its copies. */
    for (size_t i = m->layout->count; i > 0; i--) {
        const layout_extent *e = &m->layout->extents[i - 1];
        const size_t tensor = at == NULL ? e->logical : at[e->logical];
        int64_t *first = &m->first[CKPT_PART_COUNT * tensor + e->part];

        m->next[e->stored] = *first;
        *first = e->stored;
    }
    return CKPT_OK;
}

static ckpt_code fail_lacks(const char *name, const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is not in '%s': the two are not the same "
                     "tensors", name, path);
}

static ckpt_code check_tensor(const ckpt_tensor *a, const ckpt_tensor *b, const char *path,
                              ckpt_error *err)
{
    char a_text[64];
    char b_text[64];

    if (catalog_same_encoding(a, b) && catalog_same_shape(a, b) &&
        a->stored_dtype == b->stored_dtype)
        return CKPT_OK;
    ckpt_tensor_encoding(a, a_text, sizeof a_text);
    ckpt_tensor_encoding(b, b_text, sizeof b_text);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s in '%s', expected %s of the same shape",
                     a->name, b_text, path, a_text);
}

/* The tensors in another model's order; at[i]: where tensor i of `from` went. */
static ckpt_code pick_in_order(delta_model *m, ckpt_source *from, const delta_model *order,
                               size_t *at, ckpt_error *err)
{
    const ckpt_catalog *wanted = order->tensors->catalog;
    const size_t count = ckpt_catalog_count(wanted);
    pick_entry *entries = calloc(count + 1, sizeof *entries);
    ckpt_code code = CKPT_OK;

    if (entries == NULL)
        return ckpt_fail_memory(err, "a view", count);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(wanted, i);
        const int64_t found = ckpt_catalog_find(from->catalog, t->name);

        if (found < 0) {
            code = fail_lacks(t->name, m->in.path, err);
            break;
        }
        code = check_tensor(t, ckpt_catalog_at(from->catalog, (size_t)found), m->in.path, err);
        entries[i] = (pick_entry){ from, (size_t)found };
        at[found] = i;
    }
    for (size_t i = 0; i < ckpt_catalog_count(from->catalog) && code == CKPT_OK; i++) {
        const char *name = ckpt_catalog_at(from->catalog, i)->name;

        if (ckpt_catalog_find(wanted, name) < 0)
            code = fail_lacks(name, order->in.path, err);
    }
    if (code == CKPT_OK)
        code = source_pick(entries, count, &m->tensors, err);
    free(entries);
    return code;
}

/* Check that each part has the same stored names in both models. */
static ckpt_code check_streams(const delta_model *m, const delta_model *order, ckpt_error *err)
{
    const size_t count = CKPT_PART_COUNT * ckpt_catalog_count(order->tensors->catalog);

    for (size_t i = 0; i < count; i++) {
        int64_t a = order->first[i];
        int64_t b = m->first[i];

        for (; a >= 0 && b >= 0; a = order->next[a], b = m->next[b]) {
            const char *name = ckpt_catalog_at(order->in.stored, (size_t)a)->name;

            if (ckpt_catalog_find(m->in.stored, name) < 0)
                return fail_lacks(name, m->in.path, err);
        }
        if (a >= 0 || b >= 0)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is stored once in one of '%s' and "
                             "'%s', and twice in the other",
                             ckpt_catalog_at(order->tensors->catalog, i / CKPT_PART_COUNT)->name,
                             order->in.path, m->in.path);
    }
    return CKPT_OK;
}

int delta_model_has_digest(const delta_model *m)
{
    const ckpt_catalog *logical = m->in.logical->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(logical); i++)
        if (encoding_of(ckpt_catalog_at(logical, i)) == NULL)
            return 0;
    return 1;
}

/* Refuse interleaved blocks: they contain two parts, but a stream is one part. */
static ckpt_code check_forms(const delta_input *in, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(in->stored); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(in->stored, i);

        if (t->stored_form != CKPT_FORM_APART)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' of '%s' is stored as %s, whose parts "
                             "no delta can tell apart: ckpt-shard --layout hf makes a copy that "
                             "has them", t->name, in->path, stored_form_name(t));
    }
    return CKPT_OK;
}

ckpt_code delta_model_open(const delta_input *in, int is_stored, const delta_model *order,
                           delta_model *out, ckpt_error *err)
{
    ckpt_source *from = is_stored ? in->stored_source : in->logical;
    size_t *at = NULL;
    ckpt_code code = CKPT_OK;

    *out = (delta_model){ .in = *in, .is_stored = is_stored, .layout = in->layout };
    if ((code = check_forms(in, err)) != CKPT_OK)
        return code;
    if (is_stored)
        code = make_own_layout(out, err);
    else if (delta_model_has_digest(out)) {
        if ((out->digest = digest_create(from->catalog)) == NULL)
            return ckpt_fail_memory(err, "digests", ckpt_catalog_count(from->catalog));
        code = source_digest_tap(from, out->digest, &out->tap, err);
        from = out->tap;
    }
    if (code != CKPT_OK)
        return code;
    if (order == NULL) {
        out->tensors = from;
        return list_streams(out, NULL, err);
    }
    if ((at = calloc(ckpt_catalog_count(from->catalog) + 1, sizeof *at)) == NULL)
        return ckpt_fail_memory(err, "a view", ckpt_catalog_count(from->catalog));
    if ((code = pick_in_order(out, from, order, at, err)) == CKPT_OK &&
        (code = list_streams(out, at, err)) == CKPT_OK)
        code = check_streams(out, order, err);
    free(at);
    return code;
}

void delta_model_release(delta_model *m)
{
    if (m->tensors != NULL && m->tensors != m->tap && m->tensors != m->in.logical &&
        m->tensors != m->in.stored_source)
        ckpt_source_free(m->tensors);
    ckpt_source_free(m->tap);
    ckpt_digest_free(m->digest);
    layout_free(m->own_layout);
    free(m->first);
    free(m->next);
}

ckpt_code delta_digest_roots(const ckpt_digest *digest, delta_roots *out, ckpt_error *err)
{
    const ckpt_code code = ckpt_digest_root(digest, 0, out->all, err);

    return code == CKPT_OK ? ckpt_digest_root(digest, 1, out->main, err) : code;
}

ckpt_code delta_model_roots(const delta_model *m, const ckpt_run_options *run, delta_roots *out,
                            ckpt_error *err)
{
    ckpt_digest *digest = NULL;
    ckpt_code code;

    *out = (delta_roots){ "", "" };
    if (m->digest != NULL)
        return delta_digest_roots(m->digest, out, err);
    if (!m->is_stored || !delta_model_has_digest(m))
        return CKPT_OK;
    if ((code = ckpt_digest_source(m->in.logical, run, &digest, err)) == CKPT_OK)
        code = delta_digest_roots(digest, out, err);
    ckpt_digest_free(digest);
    return code;
}

uint64_t delta_model_bytes(const delta_model *m)
{
    enum { PER_TENSOR_BYTES = 256 };      /* streams, digests, records, picks */

    return (ckpt_catalog_count(m->in.stored) + ckpt_catalog_count(m->tensors->catalog)) *
           PER_TENSOR_BYTES;
}
