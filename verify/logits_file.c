/* Finds and reads the rows of a file of logits. */
#include "logits_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/error.h"
#include "libckpt/size.h"

enum { NAME_BYTES = 256, PROMPTS_MAX = 1 << 20 };

static const char top_name[] = "top_logits";

/* Parts of a tensor name: "mtp_top_ids.3" from "mtp_", "top_ids", ".3". */
typedef struct {
    char prefix[NAME_BYTES];
    char suffix[16];
} naming;

static int name_text(char out[NAME_BYTES], const naming *n, const char *name)
{
    return snprintf(out, NAME_BYTES, "%s%s%s", n->prefix, name, n->suffix) < NAME_BYTES;
}

static int64_t find(const logits_file *f, const naming *n, const char *name)
{
    char text[NAME_BYTES];

    return name_text(text, n, name) ? ckpt_catalog_find(ckpt_source_catalog(f->source), text)
                                    : CKPT_NOT_FOUND;
}

static const ckpt_tensor *tensor_at(const logits_file *f, size_t i)
{
    return ckpt_catalog_at(ckpt_source_catalog(f->source), i);
}

/* ---- integers ---- */

ckpt_code logits_read_integers(const logits_file *file, const char *name, int64_t **out,
                               uint64_t *count, ckpt_error *err)
{
    const int64_t i = ckpt_catalog_find(ckpt_source_catalog(file->source), name);
    const ckpt_tensor *t = i == CKPT_NOT_FOUND ? NULL : tensor_at(file, (size_t)i);
    uint8_t *bytes;
    ckpt_code code;

    *out = NULL;
    *count = 0;
    if (t == NULL)
        return CKPT_OK;
    if ((t->dtype != CKPT_I32 && t->dtype != CKPT_I64) || t->rank != 1)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' of '%s' is %s of rank %u, expected I32 of rank 1", name,
                         file->input->path, ckpt_dtype_name(t->dtype), t->rank);
    *count = t->shape[0];
    bytes = malloc(ckpt_tensor_bytes(t) + 1);
    *out = malloc((*count + 1) * sizeof **out);
    if (bytes == NULL || *out == NULL)
        code = ckpt_fail_memory(err, name, *count * sizeof **out);
    else
        code = ckpt_source_read(file->source, (size_t)i, CKPT_DATA, 0, 1, bytes, err);
    for (uint64_t k = 0; k < *count && code == CKPT_OK; k++) {
        int32_t narrow;

        memcpy(&narrow, bytes + k * sizeof narrow, sizeof narrow);
        if (t->dtype == CKPT_I64)
            memcpy(&(*out)[k], bytes + k * sizeof **out, sizeof **out);
        else
            (*out)[k] = narrow;
    }
    free(bytes);
    if (code != CKPT_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}

/* ---- sets ---- */

static ckpt_code check_shape(const logits_file *f, size_t tensor, uint64_t rows, uint64_t cols,
                             ckpt_error *err)
{
    const ckpt_tensor *t = tensor_at(f, tensor);

    if (t->rank != (cols == 0 ? 1 : 2) || t->shape[0] != rows || (cols > 0 && t->shape[1] != cols))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' of '%s' does not have the shape of its "
                         "positions and logits, %" PRIu64 " x "
                         "%" PRIu64, t->name, f->input->path, rows,
                         cols == 0 ? 1 : cols);
    return CKPT_OK;
}

/* Find the tensors of top-K rows: ids and sums beside the logits. */
static ckpt_code find_top(const logits_file *f, const naming *n, logits_set *s, ckpt_error *err)
{
    const int64_t ids = find(f, n, "top_ids");
    const int64_t sums = find(f, n, "logsumexp");
    ckpt_code code;

    s->is_top = 1;
    if (ids == CKPT_NOT_FOUND || sums == CKPT_NOT_FOUND)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has '%s' but no top_ids or logsumexp for it",
                         f->input->path, tensor_at(f, s->rows)->name);
    s->ids = (size_t)ids;
    s->sums = (size_t)sums;
    if ((code = check_shape(f, s->ids, s->count, s->width, err)) != CKPT_OK ||
        (code = check_shape(f, s->sums, s->count, 0, err)) != CKPT_OK)
        return code;
    if (tensor_at(f, s->ids)->dtype != CKPT_I32 || tensor_at(f, s->sums)->dtype != CKPT_F32)
        return ckpt_fail(err, CKPT_E_FORMAT, "top_ids of '%s' must be I32 and logsumexp F32",
                         f->input->path);
    return CKPT_OK;
}

