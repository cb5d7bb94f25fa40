/* A map read forwards: stored tensors become logical ones. */
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "size.h"

typedef struct {
    const ckpt_map *map;
    const ckpt_catalog *stored;
    const map_read_options *options;
    map_reading *out;
    uint32_t *scale_of;      /* by stored tensor: 1 + its scale, or 0 */
    size_t in_hand;          /* 1 + a stored tensor, or 0 */
    ckpt_error *err;
} reader;

/* Are the two a weight and its scale of a kind that is decoded? */
static int is_pair(const reader *r, const ckpt_tensor *weight, const ckpt_tensor *scale)
{
    ckpt_tensor logical;

    return r->options->bare_codes != BARE_CODES_ALL &&
           pair_encoding(weight, scale, r->options, &logical, NULL) == CKPT_OK;
}

/* Give every weight its scale; a scale without a weight is an orphan. */
static ckpt_code find_scales(reader *r)
{
    for (size_t i = 0; i < ckpt_catalog_count(r->stored); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(r->stored, i);
        const int byte_scale = t->dtype == CKPT_F8_E8M0 || t->dtype == CKPT_U8;
        map_fate *fate = &r->out->fates[i];
        char weight[MAP_NAME_BYTES];
        int64_t w;

        r->in_hand = i + 1;
        if (!map_weight_of_scale(t->name, weight))
            continue;
        w = ckpt_catalog_find(r->stored, weight);
        if (r->options->bare_codes != BARE_CODES_NONE &&
            (w < 0 || !is_pair(r, ckpt_catalog_at(r->stored, (size_t)w), t)))
            continue;
        if (w >= 0 && r->scale_of[w] != 0)
            return ckpt_fail(r->err, CKPT_E_FORMAT, "weight '%s' has two scales: '%s' and '%s'",
                             weight, ckpt_catalog_at(r->stored, r->scale_of[w] - 1)->name,
                             t->name);
        if (w >= 0) {
            r->scale_of[w] = (uint32_t)i + 1;
            fate->kind = FATE_SCALE;
        } else if (r->options->lenient) {
            fate->kind = FATE_DROPPED;
            fate->reason = "scale without a weight";
        } else if (byte_scale || strcmp(r->map->scale_suffix, ".scale") == 0 ||
                   strstr(t->name, "_scale_inv") != NULL) {
            return ckpt_fail(r->err, CKPT_E_FORMAT, "scale '%s' has no weight '%s'", t->name,
                             weight);
        }       /* else: a plain parameter that happens to be called scale */
    }
    return CKPT_OK;
}

typedef struct {
    const map_rule *rule;
    map_captures captures;
    size_t stored;           /* the data, and its scale if scaled */
    size_t scale;
    ckpt_tensor whole;       /* the packed tensor in logical elements */
    uint64_t stack_count;
    uint64_t piece_rows;     /* of one logical tensor */
} packing;

static ckpt_code fail_packing(const reader *r, const packing *p)
{
    char shape[256];

    catalog_shape_text(ckpt_catalog_at(r->stored, p->stored), shape, sizeof shape);
    if (p->rule->part_count > 1)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' %s is not one of %u equal parts of '%s'",
                         ckpt_catalog_at(r->stored, p->stored)->name, shape, p->rule->part_count,
                         p->rule->logical[0]);
    return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' %s does not divide into %s%zu tensors",
                     ckpt_catalog_at(r->stored, p->stored)->name, shape,
                     p->rule->stack == NULL ? "" : "a stack of ", p->rule->logical_count);
}

static ckpt_code measure(const reader *r, packing *p)
{
    const ckpt_tensor *whole = &p->whole;
    const uint32_t stacked = p->rule->stack != NULL;
    uint64_t rows;

    p->stack_count = 1;
    p->piece_rows = ckpt_tensor_rows(whole);
    if (!stacked && p->rule->logical_count == 1)
        return CKPT_OK;
    if (whole->rank < 2 + stacked)
        return fail_packing(r, p);
    if (stacked)
        p->stack_count = whole->shape[0];
    rows = whole->shape[stacked];
    if (rows % p->rule->logical_count != 0)
        return fail_packing(r, p);
    p->piece_rows = rows / p->rule->logical_count;
    for (uint32_t i = 1 + stacked; i + 1 < whole->rank; i++)
        p->piece_rows *= whole->shape[i];
    if (whole->scale_dtype != CKPT_NONE && p->rule->logical_count > 1 &&
        p->piece_rows % whole->block_rows != 0)
        return fail_packing(r, p);
    return CKPT_OK;
}

