/* Reads and writes model-parallel shards. */
#include "mp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "divide.h"
#include "safetensors.h"
#include "libckpt/encoding.h"
#include "libckpt/text.h"

enum { RANKS_MAX = 4096, RANK_NAME_BYTES = 64 };

static const char *const map_names[] = { "mp", NULL };

static void rank_file_name(uint32_t rank, uint32_t count, char out[RANK_NAME_BYTES])
{
    snprintf(out, RANK_NAME_BYTES, "model%u-mp%u.safetensors", rank, count);
}

/* One file of rank `rank`; names of its pieces begin with "FILE:". */
static ckpt_code add_rank(ckpt_store *store, uint32_t rank, uint32_t count, ckpt_error *err)
{
    char name[RANK_NAME_BYTES];
    char prefix[RANK_NAME_BYTES + 1];
    uint32_t number;
    ckpt_code code;

    rank_file_name(rank, count, name);
    snprintf(prefix, sizeof prefix, "%s:", name);
    if ((code = store_add_file(store, name, &number, err)) != CKPT_OK)
        return code;
    if ((store->files[number].prefix = strdup(prefix)) == NULL)
        return ckpt_fail_memory(err, "a file name", sizeof prefix);
    return CKPT_OK;
}

/* The shard line of a tensor; a scale is divided like its weight. */
static const map_shard *find_shard(const ckpt_map *map, const ckpt_catalog *names,
                                   const char *name, map_captures *captures,
                                   char weight[MAP_NAME_BYTES])
{
    if (pair_find_weight(names, name, weight) >= 0)
        return map_find_shard(map, weight, captures);
    return map_find_shard(map, name, captures);
}

/* The number of experts: one more than the largest index. */
static uint64_t count_experts(const ckpt_map *map, const ckpt_catalog *keys)
{
    uint64_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(keys); i++) {
        map_captures captures;
        const map_shard *shard =
            map_find_shard(map, ckpt_catalog_at(keys, i)->name, &captures);
        uint64_t e;

        if (shard != NULL && shard->axes[MAP_MP].index != NULL &&
            map_capture_number(&captures, shard->axes[MAP_MP].index, &e) && e >= count)
            count = e + 1;
    }
    return count;
}

/* ---- reading ---- */

/* "modelI-mpN.safetensors" exactly. */
static int parse_name(const char *name, uint32_t *rank, uint32_t *count)
{
    char expected[RANK_NAME_BYTES];

    if (sscanf(name, "model%u-mp%u.safetensors", rank, count) != 2 || *count == 0 ||
        *count > RANKS_MAX || *rank >= *count)
        return 0;
    rank_file_name(*rank, *count, expected);
    return strcmp(name, expected) == 0;
}

static int is_rank_file(const char *name)
{
    uint32_t rank;
    uint32_t count;

    return parse_name(name, &rank, &count);
}

static int detect(const folder_place *place)
{
    int found = 0;

    return place->name == NULL &&
           folder_find_name(place->folder, is_rank_file, &found, NULL) == CKPT_OK && found;
}

typedef struct {
    uint32_t count;            /* N of model{rank}-mp{N}; the first one seen */
    uint32_t seen;
    uint32_t other;            /* another N, or 0 */
} rank_finder;

static file_role take_rank(void *context, const char *name)
{
    rank_finder *f = context;
    uint32_t rank;
    uint32_t count;

    if (!parse_name(name, &rank, &count))
        return text_ends_with(name, SAFETENSORS_SUFFIX) ? FILE_UNREAD : FILE_CARRIED;
    f->seen++;
    if (f->count == 0)
        f->count = count;
    else if (f->count != count)
        f->other = count;
    return FILE_OWN;
}

static ckpt_code find_ranks(ckpt_checkpoint *out, uint32_t *rank_count, ckpt_error *err)
{
    rank_finder finder = { 0, 0, 0 };
    const ckpt_code code = checkpoint_take_extras(out, take_rank, &finder, err);

    if (code != CKPT_OK)
        return code;
    if (finder.other != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' mixes mp%u and mp%u", out->place.path,
                         finder.count, finder.other);
    if (finder.seen != finder.count)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has %s of mp%u, expected %u", out->place.path,
                         text_count(finder.seen, "file", "files").text, finder.count, finder.count);
    *rank_count = finder.count;
    return CKPT_OK;
}

