/* Reads torch_dist: keys and boxes from .metadata, positions from the items' headers. */
#include "torch_dist.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"
#include "libckpt/size.h"
#include "torch_dist_beside.h"
#include "zip_item.h"

enum { TRACKER_BYTES_MAX = 256, PIECE_NAME_BYTES = MAP_NAME_BYTES + 256, RUNS_MAX = 1 << 20 };

const char *const torch_dist_map_names[] = { "torch_dist-v1", "torch_dist-v2", "torch_dist",
                                             "torch_dist-stacked", "torch_dist-layers",
                                             "torch_dist-slime", "torch_dist-bridge", NULL };
static const char tracker_name[] = "latest_checkpointed_iteration.txt";

/* ---- the folder ---- */

/* "release", or "iter_0000012" for "12"; 0 if the tracker has neither. */
static int folder_of(const char *tracker, char out[NAME_MAX + 1])
{
    static const char blanks[] = " \t\r\n";
    unsigned long long iteration = 0;
    size_t length;

    tracker += strspn(tracker, blanks);
    length = strcspn(tracker, blanks);
    if (length == strlen("release") && memcmp(tracker, "release", length) == 0) {
        memcpy(out, "release", sizeof "release");
        return 1;
    }
    if (length == 0 || length > 18 || strspn(tracker, "0123456789") < length)
        return 0;
    for (size_t i = 0; i < length; i++)
        iteration = 10 * iteration + (unsigned long long)(tracker[i] - '0');
    snprintf(out, NAME_MAX + 1, "iter_%07llu", iteration);
    return 1;
}

static int is_iteration(const char *name)
{
    return strcmp(name, "release") == 0 || strncmp(name, "iter_", 5) == 0;
}

/* Iterations in a folder without a tracker: probably a checkpoint copied without Megatron's other
 * files. */
typedef struct {
    const ckpt_folder *root;
    size_t count;
    char last[NAME_MAX + 1];       /* by name */
} iteration_finder;

static int count_iteration(void *context, const char *name)
{
    iteration_finder *f = context;
    char metadata[NAME_MAX + sizeof "/" DCP_FILE];

    if (!is_iteration(name) || strlen(name) > NAME_MAX)
        return 0;
    snprintf(metadata, sizeof metadata, "%s/" DCP_FILE, name);
    if (folder_has(f->root, metadata)) {
        f->count++;
        if (strcmp(name, f->last) > 0)
            snprintf(f->last, sizeof f->last, "%s", name);
    }
    return 0;
}

static iteration_finder find_iterations(const ckpt_folder *root)
{
    iteration_finder finder = { .root = root };

    folder_list(root, count_iteration, &finder, NULL);     /* a later open reports the error */
    return finder;
}

static int detect(const folder_place *place)
{
    return place->name == NULL &&
           (folder_has(place->folder, tracker_name) || folder_has(place->folder, DCP_FILE) ||
            (!folder_has(place->folder, HF_INDEX_FILE) &&
             find_iterations(place->folder).count > 0));
}

static ckpt_code choose_only(const ckpt_folder *root, char out[NAME_MAX + 1], ckpt_error *err)
{
    const iteration_finder finder = find_iterations(root);

    if (finder.count != 1)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' has %zu iterations and no '%s' to choose one: use one of them, e.g. "
                         "'%s/%s'",
                         folder_path(root), finder.count, tracker_name, folder_path(root),
                         finder.last);
    memcpy(out, finder.last, sizeof finder.last);
    return CKPT_OK;
}

/* The run was cleaned up, or copied in part. */
static ckpt_code fail_absent(const ckpt_folder *root, const char *tracker, const char *name,
                             ckpt_error *err)
{
    const iteration_finder finder = find_iterations(root);

    return finder.count == 0
               ? ckpt_fail(err, CKPT_E_IO, "'%s' names '%s', which is not there", tracker, name)
               : ckpt_fail(err, CKPT_E_IO,
                           "'%s' names '%s', which is not there: use one that is, "
                           "such as '%s/%s'",
                           tracker, name, folder_path(root), finder.last);
}

