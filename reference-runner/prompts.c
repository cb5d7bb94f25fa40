/* prompts.c: reads token ids in all formats. */
#include "prompts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"

enum { INPUT_BYTES_MAX = 1 << 30, READ_STEP = 1 << 16 };

static const char npy_magic[] = "\x93NUMPY";

/* The prompts read so far; ids are added to the last one. */
typedef struct {
    run_prompts *out;
    const char *subject;
    ckpt_error *err;
} reader;

void run_prompt_free(run_prompt *prompt)
{
    array_free_counted(prompt->tokens, prompt->count, sizeof *prompt->tokens);
    *prompt = (run_prompt){ NULL, 0 };
}

ckpt_code run_prompt_add(run_prompt *prompt, uint32_t id, ckpt_error *err)
{
    uint32_t *tokens =
        array_room_counted(prompt->tokens, prompt->count, sizeof *tokens, "tokens", err);

    if (tokens == NULL)
        return CKPT_E_MEMORY;
    prompt->tokens = tokens;
    tokens[prompt->count++] = id;
    return CKPT_OK;
}

ckpt_code run_prompts_begin(run_prompts *prompts, ckpt_error *err)
{
    run_prompt *grown =
        array_room_counted(prompts->prompts, prompts->count, sizeof *grown, "prompts", err);

    if (grown == NULL)
        return CKPT_E_MEMORY;
    prompts->prompts = grown;
    grown[prompts->count++] = (run_prompt){ NULL, 0 };
    return CKPT_OK;
}

void run_prompts_free(run_prompts *prompts)
{
    for (size_t i = 0; i < prompts->count; i++)
        run_prompt_free(&prompts->prompts[i]);
    array_free_counted(prompts->prompts, prompts->count, sizeof *prompts->prompts);
    memset(prompts, 0, sizeof *prompts);
}

static ckpt_code add_token(const reader *r, uint64_t id)
{
    if (id > INT32_MAX)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': token id %" PRIu64 " in prompt %zu",
                         r->subject, id, r->out->count - 1);
    return run_prompt_add(&r->out->prompts[r->out->count - 1], (uint32_t)id, r->err);
}

static ckpt_code complain(const reader *r, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': %s", r->subject, what);
}

/* ---- text ---- */

/* Length of the first line without the blanks at its end; *with_end: including its end. */
static size_t line_bytes(const char *text, size_t size, size_t *with_end)
{
    const char *end = memchr(text, '\n', size);
    size_t length = end == NULL ? size : (size_t)(end - text);

    *with_end = end == NULL ? length : length + 1;
    while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL && text[length - 1] != '\0')
        length--;
    return length;
}

static ckpt_code read_line(const reader *r, const char *line, size_t size)
{
    ckpt_code code = CKPT_OK;
    int begun = 0;

    for (size_t i = 0; i < size && code == CKPT_OK;) {
        uint64_t id = 0;

        if (strchr(" \t,", line[i]) != NULL && line[i] != '\0') {
            i++;
            continue;
        }
        if (line[i] < '0' || line[i] > '9')
            return complain(r, "not a list of token ids, JSON, .npy or safetensors");
        for (; i < size && line[i] >= '0' && line[i] <= '9'; i++)
            if (id <= INT32_MAX)
                id = 10 * id + (uint64_t)(line[i] - '0');
        if (!begun && (code = run_prompts_begin(r->out, r->err)) != CKPT_OK)
            return code;
        begun = 1;
        code = add_token(r, id);
    }
    return code;
}

static ckpt_code read_text(const reader *r, const char *text, size_t size)
{
    ckpt_code code = CKPT_OK;

    for (size_t step; size > 0 && code == CKPT_OK; text += step, size -= step)
        code = read_line(r, text, line_bytes(text, size, &step));
    return code;
}

/* ---- JSON ---- */

