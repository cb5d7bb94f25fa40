/* Mutations of elements, rows and scales of one tensor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"
#include "libckpt/text.h"
#include "libckpt/values.h"
#include "mutation_private.h"
#include "tensor_group.h"
#include "value_mark.h"

enum { ROWS_MAX = 64, TENSORS_MAX = 256 };

static const char no_tensor[] = "no such tensor";
static const char no_place[] = "no place where it would change a value";

static const ckpt_tensor *at(const mutation_maker *m, size_t i)
{
    return ckpt_catalog_at(m->catalog, i);
}

static int is_float(const ckpt_tensor *t)
{
    return !ckpt_tensor_is_int(t);
}

static int has_whole_bytes(const ckpt_tensor *t)
{
    return ckpt_dtype_bits(t->dtype) % 8 == 0;
}

static int is_plain(const ckpt_tensor *t, ckpt_dtype dtype)
{
    return t->dtype == dtype && t->scale_dtype == CKPT_NONE;
}

/* ---- whole tensors and rows ---- */

static ckpt_code edit_one(mutation_maker *m, mutation_fits *fits, mutation_edit edit,
                          ckpt_error *err)
{
    const int64_t i = mutation_pick(m, fits);

    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    edit.tensor = (size_t)i;
    edit.from = (size_t)i;
    if (edit.kind == EDIT_SWAP_ROWS || edit.kind == EDIT_ZERO_ROW)
        edit.row = ckpt_tensor_rows(at(m, (size_t)i)) / 2 & ~UINT64_C(1);
    if (edit.kind == EDIT_SWAP_COLUMNS)
        edit.col = ckpt_tensor_cols(at(m, (size_t)i)) / 2 & ~UINT64_C(1);
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%.200s'", at(m, (size_t)i)->name);
    return mutation_edit_add(m, &edit, err);
}

/* 1 when blocks are square, or there are no scales. */
static int is_square(const ckpt_tensor *t)
{
    return t->rank == 2 && t->shape[0] == t->shape[1] && t->shape[0] > 1 && has_whole_bytes(t) &&
           t->block_rows == t->block_cols;
}

static int is_matrix(const ckpt_tensor *t)
{
    return t->rank > 1 && is_float(t) && ckpt_tensor_rows(t) > 1 && ckpt_tensor_cols(t) > 1;
}

static int is_byte_matrix(const ckpt_tensor *t)
{
    return is_matrix(t) && has_whole_bytes(t);
}

static int is_fp4(const ckpt_tensor *t)
{
    return t->dtype == CKPT_F4;
}

static int has_nibbles(const ckpt_tensor *t)
{
    return ckpt_dtype_bits(t->dtype) == 4;
}

/* The codes of INT4 have no sign bit. */
static int is_signed_matrix(const ckpt_tensor *t)
{
    return is_matrix(t) && t->dtype != CKPT_I4;
}

static int has_scales(const ckpt_tensor *t)
{
    return t->scale_dtype != CKPT_NONE;
}

ckpt_code mutate_transpose_square(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_square, (mutation_edit){ .kind = EDIT_TRANSPOSE }, err);
}

ckpt_code mutate_rotate_rows(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_matrix, (mutation_edit){ .kind = EDIT_ROTATE_ROWS }, err);
}

ckpt_code mutate_swap_rows(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_matrix, (mutation_edit){ .kind = EDIT_SWAP_ROWS }, err);
}

ckpt_code mutate_swap_columns(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_byte_matrix, (mutation_edit){ .kind = EDIT_SWAP_COLUMNS }, err);
}

ckpt_code mutate_negate(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_signed_matrix, (mutation_edit){ .kind = EDIT_NEGATE }, err);
}

ckpt_code mutate_zero_row(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_matrix, (mutation_edit){ .kind = EDIT_ZERO_ROW }, err);
}

ckpt_code mutate_zero_tensor(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, is_matrix, (mutation_edit){ .kind = EDIT_ZERO }, err);
}

ckpt_code mutate_scale_all_up(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, has_scales, (mutation_edit){ .kind = EDIT_SCALE_UP }, err);
}

ckpt_code mutate_swap_nibbles(mutation_maker *m, ckpt_error *err)
{
    return edit_one(m, has_nibbles, (mutation_edit){ .kind = EDIT_SWAP_NIBBLES }, err);
}

/* ---- one element ---- */

static int is_f32(const ckpt_tensor *t)
{
    return is_plain(t, CKPT_F32);
}

