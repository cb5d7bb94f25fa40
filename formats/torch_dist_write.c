/* Writing torch_dist: keys cut in boxes, items with checksums that come in any order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common_pt.h"
#include "dcp_metadata.h"
#include "json.h"
#include "size.h"
#include "torch_dist.h"
#include "zip_item.h"

enum {
    DEFAULT_TP_PIECES = 8,        /* so that a rank of any TP up to 8 reads no more than it needs */
    DEFAULT_VOCAB_PIECES = 64,
    BOXES_MAX = 4096              /* of one key: loaders match boxes in quadratic time */
};

/* ---- boxes ---- */

typedef struct {
    ckpt_store *store;
    const format_sharding *sharding;
    const map_shard *shard;       /* of the key, or NULL */
    size_t key;
    uint32_t counts[CKPT_RANK_MAX];     /* equal parts of each dimension */
    ckpt_error *err;
} dist_cutter;

static uint32_t default_parts(uint64_t size, uint32_t wanted)
{
    while (wanted > 1 && size % wanted != 0)
        wanted--;
    return wanted;
}

static ckpt_code fail_cut(const dist_cutter *c, map_axis axis, uint32_t count)
{
    static const char *const names[MAP_AXIS_COUNT] = { "mp", "tp", "ep", "etp" };
    const ckpt_tensor *key = ckpt_catalog_at(c->store->keys, c->key);
    char shape[256];

    catalog_shape_text(key, shape, sizeof shape);
    return ckpt_fail(c->err, CKPT_E_USAGE, "tensor '%s' %s cannot be divided by --%s %u",
                     key->name, shape, names[axis], count);
}

/* How many parts an axis makes of its dimension (of each half, where there are halves). */
static ckpt_code cut_axis(dist_cutter *c, map_axis axis)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->store->keys, c->key);
    const uint32_t d = c->shard->axes[axis].dimension;
    const int is_vocabulary = c->shard->axes[MAP_EP].cut == 0 &&
                              strncmp(key->name, "decoder.", 8) != 0;
    const uint32_t given = axis == MAP_TP ? c->sharding->tp : c->sharding->etp;
    const uint32_t halves = axis == MAP_TP || axis == MAP_ETP ? c->shard->halves : 1;
    uint64_t size;

    if (d >= key->rank)
        return fail_cut(c, axis, given);
    size = key->shape[d];
    if (axis == MAP_EP) {
        if (c->sharding->ep > 1 && size % c->sharding->ep != 0)
            return fail_cut(c, axis, c->sharding->ep);
        c->counts[d] = (uint32_t)size_min(size, UINT32_MAX);     /* one expert a box */
        return CKPT_OK;
    }
    if (size % halves != 0)
        return fail_cut(c, axis, 2);
    if (given > 0 && size / halves % given != 0)
        return fail_cut(c, axis, given);
    if (given > 0 || axis == MAP_ETP)
        c->counts[d] = (given > 0 ? given : 1) * halves;
    else
        c->counts[d] = default_parts(size / halves, is_vocabulary ? DEFAULT_VOCAB_PIECES
                                                                  : DEFAULT_TP_PIECES) * halves;
    return CKPT_OK;
}

/* ---- which rank's file ---- */

typedef struct {
    uint32_t first;              /* layers of the first stage */
    uint32_t last;
    uint32_t middle;
    uint32_t pp;
    uint64_t layers;
} stages;

static uint32_t stage_of(const stages *s, uint64_t layer)
{
    if (s->pp == 1 || layer < s->first)
        return 0;
    if (layer >= s->layers - s->last)
        return s->pp - 1;
    return 1 + (uint32_t)((layer - s->first) / s->middle);
}

/* The layer of a key; 0 when it is of none. */
static int layer_of(const char *name, uint64_t *layer)
{
    map_captures captures = { .count = 0 };

    return map_match("decoder.layers.{l}.{x*}", name, &captures) &&
           map_capture_number(&captures, "{l}", layer);
}

