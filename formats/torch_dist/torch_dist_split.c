/* Cuts keys into boxes and assigns boxes to files. */
#include <stdio.h>
#include <string.h>

#include "libckpt/array.h"
#include "formats/divide.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "torch_dist.h"
#include "torch_dist_state.h"

enum {
    DEFAULT_TP_PIECES = 8,        /* a rank of any TP up to 8 needs to read only its share */
    DEFAULT_VOCAB_PIECES = 64,
    BOXES_MAX = 4096              /* of one layer in a key: loaders match boxes in quadratic time */
};

typedef struct {
    uint32_t first;              /* layers of the first stage */
    uint32_t last;
    uint32_t middle;
    uint32_t pp;
    uint64_t layers;
} stages;

typedef struct {
    ckpt_store *store;
    const ckpt_catalog *keys;
    const ckpt_map *map;
    const format_sharding *sharding;
    stages stages;
    ckpt_error *err;
    /* State of the current key. */
    const map_shard *shard;       /* or NULL */
    size_t key;
    uint32_t counts[CKPT_RANK_MAX];     /* equal parts of each dimension */
} dist_cutter;

static uint32_t at_least_1(uint32_t count)
{
    return count > 0 ? count : 1;
}

/* ---- legal numbers of ranks ---- */

typedef struct {
    const dist_cutter *cutter;
    map_axis axis;
} axis_division;

/* 1 if the key can be divided along the axis: equally, within each half if there are halves,
 * without splitting a group. */
static int divides(const axis_division *d, const ckpt_tensor *key, uint32_t count)
{
    map_captures captures;
    const map_shard *shard = map_find_shard(d->cutter->map, key->name, &captures);
    uint32_t dimension;
    uint32_t halves;

    if (shard == NULL || !shard->axes[d->axis].cut)
        return 1;
    dimension = shard->axes[d->axis].dimension;
    halves = d->axis == MAP_EP ? 1 : shard->halves;
    return dimension < key->rank && key->shape[dimension] % halves == 0 &&
           key->shape[dimension] / halves % count == 0 &&
           divide_keeps_groups(shard, d->cutter->sharding->config, count);
}

static const ckpt_tensor *find_undivided(const axis_division *d, uint32_t count)
{
    for (size_t i = 0; i < ckpt_catalog_count(d->cutter->keys); i++)
        if (!divides(d, ckpt_catalog_at(d->cutter->keys, i), count))
            return ckpt_catalog_at(d->cutter->keys, i);
    return NULL;
}

static int axis_is_legal(const void *context, uint32_t count)
{
    return find_undivided(context, count) == NULL;
}

static ckpt_code check_axis(const dist_cutter *c, map_axis axis, const char *name, uint32_t given)
{
    const axis_division d = { c, axis };
    const ckpt_tensor *bad = find_undivided(&d, at_least_1(given));
    char legal[DIVIDE_TEXT_BYTES];
    char shape[256];

    if (bad == NULL)
        return CKPT_OK;
    divide_legal_text(axis_is_legal, &d, legal);
    catalog_shape_text(bad, shape, sizeof shape);
    return ckpt_fail(c->err, CKPT_E_USAGE,
                     "tensor '%s' %s cannot be divided by --%s %u, legal values are:%s",
                     bad->name, shape, name, at_least_1(given), legal);
}

/* Layers of the stages between the first and the last; 0 when they cannot be divided so. */
static int divide_layers(const stages *s, uint32_t pp, uint32_t *middle)
{
    const uint64_t ends = (uint64_t)s->first + s->last;
    const uint32_t given = (uint32_t)(s->first > 0) + (s->last > 0);

    *middle = 1;
    if (pp == 1)
        return (s->first == 0 || s->first == s->layers) && (s->last == 0 || s->last == s->layers);
    if (pp <= given)
        return pp == given && ends == s->layers;
    if (ends >= s->layers || (s->layers - ends) % (pp - given) != 0)
        return 0;
    *middle = (uint32_t)((s->layers - ends) / (pp - given));
    return 1;
}

static int stages_are_legal(const void *context, uint32_t count)
{
    uint32_t middle;

    return divide_layers(context, count, &middle);
}

static ckpt_code plan_stages(dist_cutter *c)
{
    stages *s = &c->stages;
    char legal[DIVIDE_TEXT_BYTES];

    for (size_t i = 0; i < ckpt_catalog_count(c->keys); i++) {
        const ckpt_tensor *key = ckpt_catalog_at(c->keys, i);
        uint64_t layer = 0;
        const map_stage_kind kind = map_find_stage(c->map, key->name, &layer);

        if (kind == MAP_STAGE_LAYER)
            s->layers = size_max(s->layers, layer + 1);
        else if (kind == MAP_STAGE_STACKED && key->rank > 0)
            s->layers = size_max(s->layers, key->shape[0]);
    }
    s->pp = at_least_1(c->sharding->pp);
    s->first = c->sharding->first_stage_layers;
    s->last = c->sharding->last_stage_layers;
    if (divide_layers(s, s->pp, &s->middle)) {
        s->first = s->first > 0 ? s->first : s->middle;
        s->last = s->last > 0 ? s->last : s->middle;
        return CKPT_OK;
    }
    divide_legal_text(stages_are_legal, s, legal);
    return ckpt_fail(c->err, CKPT_E_USAGE,
                     "%s be divided over --pp %u with %u in the first and %u in "
                     "the last stage (0: equal stages), legal values are:%s%s",
                     text_count(s->layers, "layer cannot", "layers cannot").text, s->pp, s->first,
                     s->last, legal,
                     strcmp(legal, " none") == 0 ? "; choose other stages, or, if a preset set "
                                                   "them, one for this model"
                                                 : "");
}