/* One of the equal parts of a logical tensor, which the first of them makes. */
static ckpt_code add_part(reader *r, const packing *p, const char *name)
{
    const map_rule *rule = p->rule;
    const uint32_t last = p->whole.rank - 1;
    int64_t logical = ckpt_catalog_find(r->out->logical, name);
    ckpt_tensor whole = p->whole;
    layout_extent e;
    ckpt_code code;

    whole.name = name;
    if (whole.rank == 0 || whole.scale_dtype != CKPT_NONE ||
        !size_mul(whole.shape[0], rule->part_count, &whole.shape[0]))
        return fail_packing(r, p);
    if (logical < 0) {
        logical = (int64_t)ckpt_catalog_count(r->out->logical);
        if ((code = catalog_add(r->out->logical, &whole, r->err)) != CKPT_OK)
            return code;
    } else if (!catalog_same_shape(ckpt_catalog_at(r->out->logical, (size_t)logical), &whole) ||
               ckpt_catalog_at(r->out->logical, (size_t)logical)->dtype != whole.dtype) {
        return fail_packing(r, p);
    }
    r->out->fates[p->stored].kind = FATE_USED;
    r->out->fates[p->stored].logical = (uint32_t)logical;
    e = layout_identity((size_t)logical, &p->whole, CKPT_DATA, p->stored);
    if (last == 0)
        e.col = rule->part * e.col_count;
    else
        e.row = rule->part * e.row_count;
    return layout_add(r->out->layout, &e, r->err);
}

/* Piece `c` of stack entry `e`: its shape, and the extents of its parts. */
static ckpt_code add_piece(reader *r, const packing *p, const char *name, uint64_t position)
{
    ckpt_tensor piece = p->whole;
    const uint32_t stacked = p->rule->stack != NULL;
    const size_t logical = ckpt_catalog_count(r->out->logical);
    ckpt_code code;

    piece.name = name;
    piece.rank -= stacked;
    memmove(piece.shape, p->whole.shape + stacked, piece.rank * sizeof piece.shape[0]);
    if (p->rule->logical_count > 1)
        piece.shape[0] /= p->rule->logical_count;
    if ((code = catalog_add(r->out->logical, &piece, r->err)) != CKPT_OK)
        return code;
    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++) {
        layout_extent e;

        if (part == CKPT_SCALE && piece.scale_dtype == CKPT_NONE)
            continue;
        e = layout_identity(logical, &piece, (ckpt_part)part,
                            part == CKPT_DATA ? p->stored : p->scale);
        e.stored_row = position * e.row_count;
        code = layout_add(r->out->layout, &e, r->err);
    }
    return code;
}

static ckpt_code unpack(reader *r, packing *p)
{
    const size_t known = p->captures.count;
    const size_t first = ckpt_catalog_count(r->out->logical);
    char whole_name[MAP_NAME_BYTES];
    ckpt_code code = CKPT_OK;

    if (p->rule->part_count > 1)
        return map_expand(p->rule->logical[0], &p->captures, whole_name)
                   ? add_part(r, p, whole_name)
                   : fail_packing(r, p);

    for (uint64_t e = 0; e < p->stack_count && code == CKPT_OK; e++) {
        char index[24];

        snprintf(index, sizeof index, "%llu", (unsigned long long)e);
        p->captures.count = known;
        if (p->rule->stack != NULL && known < MAP_CAPTURES_MAX) {
            p->captures.items[known].key = p->rule->stack;
            p->captures.items[known].key_bytes = strlen(p->rule->stack);
            p->captures.items[known].value = index;
            p->captures.items[known].value_bytes = strlen(index);
            p->captures.count++;
        }
        for (size_t c = 0; c < p->rule->logical_count && code == CKPT_OK; c++) {
            char name[MAP_NAME_BYTES];

            if (!map_expand(p->rule->logical[c], &p->captures, name))
                return fail_packing(r, p);
            code = add_piece(r, p, name, e * p->rule->logical_count + c);
        }
    }
    r->out->fates[p->stored].kind = FATE_USED;
    r->out->fates[p->stored].logical = (uint32_t)first;
    if (p->whole.scale_dtype != CKPT_NONE)
        r->out->fates[p->scale].logical = (uint32_t)first;
    return code;
}

