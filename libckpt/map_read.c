/* Applies a map for reading: stored tensors become logical ones. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

#include "map_pack.h"
#include "size.h"
#include "text.h"

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *stored;
    const map_read_options *options;
    map_reading *out;
    uint32_t *scale_of;      /* indexed by stored tensor: 1 + its scale, or 0 */
    uint32_t *tensor_scale_of;
    uint32_t *input_scale_of;
    size_t in_hand;          /* 1 + the stored tensor being read, for errors; or 0 */
    ckpt_error *err;
} reader;

/* 1 when these are a weight and scales of an encoding that is decoded. */
static int is_pair(const reader *r, const pair_parts *parts)
{
    ckpt_tensor logical;

    return r->options->bare_codes != BARE_CODES_ALL &&
           pair_encoding(parts, r->options, &logical, NULL) == CKPT_OK;
}

static const ckpt_tensor *tensor_at(const ckpt_catalog *catalog, int64_t i)
{
    return i < 0 ? NULL : ckpt_catalog_at(catalog, (size_t)i);
}

/* The stored tensors beside a weight that decide about its values, but for its scale. Returns the
 * number of its shape, or CKPT_NOT_FOUND. */
static int64_t find_parts(const reader *r, size_t weight, int64_t tensor_scale, pair_parts *parts)
{
    const ckpt_tensor *data = ckpt_catalog_at(r->stored, weight);
    const int64_t shape = pair_find_shape(r->stored, data);

    parts->data = data;
    parts->tensor_scale = tensor_at(r->stored, tensor_scale);
    parts->shape = tensor_at(r->stored, shape);
    parts->unknown = pair_find_unknown(r->stored, data);
    return shape;
}

/* Record `scale` as the weight's tensor scale, and find the input scale that belongs to it. */
static void take_of_whole(reader *r, size_t weight, size_t scale)
{
    const int64_t input =
        pair_find_input_scale(r->stored, ckpt_catalog_at(r->stored, scale)->name);

    r->tensor_scale_of[weight] = (uint32_t)scale + 1;
    r->out->fates[scale].kind = FATE_SCALE;
    if (input < 0)
        return;
    r->input_scale_of[weight] = (uint32_t)input + 1;
    r->out->fates[input].kind = FATE_SCALE;
}

/* A tensor whose name is that of the scale of `weight`, which does not exist. */
static ckpt_code take_lone_scale(reader *r, const ckpt_tensor *t, const char *weight,
                                 map_fate *fate)
{
    if (r->options->lenient) {
        fate->kind = FATE_DROPPED;
        fate->reason = "scale without a weight";
        return CKPT_OK;
    }
    if (t->dtype == CKPT_F8_E8M0 || t->dtype == CKPT_U8 ||
        text_ends_with(t->name, r->map->scale_suffix) || strstr(t->name, "_scale_inv") != NULL)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "scale '%s' has no weight '%s'", t->name, weight);
    return CKPT_OK;            /* a plain parameter whose name ends like that of a scale */
}

/* Give every weight its scale; a scale without a weight is an orphan. */
static ckpt_code find_scales(reader *r)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(r->stored) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(r->stored, i);
        char weight[MAP_NAME_BYTES];
        pair_parts parts = { .data = NULL };
        int64_t shape = CKPT_NOT_FOUND;
        const int64_t w = pair_find_weight(r->stored, t->name, weight);
        const int64_t whole =
            w < 0 ? CKPT_NOT_FOUND : pair_find_tensor_scale(r->stored, weight, t->name);

        r->in_hand = i + 1;
        if (whole == (int64_t)i &&
            ckpt_catalog_at(r->stored, (size_t)w)->stored_form != CKPT_FORM_APART)
            take_of_whole(r, (size_t)w, i);        /* the scales of blocks are in the blocks */
        if ((w < 0 && !map_weight_of_scale(t->name, weight)) || whole == (int64_t)i)
            continue;
        parts.scale = t;
        if (w >= 0)
            shape = find_parts(r, (size_t)w, whole, &parts);
        if (r->options->bare_codes != BARE_CODES_NONE && (w < 0 || !is_pair(r, &parts)))
            continue;
        if (w < 0) {
            code = take_lone_scale(r, t, weight, &r->out->fates[i]);
            continue;
        }
        if (r->scale_of[w] != 0)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "weight '%s' has two scales: '%s' and '%s'",
                             weight, ckpt_catalog_at(r->stored, r->scale_of[w] - 1)->name,
                             t->name);
        r->scale_of[w] = (uint32_t)i + 1;
        r->out->fates[i].kind = FATE_SCALE;
        if (whole >= 0)
            take_of_whole(r, (size_t)w, (size_t)whole);
        if (shape >= 0)
            r->out->fates[shape].kind = FATE_SCALE;
    }
    return code;
}

