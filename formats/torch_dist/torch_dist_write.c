/* Writes torch_dist: items, whose bytes arrive in any order, and the files beside them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common_pt.h"
#include "dcp_metadata.h"
#include "libckpt/config_number.h"
#include "libckpt/size.h"
#include "torch_dist.h"
#include "torch_dist_state.h"
#include "zip_item.h"

/* ---- items ---- */

static ckpt_code plan_item(const ckpt_tensor *piece, zip_item_plan *plan, ckpt_error *err)
{
    zip_item_tensor tensor = { .dtype = piece->dtype, .rank = piece->rank };

    memcpy(tensor.shape, piece->shape, piece->rank * sizeof tensor.shape[0]);
    if (piece->dtype == CKPT_F4 && piece->rank > 0)
        tensor.shape[piece->rank - 1] /= 2;
    return zip_item_plan_tensor(&tensor, plan, err);
}

static ckpt_code plan_extra(const dist_extra *extra, zip_item_plan *plan, ckpt_error *err)
{
    return extra->is_none ? zip_item_plan_none(plan, err) : zip_item_plan_empty(plan, err);
}

/* Append an item to its file; *offset: where it begins. */
static ckpt_code place_item(store_file *file, const zip_item_plan *plan, uint64_t *offset,
                            ckpt_error *err)
{
    *offset = file->size_bytes;
    if (!size_add(file->size_bytes, plan->size_bytes, &file->size_bytes) ||
        !size_add(file->size_bytes, ZIP_ITEM_ALIGN - 1, &file->size_bytes) ||
        file->size_bytes > INT64_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "file '%s' would be too large", file->name);
    file->size_bytes -= file->size_bytes % ZIP_ITEM_ALIGN;
    return CKPT_OK;
}

/* Byte entries follow the tensors of their file, so that they do not move the tensors. */
ckpt_code torch_dist_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(store->catalog);
    dist_watch *w = torch_dist_watch(store);
    zip_item_plan plan;
    ckpt_code code = CKPT_OK;

    (void)target;
    if ((w->crcs = calloc(count + 1, sizeof *w->crcs)) == NULL)
        return ckpt_fail_memory(err, "checksums", count);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        ckpt_tensor *piece = catalog_edit(store->catalog, i);

        if ((code = plan_item(piece, &plan, err)) == CKPT_OK &&
            (code = place_item(&store->files[piece->file], &plan, &piece->offset, err)) == CKPT_OK)
            piece->offset += plan.head_bytes;
    }
    for (size_t i = 0; i < w->extra_count && code == CKPT_OK; i++) {
        dist_extra *extra = &w->extras[i];
        const uint32_t file = ckpt_catalog_at(store->catalog, extra->piece)->file;

        if ((code = plan_extra(extra, &plan, err)) == CKPT_OK)
            code = place_item(&store->files[file], &plan, &extra->offset, err);
    }
    return code;
}

/* Write the head and tail of an item at `offset`. */
static ckpt_code write_ends(const ckpt_store *store, uint32_t file, const zip_item_plan *plan,
                            uint64_t offset, ckpt_error *err)
{
    const ckpt_code code = file_write_at(store->files[file].file, offset, plan->head,
                                         plan->head_bytes, err);

    if (code != CKPT_OK)
        return code;
    return file_write_at(store->files[file].file,
                         offset + plan->head_bytes + plan->payload_bytes, plan->tail,
                         plan->tail_bytes, err);
}

ckpt_code torch_dist_seal(ckpt_store *store, const uint8_t *owned, ckpt_error *err)
{
    const dist_watch *w = torch_dist_watch(store);
    zip_item_plan plan;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(store->catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *piece = ckpt_catalog_at(store->catalog, i);

        if (!owned[i] || (code = plan_item(piece, &plan, err)) != CKPT_OK)
            continue;
        zip_item_set_crc(&plan, w->crcs[i]);
        code = write_ends(store, piece->file, &plan, piece->offset - plan.head_bytes, err);
    }
    for (size_t i = 0; i < w->extra_count && code == CKPT_OK; i++) {
        const dist_extra *extra = &w->extras[i];
        const uint32_t file = ckpt_catalog_at(store->catalog, extra->piece)->file;

        if (owned[extra->piece] && (code = plan_extra(extra, &plan, err)) == CKPT_OK)
            code = write_ends(store, file, &plan, extra->offset, err);
    }
    return code;
}

/* ---- the files beside the data ---- */

static ckpt_code write_beside(const ckpt_store *store, const char *name, const void *data,
                              size_t size, ckpt_error *err)
{
    char *path = file_join(store->directory, name);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    code = file_write_all(path, data, size, err);
    free(path);
    return code;
}

/* The same in the iteration's folder. */
static ckpt_code write_inside(const ckpt_store *store, const char *name, const void *data,
                              size_t size, ckpt_error *err)
{
    const char *any = store->files[0].name;
    char relative[256];

    snprintf(relative, sizeof relative, "%.*s%s", (int)(strchr(any, '/') + 1 - any), any, name);
    return write_beside(store, relative, data, size, err);
}