static ckpt_code read_ids(const reader *r, const json_value *list)
{
    ckpt_code code = run_prompts_begin(r->out, r->err);

    for (const json_value *v = json_first(list); v != NULL && code == CKPT_OK; v = json_next(v)) {
        uint64_t id;

        code = json_u64(v, &id)
                   ? add_token(r, id)
                   : complain(r, "a token id is not a whole number of 0 or more");
    }
    return code;
}

static ckpt_code read_json_value(const reader *r, const json_value *v)
{
    ckpt_code code = CKPT_OK;

    if (json_is_object(v))
        v = json_member(v, "tokens");
    if (!json_is_array(v))
        return complain(r, "expected an array of token ids, or an object with \"tokens\"");
    if (!json_is_array(json_first(v)))
        return read_ids(r, v);
    for (const json_value *row = json_first(v); row != NULL && code == CKPT_OK;
         row = json_next(row))
        code = json_is_array(row) ? read_ids(r, row)
                                  : complain(r, "a mixture of ids and lists of ids");
    return code;
}

static ckpt_code read_json_text(const reader *r, const char *text, size_t size)
{
    json_document *document;
    ckpt_code code = json_parse(text, size, r->subject, &document, r->err);

    if (code != CKPT_OK)
        return code;
    code = read_json_value(r, json_root(document));
    json_free(document);
    return code;
}

/* One document, or one object per line. */
static ckpt_code read_json(const reader *r, const char *text, size_t size)
{
    size_t step;
    const size_t first = line_bytes(text, size, &step);
    ckpt_code code = CKPT_OK;

    if (text[0] != '{' || text[first - 1] != '}')
        return read_json_text(r, text, size);
    for (; size > 0 && code == CKPT_OK; text += step, size -= step) {
        const size_t length = line_bytes(text, size, &step);

        if (length > 0)
            code = read_json_text(r, text, length);
    }
    return code;
}

/* ---- arrays ---- */

/* A row-major array of integers of 1 to 8 bytes. */
typedef struct {
    const unsigned char *data;
    uint64_t rows;
    uint64_t cols;
    unsigned item_bytes;
    int is_signed;
} int_array;

static int64_t item_at(const int_array *a, uint64_t i)
{
    uint64_t bits = 0;

    memcpy(&bits, a->data + i * a->item_bytes, a->item_bytes);
    if (a->is_signed && a->item_bytes < 8 && bits >> (8 * a->item_bytes - 1) != 0)
        bits |= ~UINT64_C(0) << 8 * a->item_bytes;
    return (int64_t)bits;
}

