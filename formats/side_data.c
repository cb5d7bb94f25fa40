/* Reading the FP4 scales that the canonical rule does not recover. */
#include "side_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "side_data_private.h"
#include "size.h"
#include "zfile.h"

/* The shortest group line is "0 1\n". */
enum { GROUP_LINE_BYTES = 4, SCALE_MIN = 1, SCALE_MAX = 254 };

typedef struct {
    const char *at;
    const char *end;
    const char *line;              /* the one in hand, without its newline */
    size_t line_bytes;
    uint64_t line_number;
    const char *subject;
    uint64_t memory_bytes;         /* what is left for the entries and names */
    ckpt_error *err;
} side_reader;

static ckpt_code fail_line(const side_reader *r, const char *expected)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' line %" PRIu64 ": expected %s, got '%.*s'",
                     r->subject, r->line_number, expected,
                     (int)size_min(r->line_bytes, 80), r->line);
}

static ckpt_code take_line(side_reader *r)
{
    const char *newline = r->at == r->end ? NULL : memchr(r->at, '\n', (size_t)(r->end - r->at));

    r->line = r->at;
    r->line_number++;
    if (newline == NULL)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' line %" PRIu64 ": the text ends early",
                         r->subject, r->line_number);
    r->line_bytes = (size_t)(newline - r->at);
    r->at = newline + 1;
    return CKPT_OK;
}

/* Decimal digits as the writer has them: no sign, no leading zero. */
static int read_number(const char *text, size_t size, uint64_t *out)
{
    uint64_t number = 0;

    if (size == 0 || (size > 1 && text[0] == '0'))
        return 0;
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9' || !size_mul(number, 10, &number) ||
            !size_add(number, (uint64_t)(text[i] - '0'), &number))
            return 0;
    *out = number;
    return 1;
}

static ckpt_code read_header(side_reader *r)
{
    const char *root;
    size_t size;
    ckpt_code code;

    if ((code = take_line(r)) != CKPT_OK)
        return code;
    if (r->line_bytes < sizeof side_data_magic ||
        memcmp(r->line, side_data_magic, sizeof side_data_magic - 1) != 0)
        return fail_line(r, "'ckpt-fp4-scales 1 ROOT'");
    root = r->line + sizeof side_data_magic - 1;
    size = r->line_bytes - (sizeof side_data_magic - 1);
    if (size == 1 && root[0] == '-')
        return CKPT_OK;
    for (size_t i = 0; i < size; i++)
        if (root[i] == '\0' || strchr("0123456789abcdef", root[i]) == NULL)
            return fail_line(r, "64 hexadecimal digits or '-'");
    return size == CKPT_ROOT_HEX - 1 ? CKPT_OK : fail_line(r, "64 hexadecimal digits or '-'");
}

/* Room for `count` items more. The limit is on what is held, not on what it grew through. */
static ckpt_code reserve(side_reader *r, void **items, size_t *capacity, uint64_t needed,
                         size_t item_bytes)
{
    const uint64_t wanted = size_max(needed, size_min(2 * (uint64_t)*capacity, needed + 65536));
    void *larger;
    uint64_t grown;

    if (needed <= *capacity)
        return CKPT_OK;
    if (!size_mul(wanted - *capacity, item_bytes, &grown) || grown > r->memory_bytes)
        return ckpt_fail(r->err, CKPT_E_MEMORY, "'%s' is too large for the memory limit",
                         r->subject);
    larger = realloc(*items, wanted * item_bytes);
    if (larger == NULL)
        return ckpt_fail_memory(r->err, r->subject, wanted * item_bytes);
    r->memory_bytes -= grown;
    *items = larger;
    *capacity = wanted;
    return CKPT_OK;
}