static int put_stream(void *context, const void *bytes, size_t size)
{
    return fwrite(bytes, 1, size, context) != size;
}

/* Fill in the boxes of all keys. Pieces are in the order of their keys. */
static ckpt_code fill_metadata(ckpt_store *store, dcp_metadata *m, ckpt_error *err)
{
    const layout_extent *extents = store->pieces->extents;
    ckpt_code code = CKPT_OK;

    for (size_t k = 0; k < ckpt_catalog_count(store->keys); k++) {
        const ckpt_tensor *key = ckpt_catalog_at(store->keys, k);

        m->entries[k].key = key->name;
        m->entries[k].dtype = key->dtype;
        m->entries[k].rank = key->rank;
        memcpy(m->entries[k].size, key->shape, sizeof m->entries[k].size);
    }
    for (size_t i = 0; i < ckpt_catalog_count(store->catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *piece = ckpt_catalog_at(store->catalog, i);
        zip_item_plan plan;

        m->chunks[i].file = piece->file;
        memcpy(m->chunks[i].sizes, piece->shape, sizeof m->chunks[i].sizes);
        if ((code = plan_item(piece, &plan, err)) == CKPT_OK) {
            m->chunks[i].offset = piece->offset - plan.head_bytes;
            m->chunks[i].length = plan.size_bytes;
        }
    }
    for (size_t e = 0; e < store->pieces->count; e++) {
        const ckpt_tensor *key = ckpt_catalog_at(store->keys, extents[e].logical);
        dcp_chunk *chunk = &m->chunks[extents[e].stored];
        uint64_t row = extents[e].row;

        if (extents[e].stored_row != 0)
            continue;                      /* the first run gives the corner of the box */
        if (key->rank > 0)
            chunk->offsets[key->rank - 1] = extents[e].col;
        for (uint32_t d = key->rank > 0 ? key->rank - 1 : 0; d > 0; d--) {
            chunk->offsets[d - 1] = row % key->shape[d - 1];
            row /= key->shape[d - 1];
        }
    }
    return code;
}

/* Count the boxes of each key; pieces are in the order of their keys. */
static void count_chunks(const ckpt_store *store, dcp_metadata *m)
{
    const size_t piece_count = ckpt_catalog_count(store->catalog);
    size_t next = 0;

    for (size_t k = 0; k < ckpt_catalog_count(store->keys); k++) {
        const char *key = ckpt_catalog_at(store->keys, k)->name;
        const size_t length = strlen(key);

        m->entries[k].first_chunk = next;
        while (next < piece_count &&
               strncmp(ckpt_catalog_at(store->catalog, next)->name, key, length) == 0 &&
               ckpt_catalog_at(store->catalog, next)->name[length] == '@')
            next++;
        m->entries[k].chunk_count = next - m->entries[k].first_chunk;
    }
}

/* "3" or "3.7": a number for each axis. */
static int put_axes(const uint64_t *numbers, size_t count, char *out, size_t out_bytes)
{
    int used = 0;

    for (size_t i = 0; i < count; i++)
        used += snprintf(out + used, out_bytes - (size_t)used, "%s%llu", i == 0 ? "" : ".",
                         (unsigned long long)numbers[i]);
    return used;
}

/* Append the byte entries after keys and pieces: X._extra_state for the first box of X.weight. */
static ckpt_code fill_extras(const ckpt_store *store, dcp_metadata *m, ckpt_error *err)
{
    const dist_watch *w = torch_dist_watch(store);
    const size_t key_count = ckpt_catalog_count(store->keys);
    const size_t piece_count = ckpt_catalog_count(store->catalog);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < w->extra_count && code == CKPT_OK; i++) {
        const dist_extra *extra = &w->extras[i];
        const char *key = ckpt_catalog_at(store->keys, extra->key)->name;
        const char *dot = strrchr(key, '.');
        dcp_entry *entry = &m->entries[key_count + i];
        dcp_chunk *chunk = &m->chunks[piece_count + i];
        char name[MAP_NAME_BYTES + 128];
        zip_item_plan plan;
        int used;

        used = snprintf(name, sizeof name, "%.*s._extra_state/shard_",
                        (int)(dot == NULL ? strlen(key) : (size_t)(dot - key)), key);
        used += put_axes(extra->index, extra->axis_count, name + used, sizeof name - (size_t)used);
        name[used++] = '_';
        used += put_axes(extra->count, extra->axis_count, name + used, sizeof name - (size_t)used);
        if ((entry->key = arena_strdup(&m->memory, name, (size_t)used)) == NULL)
            return ckpt_fail_memory(err, "the metadata", (size_t)used);
        entry->is_bytes = 1;
        entry->first_chunk = piece_count + i;
        entry->chunk_count = 1;
        chunk->file = ckpt_catalog_at(store->catalog, extra->piece)->file;
        chunk->offset = extra->offset;
        if ((code = plan_extra(extra, &plan, err)) == CKPT_OK)
            chunk->length = plan.size_bytes;
    }
    return code;
}

