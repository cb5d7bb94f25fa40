/* trace.c: collects statistics of the named points row by row. */
#include "trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

/* One line of the output. */
typedef struct trace_line {
    struct trace_line *next;
    run_trace_point point;       /* of the first call; row_count is the total so far */
    int is_cut;
    double min;
    double max;
    double sum;
    double square_sum;
    hash128 digest;
    uint64_t gap_position;
    uint64_t tie_count;
    float **values;              /* per entry of options.positions; NULL: not seen yet */
} trace_line;

struct run_trace {
    run_trace_options options;
    trace_line *first;
    trace_line **end;
};

ckpt_code run_trace_create(const run_trace_options *options, run_trace **out, ckpt_error *err)
{
    run_trace *t = calloc(1, sizeof *t);

    if (t == NULL)
        return ckpt_fail_memory(err, "a trace", sizeof *t);
    t->options = *options;
    t->end = &t->first;
    *out = t;
    return CKPT_OK;
}

void run_trace_free(run_trace *trace)
{
    if (trace == NULL)
        return;
    while (trace->first != NULL) {
        trace_line *line = trace->first;

        trace->first = line->next;
        for (size_t i = 0; line->values != NULL && i < trace->options.position_count; i++)
            free(line->values[i]);
        free(line->values);
        free(line);
    }
    free(trace);
}

static trace_line *find_line(run_trace *t, const run_trace_point *p, int is_cut)
{
    trace_line *line = t->first;

    for (; line != NULL; line = line->next)
        if (line->point.layer == p->layer && line->point.sequence == p->sequence &&
            strcmp(line->point.point, p->point) == 0)
            return line;
    line = calloc(1, sizeof *line);
    if (line == NULL)
        return NULL;
    line->values = calloc(t->options.position_count + 1, sizeof *line->values);
    if (line->values == NULL) {
        free(line);
        return NULL;
    }
    line->point = *p;
    line->point.row_count = 0;
    line->is_cut = is_cut;
    line->min = INFINITY;
    line->max = -INFINITY;
    *t->end = line;
    t->end = &line->next;
    return line;
}

static double number_at(const trace_line *line, const float *row, uint64_t i)
{
    int32_t integer;

    if (!line->point.is_int)
        return (double)row[i];
    memcpy(&integer, row + i, sizeof integer);
    return integer;
}

static ckpt_code keep_values(run_trace *t, trace_line *line, uint64_t position, const float *row,
                             ckpt_error *err)
{
    const size_t bytes = line->point.cols * sizeof *row;

    for (size_t i = 0; i < t->options.position_count; i++) {
        if (t->options.positions[i] != position || line->values[i] != NULL)
            continue;
        if ((line->values[i] = malloc(bytes)) == NULL)
            return ckpt_fail_memory(err, "a trace", bytes);
        memcpy(line->values[i], row, bytes);
    }
    return CKPT_OK;
}

static void add_row(trace_line *line, uint64_t position, const float *row)
{
    double sum = 0;
    double square_sum = 0;

    hash128_add(&line->digest,
                kernels_get()->hash_bytes(row, line->point.cols * sizeof *row, position));
    for (uint64_t i = 0; i < line->point.cols; i++) {
        const double v = number_at(line, row, i);

        line->min = v < line->min ? v : line->min;
        line->max = v > line->max ? v : line->max;
        sum += v;
        square_sum += v * v;
    }
    line->sum += sum;
    line->square_sum += square_sum;
    line->point.row_count++;
}

ckpt_code run_trace_rows(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err)
{
    trace_line *line;
    float *row;
    ckpt_code code = CKPT_OK;

    if (trace == NULL)
        return CKPT_OK;
    line = find_line(trace, point, 0);
    row = malloc(point->cols * sizeof *row);
    if (line == NULL || row == NULL)
        code = ckpt_fail_memory(err, "a trace", point->cols);
    for (uint64_t t = 0; t < point->row_count && code == CKPT_OK; t++) {
        code = backend->ops->buffer_read(point->rows.buffer,
                                         point->rows.offset + t * point->rows.pitch, row,
                                         point->cols, err);
        if (code == CKPT_OK &&
            (code = keep_values(trace, line, point->position + t, row, err)) == CKPT_OK)
            add_row(line, point->position + t, row);
    }
    free(row);
    return code;
}

