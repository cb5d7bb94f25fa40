/* Parses the text of fp4_scales.zst as a stream. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/json.h"
#include "side_data_private.h"
#include "libckpt/size.h"

enum { SCALE_MAX = 254 };

typedef struct {
    zfile_reader *text;
    const char *subject;
    const char *line;              /* the current one, without its newline; NULL after the last */
    size_t line_bytes;
    uint64_t line_number;
    side_data_head head;
    uint64_t entry_count;          /* so far */
    char *name;                    /* of the current tensor, malloc'd; NULL: none yet */
    const side_data_visit *visit;
    ckpt_error *err;
} line_reader;

static ckpt_code fail_line(const line_reader *r, const char *expected)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' line %" PRIu64 ": expected %s, got '%.*s'",
                     r->subject, r->line_number, expected,
                     (int)size_min(r->line_bytes, 80), r->line);
}

static ckpt_code take_line(line_reader *r)
{
    r->line_number++;
    return zfile_read_line(r->text, &r->line, &r->line_bytes, r->err);
}

/* The same for a line that must be there. */
static ckpt_code need_line(line_reader *r)
{
    const ckpt_code code = take_line(r);

    if (code != CKPT_OK || r->line != NULL)
        return code;
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' line %" PRIu64 ": the text ends early",
                     r->subject, r->line_number);
}

/* Decimal digits as the writer prints them: no sign, no leading zero. */
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

/* Read 64 hexadecimal digits or '-', and a blank, at *at, which is moved past the blank. */
static int read_root(const char **at, const char *end, char out[CKPT_ROOT_HEX])
{
    const char *blank = memchr(*at, ' ', (size_t)(end - *at));
    const size_t size = blank == NULL ? 0 : (size_t)(blank - *at);

    if (size != CKPT_ROOT_HEX - 1 && !(size == 1 && **at == '-'))
        return 0;
    memcpy(out, *at, size);
    out[size] = '\0';
    *at = blank + 1;
    return size == 1 || strspn(out, "0123456789abcdef") == size;
}

static ckpt_code read_header(line_reader *r)
{
    const char *at;
    const char *end;
    ckpt_code code;

    if ((code = need_line(r)) != CKPT_OK)
        return code;
    at = r->line + sizeof side_data_magic - 1;
    end = r->line + r->line_bytes;
    if (r->line_bytes < sizeof side_data_magic ||
        memcmp(r->line, side_data_magic, sizeof side_data_magic - 1) != 0 ||
        !read_root(&at, end, r->head.roots[0]) || !read_root(&at, end, r->head.roots[1]) ||
        strlen(r->head.roots[0]) != strlen(r->head.roots[1]) ||
        !read_number(at, (size_t)(end - at), &r->head.entry_count))
        return fail_line(r, "'ckpt-fp4-scales 2 ROOT MAIN ENTRIES'");
    return r->visit->head == NULL ? CKPT_OK : r->visit->head(r->visit->context, &r->head);
}

/* Read the JSON string `text`; names must be in ascending order. */
static ckpt_code read_name(line_reader *r, const char *text, size_t size)
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
    if (r->name != NULL && strcmp(r->name, name) >= 0) {
        code = fail_line(r, "tensors in the order of their names, each once");
        goto out;
    }
    free(r->name);
    if ((r->name = strdup(name)) == NULL)
        code = ckpt_fail_memory(r->err, "a name", strlen(name));
out:
    json_free(document);
    return code;
}

static ckpt_code read_tensor_line(line_reader *r, uint64_t *count)
{
    static const char word[] = "tensor ";
    const char *name = r->line + sizeof word - 1;
    const char *blank = memrchr(r->line, ' ', r->line_bytes);
    ckpt_code code;

    if (r->line_bytes < sizeof word || memcmp(r->line, word, sizeof word - 1) != 0 ||
        blank < name ||
        !read_number(blank + 1, (size_t)(r->line + r->line_bytes - blank - 1), count) ||
        *count == 0)
        return fail_line(r, "'tensor NAME COUNT'");
    if ((code = read_name(r, name, (size_t)(blank - name))) != CKPT_OK)
        return code;
    return r->visit->tensor(r->visit->context, r->name, r->err);
}

/* `last` is the previous group line, unless this is the first. */
static ckpt_code read_group_line(line_reader *r, int is_first, encode_exception *last)
{
    const uint64_t before = last->group;
    const char *blank;
    uint64_t scale;
    ckpt_code code;

    if ((code = need_line(r)) != CKPT_OK)
        return code;
    blank = memchr(r->line, ' ', r->line_bytes);
    if (blank == NULL || !read_number(r->line, (size_t)(blank - r->line), &last->group) ||
        !read_number(blank + 1, (size_t)(r->line + r->line_bytes - blank - 1), &scale) ||
        scale > SCALE_MAX)
        return fail_line(r, "'GROUP SCALE' with a scale of 0 to 254");
    if (!is_first && before >= last->group)
        return fail_line(r, "groups in ascending order, each once");
    last->scale = (uint8_t)scale;
    r->entry_count++;
    return r->visit->group(r->visit->context, last, r->err);
}

static ckpt_code read_tensors(line_reader *r)
{
    ckpt_code code;

    while ((code = take_line(r)) == CKPT_OK && r->line != NULL) {
        encode_exception entry = { 0, 0 };
        uint64_t count;

        code = read_tensor_line(r, &count);
        for (uint64_t i = 0; code == CKPT_OK && i < count; i++)
            code = read_group_line(r, i == 0, &entry);
        if (code != CKPT_OK)
            return code;
    }
    return code;
}

ckpt_code side_data_walk(zfile_reader *text, const char *subject, const side_data_visit *visit,
                         ckpt_error *err)
{
    line_reader r = { .text = text, .subject = subject, .visit = visit, .err = err };
    ckpt_code code;

    if ((code = read_header(&r)) == CKPT_OK && (code = read_tensors(&r)) == CKPT_OK &&
        r.entry_count != r.head.entry_count)
        code = ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' has %" PRIu64 " entries, its first line states %" PRIu64, subject,
                         r.entry_count, r.head.entry_count);
    free(r.name);
    return code;
}