static ckpt_code read_array(const reader *r, const int_array *a)
{
    for (uint64_t row = 0; row < a->rows; row++) {
        uint64_t count = a->cols;
        ckpt_code code = run_prompts_begin(r->out, r->err);

        while (count > 0 && item_at(a, row * a->cols + count - 1) == -1)
            count--;
        for (uint64_t i = 0; i < count && code == CKPT_OK; i++)
            code = add_token(r, (uint64_t)item_at(a, row * a->cols + i));
        if (code != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* Check that the array has ids and fills exactly `size` bytes. */
static ckpt_code check_array(const reader *r, const int_array *a, uint64_t size)
{
    uint64_t count;

    /* A header can claim 2^63 empty rows: do not begin a loop over them. */
    if (a->rows == 0 || a->cols == 0)
        return complain(r, "the array holds no token ids");
    if (!size_mul(a->rows, a->cols, &count) || !size_mul(count, a->item_bytes, &count) ||
        count != size)
        return complain(r, "the size of the array does not match its header");
    return read_array(r, a);
}

static const char *npy_field(const char *header, const char *key)
{
    const char *at = strstr(header, key);

    return at == NULL ? NULL : at + strlen(key);
}

/* Header of an .npy file: {'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), } */
static ckpt_code read_npy(const reader *r, const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    const size_t begin = size > 8 && bytes[6] >= 2 ? 12 : 10;
    int_array a = { .rows = 1 };
    char header[512];
    const char *shape;
    const char *type;
    size_t length;
    char *end;

    if (size < 12)
        return complain(r, "a truncated .npy header");
    length = bytes[8] + 256u * bytes[9];
    if (length >= sizeof header || begin + length > size)
        return complain(r, "an unsupported .npy header");
    memcpy(header, text + begin, length);
    header[length] = '\0';
    type = npy_field(header, "'descr': '");
    shape = npy_field(header, "'shape': (");
    if (type == NULL || shape == NULL || strstr(header, "'fortran_order': False") == NULL ||
        (type[0] != '<' && type[0] != '|') || (type[1] != 'i' && type[1] != 'u') ||
        strchr("1248", type[2]) == NULL || type[2] == '\0')
        return complain(r, "the .npy array is not of little-endian integers in C order");
    a.is_signed = type[1] == 'i';
    a.item_bytes = (unsigned)(type[2] - '0');
    a.cols = strtoull(shape, &end, 10);
    if (end[0] == ',' && end[1] == ' ') {
        a.rows = a.cols;
        a.cols = strtoull(end + 2, &end, 10);
    }
    if (strncmp(end, ")", 1) != 0 && strncmp(end, ",)", 2) != 0)
        return complain(r, "the .npy array has neither one nor two dimensions");
    a.data = bytes + begin + length;
    return check_array(r, &a, size - begin - length);
}

static ckpt_code read_tensor(const reader *r, const json_value *entry, const char *data,
                             size_t size)
{
    const char *dtype = json_string(json_member(entry, "dtype"));
    const json_value *shape = json_member(entry, "shape");
    const json_value *offsets = json_member(entry, "data_offsets");
    int_array a = { .rows = 1 };
    uint64_t begin;
    uint64_t end;

    if (dtype == NULL || (dtype[0] != 'I' && dtype[0] != 'U') || json_count(shape) < 1 ||
        json_count(shape) > 2 || !json_u64(json_first(offsets), &begin) ||
        !json_u64(json_next(json_first(offsets)), &end) || begin > end || end > size)
        return complain(r, "the tensor of tokens must have integers and 1 or 2 dimensions");
    a.is_signed = dtype[0] == 'I';
    a.item_bytes = (unsigned)strtoul(dtype + 1, NULL, 10) / 8;
    if (a.item_bytes != 1 && a.item_bytes != 2 && a.item_bytes != 4 && a.item_bytes != 8)
        return complain(r, "the tensor of tokens has an unknown dtype");
    if (json_count(shape) == 2 && !json_u64(json_first(shape), &a.rows))
        return complain(r, "the tensor of tokens has a bad shape");
    if (!json_u64(json_count(shape) == 2 ? json_next(json_first(shape)) : json_first(shape),
                  &a.cols))
        return complain(r, "the tensor of tokens has a bad shape");
    a.data = (const unsigned char *)data + begin;
    return check_array(r, &a, end - begin);
}

static ckpt_code read_safetensors(const reader *r, const char *text, size_t size)
{
    json_document *document;
    uint64_t length;
    ckpt_code code;

    memcpy(&length, text, sizeof length);
    if (length > size - sizeof length)
        return complain(r, "not a list of token ids, JSON, .npy or safetensors");
    code = json_parse(text + sizeof length, (size_t)length, r->subject, &document, r->err);
    if (code != CKPT_OK)
        return code;
    text += sizeof length + length;
    size -= sizeof length + (size_t)length;
    if (json_member(json_root(document), "tokens") != NULL) {
        code = read_tensor(r, json_member(json_root(document), "tokens"), text, size);
    } else {
        for (size_t i = 0; code == CKPT_OK; i++) {
            char name[32];
            const json_value *entry;

            snprintf(name, sizeof name, "tokens.%zu", i);
            if ((entry = json_member(json_root(document), name)) == NULL)
                break;
            code = read_tensor(r, entry, text, size);
        }
    }
    json_free(document);
    return code;
}

/* ---- all formats ---- */

ckpt_code run_prompts_parse(const char *text, size_t size, const char *subject, run_prompts *out,
                            ckpt_error *err)
{
    const reader r = { out, subject, err };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (size >= 6 && memcmp(text, npy_magic, 6) == 0) {
        code = read_npy(&r, text, size);
    } else if (size > 9 && text[8] == '{' && memchr(text, '\0', 8) != NULL) {
        code = read_safetensors(&r, text, size);
    } else {
        const size_t blank = strspn(text, " \t\r\n");

        code = text[blank] == '[' || text[blank] == '{'
                   ? read_json(&r, text + blank, size - blank)
                   : read_text(&r, text, size);
    }
    if (code == CKPT_OK && out->count == 0)
        code = complain(&r, "it has no prompts");
    for (size_t i = 0; i < out->count && code == CKPT_OK; i++)
        if (out->prompts[i].count == 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s': prompt %zu is empty", subject, i);
    if (code != CKPT_OK)
        run_prompts_free(out);
    return code;
}

static ckpt_code read_stdin(char **out, size_t *size, ckpt_error *err)
{
    char *text = NULL;
    size_t used = 0;
    size_t got = 1;

    while (got > 0) {
        char *grown = used < INPUT_BYTES_MAX && memory_has(used + READ_STEP + 1)
                          ? realloc(text, used + READ_STEP + 1)
                          : NULL;

        if (grown == NULL) {
            free(text);
            return ckpt_fail_memory(err, "standard input", used);
        }
        text = grown;
        got = fread(text + used, 1, READ_STEP, stdin);
        used += got;
    }
    if (ferror(stdin)) {
        const int number = errno;

        free(text);
        return ckpt_fail(err, CKPT_E_IO, "cannot read standard input: %s", strerror(number));
    }
    text[used] = '\0';
    *out = text;
    *size = used;
    return CKPT_OK;
}

ckpt_code run_input_read(const char *path, char **out, size_t *size, ckpt_error *err)
{
    return strcmp(path, "-") == 0 ? read_stdin(out, size, err)
                                  : file_read_named(path, INPUT_BYTES_MAX, out, size, err);
}

ckpt_code run_prompts_read(const char *path, run_prompts *out, ckpt_error *err)
{
    char *text;
    size_t size;
    ckpt_code code = run_input_read(path, &text, &size, err);

    memset(out, 0, sizeof *out);
    if (code != CKPT_OK)
        return code;
    if (memory_take(size)) {
        code = run_prompts_parse(text, size, run_input_name(path), out, err);
        memory_give(size);
    } else {
        code = ckpt_fail_memory(err, path, size);
    }
    free(text);
    return code;
}

/* ---- lists of positions ---- */

static ckpt_code bad_list(const char *text, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%s': expected a list of ascending positions, e.g. 0,5,10-20", text);
}

ckpt_code run_positions_parse(const char *text, uint64_t limit, uint64_t **out, uint64_t *count,
                              ckpt_error *err)
{
    const int all = strcmp(text, "all") == 0;
    const char *at = text;
    uint64_t *list = malloc((limit + 1) * sizeof *list);
    uint64_t next = 0;

    if (list == NULL)
        return ckpt_fail_memory(err, "positions", limit);
    *out = list;
    *count = 0;
    if (all || strcmp(text, "last") == 0) {
        for (uint64_t p = all ? 0 : limit - 1; p < limit; p++)
            list[(*count)++] = p;
        return CKPT_OK;
    }
    for (int more = 1; more; at++) {
        uint64_t first;
        uint64_t last;
        char *end;

        if (*at < '0' || *at > '9')
            return bad_list(text, err);
        first = last = strtoull(at, &end, 10);
        if (*end == '-' && end[1] >= '0' && end[1] <= '9')
            last = strtoull(end + 1, &end, 10);
        if ((*end != ',' && *end != '\0') || first < next || last < first)
            return bad_list(text, err);
        if (last >= limit)
            return ckpt_fail(err, CKPT_E_USAGE,
                             "position %" PRIu64 " of '%s', but the prompt has %" PRIu64 " tokens",
                             last, text, limit);
        for (uint64_t p = first; p <= last; p++)
            list[(*count)++] = p;
        next = last + 1;
        more = *end == ',';
        at = end;
    }
    return CKPT_OK;
}