typedef struct {
    ckpt_checkpoint *out;
    uint32_t rank_count;
    uint64_t expert_count;
    ckpt_error *err;
} mp_reader;

static const char *base_name(const ckpt_store *store, const ckpt_tensor *piece)
{
    return piece->name + strlen(store->files[piece->file].prefix);
}

/* Make keys with full shapes from the pieces, from the first rank that has each. */
static ckpt_code make_keys(mp_reader *r, ckpt_catalog *keys)
{
    const ckpt_store *store = r->out->store;
    const ckpt_catalog *pieces = store->catalog;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(pieces) && code == CKPT_OK; i++) {
        ckpt_tensor key = *ckpt_catalog_at(pieces, i);

        key.name = base_name(store, &key);
        if (ckpt_catalog_find(keys, key.name) < 0)
            code = catalog_add(keys, &key, r->err);
    }
    for (size_t i = 0; i < ckpt_catalog_count(keys) && code == CKPT_OK; i++) {
        ckpt_tensor *key = catalog_edit(keys, i);
        char weight[MAP_NAME_BYTES];
        map_captures captures;
        const map_shard *shard = find_shard(r->out->map, keys, key->name, &captures, weight);

        if (shard == NULL || !shard->axes[MAP_MP].cut || shard->axes[MAP_MP].index != NULL)
            continue;
        if (shard->axes[MAP_MP].dimension >= key->rank)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' has no dimension %u to divide",
                             key->name, shard->axes[MAP_MP].dimension);
        if (__builtin_mul_overflow(key->shape[shard->axes[MAP_MP].dimension], r->rank_count,
                                   &key->shape[shard->axes[MAP_MP].dimension]))
            return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is too large", key->name);
        code = catalog_check_shape(key, r->err);
    }
    return code;
}

/* A rank loads only its own experts: the reference code would not find one that is in another
 * rank's file. */
static ckpt_code check_owner(const mp_reader *r, const ckpt_tensor *piece, uint64_t expert)
{
    const ckpt_store *store = r->out->store;
    const char *name = base_name(store, piece);
    uint64_t owner;

    if (r->expert_count % r->rank_count != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' is one of %llu experts, which cannot be divided over %u "
                         "ranks", name,
                         (unsigned long long)r->expert_count, r->rank_count);
    owner = expert / (r->expert_count / r->rank_count);
    if (owner != piece->file)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is in '%s', expected in '%s'", name,
                         store->files[piece->file].name, store->files[owner].name);
    return CKPT_OK;
}

/* Position of piece `i` in its key. Every rank has a slice, or one owner has all of it. */
static ckpt_code attach_piece(mp_reader *r, size_t i)
{
    ckpt_store *store = r->out->store;
    const ckpt_tensor *piece = ckpt_catalog_at(store->catalog, i);
    const char *name = base_name(store, piece);
    const size_t key_index = (size_t)ckpt_catalog_find(store->keys, name);
    const ckpt_tensor *key = ckpt_catalog_at(store->keys, key_index);
    piece_box box = { .key = key_index, .name = piece->name, .file = piece->file };
    char weight[MAP_NAME_BYTES];
    map_captures captures;
    const map_shard *shard = find_shard(r->out->map, store->keys, name, &captures, weight);

    uint64_t expert;
    ckpt_code code;

    memcpy(box.size, piece->shape, sizeof box.size);
    if (piece->rank != key->rank || piece->dtype != key->dtype)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' has a different dtype or rank in '%s'",
                         name, store->files[piece->file].name);
    if (shard != NULL && shard->axes[MAP_MP].cut && shard->axes[MAP_MP].index == NULL) {
        const uint32_t d = shard->axes[MAP_MP].dimension;

        if (piece->shape[d] != key->shape[d] / r->rank_count)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is divided unevenly in '%s'", name,
                             store->files[piece->file].name);
        box.offset[d] = piece->file * piece->shape[d];
    } else if (shard == NULL || !shard->axes[MAP_MP].cut) {
        box.copy = piece->file != key->file;
    } else if (map_capture_number(&captures, shard->axes[MAP_MP].index, &expert) &&
               (code = check_owner(r, piece, expert)) != CKPT_OK) {
        return code;
    }
    return pieces_attach(store, i, &box, r->err);
}