static ckpt_code read_tracker(const ckpt_folder *root, char out[NAME_MAX + 1], ckpt_error *err)
{
    folder_text tracker;
    ckpt_code code = folder_read_all(root, tracker_name, TRACKER_BYTES_MAX, &tracker, err);

    if (code == CKPT_OK && !folder_of(tracker.bytes, out))
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' does not name an iteration: '%.32s'",
                         tracker.path, tracker.bytes);
    else if (code == CKPT_OK && !folder_has(root, out))
        code = fail_absent(root, tracker.path, out, err);
    folder_text_release(&tracker);
    return code;
}

/* The store reads from the folder with .metadata: the one that was named, or an iteration in it. */
static ckpt_code create_store(ckpt_checkpoint *out, ckpt_error *err)
{
    const ckpt_folder *root = out->place.folder;
    char name[NAME_MAX + 1];
    ckpt_code code = CKPT_OK;

    if (!folder_has(root, DCP_FILE)) {
        code = folder_has(root, tracker_name) ? read_tracker(root, name, err)
                                              : choose_only(root, name, err);
        if (code == CKPT_OK)
            code = folder_enter(root, name, &out->data_folder, err);
    }
    if (code != CKPT_OK)
        return code;
    out->store = store_create_in(out->data_folder == NULL ? root : out->data_folder);
    return out->store != NULL ? CKPT_OK : ckpt_fail_memory(err, "a checkpoint", 0);
}

/* ---- keys and pieces ---- */

typedef struct {
    ckpt_checkpoint *out;
    const dcp_metadata *metadata;
    size_t *key_of;              /* by entry: its key */
    ckpt_error *err;
} dist_reader;

static ckpt_code add_key(dist_reader *r, ckpt_catalog *keys, size_t i)
{
    const dcp_entry *entry = &r->metadata->entries[i];
    ckpt_tensor key = { .name = entry->key, .dtype = entry->dtype, .rank = entry->rank };

    if (entry->dtype == CKPT_NONE)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' has unknown dtype '%s'", entry->key,
                         entry->dtype_name == NULL ? "" : entry->dtype_name);
    memcpy(key.shape, entry->size, entry->rank * sizeof key.shape[0]);
    if (entry->chunk_count > 0)
        key.file = (uint32_t)r->metadata->chunks[entry->first_chunk].file;
    if (key.dtype == CKPT_F4 && (key.rank == 0 || !size_mul(key.shape[key.rank - 1], 2,
                                                            &key.shape[key.rank - 1])))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' has a shape that is impossible for F4",
                         entry->key);
    r->key_of[i] = ckpt_catalog_count(keys);
    return catalog_add(keys, &key, r->err);
}

static ckpt_code make_keys(dist_reader *r, ckpt_error *err)
{
    ckpt_catalog *keys = catalog_create();
    ckpt_code code = CKPT_OK;

    if (keys == NULL)
        return ckpt_fail_memory(err, "a catalog", r->metadata->entry_count);
    for (size_t i = 0; i < r->metadata->entry_count && code == CKPT_OK; i++)
        if (!r->metadata->entries[i].is_bytes)
            code = add_key(r, keys, i);
    if (code != CKPT_OK) {
        catalog_free(keys);
        return code;
    }
    return pieces_begin(r->out->store, keys, err);
}

/* A view that is not packed: one extent for each run of consecutive elements. */
static ckpt_code attach_strided(dist_reader *r, const piece_box *box, const zip_item *item)
{
    ckpt_store *store = r->out->store;
    const ckpt_tensor *key = ckpt_catalog_at(store->keys, box->key);
    const size_t stored = ckpt_catalog_count(store->catalog);
    ckpt_tensor span = { .name = box->name, .dtype = key->dtype, .rank = 1, .file = box->file,
                         .offset = item->data_offset };
    uint64_t count = 1;
    ckpt_code code;

    span.shape[0] = 1;
    for (uint32_t d = 0; d < item->rank; d++) {
        count *= item->shape[d];       /* no overflow: the elements are in the storage */
        if (item->shape[d] > 0)
            span.shape[0] += (item->shape[d] - 1) * item->strides[d];
    }
    if (count > RUNS_MAX || key->dtype == CKPT_F4)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' is a strided view of %llu elements, expected at most %d",
                         key->name, (unsigned long long)count, RUNS_MAX);
    if ((code = catalog_add(store->catalog, &span, r->err)) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < count && code == CKPT_OK; i++) {
        layout_extent e = { .logical = (uint32_t)box->key, .stored = (uint32_t)stored,
                            .row_count = 1, .col_count = 1 };
        uint64_t place = 1;
        uint64_t rest = i;

        for (uint32_t d = item->rank; d > 0; d--) {
            const uint64_t index = rest % item->shape[d - 1];

            rest /= item->shape[d - 1];
            e.stored_col += index * item->strides[d - 1];
            if (d == item->rank) {
                e.col = box->offset[d - 1] + index;
            } else {
                e.row += place * (box->offset[d - 1] + index);
                place *= key->shape[d - 1];
            }
        }
        code = layout_add(store->pieces, &e, r->err);
    }
    return code;
}

