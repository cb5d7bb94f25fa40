/* results.c: lays out, fills and exports a file of logits. */
#include "results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/file.h"
#include "libckpt/json.h"
#include "number.h"
#include "libckpt/safetensors_header.h"
#include "libckpt/zfile.h"

typedef enum {
    PART_TOKENS, PART_POSITIONS, PART_ROWS, PART_IDS, PART_SUMS, PART_GENERATED, PART_MTP_POSITIONS,
    PART_MTP_ROWS, PART_MTP_IDS, PART_MTP_SUMS, PART_COUNT
} result_part;

/* One tensor of the file; rows 0: the file does not have it. */
typedef struct {
    char name[48];
    uint64_t rows;
    uint64_t cols;               /* 0: rank 1 */
    uint64_t offset;             /* in the file */
    int is_int;
} result_tensor;

struct run_results {
    run_results_options options;
    result_tensor *tensors;      /* PART_COUNT for each prompt */
    ckpt_file *file;             /* temporary; renamed to options.path at the end */
    int32_t *ids;                /* scratch for options.top ids, and values */
    float *values;
};

/* ---- a row's best ---- */

static int is_better(float a, int32_t a_id, float b, int32_t b_id)
{
    return a > b || (a == b && a_id < b_id);
}

/* The `count` best of the logits, ties by lower id: by insertion into a sorted list. */
static void find_top(const float *logits, uint32_t vocab_size, uint32_t count, int32_t *ids,
                     float *values)
{
    uint32_t used = 0;

    for (uint32_t v = 0; v < vocab_size; v++) {
        uint32_t at = used;

        if (used == count && !is_better(logits[v], (int32_t)v, values[used - 1], ids[used - 1]))
            continue;
        while (at > 0 && is_better(logits[v], (int32_t)v, values[at - 1], ids[at - 1]))
            at--;
        used += used < count;
        memmove(ids + at + 1, ids + at, (used - 1 - at) * sizeof *ids);
        memmove(values + at + 1, values + at, (used - 1 - at) * sizeof *values);
        ids[at] = (int32_t)v;
        values[at] = logits[v];
    }
}

static float logsumexp(const float *logits, uint32_t vocab_size)
{
    float max = logits[0];
    double sum = 0;

    for (uint32_t v = 1; v < vocab_size; v++)
        max = logits[v] > max ? logits[v] : max;
    for (uint32_t v = 0; v < vocab_size; v++)
        sum += run_exp((double)logits[v] - (double)max);
    return (float)((double)max + log(sum));
}

/* ---- layout ---- */

static result_tensor *part_of(const run_results *r, size_t prompt, result_part part)
{
    return &r->tensors[prompt * PART_COUNT + part];
}

static void describe(run_results *r, size_t prompt)
{
    const run_result_plan *p = &r->options.plans[prompt];
    const uint32_t top = r->options.top;
    const uint64_t width = top > 0 ? top : r->options.vocab_size;
    const uint64_t m = p->mtp_position_count;
    const char *rows = top > 0 ? "top_logits" : "logits";
    const struct {
        const char *prefix;
        const char *name;
        uint64_t rows;
        uint64_t cols;
        int is_int;
    } all[PART_COUNT] = {
        { "", "tokens", p->token_count, 0, 1 },
        { "", "positions", p->position_count, 0, 1 },
        { "", rows, p->position_count, width, 0 },
        { "", "top_ids", top > 0 ? p->position_count : 0, width, 1 },
        { "", "logsumexp", top > 0 ? p->position_count : 0, 0, 0 },
        { "", "generated", p->generate_count, 0, 1 },
        { "mtp_", "positions", m, 0, 1 },
        { "mtp_", rows, m, width, 0 },
        { "mtp_", "top_ids", top > 0 ? m : 0, width, 1 },
        { "mtp_", "logsumexp", top > 0 ? m : 0, 0, 0 },
    };

    for (int i = 0; i < PART_COUNT; i++) {
        result_tensor *t = part_of(r, prompt, (result_part)i);
        char number[24] = "";

        if (r->options.plan_count > 1)
            snprintf(number, sizeof number, ".%zu", prompt);
        snprintf(t->name, sizeof t->name, "%s%s%s", all[i].prefix, all[i].name, number);
        t->rows = all[i].rows;
        t->cols = all[i].cols;
        t->is_int = all[i].is_int;
    }
}

