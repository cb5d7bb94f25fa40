/* Converts the files that have arrived so far. */
#include "convert_feed.h"

#include <stdlib.h>
#include <string.h>

#include "convert_feed_copy.h"
#include "libckpt/array.h"
#include "libckpt/size.h"

/* Tensor `tensor` of the target needs data of file `file` of the source. */
typedef struct {
    uint32_t tensor;
    uint32_t file;
} feed_need;

typedef struct {
    const job_plan *plan;
    const feed_copy *copy;
    convert_feed *feed;
    feed_need *needs;            /* by tensor */
    size_t need_count;
    uint32_t *missing;           /* by tensor: number of missing files */
    uint32_t *left;              /* by file: tensors that still need it */
    uint8_t *has_come;           /* by file */
    uint8_t *is_done;            /* by tensor */
    size_t left_count;           /* tensors that are not done */
} feed_run;

static ckpt_code add_need(feed_run *r, size_t tensor, uint32_t file, ckpt_error *err)
{
    feed_need *needs;

    for (size_t i = r->need_count; i > 0 && r->needs[i - 1].tensor == tensor; i--)
        if (r->needs[i - 1].file == file)
            return CKPT_OK;
    needs = array_room(r->needs, r->need_count, sizeof *needs, "a plan", err);
    if (needs == NULL)
        return CKPT_E_MEMORY;
    r->needs = needs;
    needs[r->need_count].tensor = (uint32_t)tensor;
    needs[r->need_count++].file = file;
    r->missing[tensor]++;
    r->left[file]++;
    return CKPT_OK;
}

static ckpt_code find_needs(feed_run *r, ckpt_error *err)
{
    const job_plan *plan = r->plan;
    const ckpt_layout *layout = plan->source->layout;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const char *name = ckpt_catalog_at(plan->picked->catalog, i)->name;
        const int64_t found = ckpt_catalog_find(plan->source->reading.logical, name);

        if (r->copy->kept[i]) {
            r->is_done[i] = 1;
            continue;
        }
        r->left_count++;
        if (plan->origins[i] != NULL || found < 0)
            continue;                    /* of --fill-from */
        for (int part = 0; part < CKPT_PART_COUNT; part++) {
            const layout_extent *e;
            const layout_extent *end;

            layout_extents(layout, (size_t)found, (ckpt_part)part, &e, &end);
            for (; e < end && code == CKPT_OK; e++)
                code = add_need(r, i, ckpt_catalog_at(layout->stored, e->stored)->file, err);
            if (code != CKPT_OK)
                return code;
        }
    }
    return CKPT_OK;
}

static ckpt_code say_room(const feed_run *r, ckpt_error *err)
{
    convert_room room;
    const ckpt_code code = convert_find_room(r->plan, r->copy->directory, &room, err);

    return code == CKPT_OK ? r->feed->room(r->feed, &room, err) : code;
}

static ckpt_code say_wants(feed_run *r, ckpt_error *err)
{
    const ckpt_store *store = r->plan->source->store;
    ckpt_code code;

    for (size_t i = 0; i < store->file_count; i++) {
        const char *name = store->files[i].name;

        code = r->left[i] > 0 ? r->feed->want(r->feed, name, err)
                              : r->feed->answer(r->feed, name, 1, err);
        if (code != CKPT_OK)
            return code;
    }
    return r->feed->want(r->feed, NULL, err);
}

/* ---- a file arrives ---- */

/* The data must have the header that was used for the plan. */
static ckpt_code check_header(const store_file *planned, const ckpt_file *data, ckpt_error *err)
{
    enum { PIECE_BYTES = 1 << 16 };
    char expected[PIECE_BYTES];
    char got[PIECE_BYTES];
    ckpt_code code = CKPT_OK;
    int same = file_size(data) == planned->size_bytes;

    for (uint64_t at = 0; same && at < planned->header_bytes; at += PIECE_BYTES) {
        const size_t size = (size_t)size_min(PIECE_BYTES, planned->header_bytes - at);

        if ((code = file_read_at(planned->file, at, expected, size, err)) != CKPT_OK ||
            (code = file_read_at(data, at, got, size, err)) != CKPT_OK)
            return code;
        same = memcmp(expected, got, size) == 0;
    }
    if (!same)
        return ckpt_fail(err, CKPT_E_DIFFERENT, "the header of '%s' differs from the one used "
                         "for the plan", file_path(data));
    return CKPT_OK;
}

/* Read the tensors of this file from its data from now on. */
static ckpt_code open_data(feed_run *r, size_t i, ckpt_error *err)
{
    store_file *planned = &r->plan->source->store->files[i];
    /* The store's folder is the headers directory, so use the path of the source. */
    char *path = file_join(r->plan->options.source, planned->name);
    ckpt_file *data = NULL;
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(planned->name));
    if ((code = file_open(path, &data, err)) == CKPT_OK)
        code = check_header(planned, data, err);
    free(path);
    if (code != CKPT_OK) {
        file_close(data, NULL);
        return code;
    }
    file_close(planned->file, NULL);
    planned->file = data;
    return CKPT_OK;
}

