/* torch_dist_state.c: the checksums of items, whose bytes arrive in any order. */
#include "torch_dist_state.h"

#include <stdlib.h>

#include "libckpt/crc32.h"

const char *torch_dist_folder(const format_sharding *sharding)
{
    return sharding->iteration != NULL ? sharding->iteration : "release";
}

static void crc_wrote(store_watch *self, size_t piece, const file_rect *rect, const void *rows,
                      size_t pitch_bytes)
{
    dist_watch *w = (dist_watch *)self;
    const ckpt_tensor *t = ckpt_catalog_at(w->pieces, piece);
    const uint64_t total = ckpt_part_bytes(t, CKPT_DATA);
    uint64_t end = rect->offset - t->offset;
    uint32_t sum = 0;
    uint32_t run = 0;

    for (uint64_t r = 0; r < rect->row_count; r++) {
        run = crc32_add(run, (const char *)rows + r * pitch_bytes, rect->row_bytes);
        end += rect->row_bytes;
        if (rect->row_bytes == rect->pitch_bytes && r + 1 < rect->row_count)
            continue;                 /* the next row follows in the file */
        sum ^= crc32_shift(run, total - end);
        run = 0;
        end += rect->pitch_bytes - rect->row_bytes;
    }
    __atomic_fetch_xor(&w->crcs[piece], sum, __ATOMIC_RELAXED);
}

static void crc_forget(store_watch *self, size_t piece)
{
    __atomic_store_n(&((dist_watch *)self)->crcs[piece], 0, __ATOMIC_RELAXED);
}

static void watch_free(store_watch *self)
{
    free(((dist_watch *)self)->crcs);
    free(((dist_watch *)self)->extras);
    free(self);
}

ckpt_code torch_dist_watch_begin(ckpt_store *store, ckpt_error *err)
{
    dist_watch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return ckpt_fail_memory(err, "checksums", sizeof *w);
    w->base = (store_watch){ crc_wrote, crc_forget, watch_free };
    w->pieces = store->catalog;
    store->watch = &w->base;
    return CKPT_OK;
}

dist_watch *torch_dist_watch(const ckpt_store *store)
{
    return (dist_watch *)store->watch;
}