static ckpt_code plan_stages(const ckpt_catalog *keys, const format_sharding *sharding,
                             stages *out, ckpt_error *err)
{
    uint64_t ends;
    uint32_t rest;               /* stages that share what the ends leave */

    out->pp = sharding->pp > 0 ? sharding->pp : 1;
    out->layers = 0;
    for (size_t i = 0; i < ckpt_catalog_count(keys); i++) {
        uint64_t layer;

        if (layer_of(ckpt_catalog_at(keys, i)->name, &layer) && layer >= out->layers)
            out->layers = layer + 1;
    }
    out->first = sharding->first_stage_layers;
    out->last = sharding->last_stage_layers;
    out->middle = 1;
    if (out->pp == 1)
        return CKPT_OK;
    ends = (uint64_t)out->first + out->last;
    rest = out->pp - (out->first > 0) - (out->last > 0);
    if (rest > 0 && ends < out->layers && (out->layers - ends) % rest == 0)
        out->middle = (uint32_t)((out->layers - ends) / rest);
    else if (rest > 0 || ends != out->layers)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "%llu layers cannot be divided over --pp %u with %u in the first and %u "
                         "in the last stage",
                         (unsigned long long)out->layers, out->pp, out->first, out->last);
    out->first = out->first > 0 ? out->first : out->middle;
    out->last = out->last > 0 ? out->last : out->middle;
    return CKPT_OK;
}

static uint32_t ranks_of_stage(const format_sharding *s)
{
    const uint32_t tp = s->tp > 0 ? s->tp : 1;
    const uint32_t experts = (s->ep > 0 ? s->ep : 1) * (s->etp > 0 ? s->etp : 1);

    return tp > experts ? tp : experts;
}

/* The rank that Megatron would let write a box: its stage, then its place on the cut axes. */
static uint32_t rank_of(const dist_cutter *c, const stages *s, const piece_box *box)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->store->keys, c->key);
    const format_sharding *sharding = c->sharding;
    uint32_t place = 0;
    uint64_t layer = 0;
    uint32_t stage = strncmp(key->name, "embedding.", 10) == 0 ? 0 : s->pp - 1;

    if (layer_of(key->name, &layer))
        stage = stage_of(s, layer);
    for (int axis = 0; c->shard != NULL && axis < MAP_AXIS_COUNT; axis++) {
        const uint32_t d = c->shard->axes[axis].dimension;
        const uint32_t halves = axis == MAP_EP ? 1 : c->shard->halves;
        uint64_t index;

        if (!c->shard->axes[axis].cut || axis == MAP_MP || c->counts[d] == 0)
            continue;
        index = box->offset[d] / size_max(key->shape[d] / c->counts[d], 1);
        if (axis == MAP_EP) {
            const uint32_t ep = sharding->ep > 0 ? sharding->ep : 1;

            place += (uint32_t)(index / (key->shape[d] / ep)) *
                     (sharding->etp > 0 ? sharding->etp : 1);
        } else {
            place += (uint32_t)(index % size_max(c->counts[d] / halves, 1));
        }
    }
    return stage * ranks_of_stage(sharding) + place % ranks_of_stage(sharding);
}

/* Without ranks: one file a layer, the first for what is of no layer. */
static uint32_t file_of(const dist_cutter *c, const stages *s, const piece_box *box)
{
    uint64_t layer = 0;

    if (c->sharding->per_rank_files)
        return rank_of(c, s, box);
    return layer_of(ckpt_catalog_at(c->store->keys, c->key)->name, &layer)
               ? (uint32_t)layer + 1
               : 0;
}

static ckpt_code add_boxes(dist_cutter *c, const stages *s)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->store->keys, c->key);
    piece_box box = pieces_whole(c->store, c->key);
    char name[MAP_NAME_BYTES + 32];
    uint64_t count = 1;
    ckpt_code code = CKPT_OK;

    for (uint32_t d = 0; d < key->rank; d++) {
        c->counts[d] = c->counts[d] == 0 ? 1 : c->counts[d];
        count *= c->counts[d];
        box.size[d] = key->shape[d] / c->counts[d];
        if (count > BOXES_MAX)
            return ckpt_fail(c->err, CKPT_E_USAGE, "tensor '%s' would be cut in over %d boxes",
                             key->name, BOXES_MAX);
    }
    box.name = name;
    for (uint64_t i = 0; i < count && code == CKPT_OK; i++) {
        uint64_t rest = i;

        for (uint32_t d = key->rank; d > 0; d--) {
            box.offset[d - 1] = rest % c->counts[d - 1] * box.size[d - 1];
            rest /= c->counts[d - 1];
        }
        snprintf(name, sizeof name, "%.*s@%llu", MAP_NAME_BYTES, key->name,
                 (unsigned long long)i);
        box.file = file_of(c, s, &box);
        code = pieces_add(c->store, &box, c->err);
    }
    return code;
}