typedef struct {
    const map_rule *rule;
    map_captures captures;
    uint32_t stored[CKPT_PART_COUNT];
    ckpt_tensor whole;       /* the packed tensor in logical elements */
    uint64_t unit;           /* of its entries, see map_pack.h */
} packing;

static ckpt_code fail_packing(const reader *r, const packing *p)
{
    const ckpt_tensor *stored = ckpt_catalog_at(r->stored, p->stored[CKPT_DATA]);
    char shape[256];

    catalog_shape_text(stored, shape, sizeof shape);
    if (p->rule->piece_count == 1 && map_piece_is_part(p->rule, 0))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' %s is not %llu of %llu equal parts of '%s'", stored->name,
                         shape, (unsigned long long)p->rule->pieces[0].count.value,
                         (unsigned long long)p->rule->pieces[0].of.value,
                         p->rule->pieces[0].logical);
    return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' %s cannot be divided into %s%zu tensors",
                     stored->name, shape, p->rule->stack_count == 0 ? "" : "a stack of ",
                     p->rule->piece_count);
}

static ckpt_code measure(const reader *r, packing *p)
{
    const uint32_t stacked = p->rule->stack_count;

    if (stacked == 0 && map_rule_is_plain(p->rule)) {
        p->unit = p->whole.rank == 0 ? 0 : p->whole.shape[0];
        return CKPT_OK;
    }
    return p->whole.rank > stacked &&
                   map_unit_of_entry(p->rule, p->whole.shape[stacked], &p->unit)
               ? CKPT_OK
               : fail_packing(r, p);
}

/* The logical tensor of a piece: a new one, or the one that an earlier part of it has added. */
static ckpt_code find_logical(const reader *r, const packing *p, size_t c,
                              const ckpt_tensor *piece, size_t *out)
{
    const int64_t found = map_piece_is_part(p->rule, c)
                              ? ckpt_catalog_find(r->out->logical, piece->name)
                              : CKPT_NOT_FOUND;
    const ckpt_tensor *other;

    if (found == CKPT_NOT_FOUND) {
        *out = ckpt_catalog_count(r->out->logical);
        return catalog_add(r->out->logical, piece, r->err);
    }
    *out = (size_t)found;
    other = ckpt_catalog_at(r->out->logical, *out);
    return catalog_same_shape(other, piece) && catalog_same_encoding(other, piece)
               ? CKPT_OK
               : fail_packing(r, p);
}

/* Add piece c of an entry: compute its shape, find its logical tensor and add the extents. */
static ckpt_code add_piece(reader *r, const packing *p, size_t c, uint64_t entry)
{
    const uint32_t stacked = p->rule->stack_count;
    map_packed packed = { .rule = p->rule, .piece = c, .unit = p->unit, .entry = entry };
    ckpt_tensor piece = p->whole;
    char name[MAP_NAME_BYTES];
    ckpt_code code;

    memcpy(packed.stored, p->stored, sizeof packed.stored);
    if (!map_expand(p->rule->pieces[c].logical, &p->captures, name))
        return fail_packing(r, p);
    piece.name = name;
    piece.rank -= stacked;
    memmove(piece.shape, p->whole.shape + stacked, piece.rank * sizeof piece.shape[0]);
    packed.tensor = &piece;
    if ((piece.rank > 0 && !map_piece_size(p->rule, c, p->unit, &piece.shape[0])) ||
        !map_side_of(p->rule, &piece) ||
        !map_blocks_are_whole(&packed))
        return fail_packing(r, p);
    if ((code = find_logical(r, p, c, &piece, &packed.logical)) != CKPT_OK)
        return code;
    for (int part = 0; part < CKPT_PART_COUNT && entry == 0 && c == 0; part++)
        if (catalog_part_dtype(&piece, (ckpt_part)part) != CKPT_NONE)
            r->out->fates[p->stored[part]].logical = (uint32_t)packed.logical;
    return map_add_extents(r->out->layout, &packed, r->err);
}

static ckpt_code unpack(reader *r, packing *p)
{
    const map_rule *rule = p->rule;
    const size_t known = p->captures.count;
    uint64_t entry_count = 1;
    ckpt_code code = CKPT_OK;

    for (uint32_t s = 0; s < rule->stack_count; s++)
        if (!size_mul(entry_count, p->whole.shape[s], &entry_count))
            return fail_packing(r, p);
    for (uint64_t entry = 0; entry < entry_count && code == CKPT_OK; entry++) {
        uint64_t rest = entry;

        p->captures.count = known;
        for (uint32_t s = rule->stack_count; s-- > 0; rest /= p->whole.shape[s])
            if (!map_capture_add(&p->captures, rule->stacks[s], rest % p->whole.shape[s]))
                return fail_packing(r, p);
        for (size_t c = 0; c < rule->piece_count && code == CKPT_OK; c++)
            code = add_piece(r, p, c, entry);
    }
    r->out->fates[p->stored[CKPT_DATA]].kind = FATE_USED;
    return code;
}