/* The JSON string `text`, copied into the arena. */
static ckpt_code read_name(side_reader *r, side_data *data, const char *text, size_t size,
                           const char **out)
{
    json_document *document = NULL;
    const char *name;
    ckpt_code code = CKPT_OK;

    if (size < 2 || text[0] != '"' || text[size - 1] != '"' ||
        json_parse(text, size, r->subject, &document, NULL) != CKPT_OK ||
        (name = json_string(json_root(document))) == NULL) {
        code = fail_line(r, "'tensor NAME COUNT' with the name as a JSON string");
        goto out;
    }
    if (data->tensor_count > 0 &&
        strcmp(data->tensors[data->tensor_count - 1].name, name) >= 0) {
        code = fail_line(r, "tensors in the order of their names, each once");
        goto out;
    }
    *out = arena_strdup(&data->memory, name, strlen(name));
    if (*out == NULL)
        code = ckpt_fail_memory(r->err, "a name", strlen(name));
out:
    json_free(document);
    return code;
}

static ckpt_code read_tensor_line(side_reader *r, side_data *data)
{
    static const char word[] = "tensor ";
    const char *blank = memrchr(r->line, ' ', r->line_bytes);
    void *tensors = data->tensors;
    void *entries = data->entries;
    side_tensor t = { NULL, data->entry_count, 0 };
    uint64_t count;
    ckpt_code code;

    if (r->line_bytes < sizeof word || memcmp(r->line, word, sizeof word - 1) != 0 ||
        blank < r->line + sizeof word - 1 ||
        !read_number(blank + 1, (size_t)(r->line + r->line_bytes - blank - 1), &count) ||
        count == 0)
        return fail_line(r, "'tensor NAME COUNT'");
    if (count > (size_t)(r->end - r->at) / GROUP_LINE_BYTES)
        return fail_line(r, "as many group lines as it says");
    if ((code = read_name(r, data, r->line + sizeof word - 1,
                          (size_t)(blank - (r->line + sizeof word - 1)), &t.name)) != CKPT_OK)
        return code;
    t.count = count;
    code = reserve(r, &tensors, &data->tensor_capacity, data->tensor_count + 1, sizeof t);
    data->tensors = tensors;
    if (code != CKPT_OK)
        return code;
    code = reserve(r, &entries, &data->entry_capacity, data->entry_count + count,
                   sizeof *data->entries);
    data->entries = entries;
    if (code != CKPT_OK)
        return code;
    if (table_add(&data->names, t.name, data->tensor_count) != TABLE_ADDED)
        return ckpt_fail_memory(r->err, "a table of names", data->tensor_count);
    data->tensors[data->tensor_count++] = t;
    return CKPT_OK;
}

static ckpt_code read_group_line(side_reader *r, side_data *data, size_t first)
{
    const char *blank;
    encode_exception entry;
    uint64_t scale;
    ckpt_code code;

    if ((code = take_line(r)) != CKPT_OK)
        return code;
    blank = memchr(r->line, ' ', r->line_bytes);
    if (blank == NULL || !read_number(r->line, (size_t)(blank - r->line), &entry.group) ||
        !read_number(blank + 1, (size_t)(r->line + r->line_bytes - blank - 1), &scale) ||
        scale < SCALE_MIN || scale > SCALE_MAX)
        return fail_line(r, "'GROUP SCALE' with a scale of 1 to 254");
    entry.scale = (uint8_t)scale;
    if (data->entry_count > first && data->entries[data->entry_count - 1].group >= entry.group)
        return fail_line(r, "groups in ascending order, each once");
    data->entries[data->entry_count++] = entry;
    return CKPT_OK;
}

static ckpt_code read_all(side_reader *r, side_data *data)
{
    ckpt_code code = read_header(r);

    while (code == CKPT_OK && r->at < r->end) {
        if ((code = take_line(r)) == CKPT_OK)
            code = read_tensor_line(r, data);
        if (code == CKPT_OK) {
            const side_tensor *t = &data->tensors[data->tensor_count - 1];

            for (size_t i = 0; i < t->count && code == CKPT_OK; i++)
                code = read_group_line(r, data, t->first);
        }
    }
    return code;
}