static ckpt_code read_tensor(reader *r, size_t i)
{
    static const map_rule unknown = { .kind = MAP_TENSOR, .stored = "{x*}", .logical = { "{x*}" },
                                      .logical_count = 1, .part_count = 1 };
    const ckpt_tensor *t = ckpt_catalog_at(r->stored, i);
    map_fate *fate = &r->out->fates[i];
    packing p = { .stored = i };
    const ckpt_tensor *scale = NULL;
    ckpt_code code;

    r->in_hand = i + 1;
    if (fate->kind != FATE_NONE)
        return CKPT_OK;
    p.rule = map_find_stored(r->map, t->name, &p.captures);
    if (p.rule == NULL && !r->options->lenient)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' is not one of a %s checkpoint in %s names", t->name,
                         r->map->family, r->map->names);
    if (p.rule == NULL || (p.rule->kind == MAP_COPY && r->options->keep_copies)) {
        p.rule = &unknown;
        p.captures.count = 0;
        map_match(unknown.stored, t->name, &p.captures);
    }
    if (p.rule->kind == MAP_DROP) {
        fate->kind = FATE_DROPPED;
        fate->reason = p.rule->reason;
        return CKPT_OK;
    }
    if (p.rule->kind == MAP_COPY)
        return CKPT_OK;        /* when all originals are there */
    if (r->scale_of[i] != 0) {
        p.scale = r->scale_of[i] - 1;
        scale = ckpt_catalog_at(r->stored, p.scale);
    }
    if ((code = pair_encoding(t, scale, r->options, &p.whole, r->err)) != CKPT_OK ||
        (code = measure(r, &p)) != CKPT_OK)
        return code;
    return unpack(r, &p);
}

/* A copy has the shape and encoding of its original, part by part. */
static ckpt_code read_copy(reader *r, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(r->stored, i);
    const ckpt_tensor *original;
    char name[MAP_NAME_BYTES];
    map_captures captures;
    layout_extent e;
    int64_t logical;
    const map_rule *rule;

    r->in_hand = i + 1;
    if (r->out->fates[i].kind != FATE_NONE)
        return CKPT_OK;
    rule = map_find_stored(r->map, t->name, &captures);
    if (!map_expand(rule->logical[0], &captures, name) ||
        (logical = ckpt_catalog_find(r->out->logical, name)) < 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "tensor '%s' repeats '%s', which is missing",
                         t->name, name);
    original = ckpt_catalog_at(r->out->logical, (size_t)logical);
    if (!catalog_same_shape(t, original) || t->dtype != original->dtype || r->scale_of[i] != 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "tensor '%s' must repeat '%s', but has another shape or dtype", t->name,
                         name);
    e = layout_identity((size_t)logical, original, CKPT_DATA, i);
    e.copy = 1;
    r->out->fates[i].kind = FATE_COPY;
    r->out->fates[i].logical = (uint32_t)logical;
    return layout_add(r->out->layout, &e, r->err);
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
    if (out->layout == NULL || out->fates == NULL || r.scale_of == NULL)
        code = ckpt_fail_memory(err, "the logical catalog", count);
    else
        code = read_all(&r);
    free(r.scale_of);
    if (code != CKPT_OK) {
        map_reading_release(out);
        out->failed = r.in_hand;
    }
    return code;
}

void map_reading_release(map_reading *reading)
{
    layout_free(reading->layout);
    catalog_free(reading->logical);
    free(reading->fates);
    memset(reading, 0, sizeof *reading);
}