static ckpt_code find_positions(const logits_file *f, const naming *n, logits_set *s,
                                ckpt_error *err)
{
    char name[NAME_BYTES];
    uint64_t count;
    ckpt_code code;

    snprintf(name, sizeof name, "tokens%s", n->suffix);
    if ((code = logits_read_integers(f, name, &s->tokens, &s->token_count, err)) != CKPT_OK)
        return code;
    if (s->tokens == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no tensor '%s'", f->input->path, name);
    snprintf(name, sizeof name, "%spositions%s", s->is_mtp ? "mtp_" : "", n->suffix);
    if ((code = logits_read_integers(f, name, &s->positions, &count, err)) != CKPT_OK)
        return code;
    if (s->positions == NULL) {
        if ((s->positions = malloc((s->count + 1) * sizeof *s->positions)) == NULL)
            return ckpt_fail_memory(err, "positions", s->count);
        for (count = 0; count < s->count; count++)
            s->positions[count] = (int64_t)count;
    }
    if (count != s->count)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' of '%s' has %" PRIu64 " entries, but logits "
                         "have %" PRIu64, name, f->input->path, count, s->count);
    for (uint64_t i = 0; i < count; i++)
        if (s->positions[i] < 0 || (uint64_t)s->positions[i] >= s->token_count ||
            (i > 0 && s->positions[i] <= s->positions[i - 1]))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' of '%s' must be ascending and below "
                "%" PRIu64,
                             name, f->input->path, s->token_count);
    return CKPT_OK;
}

static ckpt_code add_set(logits_file *f, const naming *n, const char *base, size_t rows,
                         ckpt_error *err)
{
    logits_set *sets = array_room(f->sets, f->set_count, sizeof *sets, "logits", err);
    const ckpt_tensor *t = tensor_at(f, rows);
    const size_t length = strlen(base);
    naming parts = *n;
    logits_set *s;
    ckpt_code code;

    if (sets == NULL)
        return CKPT_E_MEMORY;
    f->sets = sets;
    s = &sets[f->set_count++];
    memset(s, 0, sizeof *s);
    if ((t->dtype != CKPT_F32 && t->dtype != CKPT_BF16) || t->rank != 2)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' of '%s' is %s of rank %u, expected F32 or BF16 of rank 2", t->name,
                         f->input->path, ckpt_dtype_name(t->dtype), t->rank);
    s->rows = rows;
    s->count = t->shape[0];
    s->width = t->shape[1];
    s->prompt = n->suffix[0] == '\0' ? 0 : (uint32_t)strtoul(n->suffix + 1, NULL, 10);
    snprintf(parts.prefix, sizeof parts.prefix, "%s%s", n->prefix, base);
    s->is_mtp = strncmp(parts.prefix, "mtp_", 4) == 0;
    if (s->width == 0 || s->width > INT32_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' of '%s' has %" PRIu64 " columns", t->name,
                         f->input->path, s->width);
    if (length >= sizeof top_name - 1 &&
        strcmp(base + length - (sizeof top_name - 1), top_name) == 0) {
        parts.prefix[strlen(parts.prefix) - (sizeof top_name - 1)] = '\0';
        if ((code = find_top(f, &parts, s, err)) != CKPT_OK)
            return code;
    }
    return find_positions(f, n, s, err);
}

/* Add the sets of one name: NAME, or NAME.0, NAME.1 ... */
static ckpt_code add_sets(logits_file *f, const char *prefix, const char *base, ckpt_error *err)
{
    naming n = { .suffix = "" };
    ckpt_code code = CKPT_OK;

    snprintf(n.prefix, sizeof n.prefix, "%s", prefix);
    if (find(f, &n, base) != CKPT_NOT_FOUND)
        return add_set(f, &n, base, (size_t)find(f, &n, base), err);
    for (uint32_t i = 0; i < PROMPTS_MAX && code == CKPT_OK; i++) {
        snprintf(n.suffix, sizeof n.suffix, ".%u", i);
        if (find(f, &n, base) == CKPT_NOT_FOUND)
            break;
        code = add_set(f, &n, base, (size_t)find(f, &n, base), err);
    }
    return code;
}

