/* Checks expert ids of layers that route by token id: with an id too large, a server would read
 * beyond its experts. */
#include "ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notes.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "libckpt/values.h"

enum { BAND_BYTES = 1 << 20, ROW_BYTES_MAX = 1 << 24, IDS_TEXT_BYTES = MAP_NAME_BYTES + 256 };

typedef struct {
    ckpt_source *source;
    size_t tensor;
    uint64_t expert_count;
    void *buffer;              /* rows as stored */
    int64_t *ids;              /* one row of numbers */
    uint64_t bad_count;
    uint64_t row;              /* of the first bad id */
    uint64_t col;
    int64_t value;
} id_look;

static void look_at_row(id_look *look, uint64_t row, uint64_t cols)
{
    for (uint64_t col = 0; col < cols; col++) {
        const int64_t id = look->ids[col];

        if (id >= 0 && (uint64_t)id < look->expert_count)
            continue;
        if (look->bad_count++ == 0) {
            look->row = row;
            look->col = col;
            look->value = id;
        }
    }
}

static ckpt_code look_at_band(id_look *look, uint64_t row, uint64_t row_count, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(ckpt_source_catalog(look->source), look->tensor);
    const ckpt_tile tile = { .part = { look->buffer } };
    values_reader values;
    ckpt_code code;

    if ((code = ckpt_source_read(look->source, look->tensor, CKPT_DATA, row, row_count,
                                 look->buffer, err)) != CKPT_OK ||
        (code = values_begin(&values, t, &tile, NULL, err)) != CKPT_OK)
        return code;
    for (uint64_t r = 0; r < row_count; r++) {
        values_i64(&values, r, look->ids);
        look_at_row(look, row + r, ckpt_tensor_cols(t));
    }
    return CKPT_OK;
}

/* Describe the first bad id of a table in `out`; "" if there is none. */
static ckpt_code look_at(const ckpt_checkpoint *c, size_t i, uint64_t expert_count,
                         char out[IDS_TEXT_BYTES], ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(c->reading.logical, i);
    const uint64_t rows = ckpt_tensor_rows(t);
    const uint64_t row_bytes = ckpt_part_row_bytes(t, CKPT_DATA);
    const uint64_t band = row_bytes == 0 ? 1 : size_max(1, BAND_BYTES / row_bytes);
    id_look look = { .source = c->logical, .tensor = i, .expert_count = expert_count };
    ckpt_code code = CKPT_OK;

    if (row_bytes == 0 || row_bytes > ROW_BYTES_MAX) {
        snprintf(out, IDS_TEXT_BYTES, "the ids of tensor '%s' were not checked", t->name);
        return CKPT_OK;
    }
    look.buffer = malloc(band * row_bytes);
    look.ids = malloc(ckpt_tensor_cols(t) * sizeof *look.ids);
    if (look.buffer == NULL || look.ids == NULL)
        code = ckpt_fail_memory(err, "a table of ids", band * row_bytes);
    for (uint64_t row = 0; row < rows && code == CKPT_OK; row += band)
        code = look_at_band(&look, row, size_min(band, rows - row), err);
    free(look.buffer);
    free(look.ids);
    if (code == CKPT_OK && look.bad_count > 0)
        snprintf(out, IDS_TEXT_BYTES,
                 "tensor '%s' has %s outside of 0 .. %lld, the first is %lld in row %llu, "
                 "column %llu",
                 t->name, text_count(look.bad_count, "id", "ids").text, (long long)expert_count - 1,
                 (long long)look.value, (unsigned long long)look.row, (unsigned long long)look.col);
    return code;
}

/* Add a note for each bad table to `notes`; NULL: a bad table is an error. */
static ckpt_code look_at_all(const ckpt_checkpoint *c, file_list *notes, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    uint64_t expert_count;

    if (c->family == NULL || c->config == NULL ||
        !json_u64(config_member(json_root(c->config), CONFIG_EXPERT_COUNT), &expert_count))
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(c->reading.logical) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(c->reading.logical, i);
        char text[IDS_TEXT_BYTES] = "";

        if (!text_ends_with(t->name, ".tid2eid") || !ckpt_tensor_is_int(t))
            continue;
        code = look_at(c, i, expert_count, text, err);
        if (code == CKPT_OK && text[0] != '\0')
            code = notes != NULL ? note_add(notes, err, "%s", text)
                                 : ckpt_fail(err, CKPT_E_FORMAT, "%s", text);
    }
    return code;
}

ckpt_code checkpoint_note_ids(ckpt_checkpoint *c, ckpt_error *err)
{
    return look_at_all(c, &c->notes, err);
}

ckpt_code checkpoint_check_ids(const ckpt_checkpoint *c, ckpt_error *err)
{
    return look_at_all(c, NULL, err);
}