/* Derive the encoding of a stored tensor with its scales. */
static ckpt_code read_pair(const reader *r, packing *p)
{
    const uint32_t i = p->stored[CKPT_DATA];
    const int64_t whole = (int64_t)r->tensor_scale_of[i] - 1;
    pair_parts parts = { .data = NULL };
    const int64_t shape = find_parts(r, i, whole, &parts);

    if (parts.data->stored_form != CKPT_FORM_APART)
        p->stored[CKPT_SCALE] = i;
    if (r->scale_of[i] != 0) {
        p->stored[CKPT_SCALE] = r->scale_of[i] - 1;
        parts.scale = ckpt_catalog_at(r->stored, p->stored[CKPT_SCALE]);
    }
    if (whole >= 0)
        p->stored[CKPT_TENSOR_SCALE] = (uint32_t)whole;
    if (r->input_scale_of[i] != 0) {
        p->stored[CKPT_INPUT_SCALE] = r->input_scale_of[i] - 1;
        parts.input_scale = ckpt_catalog_at(r->stored, p->stored[CKPT_INPUT_SCALE]);
    }
    if (shape >= 0)
        p->stored[CKPT_SHAPE] = (uint32_t)shape;
    return pair_encoding(&parts, r->options, &p->whole, r->err);
}

/* Each logical tensor has one tensor scale: a stack of blocks has one for each of its entries. */
static ckpt_code check_scale_count(const reader *r, const packing *p)
{
    const ckpt_tensor *stored = ckpt_catalog_at(r->stored, p->stored[CKPT_DATA]);
    const ckpt_tensor *scale;
    uint64_t entries = 1;

    if (stored->stored_form == CKPT_FORM_APART ||
        p->whole.tensor_scale == CKPT_TENSOR_SCALE_NONE)
        return CKPT_OK;
    scale = ckpt_catalog_at(r->stored, p->stored[CKPT_TENSOR_SCALE]);
    for (uint32_t s = 0; s < p->rule->stack_count && s < p->whole.rank; s++)
        entries *= p->whole.shape[s];
    return ckpt_tensor_cols(scale) == entries
               ? CKPT_OK
               : ckpt_fail(r->err, CKPT_E_FORMAT, "scale '%s' has %llu elements, but there are "
                           "%llu tensors in '%s'", scale->name,
                           (unsigned long long)ckpt_tensor_cols(scale),
                           (unsigned long long)entries, stored->name);
}

/* Apply a `cut` line: leave out the rows after those that it names. */
static ckpt_code cut_rows(reader *r, packing *p)
{
    const ckpt_tensor *stored = ckpt_catalog_at(r->stored, p->stored[CKPT_DATA]);
    const map_cut *cut = map_find_cut(r->map, stored->name);
    map_fate *fate = &r->out->fates[p->stored[CKPT_DATA]];

    if (cut == NULL || cut->rows.value == 0 || p->whole.rank < 2 ||
        p->whole.shape[0] <= cut->rows.value)
        return CKPT_OK;            /* too few rows are found by the family's check of shapes */
    if (p->rule->stack_count > 0 || !map_rule_is_plain(p->rule))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is packed, and rows of such cannot be "
                         "left out", stored->name);
    fate->rows_left_out = p->whole.shape[0] - cut->rows.value;
    fate->reason = cut->reason;
    p->whole.shape[0] = cut->rows.value;
    return CKPT_OK;
}

/* The map's rule for a name. Without one, and for copies that are kept, a rule that keeps the name.
 * NULL: the name is an error, and r->err is set. */
static const map_rule *find_rule(const reader *r, const char *name, map_captures *captures)
{
    static const map_rule unknown = { .kind = MAP_TENSOR, .stored = "{x*}", .piece_count = 1,
                                      .groups = { NULL, 1 },
                                      .pieces = { { "{x*}", { NULL, 1 }, { NULL, 0 }, { NULL, 1 },
                                                    { NULL, 1 } } } };
    const map_rule *rule = map_find_stored(r->map, name, captures);

    if (rule == NULL && !r->options->lenient) {
        (void)ckpt_fail(r->err, CKPT_E_FORMAT,
                        "unexpected tensor '%s' in a %s checkpoint with %s names", name,
                        r->map->family, r->map->names);
        return NULL;
    }
    if (rule != NULL && (rule->kind != MAP_COPY || !r->options->keep_copies))
        return rule;
    captures->count = 0;
    map_match(unknown.stored, name, captures);
    return &unknown;
}