ckpt_code run_trace_values(run_trace *trace, const run_trace_point *point, const float *values,
                           ckpt_error *err)
{
    trace_line *line;
    ckpt_code code = CKPT_OK;

    if (trace == NULL)
        return CKPT_OK;
    if ((line = find_line(trace, point, 0)) == NULL)
        return ckpt_fail_memory(err, "a trace", point->cols);
    for (uint64_t t = 0; t < point->row_count && code == CKPT_OK; t++) {
        const float *row = values + t * point->cols;

        if ((code = keep_values(trace, line, point->position + t, row, err)) == CKPT_OK)
            add_row(line, point->position + t, row);
    }
    return code;
}

ckpt_code run_trace_gaps(run_trace *trace, const run_backend *backend,
                         const run_trace_point *point, ckpt_error *err)
{
    trace_line *line;

    if (trace == NULL)
        return CKPT_OK;
    if ((line = find_line(trace, point, 1)) == NULL)
        return ckpt_fail_memory(err, "a trace", sizeof *line);
    for (uint64_t t = 0; t < point->row_count; t++) {
        float gap;
        const ckpt_code code =
            backend->ops->buffer_read(point->rows.buffer, point->rows.offset + t, &gap, 1, err);

        if (code != CKPT_OK)
            return code;
        if (!isfinite(gap))
            continue;
        line->point.row_count++;
        line->tie_count += gap == 0;
        if (gap != 0 && (double)gap < line->min) {
            line->min = (double)gap;
            line->gap_position = point->position + t;
        }
    }
    return CKPT_OK;
}

/* ---- writing ---- */

static void put_values(json_writer *w, const run_trace *t, const trace_line *line)
{
    json_member_object(w, "values");
    for (size_t i = 0; i < t->options.position_count; i++) {
        char key[24];

        if (line->values[i] == NULL)
            continue;
        snprintf(key, sizeof key, "%llu", (unsigned long long)t->options.positions[i]);
        json_member_array(w, key);
        for (uint64_t c = 0; c < line->point.cols; c++)
            json_put_double(w, number_at(line, line->values[i], c));
        json_put_array_end(w);
    }
    json_put_object_end(w);
}

static void put_statistics(json_writer *w, const trace_line *line)
{
    const double count = (double)line->point.row_count * (double)line->point.cols;
    char digest[CKPT_DIGEST_HEX];

    snprintf(digest, sizeof digest, "%016llx%016llx", (unsigned long long)line->digest.high64,
             (unsigned long long)line->digest.low64);
    json_member_array(w, "shape");
    json_put_u64(w, line->point.row_count);
    json_put_u64(w, line->point.cols);
    json_put_array_end(w);
    json_member_string(w, "digest", digest);
    json_member_double(w, "min", line->min);
    json_member_double(w, "max", line->max);
    json_member_double(w, "mean", line->sum / count);
    json_member_double(w, "rms", sqrt(line->square_sum / count));
}

static void put_line(json_writer *w, const run_trace *t, const trace_line *line)
{
    json_put_object(w);
    json_member_u64(w, "sequence", line->point.sequence);
    json_member_u64(w, "layer", line->point.layer);
    json_member_string(w, "point", line->point.point);
    if (line->is_cut) {
        json_member_u64(w, "cuts", line->point.row_count);
        json_member_u64(w, "ties", line->tie_count);
        if (isfinite(line->min)) {
            json_member_double(w, "gap", line->min);
            json_member_u64(w, "position", line->gap_position);
        }
    } else {
        put_statistics(w, line);
        put_values(w, t, line);
    }
    json_put_object_end(w);
}

ckpt_code run_trace_finish(run_trace *trace, ckpt_error *err)
{
    for (const trace_line *line = trace->first; line != NULL; line = line->next) {
        json_writer w;

        json_writer_begin(&w, trace->options.write, trace->options.context, 0);
        put_line(&w, trace, line);
        if (!json_writer_end(&w) || trace->options.write(trace->options.context, "\n", 1) != 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot write the trace");
    }
    return CKPT_OK;
}