static const encode_exception *find_exceptions(const encode_exception_table *self,
                                               const char *name, size_t *count)
{
    const side_data *data = (const side_data *)self;
    uint64_t i;

    *count = 0;
    if (!table_find(&data->names, name, &i))
        return NULL;
    *count = data->tensors[i].count;
    return data->entries + data->tensors[i].first;
}

static ckpt_code parse(side_reader *r, side_data **out)
{
    side_data *data = calloc(1, sizeof *data);
    ckpt_code code;

    *out = NULL;
    if (data == NULL)
        return ckpt_fail_memory(r->err, r->subject, sizeof *data);
    data->base.find = find_exceptions;
    arena_init(&data->memory);
    table_init(&data->names);
    if ((code = read_all(r, data)) == CKPT_OK)
        *out = data;
    else
        side_data_free(data);
    return code;
}

static side_reader begin_text(const char *text, size_t size, uint64_t memory_bytes)
{
    const side_reader r = {
        .at = text,
        .end = text + size,
        .subject = SIDE_DATA_FILE,
        .memory_bytes = memory_bytes > size ? memory_bytes - size : 0,
    };

    return r;
}

ckpt_code side_data_parse(const char *text, size_t size, uint64_t memory_bytes, side_data **out,
                          ckpt_error *err)
{
    side_reader r = begin_text(text, size, memory_bytes);

    r.err = err;
    return parse(&r, out);
}

ckpt_code side_data_read(const char *directory, uint64_t memory_bytes, side_data **out,
                         ckpt_error *err)
{
    char *path = file_join(directory, SIDE_DATA_FILE);
    char *text = NULL;
    ckpt_code code = CKPT_OK;
    side_reader r;
    size_t size;

    *out = NULL;
    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    if (!file_exists(path))
        goto out;
    if ((code = zfile_read(path, memory_bytes, &text, &size, err)) != CKPT_OK)
        goto out;
    r = begin_text(text, size, memory_bytes);
    r.subject = path;
    r.err = err;
    code = parse(&r, out);
out:
    free(text);
    free(path);
    return code;
}

const encode_exception_table *side_data_table(const side_data *data)
{
    return &data->base;
}

uint64_t side_data_bytes(const side_data *data)
{
    return data->memory.total_bytes + data->tensor_capacity * sizeof *data->tensors +
           data->entry_capacity * sizeof *data->entries;
}

ckpt_code side_data_check(const side_data *data, const ckpt_catalog *targets, ckpt_error *err)
{
    for (size_t i = 0; i < data->tensor_count; i++) {
        const side_tensor *t = &data->tensors[i];
        const int64_t found = ckpt_catalog_find(targets, t->name);
        const uint64_t last = data->entries[t->first + t->count - 1].group;
        const ckpt_tensor *target;
        uint64_t groups;

        if (found == CKPT_NOT_FOUND)
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' lists tensor '%s', which the checkpoint does not have",
                             SIDE_DATA_FILE, t->name);
        target = ckpt_catalog_at(targets, (size_t)found);
        if (target->dtype != CKPT_F4 || target->scale_dtype == CKPT_NONE)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lists tensor '%s', which is %s, not FP4",
                             SIDE_DATA_FILE, t->name, ckpt_dtype_name(target->dtype));
        groups = ckpt_part_rows(target, CKPT_SCALE) * ckpt_part_cols(target, CKPT_SCALE);
        if (last >= groups)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lists group %" PRIu64 " of tensor '%s', "
                             "which has %" PRIu64, SIDE_DATA_FILE, last, t->name, groups);
    }
    return CKPT_OK;
}

void side_data_free(side_data *data)
{
    if (data == NULL)
        return;
    table_release(&data->names);
    arena_release(&data->memory);
    free(data->tensors);
    free(data->entries);
    free(data);
}