static ckpt_code read_tensor(reader *r, size_t i)
{
    const char *name = ckpt_catalog_at(r->stored, i)->name;
    map_fate *fate = &r->out->fates[i];
    packing p = { .stored = { (uint32_t)i } };
    char plain_name[MAP_NAME_BYTES];
    ckpt_code code;

    r->in_hand = i + 1;
    if (fate->kind != FATE_NONE)
        return CKPT_OK;
    if (r->scale_of[i] != 0 && pair_logical_name(name, plain_name))
        name = plain_name;
    if ((p.rule = find_rule(r, name, &p.captures)) == NULL)
        return CKPT_E_FORMAT;
    if (p.rule->kind == MAP_DROP) {
        fate->kind = FATE_DROPPED;
        fate->reason = p.rule->reason;
        return CKPT_OK;
    }
    if (p.rule->kind == MAP_COPY)
        return CKPT_OK;        /* read_copy follows when all originals are known */
    if ((code = read_pair(r, &p)) != CKPT_OK || (code = check_scale_count(r, &p)) != CKPT_OK ||
        (code = cut_rows(r, &p)) != CKPT_OK || (code = measure(r, &p)) != CKPT_OK)
        return code;
    return unpack(r, &p);
}

/* Add the extents of a copy, which must have the shape and encoding of its original. */
static ckpt_code read_copy(reader *r, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(r->stored, i);
    const ckpt_tensor *original;
    char name[MAP_NAME_BYTES];
    map_captures captures;
    const map_rule *rule;
    ckpt_code code = CKPT_OK;
    int64_t logical;

    r->in_hand = i + 1;
    if (r->out->fates[i].kind != FATE_NONE)
        return CKPT_OK;
    rule = map_find_stored(r->map, t->name, &captures);
    if (!map_expand(rule->pieces[0].logical, &captures, name) ||
        (logical = ckpt_catalog_find(r->out->logical, name)) < 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' is a copy of '%s', which is missing",
                         t->name, name);
    original = ckpt_catalog_at(r->out->logical, (size_t)logical);
    if (!catalog_same_shape(t, original) || t->dtype != original->dtype || r->scale_of[i] != 0 ||
        (t->stored_form != CKPT_FORM_APART && !catalog_same_encoding(t, original)))
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' must be a copy of '%s', but has a different shape or "
                         "dtype", t->name,
                         name);
    r->out->fates[i].kind = FATE_COPY;
    r->out->fates[i].logical = (uint32_t)logical;
    for (int part = CKPT_DATA; part <= CKPT_SCALE && code == CKPT_OK; part++) {
        layout_extent e = layout_identity((size_t)logical, original, (ckpt_part)part, i);

        e.copy = 1;
        if (part == CKPT_DATA || t->stored_form != CKPT_FORM_APART)
            code = layout_add(r->out->layout, &e, r->err);
    }
    return code;
}

static ckpt_code read_all(reader *r)
{
    const size_t count = ckpt_catalog_count(r->stored);
    ckpt_code code = find_scales(r);

    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = read_tensor(r, i);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = read_copy(r, i);
    if (code == CKPT_OK)
        r->in_hand = 0;
    return code == CKPT_OK ? layout_seal(r->out->layout, r->err) : code;
}

ckpt_code map_read(const ckpt_map *map, const ckpt_catalog *stored,
                   const map_read_options *options, map_reading *out, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(stored);
    reader r = { .map = map, .stored = stored, .options = options, .out = out, .err = err };
    ckpt_code code;

    out->logical = catalog_create();
    out->layout = out->logical == NULL ? NULL : layout_create(out->logical, stored);
    out->fates = calloc(count + 1, sizeof *out->fates);
    r.scale_of = calloc(count + 1, sizeof *r.scale_of);
    r.tensor_scale_of = calloc(count + 1, sizeof *r.tensor_scale_of);
    r.input_scale_of = calloc(count + 1, sizeof *r.input_scale_of);
    if (out->layout == NULL || out->fates == NULL || r.scale_of == NULL ||
        r.tensor_scale_of == NULL || r.input_scale_of == NULL)
        code = ckpt_fail_memory(err, "the logical catalog", count);
    else
        code = read_all(&r);
    free(r.scale_of);
    free(r.tensor_scale_of);
    free(r.input_scale_of);
    if (code != CKPT_OK) {
        map_reading_release(out);
        out->failed = r.in_hand;
    }
    return code;
}

map_ledger map_ledger_of(const map_fate *fates, size_t count)
{
    map_ledger ledger = { .counts = { 0 } };

    for (size_t i = 0; i < count; i++)
        ledger.counts[fates[i].kind]++;
    return ledger;
}

void map_reading_release(map_reading *reading)
{
    layout_free(reading->layout);
    catalog_free(reading->logical);
    free(reading->fates);
    memset(reading, 0, sizeof *reading);
}