static int is_bf16(const ckpt_tensor *t)
{
    return is_plain(t, CKPT_BF16);
}

static int is_wide_float(const ckpt_tensor *t)
{
    return is_f32(t) || is_bf16(t) || is_plain(t, CKPT_F16);
}

static int is_fp8_scaled(const ckpt_tensor *t)
{
    return has_scales(t) && !has_nibbles(t);
}

static int is_fp8(const ckpt_tensor *t)
{
    return t->dtype == CKPT_F8_E4M3 || t->dtype == CKPT_F8_E5M2;
}

static int is_int(const ckpt_tensor *t)
{
    return ckpt_tensor_is_int(t) && has_whole_bytes(t);
}

static void say_place(mutation_maker *m, size_t tensor, const char *part, uint64_t row,
                      uint64_t col)
{
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%.150s'%s, row %llu column %llu",
             at(m, tensor)->name, part, (unsigned long long)row, (unsigned long long)col);
}

static ckpt_code flip_in(mutation_maker *m, size_t tensor, ckpt_part part, int *found,
                         ckpt_error *err)
{
    mutation_place place;
    ckpt_code code = mutation_find_place(m, tensor, part, &place, err);

    *found = code == CKPT_OK && place.found;
    if (!*found)
        return code;
    say_place(m, tensor, part == CKPT_SCALE ? ", scales" : "", place.row, place.col);
    return mutation_edit_add(m, &(mutation_edit){ .kind = EDIT_XOR, .tensor = tensor,
                                                  .from = tensor, .part = part, .row = place.row,
                                                  .byte = place.byte, .mask = place.mask }, err);
}

static ckpt_code flip(mutation_maker *m, mutation_fits *fits, ckpt_part part, ckpt_error *err)
{
    const int64_t i = mutation_pick(m, fits);
    ckpt_code code;
    int found;

    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    code = flip_in(m, (size_t)i, part, &found, err);
    return code == CKPT_OK && !found ? mutation_skip(m->out, no_place) : code;
}

ckpt_code mutate_flip_f32(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_f32, CKPT_DATA, err);
}

ckpt_code mutate_flip_bf16(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_bf16, CKPT_DATA, err);
}

ckpt_code mutate_flip_fp8(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_fp8, CKPT_DATA, err);
}

ckpt_code mutate_flip_fp8_scale(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_fp8_scaled, CKPT_SCALE, err);
}

ckpt_code mutate_flip_fp4(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_fp4, CKPT_DATA, err);
}

ckpt_code mutate_flip_fp4_scale(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_fp4, CKPT_SCALE, err);
}

ckpt_code mutate_flip_int(mutation_maker *m, ckpt_error *err)
{
    return flip(m, is_int, CKPT_DATA, err);
}

static int has_tensor_scale(const ckpt_tensor *t)
{
    return ckpt_part_row_bytes(t, CKPT_TENSOR_SCALE) == sizeof(float);
}

/* A high bit of the significand, which rounding cannot undo. */
ckpt_code mutate_flip_tensor_scale(mutation_maker *m, ckpt_error *err)
{
    const int64_t i = mutation_pick(m, has_tensor_scale);

    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    say_place(m, (size_t)i, ", scale of the tensor", 0, 0);
    return mutation_edit_add(m, &(mutation_edit){ .kind = EDIT_XOR, .tensor = (size_t)i,
                                                  .from = (size_t)i, .part = CKPT_TENSOR_SCALE,
                                                  .byte = 2, .mask = 0x10 }, err);
}

/* 1 when no edited tensor is of the same kind. */
static int is_new_kind(const mutation_maker *m, const ckpt_tensor *t)
{
    for (size_t e = 0; e < m->changes.edit_count; e++)
        if (tensor_same_kind(at(m, m->changes.edits[e].tensor)->name, t->name))
            return 0;
    return 1;
}

ckpt_code mutate_flip_every_kind(mutation_maker *m, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    int found;

    for (size_t i = 0; i < ckpt_catalog_count(m->catalog) && code == CKPT_OK; i++)
        if (encoding_of(at(m, i)) != NULL && ckpt_tensor_bytes(at(m, i)) > 0 &&
            is_new_kind(m, at(m, i)))
            code = flip_in(m, i, CKPT_DATA, &found, err);
    if (code == CKPT_OK && m->changes.edit_count == 0)
        return mutation_skip(m->out, no_place);
    m->out->is_each = 1;
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "%s",
             text_count(m->changes.edit_count, "tensor", "tensors").text);
    return code;
}