static ckpt_code check_item(const dist_reader *r, const dcp_entry *entry, const dcp_chunk *chunk,
                            const zip_item *item)
{
    if (item->dtype != entry->dtype || item->rank != entry->rank ||
        memcmp(item->shape, chunk->sizes, item->rank * sizeof item->shape[0]) != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s': the item at %llu of '%s' has a different dtype or shape "
                         "than in .metadata",
                         entry->key, (unsigned long long)chunk->offset,
                         r->metadata->files[chunk->file]);
    return CKPT_OK;
}

static ckpt_code add_chunk(dist_reader *r, size_t entry_index, size_t i)
{
    const dcp_entry *entry = &r->metadata->entries[entry_index];
    const dcp_chunk *chunk = &r->metadata->chunks[entry->first_chunk + i];
    store_file *file = &r->out->store->files[chunk->file];
    char name[PIECE_NAME_BYTES];
    piece_box box = { .key = r->key_of[entry_index], .name = name, .file = (uint32_t)chunk->file };
    store_sum sum = { .piece = ckpt_catalog_count(r->out->store->catalog),
                      .file = (uint32_t)chunk->file };
    zip_item item;
    ckpt_code code;

    if (strlen(entry->key) > MAP_NAME_BYTES)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%.64s...' has too long a name",
                         entry->key);
    snprintf(name, sizeof name, "%s@%zu", entry->key, i);
    if ((code = store_open_file(r->out->store, chunk->file, 0, r->err)) != CKPT_OK)
        return code;
    file->size_bytes = file_size(file->file);
    if ((code = zip_item_read(file->file, chunk->offset, chunk->length, &item, r->err)) !=
            CKPT_OK ||
        (code = check_item(r, entry, chunk, &item)) != CKPT_OK)
        return code;
    memcpy(box.offset, chunk->offsets, entry->rank * sizeof box.offset[0]);
    memcpy(box.size, chunk->sizes, entry->rank * sizeof box.size[0]);
    if (entry->dtype == CKPT_F4) {
        box.offset[entry->rank - 1] *= 2;
        box.size[entry->rank - 1] *= 2;
    }
    box.file_offset = item.data_offset;
    sum.offset = item.payload_offset;
    sum.size_bytes = item.payload_bytes;
    sum.crc = item.payload_crc;
    if ((code = store_add_sum(r->out->store, &sum, r->err)) != CKPT_OK)
        return code;
    return item.is_row_major ? pieces_add(r->out->store, &box, r->err)
                             : attach_strided(r, &box, &item);
}

/* The position of an item, to find duplicates. */
typedef struct {
    size_t file;
    uint64_t offset;
    uint64_t length;
    const char *key;
} item_place;