static ckpt_code write_metadata(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    const size_t extra_count = torch_dist_watch(store)->extra_count;
    dcp_metadata m = { .entry_count = ckpt_catalog_count(store->keys) + extra_count,
                       .chunk_count = ckpt_catalog_count(store->catalog) + extra_count,
                       .file_count = store->file_count };
    const size_t folder = strlen(torch_dist_folder(target->sharding)) + 1;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    ckpt_code code;

    arena_init(&m.memory);
    m.entries = calloc(m.entry_count + 1, sizeof *m.entries);
    m.chunks = calloc(m.chunk_count + 1, sizeof *m.chunks);
    m.files = calloc(m.file_count + 1, sizeof *m.files);
    if (stream == NULL || m.entries == NULL || m.chunks == NULL || m.files == NULL) {
        code = ckpt_fail_memory(err, "the metadata", m.chunk_count);
        goto out;
    }
    for (size_t i = 0; i < m.file_count; i++)
        m.files[i] = store->files[i].name + folder;
    count_chunks(store, &m);
    if ((code = fill_metadata(store, &m, err)) == CKPT_OK &&
        (code = fill_extras(store, &m, err)) == CKPT_OK &&
        (code = dcp_write(&m, put_stream, stream, err)) == CKPT_OK)
        code = fflush(stream) == 0 ? write_inside(store, DCP_FILE, text, size, err)
                                   : ckpt_fail_memory(err, "the metadata", size);
out:
    if (stream != NULL)
        fclose(stream);
    free(text);
    free(m.entries);
    free(m.chunks);
    free(m.files);
    arena_release(&m.memory);
    return code;
}

/* The arguments that loaders and converters read, derived from config.json by the map. */
static size_t fill_args(const format_target *target, common_arg *args, size_t most)
{
    size_t count = 0;

    for (size_t i = 0; target->map != NULL && i < target->map->arg_count && count < most; i++) {
        const map_arg *arg = &target->map->args[i];
        const int is_none = arg->expression == NULL;
        uint64_t number = 0;

        if ((count > 0 && strcmp(args[count - 1].name, arg->name) == 0) ||
            (!is_none &&
             config_expression(target->config, arg->expression, &number, NULL) != CKPT_OK) ||
            number > INT64_MAX)
            continue;
        args[count].name = arg->name;
        args[count].kind = is_none ? COMMON_NONE : COMMON_INT;
        args[count++].integer = (int64_t)number;
    }
    return count;
}

static ckpt_code write_common(const ckpt_store *store, const format_target *target, ckpt_error *err)
{
    enum { ARGS_MAX = 32 };
    const format_sharding *s = target->sharding;
    common_arg args[ARGS_MAX] = { { .name = "tensor_model_parallel_size", .kind = COMMON_INT,
                                    .integer = s->tp > 0 ? s->tp : 1 },
                                  { .name = "pipeline_model_parallel_size", .kind = COMMON_INT,
                                    .integer = s->pp > 0 ? s->pp : 1 },
                                  { .name = "expert_model_parallel_size", .kind = COMMON_INT,
                                    .integer = s->ep > 0 ? s->ep : 1 },
                                  { .name = "expert_tensor_parallel_size", .kind = COMMON_INT,
                                    .integer = s->etp > 0 ? s->etp : 1 } };
    common_pt common = { .args = args, .arg_count = 4, .iteration = 0 };
    unsigned char *bytes = NULL;
    size_t size = 0;
    ckpt_code code;

    common.arg_count += fill_args(target, args + 4, ARGS_MAX - 4);
    if (s->iteration != NULL && strcmp(s->iteration, "release") != 0)
        common.iteration = strtoll(s->iteration + strlen("iter_"), NULL, 10);
    if ((code = common_pt_write(&common, &bytes, &size, err)) == CKPT_OK)
        code = write_inside(store, "common.pt", bytes, size, err);
    free(bytes);
    return code;
}

ckpt_code torch_dist_finish(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    static const char backend[] = "{\"sharded_backend\": \"torch_dist\", "
                                  "\"sharded_backend_version\": 1, "
                                  "\"common_backend\": \"torch\", \"common_backend_version\": 1}";
    const char *folder = torch_dist_folder(target->sharding);
    char tracker[64];
    ckpt_code code;

    if (strcmp(folder, "release") == 0)
        snprintf(tracker, sizeof tracker, "release");
    else
        snprintf(tracker, sizeof tracker, "%lld", strtoll(folder + strlen("iter_"), NULL, 10));
    if ((code = write_metadata(store, target, err)) != CKPT_OK ||
        (code = write_inside(store, "metadata.json", backend, sizeof backend - 1, err)) !=
            CKPT_OK ||
        (code = write_common(store, target, err)) != CKPT_OK)
        return code;
    return write_beside(store, "latest_checkpointed_iteration.txt", tracker,
                        strlen(tracker), err);
}