static ckpt_code cut_key(dist_cutter *c, const ckpt_map *map, const stages *s)
{
    map_captures captures;
    ckpt_code code = CKPT_OK;

    memset(c->counts, 0, sizeof c->counts);
    c->shard = map_find_shard(map, ckpt_catalog_at(c->store->keys, c->key)->name, &captures);
    for (int axis = MAP_TP; c->shard != NULL && axis < MAP_AXIS_COUNT && code == CKPT_OK; axis++)
        if (c->shard->axes[axis].cut)
            code = cut_axis(c, (map_axis)axis);
    return code == CKPT_OK ? add_boxes(c, s) : code;
}

/* ---- files ---- */

static const char *folder_name(const format_sharding *sharding)
{
    return sharding->iteration != NULL ? sharding->iteration : "release";
}

static ckpt_code name_files(ckpt_store *store, const format_sharding *sharding, ckpt_error *err)
{
    uint32_t count = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(store->catalog); i++)
        count = ckpt_catalog_at(store->catalog, i)->file >= count
                    ? ckpt_catalog_at(store->catalog, i)->file + 1
                    : count;
    for (uint32_t i = 0; i < count && code == CKPT_OK; i++) {
        char name[128];
        uint32_t number;

        snprintf(name, sizeof name, "%s/__%u_0.distcp", folder_name(sharding), i);
        code = store_add_file(store, name, &number, err);
    }
    return code;
}

ckpt_code torch_dist_split(ckpt_store *store, ckpt_catalog *keys, const ckpt_map *map,
                           const format_sharding *sharding, ckpt_error *err)
{
    dist_cutter cutter = { .store = store, .sharding = sharding, .err = err };
    stages plan;
    ckpt_code code;

    if ((code = pieces_begin(store, keys, err)) != CKPT_OK ||
        (code = plan_stages(keys, sharding, &plan, err)) != CKPT_OK)
        return code;
    for (cutter.key = 0; cutter.key < ckpt_catalog_count(keys) && code == CKPT_OK; cutter.key++)
        code = cut_key(&cutter, map, &plan);
    if (code == CKPT_OK)
        code = pieces_seal(store, err);
    return code == CKPT_OK ? name_files(store, sharding, err) : code;
}

/* ---- items ---- */

static ckpt_code plan_item(const ckpt_tensor *piece, zip_item_plan *plan, ckpt_error *err)
{
    zip_item_tensor tensor = { .dtype = piece->dtype, .rank = piece->rank };

    memcpy(tensor.shape, piece->shape, piece->rank * sizeof tensor.shape[0]);
    if (piece->dtype == CKPT_F4 && piece->rank > 0)
        tensor.shape[piece->rank - 1] /= 2;
    return zip_item_plan_tensor(&tensor, plan, err);
}

/* Checksums of payloads, by piece: the XOR of what every run of bytes contributes. */
typedef struct {
    store_watch base;
    const ckpt_catalog *pieces;
    uint32_t *crcs;
} crc_watch;

static void crc_wrote(store_watch *self, size_t piece, const file_rect *rect, const void *rows,
                      size_t pitch_bytes)
{
    crc_watch *w = (crc_watch *)self;
    const ckpt_tensor *t = ckpt_catalog_at(w->pieces, piece);
    const uint64_t total = ckpt_part_bytes(t, CKPT_DATA);
    uint64_t end = rect->offset - t->offset;
    uint32_t sum = 0;
    uint32_t run = 0;

    for (uint64_t r = 0; r < rect->row_count; r++) {
        run = zip_item_crc(run, (const char *)rows + r * pitch_bytes, rect->row_bytes);
        end += rect->row_bytes;
        if (rect->row_bytes == rect->pitch_bytes && r + 1 < rect->row_count)
            continue;                 /* the next row follows in the file */
        sum ^= zip_item_crc_shift(run, total - end);
        run = 0;
        end += rect->pitch_bytes - rect->row_bytes;
    }
    __atomic_fetch_xor(&w->crcs[piece], sum, __ATOMIC_RELAXED);
}