/* ---- setting an element ---- */

static ckpt_code set_element(mutation_maker *m, mutation_edit edit, ckpt_error *err)
{
    edit.kind = EDIT_SET;
    edit.from = edit.tensor;
    say_place(m, edit.tensor, "", edit.row, edit.col);
    return mutation_edit_add(m, &edit, err);
}

static ckpt_code set_float(mutation_maker *m, int is_nan, ckpt_error *err)
{
    const int64_t i = mutation_pick(m, is_wide_float);
    mutation_place place;
    uint64_t bits;
    ckpt_code code;

    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    if ((code = mutation_find_place(m, (size_t)i, CKPT_DATA, &place, err)) != CKPT_OK ||
        !place.found)
        return code == CKPT_OK ? mutation_skip(m->out, no_place) : code;
    switch (at(m, (size_t)i)->dtype) {
    case CKPT_F32:
        bits = is_nan ? 0x7FC00000 : 0x7F800000;
        break;
    case CKPT_BF16:
        bits = is_nan ? 0x7FC0 : 0x7F80;
        break;
    default:
        bits = is_nan ? 0x7E00 : 0x7C00;
    }
    return set_element(m, (mutation_edit){ .tensor = (size_t)i, .row = place.row,
                                           .col = place.col, .bits = bits }, err);
}

ckpt_code mutate_nan(mutation_maker *m, ckpt_error *err)
{
    return set_float(m, 1, err);
}

ckpt_code mutate_infinity(mutation_maker *m, ckpt_error *err)
{
    return set_float(m, 0, err);
}

ckpt_code mutate_id_range(mutation_maker *m, ckpt_error *err)
{
    int64_t i = mutation_pick(m, value_is_id_table);
    uint64_t largest;

    if (i == CKPT_NOT_FOUND)
        i = mutation_pick(m, is_int);
    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    largest = UINT64_MAX >> (65 - ckpt_dtype_bits(at(m, (size_t)i)->dtype));
    return set_element(m, (mutation_edit){ .tensor = (size_t)i, .bits = largest,
                                           .row = ckpt_tensor_rows(at(m, (size_t)i)) / 2 }, err);
}

/* ---- neighbours that differ ---- */

/* Find two different neighbours in a row of a part, from the middle row on. */
static ckpt_code find_neighbours(const mutation_maker *m, size_t tensor, ckpt_part part,
                                 mutation_place *out, ckpt_error *err)
{
    const ckpt_tensor *t = at(m, tensor);
    const uint64_t rows = ckpt_part_rows(t, part);
    const uint64_t cols = ckpt_part_cols(t, part);
    const uint64_t row_bytes = ckpt_part_row_bytes(t, part);
    const uint64_t bytes = row_bytes / cols;
    uint8_t *row = malloc(row_bytes + 1);
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    if (row == NULL)
        return ckpt_fail_memory(err, "a row", row_bytes);
    for (uint64_t k = 0; k < size_min(rows, ROWS_MAX) && code == CKPT_OK && !out->found; k++) {
        out->row = (rows / 2 + k) % rows;
        code = ckpt_source_read(m->in->source, tensor, part, out->row, 1, row, err);
        for (out->col = 0; code == CKPT_OK && out->col + 1 < cols && !out->found; out->col++)
            out->found = memcmp(row + out->col * bytes, row + (out->col + 1) * bytes, bytes) != 0;
    }
    out->col -= (uint64_t)out->found;
    out->byte = 0;
    if (code == CKPT_OK && out->found && bytes <= sizeof out->byte)
        memcpy(&out->byte, row + out->col * bytes, bytes);      /* the first one's value */
    free(row);
    return code;
}

ckpt_code mutate_id_repeated(mutation_maker *m, ckpt_error *err)
{
    int64_t i = mutation_pick(m, value_is_id_table);
    mutation_place place;
    ckpt_code code;

    if (i == CKPT_NOT_FOUND)
        i = mutation_pick(m, is_int);
    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    if ((code = find_neighbours(m, (size_t)i, CKPT_DATA, &place, err)) != CKPT_OK || !place.found)
        return code == CKPT_OK ? mutation_skip(m->out, no_place) : code;
    return set_element(m, (mutation_edit){ .tensor = (size_t)i, .row = place.row,
                                           .col = place.col + 1, .bits = place.byte }, err);
}

static int has_many_scales(const ckpt_tensor *t)
{
    return has_scales(t) && ckpt_part_cols(t, CKPT_SCALE) > 1;
}