ckpt_code logits_file_open(const logits_input *input, logits_file *out, ckpt_error *err)
{
    uint64_t total = 0;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    out->input = input;
    if ((code = ckpt_open(input->path, NULL, &out->checkpoint, err)) != CKPT_OK)
        return code;
    out->source = ckpt_stored(out->checkpoint);
    if (input->tensor != NULL) {
        code = add_sets(out, "", input->tensor, err);
    } else if ((code = add_sets(out, "", "logits", err)) == CKPT_OK &&
               (out->set_count > 0 ||
                (code = add_sets(out, "", top_name, err)) == CKPT_OK) &&
               (code = add_sets(out, "mtp_", "logits", err)) == CKPT_OK) {
        code = add_sets(out, "mtp_", top_name, err);
    }
    if (code != CKPT_OK)
        return code;
    for (size_t i = 0; i < out->set_count; i++)
        total += out->sets[i].count;
    if (out->set_count == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no tensor '%s'", input->path,
                         input->tensor != NULL ? input->tensor : "logits");
    if (total == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "nothing to compare: '%s' has no logits",
                         input->path);
    return CKPT_OK;
}

void logits_file_release(logits_file *file)
{
    for (size_t i = 0; i < file->set_count; i++) {
        free(file->sets[i].positions);
        free(file->sets[i].tokens);
    }
    free(file->sets);
    ckpt_close(file->checkpoint);
    memset(file, 0, sizeof *file);
}

/* ---- rows ---- */

ckpt_code logits_row_create(const logits_set *set, logits_row *out, ckpt_error *err)
{
    out->count = set->width;
    out->is_top = set->is_top;
    out->sum = 0;
    out->entries = calloc(set->width, sizeof *out->entries);
    return out->entries != NULL ? CKPT_OK : ckpt_fail_memory(err, "a row", set->width);
}

void logits_row_release(logits_row *row)
{
    free(row->entries);
    row->entries = NULL;
}

static int order_by_id(const void *a, const void *b)
{
    const logits_entry *x = a;
    const logits_entry *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* Read the ids of the K best, and sort the row by id. */
static ckpt_code take_ids(const logits_file *f, const logits_set *s, uint64_t i, logits_row *row,
                          ckpt_error *err)
{
    int32_t *ids = malloc(s->width * sizeof *ids);
    float *sums = malloc(s->count * sizeof *sums);
    ckpt_code code = CKPT_OK;

    if (ids == NULL || sums == NULL)
        code = ckpt_fail_memory(err, "a row", s->width * sizeof *ids);
    else if ((code = ckpt_source_read(f->source, s->ids, CKPT_DATA, i, 1, ids, err)) == CKPT_OK)
        code = ckpt_source_read(f->source, s->sums, CKPT_DATA, 0, 1, sums, err);
    for (uint64_t k = 0; k < s->width && code == CKPT_OK; k++) {
        if (ids[k] < 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has a token id %" PRId32 " in row %" PRIu64,
                             f->input->path, ids[k], i);
        row->entries[k].id = (uint32_t)ids[k];
    }
    if (code == CKPT_OK) {
        row->sum = sums[i];
        qsort(row->entries, s->width, sizeof *row->entries, order_by_id);
        for (uint64_t k = 1; k < s->width && code == CKPT_OK; k++)
            if (row->entries[k].id == row->entries[k - 1].id)
                code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has token id %u twice in row %" PRIu64,
                                 f->input->path, row->entries[k].id, i);
    }
    free(ids);
    free(sums);
    return code;
}

ckpt_code logits_row_read(const logits_file *file, const logits_set *set, uint64_t i,
                          logits_row *row, ckpt_error *err)
{
    float *values = malloc(set->width * sizeof *values);
    ckpt_code code;

    if (values == NULL)
        return ckpt_fail_memory(err, "a row", set->width * sizeof *values);
    code = ckpt_source_read_f32(file->source, set->rows, i, 1, values, err);
    for (uint64_t k = 0; k < set->width && code == CKPT_OK; k++) {
        row->entries[k].id = (uint32_t)k;
        row->entries[k].value = values[k];
    }
    free(values);
    if (code == CKPT_OK && set->is_top)
        code = take_ids(file, set, i, row, err);
    return code;
}