static void crc_forget(store_watch *self, size_t piece)
{
    __atomic_store_n(&((crc_watch *)self)->crcs[piece], 0, __ATOMIC_RELAXED);
}

static void crc_free(store_watch *self)
{
    free(((crc_watch *)self)->crcs);
    free(self);
}

static ckpt_code begin_watch(ckpt_store *store, ckpt_error *err)
{
    crc_watch *w = calloc(1, sizeof *w);

    if (w == NULL)
        return ckpt_fail_memory(err, "checksums", sizeof *w);
    w->base = (store_watch){ crc_wrote, crc_forget, crc_free };
    w->pieces = store->catalog;
    w->crcs = calloc(ckpt_catalog_count(store->catalog) + 1, sizeof *w->crcs);
    store->watch = &w->base;
    return w->crcs != NULL ? CKPT_OK : ckpt_fail_memory(err, "checksums", 0);
}

ckpt_code torch_dist_lay_out(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(store->catalog) && code == CKPT_OK; i++) {
        ckpt_tensor *piece = catalog_edit(store->catalog, i);
        store_file *file = &store->files[piece->file];
        zip_item_plan plan;

        if ((code = plan_item(piece, &plan, err)) != CKPT_OK)
            break;
        piece->offset = file->size_bytes + plan.head_bytes;
        if (!size_add(file->size_bytes, plan.size_bytes, &file->size_bytes) ||
            !size_add(file->size_bytes, ZIP_ITEM_ALIGN - 1, &file->size_bytes) ||
            file->size_bytes > INT64_MAX)
            return ckpt_fail(err, CKPT_E_USAGE, "file '%s' would be too large", file->name);
        file->size_bytes -= file->size_bytes % ZIP_ITEM_ALIGN;
    }
    return code == CKPT_OK ? begin_watch(store, err) : code;
}

static ckpt_code write_ends(ckpt_store *store, size_t i, ckpt_error *err)
{
    const ckpt_tensor *piece = ckpt_catalog_at(store->catalog, i);
    ckpt_file *file = store->files[piece->file].file;
    zip_item_plan plan;
    ckpt_code code;

    if ((code = plan_item(piece, &plan, err)) != CKPT_OK)
        return code;
    zip_item_set_crc(&plan, ((crc_watch *)store->watch)->crcs[i]);
    if ((code = file_write_at(file, piece->offset - plan.head_bytes, plan.head, plan.head_bytes,
                              err)) != CKPT_OK)
        return code;
    return file_write_at(file, piece->offset + plan.payload_bytes, plan.tail, plan.tail_bytes,
                         err);
}

ckpt_code torch_dist_seal(ckpt_store *store, const uint8_t *owned, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(store->catalog) && code == CKPT_OK; i++)
        if (owned[i])
            code = write_ends(store, i, err);
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

/* Boxes of every key, in the order of the pieces, which is that of the keys. */
static ckpt_code fill_metadata(ckpt_store *store, dcp_metadata *m, ckpt_error *err)
{
    const layout_extent *extents = store->pieces->extents;
    ckpt_code code = CKPT_OK;

    for (size_t k = 0; k < m->entry_count; k++) {
        const ckpt_tensor *key = ckpt_catalog_at(store->keys, k);

        m->entries[k].key = key->name;
        m->entries[k].dtype = key->dtype;
        m->entries[k].rank = key->rank;
        memcpy(m->entries[k].size, key->shape, sizeof m->entries[k].size);
    }
    for (size_t i = 0; i < m->chunk_count && code == CKPT_OK; i++) {
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
            continue;                      /* the box's first run tells its corner */
        if (key->rank > 0)
            chunk->offsets[key->rank - 1] = extents[e].col;
        for (uint32_t d = key->rank > 0 ? key->rank - 1 : 0; d > 0; d--) {
            chunk->offsets[d - 1] = row % key->shape[d - 1];
            row /= key->shape[d - 1];
        }
    }
    return code;
}