ckpt_code mutate_swap_scales(mutation_maker *m, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(m->catalog);
    size_t looked = 0;

    for (size_t k = 0; k < count && looked < TENSORS_MAX; k++) {
        const size_t i = (count / 2 + k) % count;
        mutation_place place;
        ckpt_code code;

        if (!has_many_scales(at(m, i)))
            continue;
        looked++;
        if ((code = find_neighbours(m, i, CKPT_SCALE, &place, err)) != CKPT_OK)
            return code;
        if (!place.found)
            continue;
        say_place(m, i, ", scales", place.row, place.col);
        return mutation_edit_add(m, &(mutation_edit){ .kind = EDIT_SWAP_SCALES, .tensor = i,
                                                      .from = i, .row = place.row,
                                                      .col = place.col }, err);
    }
    return mutation_skip(m->out, looked == 0 ? no_tensor : no_place);
}

/* E8M0: the next code, or the one before the last; others: the last bit of the exponent. */
ckpt_code mutate_scale_up(mutation_maker *m, ckpt_error *err)
{
    const int64_t i = mutation_pick(m, has_scales);
    const ckpt_tensor *t = i == CKPT_NOT_FOUND ? NULL : at(m, (size_t)i);
    ckpt_code code;
    int found;
    uint8_t *row;

    if (t == NULL)
        return mutation_skip(m->out, no_tensor);
    if ((code = flip_in(m, (size_t)i, CKPT_SCALE, &found, err)) != CKPT_OK || !found)
        return code == CKPT_OK ? mutation_skip(m->out, no_place) : code;
    if (t->scale_dtype != CKPT_F8_E8M0) {
        m->changes.edits[0].mask = 0x80;
        return CKPT_OK;
    }
    if ((row = malloc(ckpt_part_row_bytes(t, CKPT_SCALE))) == NULL)
        return ckpt_fail_memory(err, "a row", ckpt_part_row_bytes(t, CKPT_SCALE));
    code = ckpt_source_read(m->in->source, (size_t)i, CKPT_SCALE, m->changes.edits[0].row, 1, row,
                            err);
    if (code == CKPT_OK) {
        const uint8_t old = row[m->changes.edits[0].byte];

        m->changes.edits[0].mask = (uint8_t)(old ^ (old < 0xFE ? old + 1 : old - 1));
    }
    free(row);
    return code;
}

/* ---- narrower dtypes ---- */

/* Checks whether one of the first rows has a value that is not exact in BF16. */
static ckpt_code is_inexact(const mutation_maker *m, size_t tensor, int *out, ckpt_error *err)
{
    const ckpt_tensor *t = at(m, tensor);
    const uint64_t rows = size_min(ckpt_tensor_rows(t), ROWS_MAX);
    const uint64_t cols = ckpt_tensor_cols(t);
    uint32_t *row = malloc(cols * sizeof *row + 1);
    ckpt_code code = CKPT_OK;

    *out = 0;
    if (row == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof *row);
    for (uint64_t r = 0; r < rows && code == CKPT_OK && !*out; r++) {
        code = ckpt_source_read(m->in->source, tensor, CKPT_DATA, r, 1, row, err);
        for (uint64_t c = 0; c < cols && code == CKPT_OK; c++)
            *out |= (row[c] & 0xFFFF) != 0;
    }
    free(row);
    return code;
}

static ckpt_code narrow(mutation_maker *m, int is_vector, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(m->catalog);

    for (size_t k = 0; k < count; k++) {
        const size_t i = (count / 2 + k) % count;
        ckpt_code code;
        int found;

        if (!is_f32(at(m, i)) || (at(m, i)->rank < 2) != is_vector ||
            ckpt_tensor_bytes(at(m, i)) == 0)
            continue;
        if ((code = is_inexact(m, i, &found, err)) != CKPT_OK)
            return code;
        if (!found)
            continue;
        snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%.200s'", at(m, i)->name);
        return mutation_edit_add(m, &(mutation_edit){ .kind = EDIT_NARROW, .tensor = i,
                                                      .from = i }, err);
    }
    return mutation_skip(m->out, "no such tensor that is not exact in BF16");
}

ckpt_code mutate_narrow_vector(mutation_maker *m, ckpt_error *err)
{
    return narrow(m, 1, err);
}

ckpt_code mutate_narrow_matrix(mutation_maker *m, ckpt_error *err)
{
    return narrow(m, 0, err);
}