/* Tensors that are not divided must be in every rank: a loader would leave a missing one
 * uninitialised. */
static ckpt_code check_copies(const mp_reader *r)
{
    const ckpt_store *store = r->out->store;

    for (size_t i = 0; i < ckpt_catalog_count(store->keys); i++) {
        const char *name = ckpt_catalog_at(store->keys, i)->name;
        char weight[MAP_NAME_BYTES];
        map_captures captures;
        const map_shard *shard = find_shard(r->out->map, store->keys, name, &captures, weight);
        const layout_extent *begin;
        const layout_extent *end;

        if (shard != NULL && shard->axes[MAP_MP].cut)
            continue;
        layout_extents(store->pieces, i, CKPT_DATA, &begin, &end);
        if (begin < end && (size_t)(end - begin) != r->rank_count)
            return ckpt_fail(r->err, CKPT_E_FORMAT,
                             "tensor '%s' is in %zu of %u files, expected in all", name,
                             (size_t)(end - begin), r->rank_count);
    }
    return CKPT_OK;
}

static ckpt_code open_pieces(mp_reader *r)
{
    ckpt_store *store = r->out->store;
    ckpt_catalog *keys = catalog_create();
    ckpt_code code;

    if (keys == NULL)
        return ckpt_fail_memory(r->err, "a catalog", 0);
    if ((code = make_keys(r, keys)) != CKPT_OK) {
        catalog_free(keys);
        return code;
    }
    r->expert_count = count_experts(r->out->map, keys);
    code = pieces_begin(store, keys, r->err);
    for (size_t i = 0; i < ckpt_catalog_count(store->catalog) && code == CKPT_OK; i++)
        code = attach_piece(r, i);
    if (code == CKPT_OK)
        code = pieces_seal(store, r->err);
    return code == CKPT_OK ? check_copies(r) : code;
}

static ckpt_code open_directory(ckpt_checkpoint *out, ckpt_error *err)
{
    mp_reader r = { .out = out, .err = err };
    ckpt_code code;

    if ((out->store = store_create_in(out->place.folder)) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *out->store);
    if ((code = find_ranks(out, &r.rank_count, err)) != CKPT_OK ||
        (code = checkpoint_read_config(out, err)) != CKPT_OK ||
        (code = checkpoint_need_map(out, err)) != CKPT_OK)
        return code;
    for (uint32_t i = 0; i < r.rank_count && code == CKPT_OK; i++)
        if ((code = add_rank(out->store, i, r.rank_count, err)) == CKPT_OK)
            code = safetensors_read(out->store, i, err);
    return code == CKPT_OK ? open_pieces(&r) : code;
}

/* ---- writing ---- */

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *keys;
    const json_value *config;   /* or NULL */
    uint32_t rank_count;
    uint64_t expert_count;      /* of the shard lines by index */
} mp_division;

/* Elements that must stay together along a dimension: blocks of a scaled weight. */
static uint64_t unit_of(const ckpt_tensor *key, uint32_t dimension)
{
    const ckpt_encoding *e = key->dtype == CKPT_F8_E4M3 ? encoding_at(ENCODING_FP8_128)
                        : key->dtype == CKPT_F4    ? encoding_at(ENCODING_FP4_32)
                                                   : NULL;

    if (e == NULL)
        return 1;
    return dimension + 1 == key->rank ? e->block_cols : e->block_rows;
}

/* 1 if this key can be divided over the ranks. */
static int divides(const mp_division *d, const ckpt_tensor *key)
{
    char weight[MAP_NAME_BYTES];
    map_captures captures;
    const map_shard *shard = find_shard(d->map, d->keys, key->name, &captures, weight);
    uint32_t dimension;

    if (shard == NULL || !shard->axes[MAP_MP].cut)
        return 1;
    if (shard->axes[MAP_MP].index != NULL)
        return d->expert_count % d->rank_count == 0;
    dimension = shard->axes[MAP_MP].dimension;
    if (d->rank_count == 1)
        return dimension < key->rank;          /* not divided */
    return dimension < key->rank && key->shape[dimension] % d->rank_count == 0 &&
           key->shape[dimension] / d->rank_count % unit_of(key, dimension) == 0 &&
           divide_keeps_groups(shard, d->config, d->rank_count);
}

