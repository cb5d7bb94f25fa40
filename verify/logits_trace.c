/* Finds the first difference of two traces. */
#include "logits.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/error.h"
#include "libckpt/json.h"

enum { TRACE_LINE_BYTES = 1 << 20 };

/* One line of a trace. */
typedef struct {
    uint64_t sequence;
    uint64_t layer;
    char point[LOGITS_POINT_BYTES];
    char digest[CKPT_DIGEST_HEX];      /* "": a top-k cut */
    uint64_t shape[2];
    double rms;
    double gap;                        /* of a cut; NaN: nothing was cut */
    uint64_t gap_position;
} trace_line;

typedef struct {
    const char *path;
    trace_line *lines;
    size_t count;
} trace_file;

static ckpt_code bad_line(const trace_file *f, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "line %zu of the trace '%s': %s", f->count + 1, f->path,
                     what);
}

static double number_of(const json_value *object, const char *key)
{
    double number;

    return json_number(json_member(object, key), &number) ? number : (double)NAN;
}

static ckpt_code read_line(const trace_file *f, const json_value *v, trace_line *out,
                           ckpt_error *err)
{
    const char *point = json_string(json_member(v, "point"));
    const char *digest = json_string(json_member(v, "digest"));
    const json_value *shape = json_member(v, "shape");

    if (!json_u64(json_member(v, "sequence"), &out->sequence) ||
        !json_u64(json_member(v, "layer"), &out->layer) || point == NULL ||
        strlen(point) >= sizeof out->point)
        return bad_line(f, "expected sequence, layer and point", err);
    snprintf(out->point, sizeof out->point, "%s", point);
    out->rms = number_of(v, "rms");
    out->gap = number_of(v, "gap");
    (void)json_u64(json_member(v, "position"), &out->gap_position);
    if (json_member(v, "cuts") != NULL)
        return CKPT_OK;
    if (digest == NULL || strlen(digest) != sizeof out->digest - 1 || json_count(shape) != 2 ||
        !json_u64(json_first(shape), &out->shape[0]) ||
        !json_u64(json_next(json_first(shape)), &out->shape[1]))
        return bad_line(f, "expected digest and shape", err);
    snprintf(out->digest, sizeof out->digest, "%s", digest);
    return CKPT_OK;
}

static ckpt_code add_line(trace_file *f, const char *text, size_t size, ckpt_error *err)
{
    json_document *document = NULL;
    trace_line line = { .point = "" };
    trace_line *lines;
    ckpt_code code = json_parse(text, size, f->path, &document, err);

    if (code == CKPT_OK)
        code = read_line(f, json_root(document), &line, err);
    json_free(document);
    if (code != CKPT_OK)
        return code;
    if ((lines = array_room_counted(f->lines, f->count, sizeof *lines, "a trace", err)) == NULL)
        return CKPT_E_MEMORY;
    f->lines = lines;
    lines[f->count++] = line;
    return CKPT_OK;
}

/* One line at a time: a trace may be larger than memory and come from a pipe. */
static ckpt_code read_lines(trace_file *f, FILE *in, char *text, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    int c;

    do {
        size_t size = 0;

        while ((c = getc(in)) != EOF && c != '\n') {
            if (size == TRACE_LINE_BYTES)
                return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has a line that is too long: expected "
                                 "at most %d bytes", f->path, TRACE_LINE_BYTES);
            text[size++] = (char)c;
        }
        if (c != EOF || size > 0)
            code = add_line(f, text, size, err);
    } while (code == CKPT_OK && c != EOF);
    if (code == CKPT_OK && ferror(in))
        return ckpt_fail(err, CKPT_E_IO, "cannot read '%s'", f->path);
    if (code == CKPT_OK && f->count == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "nothing to compare: the trace '%s' is empty",
                         f->path);
    return code;
}