/* Number of boxes of each key: pieces stand in the order of their keys. */
static void count_chunks(const ckpt_store *store, dcp_metadata *m)
{
    size_t next = 0;

    for (size_t k = 0; k < m->entry_count; k++) {
        const char *key = ckpt_catalog_at(store->keys, k)->name;
        const size_t length = strlen(key);

        m->entries[k].first_chunk = next;
        while (next < m->chunk_count &&
               strncmp(ckpt_catalog_at(store->catalog, next)->name, key, length) == 0 &&
               ckpt_catalog_at(store->catalog, next)->name[length] == '@')
            next++;
        m->entries[k].chunk_count = next - m->entries[k].first_chunk;
    }
}

static ckpt_code write_metadata(ckpt_store *store, const format_finish *info, ckpt_error *err)
{
    dcp_metadata m = { .entry_count = ckpt_catalog_count(store->keys),
                       .chunk_count = ckpt_catalog_count(store->catalog),
                       .file_count = store->file_count };
    const size_t folder = strlen(folder_name(info->sharding)) + 1;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    ckpt_code code;

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
        (code = dcp_write(&m, put_stream, stream, err)) == CKPT_OK)
        code = fflush(stream) == 0 ? write_inside(store, ".metadata", text, size, err)
                                   : ckpt_fail_memory(err, "the metadata", size);
out:
    if (stream != NULL)
        fclose(stream);
    free(text);
    free(m.entries);
    free(m.chunks);
    free(m.files);
    return code;
}

/* The arguments that loaders and converters read, from config.json. */
static size_t fill_args(const json_value *config, common_arg *args, size_t most)
{
    static const char *const pairs[][2] = {
        { "num_layers", "num_hidden_layers" },
        { "num_experts", "n_routed_experts" },
        { "vocab_size", "vocab_size" },
        { "padded_vocab_size", "vocab_size" },
        { "hidden_size", "hidden_size" },
        { "num_attention_heads", "num_attention_heads" },
        { "num_query_groups", "num_key_value_heads" },
        { "kv_channels", "head_dim" },
        { "moe_ffn_hidden_size", "moe_intermediate_size" },
        { "moe_router_topk", "num_experts_per_tok" },
        { "max_position_embeddings", "max_position_embeddings" },
    };
    size_t count = 0;

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && count < most; i++) {
        uint64_t number;

        if (!json_u64(json_member(config, pairs[i][1]), &number) || number > INT64_MAX)
            continue;
        args[count].name = pairs[i][0];
        args[count].kind = COMMON_INT;
        args[count++].integer = (int64_t)number;
    }
    return count;
}

static ckpt_code write_common(const ckpt_store *store, const format_finish *info, ckpt_error *err)
{
    enum { ARGS_MAX = 24 };
    const format_sharding *s = info->sharding;
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

    common.arg_count += fill_args(info->config, args + 4, ARGS_MAX - 4);
    if (s->iteration != NULL && strcmp(s->iteration, "release") != 0)
        common.iteration = strtoll(s->iteration + strlen("iter_"), NULL, 10);
    if ((code = common_pt_write(&common, &bytes, &size, err)) == CKPT_OK)
        code = write_inside(store, "common.pt", bytes, size, err);
    free(bytes);
    return code;
}

ckpt_code torch_dist_finish(ckpt_store *store, const format_finish *info, ckpt_error *err)
{
    static const char backend[] = "{\"sharded_backend\": \"torch_dist\", "
                                  "\"sharded_backend_version\": 1, "
                                  "\"common_backend\": \"torch\", \"common_backend_version\": 1}";
    const char *folder = folder_name(info->sharding);
    char tracker[64];
    ckpt_code code;

    if (strcmp(folder, "release") == 0)
        snprintf(tracker, sizeof tracker, "release");
    else
        snprintf(tracker, sizeof tracker, "%lld", strtoll(folder + strlen("iter_"), NULL, 10));
    if ((code = write_metadata(store, info, err)) != CKPT_OK ||
        (code = write_inside(store, "metadata.json", backend, sizeof backend - 1, err)) !=
            CKPT_OK ||
        (code = write_common(store, info, err)) != CKPT_OK)
        return code;
    return write_beside(store, "latest_checkpointed_iteration.txt", tracker,
                        strlen(tracker), err);
}