static ckpt_code check_ranks(dist_cutter *c)
{
    const format_sharding *s = c->sharding;
    ckpt_code code;

    if ((code = check_axis(c, MAP_TP, "tp", s->tp)) != CKPT_OK ||
        (code = check_axis(c, MAP_EP, "ep", s->ep)) != CKPT_OK ||
        (code = check_axis(c, MAP_ETP, "etp", s->etp)) != CKPT_OK)
        return code;
    return plan_stages(c);
}

/* ---- boxes ---- */

static uint32_t default_parts(uint64_t size, uint32_t wanted)
{
    while (wanted > 1 && size % wanted != 0)
        wanted--;
    return wanted;
}

/* The stage of a box and its layer; with a box of NULL, that of any box of the key. */
static map_stage_kind stage_kind(const dist_cutter *c, const piece_box *box, uint64_t *layer)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->keys, c->key);
    const map_stage_kind kind = map_find_stage(c->map, key->name, layer);

    if (kind != MAP_STAGE_STACKED || key->rank == 0)
        return kind;
    *layer = box == NULL ? 0 : box->offset[0];      /* one layer a box */
    return MAP_STAGE_LAYER;
}

static int is_stacked(const dist_cutter *c)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->keys, c->key);
    uint64_t layer;

    return key->rank > 0 && map_find_stage(c->map, key->name, &layer) == MAP_STAGE_STACKED;
}

/* Set the number of slices along the dimension of an axis; check_ranks has checked that it fits. */
static void cut_axis(dist_cutter *c, map_axis axis)
{
    const uint32_t d = c->shard->axes[axis].dimension;
    const uint64_t size = ckpt_catalog_at(c->keys, c->key)->shape[d];
    const uint32_t halves = c->shard->halves;
    const uint32_t given = axis == MAP_TP ? c->sharding->tp : at_least_1(c->sharding->etp);
    uint64_t layer;

    if (axis == MAP_EP)
        c->counts[d] = (uint32_t)size_min(size, UINT32_MAX);     /* one expert a box */
    else if (given > 0)
        c->counts[d] = given * halves;
    else
        c->counts[d] = default_parts(size / halves, stage_kind(c, NULL, &layer) == MAP_STAGE_LAYER
                                                        ? DEFAULT_TP_PIECES
                                                        : DEFAULT_VOCAB_PIECES) *
                       halves;
}

/* ---- assignment to files of ranks ---- */

static uint32_t stage_of(const stages *s, uint64_t layer)
{
    if (s->pp == 1 || layer < s->first)
        return 0;
    if (layer >= s->layers - s->last)
        return s->pp - 1;
    return 1 + (uint32_t)((layer - s->first) / s->middle);
}

/* The smallest number of ranks that is a multiple of both group sizes: tp, and ep x etp. */
static uint32_t ranks_of_stage(const format_sharding *s)
{
    const uint64_t experts = (uint64_t)at_least_1(s->ep) * at_least_1(s->etp);
    uint64_t a = at_least_1(s->tp);
    uint64_t b = experts;

    while (b != 0) {
        const uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return (uint32_t)(at_least_1(s->tp) / a * experts);
}

/* The rank that would write a box in Megatron: by its stage, then its position on the cut axes. */
static uint32_t rank_of(const dist_cutter *c, const piece_box *box)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->keys, c->key);
    uint32_t place = 0;
    uint32_t stage = 0;
    uint64_t layer = 0;

    switch (stage_kind(c, box, &layer)) {
    case MAP_STAGE_FIRST:
        break;
    case MAP_STAGE_LAYER:
    case MAP_STAGE_STACKED:
        stage = stage_of(&c->stages, layer);
        break;
    case MAP_STAGE_LAST:
        stage = c->stages.pp - 1;
        break;
    }
    for (int axis = MAP_TP; c->shard != NULL && axis < MAP_AXIS_COUNT; axis++) {
        const uint32_t d = c->shard->axes[axis].dimension;
        const uint32_t halves = axis == MAP_EP ? 1 : c->shard->halves;
        uint64_t index;

        if (!c->shard->axes[axis].cut || c->counts[d] == 0)
            continue;
        index = box->offset[d] / size_max(key->shape[d] / c->counts[d], 1);
        if (axis == MAP_EP)
            place += (uint32_t)(index / size_max(key->shape[d] / at_least_1(c->sharding->ep), 1)) *
                     at_least_1(c->sharding->etp);
        else
            place += (uint32_t)(index % size_max(c->counts[d] / halves, 1));
    }
    return stage * ranks_of_stage(c->sharding) + place % ranks_of_stage(c->sharding);
}