static ckpt_tensor tensor_of(const result_tensor *t)
{
    const ckpt_tensor tensor = {
        .name = t->name,
        .dtype = t->is_int ? CKPT_I32 : CKPT_F32,
        .rank = t->cols == 0 ? 1 : 2,
        .shape = { t->rows, t->cols },
    };

    return tensor;
}

/* Write the header, and change the offsets of tensors from relative to the data to absolute. */
static ckpt_code write_header(run_results *r, ckpt_error *err)
{
    const size_t count = r->options.plan_count * PART_COUNT;
    safetensors_header h;
    ckpt_code code;
    uint64_t end = 0;
    char *bytes;
    size_t size;

    safetensors_header_begin(&h);
    json_member_object(&h.json, "__metadata__");
    for (const char *const *m = r->options.metadata; m[0] != NULL; m += 2)
        json_member_string(&h.json, m[0], m[1]);
    json_put_object_end(&h.json);
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor t = tensor_of(&r->tensors[i]);

        if (t.shape[0] > 0)
            safetensors_header_put(&h, t.name, &t, end);
        r->tensors[i].offset = end;
        end += ckpt_part_bytes(&t, CKPT_DATA);
    }
    if ((code = safetensors_header_end(&h, &bytes, &size, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < count; i++)
        r->tensors[i].offset += size;
    if ((code = file_write_at(r->file, 0, bytes, size, err)) == CKPT_OK)
        code = file_set_size(r->file, size + end, err);
    free(bytes);
    return code;
}

static ckpt_code put_rows(run_results *r, const result_tensor *t, uint64_t row, const void *data,
                          uint64_t count, ckpt_error *err)
{
    return file_write_at(r->file, t->offset + row * (t->cols == 0 ? 1 : t->cols) * sizeof(float),
                         data, count * sizeof(float), err);
}

/* Write tokens and positions, which are known from the start. */
static ckpt_code write_known(run_results *r, size_t prompt, ckpt_error *err)
{
    const run_result_plan *p = &r->options.plans[prompt];
    int32_t *numbers = malloc((p->position_count + 1) * sizeof *numbers);
    ckpt_code code;

    if (numbers == NULL)
        return ckpt_fail_memory(err, "positions", p->position_count);
    for (uint64_t i = 0; i < p->position_count; i++)
        numbers[i] = (int32_t)p->positions[i];
    if ((code = put_rows(r, part_of(r, prompt, PART_TOKENS), 0, p->tokens, p->token_count,
                         err)) == CKPT_OK &&
        (code = put_rows(r, part_of(r, prompt, PART_POSITIONS), 0, numbers, p->position_count,
                         err)) == CKPT_OK)
        code = put_rows(r, part_of(r, prompt, PART_MTP_POSITIONS), 0, numbers,
                        p->mtp_position_count, err);
    free(numbers);
    return code;
}

ckpt_code run_results_create(const run_results_options *options, run_results **out,
                             ckpt_error *err)
{
    run_results *r = calloc(1, sizeof *r);
    ckpt_code code;

    if (r == NULL)
        return ckpt_fail_memory(err, "results", sizeof *r);
    r->options = *options;
    r->tensors = calloc(options->plan_count * PART_COUNT, sizeof *r->tensors);
    r->ids = malloc((options->top + 1) * sizeof *r->ids);
    r->values = malloc((options->top + 1) * sizeof *r->values);
    if (r->tensors == NULL || r->ids == NULL || r->values == NULL) {
        run_results_abort(r);
        return ckpt_fail_memory(err, "results", options->plan_count);
    }
    for (size_t i = 0; i < options->plan_count; i++)
        describe(r, i);
    if ((code = file_begin_replacing(options->path, &r->file, err)) == CKPT_OK)
        code = write_header(r, err);
    for (size_t i = 0; i < options->plan_count && code == CKPT_OK; i++)
        code = write_known(r, i, err);
    if (code != CKPT_OK)
        run_results_abort(r);
    else
        *out = r;
    return code;
}

/* ---- filling ---- */

/* Write the logits of position i. `parts`: PART_ROWS, PART_IDS and PART_SUMS, or those of MTP. */
static ckpt_code put_logits(run_results *r, const result_tensor *parts, uint64_t i,
                            const float *logits, ckpt_error *err)
{
    const uint32_t top = r->options.top;
    float sum;
    ckpt_code code;

    if (top == 0)
        return put_rows(r, &parts[0], i, logits, r->options.vocab_size, err);
    find_top(logits, r->options.vocab_size, top, r->ids, r->values);
    sum = logsumexp(logits, r->options.vocab_size);
    if ((code = put_rows(r, &parts[0], i, r->values, top, err)) != CKPT_OK ||
        (code = put_rows(r, &parts[1], i, r->ids, top, err)) != CKPT_OK)
        return code;
    return put_rows(r, &parts[2], i, &sum, 1, err);
}

ckpt_code run_results_put(run_results *results, size_t prompt, uint64_t i, const float *logits,
                          ckpt_error *err)
{
    return put_logits(results, part_of(results, prompt, PART_ROWS), i, logits, err);
}

ckpt_code run_results_put_mtp(run_results *results, size_t prompt, uint64_t i,
                              const float *logits, ckpt_error *err)
{
    return put_logits(results, part_of(results, prompt, PART_MTP_ROWS), i, logits, err);
}

ckpt_code run_results_put_generated(run_results *results, size_t prompt, const int32_t *ids,
                                    ckpt_error *err)
{
    return put_rows(results, part_of(results, prompt, PART_GENERATED), 0, ids,
                    results->options.plans[prompt].generate_count, err);
}

/* ---- commit and abort ---- */

static void results_free(run_results *r)
{
    free(r->tensors);
    free(r->ids);
    free(r->values);
    free(r);
}

void run_results_abort(run_results *results)
{
    if (results == NULL)
        return;
    file_abort_replacing(results->file);
    results_free(results);
}

ckpt_code run_results_commit(run_results *results, ckpt_error *err)
{
    const ckpt_code code = file_commit_replacing(results->file, results->options.path, err);

    results_free(results);
    return code;
}

/* ---- JSONL ---- */

/* Copy one row from the file to the JSON as an array; a tensor of rank 1 is one row. */
static ckpt_code export_row(run_results *r, json_writer *w, const result_tensor *t, uint64_t row,
                            ckpt_error *err)
{
    const uint64_t cols = t->cols == 0 ? t->rows : t->cols;
    float *values = malloc((cols + 1) * sizeof *values);
    ckpt_code code;

    if (values == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof *values);
    code = file_read_at(r->file, t->offset + row * cols * sizeof *values, values,
                        cols * sizeof *values, err);
    json_put_array(w);
    for (uint64_t i = 0; i < cols && code == CKPT_OK; i++) {
        int32_t integer;

        memcpy(&integer, &values[i], sizeof integer);
        if (t->is_int)
            json_put_i64(w, integer);
        else
            json_put_double(w, (double)values[i]);
    }
    json_put_array_end(w);
    free(values);
    return code;
}

static ckpt_code export_tensor(run_results *r, json_writer *w, const result_tensor *t,
                               ckpt_error *err)
{
    char name[sizeof t->name];
    ckpt_code code = CKPT_OK;

    snprintf(name, sizeof name, "%s", t->name);
    if (strchr(name, '.') != NULL)
        *strchr(name, '.') = '\0';               /* drop the number of the prompt: see "prompt" */
    json_put_key(w, name);
    if (t->cols == 0)
        return export_row(r, w, t, 0, err);
    json_put_array(w);
    for (uint64_t row = 0; row < t->rows && code == CKPT_OK; row++)
        code = export_row(r, w, t, row, err);
    json_put_array_end(w);
    return code;
}

static ckpt_code export_prompt(run_results *r, size_t prompt, zfile_writer *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    json_writer w;

    json_writer_begin(&w, zfile_write, out, 0);
    json_put_object(&w);
    json_member_u64(&w, "prompt", prompt);
    for (int i = 0; i < PART_COUNT && code == CKPT_OK; i++)
        if (part_of(r, prompt, (result_part)i)->rows > 0)
            code = export_tensor(r, &w, part_of(r, prompt, (result_part)i), err);
    json_put_object_end(&w);
    (void)json_writer_end(&w);                   /* zfile_commit returns a write error */
    zfile_write(out, "\n", 1);
    return code;
}

ckpt_code run_results_commit_jsonl(run_results *results, ckpt_error *err)
{
    zfile_writer *out = NULL;
    ckpt_code code = zfile_create(results->options.path, &out, err);

    for (size_t i = 0; i < results->options.plan_count && code == CKPT_OK; i++)
        code = export_prompt(results, i, out, err);
    if (code == CKPT_OK)
        code = zfile_commit(out, err);
    else
        zfile_abort(out);
    run_results_abort(results);                  /* removes the temporary safetensors file */
    return code;
}