static ckpt_code take_next(feed_run *r, size_t *out, ckpt_error *err)
{
    const ckpt_store *store = r->plan->source->store;
    const char *name;
    size_t i = 0;
    ckpt_code code;

    if ((code = r->feed->next(r->feed, &name, err)) != CKPT_OK)
        return code;
    while (i < store->file_count && strcmp(store->files[i].name, name) != 0)
        i++;
    if (i == store->file_count || r->has_come[i])
        return ckpt_fail(err, CKPT_E_USAGE, "unexpected file '%s'", name);
    if ((code = open_data(r, i, err)) != CKPT_OK)
        return code;
    r->has_come[i] = 1;
    for (size_t n = 0; n < r->need_count; n++)
        r->missing[r->needs[n].tensor] -= r->needs[n].file == i;
    *out = i;
    return CKPT_OK;
}

/* ---- converting ready tensors ---- */

static ckpt_code finish_file(feed_run *r, size_t i, ckpt_error *err)
{
    store_file *f = &r->plan->source->store->files[i];
    const ckpt_code code = file_check_unchanged(f->file, NULL, err);

    file_close(f->file, NULL);
    f->file = NULL;
    return code == CKPT_OK ? r->feed->answer(r->feed, f->name, 1, err) : code;
}

/* Convert the tensors that are ready; sync the result before a file is reported as finished. */
static ckpt_code convert_ready(feed_run *r, ckpt_error *err)
{
    const feed_copy *copy = r->copy;
    const size_t count = ckpt_catalog_count(r->plan->targets);
    size_t ready_count = 0;
    ckpt_code code;

    for (size_t i = 0; i < count; i++) {
        copy->ready[i] = !r->is_done[i] && r->missing[i] == 0;
        ready_count += copy->ready[i];
    }
    if (ready_count == 0)
        return CKPT_OK;
    if ((code = ckpt_copy(copy->from, copy->to, copy->options, err)) != CKPT_OK ||
        (code = file_sync_tree(r->copy->directory, err)) != CKPT_OK)
        return code;
    for (size_t n = 0; n < r->need_count; n++)
        r->left[r->needs[n].file] -= copy->ready[r->needs[n].tensor];
    for (size_t i = 0; i < count; i++)
        r->is_done[i] |= copy->ready[i];
    r->left_count -= ready_count;
    return CKPT_OK;
}

static ckpt_code answer(feed_run *r, size_t came, ckpt_error *err)
{
    const ckpt_store *store = r->plan->source->store;
    ckpt_code code;

    for (size_t i = 0; i < store->file_count; i++) {
        if (!r->has_come[i] || store->files[i].file == NULL)
            continue;
        if (r->left[i] == 0)
            code = finish_file(r, i, err);
        else
            code = i == came ? r->feed->answer(r->feed, store->files[i].name, 0, err) : CKPT_OK;
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code run(feed_run *r, ckpt_error *err)
{
    size_t came = 0;
    ckpt_code code;

    if ((code = find_needs(r, err)) != CKPT_OK ||
        (code = file_sync_parent(r->copy->directory, err)) != CKPT_OK ||
        (code = say_room(r, err)) != CKPT_OK || (code = say_wants(r, err)) != CKPT_OK)
        return code;
    for (;;) {
        if ((code = convert_ready(r, err)) != CKPT_OK ||
            (code = answer(r, came, err)) != CKPT_OK || r->left_count == 0 ||
            (code = take_next(r, &came, err)) != CKPT_OK)
            return code;
    }
}

ckpt_code convert_feed_copy(const job_plan *plan, const feed_copy *copy, ckpt_error *err)
{
    const size_t tensor_count = ckpt_catalog_count(plan->targets);
    const size_t file_count = plan->source->store->file_count;
    feed_run r = { .plan = plan,
                   .copy = copy,
                   .feed = plan->options.feed,
                   .missing = calloc(tensor_count + 1, sizeof *r.missing),
                   .left = calloc(file_count + 1, sizeof *r.left),
                   .has_come = calloc(file_count + 1, 1),
                   .is_done = calloc(tensor_count + 1, 1) };
    ckpt_code code;

    if (r.missing == NULL || r.left == NULL || r.has_come == NULL || r.is_done == NULL)
        code = ckpt_fail_memory(err, "a plan", tensor_count);
    else
        code = run(&r, err);
    free(r.needs);
    free(r.missing);
    free(r.left);
    free(r.has_come);
    free(r.is_done);
    return code;
}
