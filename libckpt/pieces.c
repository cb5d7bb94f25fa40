/* Boxes of tensors as stored pieces. */
#include "pieces.h"

#include <string.h>

ckpt_code pieces_begin(ckpt_store *store, ckpt_catalog *keys, ckpt_error *err)
{
    store->keys = keys;
    store->pieces = layout_create(keys, store->catalog);
    return store->pieces != NULL ? CKPT_OK : ckpt_fail_memory(err, "a list of pieces", 0);
}

piece_box pieces_whole(const ckpt_store *store, size_t key)
{
    const ckpt_tensor *t = ckpt_catalog_at(store->keys, key);
    piece_box box = { .key = key, .name = t->name, .file = t->file };

    memcpy(box.size, t->shape, t->rank * sizeof t->shape[0]);
    return box;
}

/* A box as runs of rows that are adjacent in both the key and the piece. */
typedef struct {
    uint64_t run_rows;        /* rows of one run */
    uint64_t run_count;
    uint32_t outer_rank;      /* number of first dimensions whose steps are separate runs */
} row_runs;

/* Rows are adjacent across a dimension that the box contains completely: it adds no runs. */
static row_runs find_runs(const ckpt_tensor *key, const piece_box *box)
{
    row_runs runs = { .run_rows = 1, .run_count = 1 };
    uint32_t d = key->rank > 0 ? key->rank - 1 : 0;
    int open = 1;

    while (d > 0) {
        d--;
        if (open) {
            runs.run_rows *= box->size[d];
            open = box->size[d] == key->shape[d];
            runs.outer_rank = d;
        } else {
            runs.run_count *= box->size[d];
        }
    }
    return runs;
}

/* First row of run `run` in the row view of the key. */
static uint64_t run_row(const ckpt_tensor *key, const piece_box *box, const row_runs *runs,
                        uint64_t run)
{
    uint64_t index[CKPT_RANK_MAX] = { 0 };
    uint64_t row = 0;

    for (uint32_t d = runs->outer_rank; d > 0; d--) {
        index[d - 1] = run % box->size[d - 1];
        run /= box->size[d - 1];
    }
    for (uint32_t d = 0; d + 1 < key->rank; d++)
        row = row * key->shape[d] + box->offset[d] + index[d];
    return row;
}

static ckpt_code check_box(const ckpt_tensor *key, const piece_box *box, ckpt_error *err)
{
    for (uint32_t d = 0; d < key->rank; d++)
        if (box->size[d] > key->shape[d] || box->offset[d] > key->shape[d] - box->size[d])
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "piece '%s' is outside of '%s' in dimension %u", box->name,
                             key->name, d);
    return CKPT_OK;
}

ckpt_code pieces_add(ckpt_store *store, const piece_box *box, ckpt_error *err)
{
    const size_t stored = ckpt_catalog_count(store->catalog);
    ckpt_tensor piece = *ckpt_catalog_at(store->keys, box->key);
    ckpt_code code;

    piece.name = box->name;
    piece.file = box->file;
    piece.offset = box->file_offset;
    memcpy(piece.shape, box->size, sizeof piece.shape);
    if ((code = catalog_add(store->catalog, &piece, err)) != CKPT_OK)
        return code;
    return pieces_attach(store, stored, box, err);
}

ckpt_code pieces_attach(ckpt_store *store, size_t stored, const piece_box *box, ckpt_error *err)
{
    const ckpt_tensor *key = ckpt_catalog_at(store->keys, box->key);
    const uint32_t last = key->rank > 0 ? key->rank - 1 : 0;
    row_runs runs;
    ckpt_code code;

    if ((code = check_box(key, box, err)) != CKPT_OK)
        return code;
    runs = find_runs(key, box);
    for (uint64_t run = 0; run < runs.run_count && code == CKPT_OK; run++) {
        const layout_extent e = {
            .logical = (uint32_t)box->key,
            .stored = (uint32_t)stored,
            .part = CKPT_DATA,
            .copy = (uint8_t)(box->copy != 0),
            .row = run_row(key, box, &runs, run),
            .col = key->rank > 0 ? box->offset[last] : 0,
            .row_count = runs.run_rows,
            .col_count = key->rank > 0 ? box->size[last] : 1,
            .stored_row = run * runs.run_rows,
        };

        if (e.row_count > 0 && e.col_count > 0)
            code = layout_add(store->pieces, &e, err);
    }
    return code;
}

ckpt_code pieces_seal(ckpt_store *store, ckpt_error *err)
{
    return layout_seal(store->pieces, err);
}