static int compare_places(const void *left, const void *right)
{
    const item_place *a = left;
    const item_place *b = right;

    if (a->file != b->file)
        return a->file < b->file ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Refuse an item that is used for two boxes: no program writes that. */
static ckpt_code check_places(const dist_reader *r)
{
    const dcp_metadata *m = r->metadata;
    item_place *places = calloc(m->chunk_count + 1, sizeof *places);
    ckpt_code code = CKPT_OK;

    if (places == NULL)
        return ckpt_fail_memory(r->err, "a checkpoint", m->chunk_count);
    for (size_t i = 0; i < m->entry_count; i++)
        for (size_t c = 0; c < m->entries[i].chunk_count; c++) {
            const dcp_chunk *chunk = &m->chunks[m->entries[i].first_chunk + c];

            places[m->entries[i].first_chunk + c] =
                (item_place){ chunk->file, chunk->offset, chunk->length, m->entries[i].key };
        }
    qsort(places, m->chunk_count, sizeof *places, compare_places);
    for (size_t i = 1; i < m->chunk_count && code == CKPT_OK; i++)
        if (places[i].file == places[i - 1].file &&
            places[i].offset - places[i - 1].offset < places[i - 1].length)
            code = ckpt_fail(r->err, CKPT_E_FORMAT,
                             "tensors '%s' and '%s' share the same bytes of '%s', at %llu",
                             places[i - 1].key, places[i].key, m->files[places[i].file],
                             (unsigned long long)places[i].offset);
    free(places);
    return code;
}

/* Byte entries are not interpreted, but a file that ends before one is truncated. */
static ckpt_code check_bytes(const dist_reader *r, const dcp_entry *entry)
{
    const dcp_chunk *chunk = &r->metadata->chunks[entry->first_chunk];
    ckpt_store *store = r->out->store;
    const ckpt_code code = store_open_file(store, (uint32_t)chunk->file, 0, r->err);

    if (code != CKPT_OK)
        return code;
    if (chunk->offset + chunk->length > file_size(store->files[chunk->file].file))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' ends before its entry '%s'",
                         file_path(store->files[chunk->file].file), entry->key);
    return CKPT_OK;
}

static ckpt_code read_pieces(dist_reader *r)
{
    const dcp_metadata *m = r->metadata;
    ckpt_code code = make_keys(r, r->err);

    if (code == CKPT_OK)
        code = check_places(r);
    for (size_t i = 0; i < m->file_count && code == CKPT_OK; i++) {
        uint32_t number;

        code = store_add_file(r->out->store, m->files[i], &number, r->err);
    }
    for (size_t i = 0; i < m->entry_count && code == CKPT_OK; i++) {
        if (m->entries[i].is_bytes) {
            code = check_bytes(r, &m->entries[i]);
            continue;
        }
        code = dcp_check_cover(m, i, r->err);
        for (size_t c = 0; c < m->entries[i].chunk_count && code == CKPT_OK; c++)
            code = add_chunk(r, i, c);
    }
    return code == CKPT_OK ? pieces_seal(r->out->store, r->err) : code;
}

/* ---- opening ---- */

/* Iterations and the tracker belong to the format; other files, which we write beside them, are
 * carried. */
static file_role role_beside(void *context, const char *name)
{
    (void)context;
    return strncmp(name, "release/", 8) == 0 || strncmp(name, "iter_", 5) == 0 ||
                   strcmp(name, tracker_name) == 0
               ? FILE_OWN
               : FILE_CARRIED;
}

static ckpt_code list_extras(ckpt_checkpoint *out, ckpt_error *err)
{
    if (out->data_folder == NULL)
        return CKPT_OK;
    return checkpoint_take_extras(out, role_beside, NULL, err);
}

static ckpt_code open_directory(ckpt_checkpoint *out, ckpt_error *err)
{
    dist_reader r = { .out = out, .err = err };
    dcp_metadata *metadata = NULL;
    ckpt_code code;

    if ((code = create_store(out, err)) == CKPT_OK && (code = list_extras(out, err)) == CKPT_OK &&
        (code = checkpoint_read_config(out, err)) == CKPT_OK)
        code = dcp_read(out->store->folder, 0, &metadata, err);
    if (code == CKPT_OK)
        code = torch_dist_check_beside(out, metadata, err);
    if (code == CKPT_OK &&
        (r.key_of = calloc(metadata->entry_count + 1, sizeof *r.key_of)) == NULL)
        code = ckpt_fail_memory(err, "a checkpoint", metadata->entry_count);
    if (code == CKPT_OK) {
        r.metadata = metadata;
        code = read_pieces(&r);
    }
    free(r.key_of);
    dcp_free(metadata);
    return code;
}

const ckpt_format format_torch_dist = {
    .name = "torch_dist",
    .map_names = torch_dist_map_names,
    .weights = CKPT_BF16,           /* Megatron trains in BF16 */
    .detect = detect,
    .read_argument = torch_dist_read_argument,
    .read_text_argument = torch_dist_read_text_argument,
    .open = open_directory,
    .split = torch_dist_split,
    .lay_out = torch_dist_lay_out,
    .seal = torch_dist_seal,
    .finish = torch_dist_finish,
};