/* Without ranks: one file per layer, the first for tensors outside the layers. */
static uint32_t file_of(const dist_cutter *c, const piece_box *box)
{
    uint64_t layer = 0;

    if (c->sharding->per_rank_files)
        return rank_of(c, box);
    return stage_kind(c, box, &layer) == MAP_STAGE_LAYER ? (uint32_t)layer + 1 : 0;
}

/* ---- byte entries ---- */

/* Add one byte entry for a key, or one for each expert and layer of a stack, in the file of its
 * first box. */
static ckpt_code add_extra(dist_cutter *c, const map_extra *extra, const piece_box *box)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->keys, c->key);
    const int by_expert = c->shard != NULL && c->shard->axes[MAP_EP].cut;
    const uint32_t expert_dimension = by_expert ? c->shard->axes[MAP_EP].dimension : 0;
    const int by_layer = is_stacked(c);
    dist_watch *w = torch_dist_watch(c->store);
    dist_extra e = { .key = c->key, .piece = ckpt_catalog_count(c->store->catalog) - 1,
                     .is_none = extra->is_none };
    dist_extra *extras;

    for (uint32_t d = by_layer ? 1 : 0; d < key->rank; d++)
        if (box->offset[d] != 0 && (!by_expert || d != expert_dimension))
            return CKPT_OK;
    if (by_layer) {
        e.index[e.axis_count] = box->offset[0];
        e.count[e.axis_count++] = key->shape[0];
    }
    if (by_expert) {
        e.index[e.axis_count] = box->offset[expert_dimension];
        e.count[e.axis_count++] = key->shape[expert_dimension];
    }
    if (e.axis_count == 0)
        e.count[e.axis_count++] = 1;
    extras = array_room(w->extras, w->extra_count, sizeof *extras, "byte entries", c->err);
    if (extras == NULL)
        return CKPT_E_MEMORY;
    w->extras = extras;
    extras[w->extra_count++] = e;
    return CKPT_OK;
}

/* ---- keys ---- */

static ckpt_code add_boxes(dist_cutter *c, const map_extra *extra)
{
    const ckpt_tensor *key = ckpt_catalog_at(c->keys, c->key);
    piece_box box = pieces_whole(c->store, c->key);
    char name[MAP_NAME_BYTES + 32];
    uint64_t count = 1;
    ckpt_code code = CKPT_OK;

    for (uint32_t d = 0; d < key->rank; d++) {
        c->counts[d] = at_least_1(c->counts[d]);
        count *= c->counts[d];
        box.size[d] = key->shape[d] / c->counts[d];
        if (count / (is_stacked(c) ? c->counts[0] : 1) > BOXES_MAX)
            return ckpt_fail(c->err, CKPT_E_USAGE,
                             "tensor '%s' would be cut into more than %d boxes", key->name,
                             BOXES_MAX);
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
        box.file = file_of(c, &box);
        if ((code = pieces_add(c->store, &box, c->err)) == CKPT_OK && extra != NULL)
            code = add_extra(c, extra, &box);
    }
    return code;
}

static ckpt_code cut_key(dist_cutter *c)
{
    const char *name = ckpt_catalog_at(c->keys, c->key)->name;
    map_captures captures;

    memset(c->counts, 0, sizeof c->counts);
    c->shard = map_find_shard(c->map, name, &captures);
    if (is_stacked(c))
        c->counts[0] = (uint32_t)size_min(ckpt_catalog_at(c->keys, c->key)->shape[0], UINT32_MAX);
    for (int axis = MAP_TP; c->shard != NULL && axis < MAP_AXIS_COUNT; axis++)
        if (c->shard->axes[axis].cut)
            cut_axis(c, (map_axis)axis);
    return add_boxes(c, c->sharding->extra_state ? map_find_extra(c->map, name) : NULL);
}

/* ---- files ---- */

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

        snprintf(name, sizeof name, "%s/__%u_0.distcp", torch_dist_folder(sharding), i);
        code = store_add_file(store, name, &number, err);
    }
    return code;
}

ckpt_code torch_dist_split(ckpt_store *store, ckpt_catalog *keys, const ckpt_map *map,
                           const format_sharding *sharding, ckpt_error *err)
{
    dist_cutter c = { .store = store, .keys = keys, .map = map, .sharding = sharding,
                      .err = err };
    ckpt_code code;

    if ((code = pieces_begin(store, keys, err)) != CKPT_OK ||
        (code = torch_dist_watch_begin(store, err)) != CKPT_OK ||
        (code = check_ranks(&c)) != CKPT_OK)
        return code;
    for (c.key = 0; c.key < ckpt_catalog_count(keys) && code == CKPT_OK; c.key++)
        code = cut_key(&c);
    if (code == CKPT_OK)
        code = pieces_seal(store, err);
    return code == CKPT_OK ? name_files(store, sharding, err) : code;
}