static const ckpt_tensor *find_undivided(const mp_division *d)
{
    for (size_t i = 0; i < ckpt_catalog_count(d->keys); i++)
        if (!divides(d, ckpt_catalog_at(d->keys, i)))
            return ckpt_catalog_at(d->keys, i);
    return NULL;
}

static int is_legal(const void *context, uint32_t count)
{
    mp_division other = *(const mp_division *)context;

    other.rank_count = count;
    return find_undivided(&other) == NULL;
}

static ckpt_code check_division(const mp_division *d, ckpt_error *err)
{
    const ckpt_tensor *bad = find_undivided(d);
    char legal[DIVIDE_TEXT_BYTES];
    char shape[256];

    if (bad == NULL)
        return CKPT_OK;
    divide_legal_text(is_legal, d, legal);
    catalog_shape_text(bad, shape, sizeof shape);
    return ckpt_fail(err, CKPT_E_USAGE,
                     "tensor '%s' %s %s cannot be divided by --mp %u, legal values are:%s",
                     bad->name, ckpt_dtype_name(bad->dtype), shape, d->rank_count, legal);
}

static ckpt_code add_piece(ckpt_store *store, piece_box *box, uint32_t rank, ckpt_error *err)
{
    const char *key = ckpt_catalog_at(store->keys, box->key)->name;
    const char *prefix = store->files[rank].prefix;
    char *name = malloc(strlen(prefix) + strlen(key) + 1);
    ckpt_code code;

    if (name == NULL)
        return ckpt_fail_memory(err, "a name", strlen(key));
    memcpy(name, prefix, strlen(prefix));
    memcpy(name + strlen(prefix), key, strlen(key) + 1);
    box->name = name;
    box->file = rank;
    code = pieces_add(store, box, err);
    free(name);
    return code;
}

static ckpt_code divide_key(ckpt_store *store, const mp_division *d, size_t key, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(store->keys, key);
    char weight[MAP_NAME_BYTES];
    map_captures captures;
    const map_shard *shard = find_shard(d->map, d->keys, t->name, &captures, weight);
    piece_box box = pieces_whole(store, key);
    uint64_t expert = 0;
    ckpt_code code = CKPT_OK;

    if (shard != NULL && shard->axes[MAP_MP].index != NULL) {
        if (!map_capture_number(&captures, shard->axes[MAP_MP].index, &expert))
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has no expert number", t->name);
        return add_piece(store, &box, (uint32_t)(expert / (d->expert_count / d->rank_count)),
                         err);
    }
    for (uint32_t rank = 0; rank < d->rank_count && code == CKPT_OK; rank++) {
        if (shard != NULL && shard->axes[MAP_MP].cut) {
            const uint32_t dimension = shard->axes[MAP_MP].dimension;

            box.size[dimension] = t->shape[dimension] / d->rank_count;
            box.offset[dimension] = rank * box.size[dimension];
        } else {
            box.copy = rank > 0;
        }
        code = add_piece(store, &box, rank, err);
    }
    return code;
}

static ckpt_code split(ckpt_store *store, ckpt_catalog *keys, const ckpt_map *map,
                       const format_sharding *sharding, ckpt_error *err)
{
    const mp_division d = { map, keys, sharding->config, sharding->mp,
                            count_experts(map, keys) };
    ckpt_code code;

    if ((code = pieces_begin(store, keys, err)) != CKPT_OK)
        return code;
    if (d.rank_count == 0 || d.rank_count > RANKS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout mp needs --mp N, 1 to %d", RANKS_MAX);
    if ((code = check_division(&d, err)) != CKPT_OK)
        return code;
    for (uint32_t i = 0; i < d.rank_count && code == CKPT_OK; i++)
        code = add_rank(store, i, d.rank_count, err);
    for (size_t i = 0; i < ckpt_catalog_count(keys) && code == CKPT_OK; i++)
        code = divide_key(store, &d, i, err);
    return code == CKPT_OK ? pieces_seal(store, err) : code;
}

static ckpt_code finish(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    (void)store;
    (void)target;
    (void)err;
    return CKPT_OK;             /* no index */
}

const ckpt_format format_mp = {
    .name = "mp",
    .map_names = map_names,
    .ending = SAFETENSORS_SUFFIX,
    .no_f32 = 1,
    .detect = detect,
    .open = open_directory,
    .split = split,
    .lay_out = safetensors_lay_out,
    .finish = finish,
};