static ckpt_code read_trace(trace_file *f, ckpt_error *err)
{
    FILE *in = fopen(f->path, "r");
    char *text;
    ckpt_code code;

    if (in == NULL)
        return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", f->path, strerror(errno));
    text = malloc(TRACE_LINE_BYTES);
    code = text == NULL ? ckpt_fail_memory(err, "a line", TRACE_LINE_BYTES)
                        : read_lines(f, in, text, err);
    free(text);
    fclose(in);
    return code;
}

/* Both traces are in execution order, so the search starts after the last line found. */
static const trace_line *find_line(const trace_file *f, const trace_line *like, size_t *from)
{
    for (size_t n = 0; n < f->count; n++) {
        const size_t i = (*from + n) % f->count;
        const trace_line *line = &f->lines[i];

        if (line->layer == like->layer && line->sequence == like->sequence &&
            strcmp(line->point, like->point) == 0) {
            *from = i + 1;
            return line;
        }
    }
    return NULL;
}

/* The cut that selects this set; NULL: the point is not a set. */
static const char *cut_of(const char *point)
{
    if (strcmp(point, "index_set") == 0)
        return "indexer";
    return strcmp(point, "gate.ids") == 0 ? "router" : NULL;
}

static void take_point(logits_point *out, const trace_line *a, const trace_line *b)
{
    out->is_found = 1;
    out->sequence = a->sequence;
    out->layer = a->layer;
    snprintf(out->point, sizeof out->point, "%s", a->point);
    out->is_missing = b == NULL;
    out->a_rms = a->rms;
    out->b_rms = b == NULL ? (double)NAN : b->rms;
}

static void take_gap(const trace_file *f, const trace_line *set, logits_trace *out)
{
    trace_line cut = *set;
    const trace_line *line;
    size_t from = 0;

    snprintf(cut.point, sizeof cut.point, "%s", cut_of(set->point));
    line = find_line(f, &cut, &from);
    if (line == NULL || isnan(line->gap) || line->gap >= out->gap)
        return;
    out->gap = line->gap;
    out->gap_position = line->gap_position;
}

static ckpt_code compare_lines(const trace_file *a, const trace_file *b, logits_trace *out,
                               ckpt_error *err)
{
    size_t from = 0;

    for (size_t i = 0; i < a->count; i++) {
        const trace_line *x = &a->lines[i];
        const trace_line *y = find_line(b, x, &from);

        if (x->digest[0] == '\0')
            continue;
        out->point_count++;
        if (y != NULL && memcmp(x->shape, y->shape, sizeof x->shape) != 0)
            return ckpt_fail(err, CKPT_E_USAGE, "cannot compare the traces '%s' and '%s': '%s' of "
                             "layer %" PRIu64 " is %" PRIu64 " x %" PRIu64 " and %" PRIu64
                             " x %" PRIu64, a->path, b->path, x->point, x->layer, x->shape[0],
                             x->shape[1], y->shape[0], y->shape[1]);
        if (y != NULL && strcmp(x->digest, y->digest) == 0)
            continue;
        out->different_count++;
        if (!out->first.is_found)
            take_point(&out->first, x, y);
        if (!out->selection.is_found && cut_of(x->point) != NULL) {
            take_point(&out->selection, x, y);
            out->gap = INFINITY;
            take_gap(a, x, out);
            take_gap(b, x, out);
        }
    }
    if (out->point_count == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "nothing to compare: the trace '%s' has no points",
                         a->path);
    return CKPT_OK;
}

ckpt_code logits_compare_traces(const char *a_path, const char *b_path, logits_trace *out,
                                ckpt_error *err)
{
    trace_file a = { .path = a_path };
    trace_file b = { .path = b_path };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    out->gap = INFINITY;
    if ((code = read_trace(&a, err)) == CKPT_OK && (code = read_trace(&b, err)) == CKPT_OK)
        code = compare_lines(&a, &b, out, err);
    out->is_near_tie = out->gap < LOGITS_NEAR_TIE;
    if (isinf(out->gap))
        out->gap = (double)NAN;
    array_free_counted(a.lines, a.count, sizeof *a.lines);
    array_free_counted(b.lines, b.count, sizeof *b.lines);
    return code;
}
