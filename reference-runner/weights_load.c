/* weights_load.c: reads and checks weights on separate threads. */
#include "weights_load.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"
#include "libckpt/values.h"

/* Tile sizes. LOAD_TILE_BYTES: large enough for copies at full speed, small enough to have many in
 * flight. LOAD_FEW_BYTES: small enough to divide a few weights among all threads. */
enum { LOAD_TILE_BYTES = 1 << 22, LOAD_FEW_BYTES = 1 << 20, STAGES = 2 };

struct load_task {
    load_task *next;
    load_team *team;
    load_job job;
    uint64_t tile_rows;
    uint64_t tile_count;
    uint64_t begun_count;
    uint64_t done_count;
    size_t *bands;             /* for single rows: index in `rows` of the first row of each tile */
    uint64_t error_tile;       /* the first failed tile: `err` must not depend on timing */
    ckpt_code code;
    ckpt_error err;
};

struct load_team {
    load_options options;
    uint64_t stage_bytes;
    uint64_t tile_bytes;       /* for new tasks */
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    pthread_cond_t done;
    load_task *first;          /* queue of the tasks with tiles that no thread has begun */
    load_task **last;
    pthread_t *threads;
    unsigned thread_count;
    int closing;
};

/* ---- values ---- */

#define ANY_BITS(type, mask)                                                     \
    do {                                                                         \
        const size_t count = (size_t)(bytes / sizeof(type));                     \
        unsigned found = 0;                                                      \
        for (size_t i = 0; i < count; i++) {                                     \
            type value;                                                          \
            memcpy(&value, (const char *)data + i * sizeof value, sizeof value); \
            found |= (value & (mask)) == (mask);                                 \
        }                                                                        \
        return found != 0;                                                       \
    } while (0)

static int has_not_finite(ckpt_dtype dtype, const void *data, uint64_t bytes)
{
    switch (dtype) {
    case CKPT_F8_E4M3:
        ANY_BITS(uint8_t, 0x7Fu);
    case CKPT_F8_E8M0:
        ANY_BITS(uint8_t, 0xFFu);
    case CKPT_F8_E5M2:
        ANY_BITS(uint8_t, 0x7Cu);
    case CKPT_F16:
        ANY_BITS(uint16_t, 0x7C00u);
    case CKPT_BF16:
        ANY_BITS(uint16_t, 0x7F80u);
    case CKPT_F32:
        ANY_BITS(uint32_t, 0x7F800000u);
    default:
        return 0;
    }
}

static ckpt_code check_tile(const ckpt_tensor *t, const source_range *range, const ckpt_tile *tile,
                            ckpt_error *err)
{
    uint64_t row;
    uint64_t scale_rows = 0;
    ckpt_code code;

    if (t->scale_dtype != CKPT_NONE)
        source_scale_rows(t, range, &row, &scale_rows);
    if (has_not_finite(t->dtype, tile->part[CKPT_DATA],
                       range->row_count * ckpt_part_row_bytes(t, CKPT_DATA)) ||
        (scale_rows > 0 && has_not_finite(t->scale_dtype, tile->part[CKPT_SCALE],
                                          scale_rows * ckpt_part_row_bytes(t, CKPT_SCALE))))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "tensor '%s' has a NaN or an infinity in rows %" PRIu64 " to %" PRIu64,
                         t->name, range->row, range->row + range->row_count - 1);
    code = values_check_whole_scale(t, tile, err);
    return code == CKPT_OK ? values_check(t, range, tile, err) : code;
}

/* ---- one tile ---- */

/* A tile that was read. */
typedef struct {
    const load_task *task;
    uint64_t i;
    source_range range;
    ckpt_tile tile;
    run_stage *stage;
} read_tile;

static ckpt_code put_ints(const read_tile *r, const values_reader *reader, int64_t *row,
                          ckpt_error *err)
{
    const load_job *job = &r->task->job;

    for (uint64_t i = 0; i < r->range.row_count; i++) {
        values_i64(reader, i, row);
        for (uint64_t c = 0; c < reader->cols; c++) {
            if (row[c] < 0 || row[c] > INT32_MAX)
                return ckpt_fail(err, CKPT_E_FORMAT,
                                 "tensor '%s' holds %" PRId64 " in row %" PRIu64,
                                 reader->tensor->name, row[c], r->range.row + i);
            job->ints[(r->range.row - job->row + i) * reader->cols + c] = (int32_t)row[c];
        }
    }
    return CKPT_OK;
}

static void put_floats(const read_tile *r, values_reader *reader)
{
    const load_task *task = r->task;
    const load_job *job = &task->job;

    if (job->rows != NULL)
        for (size_t i = task->bands[r->i]; i < task->bands[r->i + 1]; i++)
            values_f32(reader, job->rows[i].id - r->range.row, 0, reader->cols,
                       job->floats + job->rows[i].place * reader->cols);
    else
        for (uint64_t i = 0; i < r->range.row_count; i++)
            values_f32(reader, i, 0, reader->cols,
                       job->floats + (r->range.row - job->row + i) * reader->cols);
}

ckpt_tensor load_form(const run_backend *backend, const ckpt_tensor *tensor)
{
    ckpt_tensor form = *tensor;

    if (!backend->ops->takes(tensor))
        catalog_set_plain(&form, CKPT_F32);
    return form;
}

/* Bytes of scratch in which a tile is decoded for the backend. */
static uint64_t form_need(const run_backend *backend, const ckpt_tensor *t, uint64_t row_count)
{
    return backend->ops->takes(t) ? 0
                                  : arena_cost(row_count * ckpt_tensor_cols(t) * sizeof(float));
}

/* Decode the tile that was read to F32. The result is in the stage, from which devices copy. */
static ckpt_code decode_tile(const read_tile *r, const ckpt_tensor *t, arena *scratch,
                             ckpt_tile *out, ckpt_error *err)
{
    const uint64_t bytes = r->range.row_count * ckpt_tensor_cols(t) * sizeof(float);
    float *values = arena_alloc(scratch, bytes);
    values_reader reader;
    ckpt_code code;

    if (values == NULL)
        return ckpt_fail_memory(err, "a decoded tile", bytes);
    if ((code = values_begin(&reader, t, &r->tile, scratch, err)) != CKPT_OK)
        return code;
    for (uint64_t i = 0; i < r->range.row_count; i++)
        values_f32(&reader, i, 0, reader.cols, values + i * reader.cols);
    *out = (ckpt_tile){ .part = { [CKPT_DATA] = values }, .part_bytes = { [CKPT_DATA] = bytes } };
    return CKPT_OK;
}

static ckpt_code put_weight(const read_tile *r, const ckpt_tensor *t, arena *scratch,
                            ckpt_error *err)
{
    const run_backend_ops *ops = r->task->team->options.backend->ops;
    const load_job *job = &r->task->job;
    ckpt_tile decoded;
    ckpt_code code;

    if (ops->takes(t))
        return ops->weight_put(job->weight, r->range.row - job->row, r->range.row_count, &r->tile,
                               r->stage, err);
    if ((code = decode_tile(r, t, scratch, &decoded, err)) != CKPT_OK)
        return code;
    return ops->weight_put(job->weight, r->range.row - job->row, r->range.row_count, &decoded,
                           r->stage, err);
}

static ckpt_code put_tile(const read_tile *r, arena *scratch, ckpt_error *err)
{
    const load_options *o = &r->task->team->options;
    const load_job *job = &r->task->job;
    const ckpt_tensor *t = ckpt_catalog_at(o->source->catalog, job->tensor);
    values_reader reader;
    int64_t *row;
    ckpt_code code;

    if ((code = check_tile(t, &r->range, &r->tile, err)) != CKPT_OK)
        return code;
    if (job->weight != NULL)
        return put_weight(r, t, scratch, err);
    if ((code = values_begin(&reader, t, &r->tile, scratch, err)) != CKPT_OK)
        return code;
    if (job->ints == NULL) {
        put_floats(r, &reader);
        return CKPT_OK;
    }
    row = arena_alloc(scratch, reader.cols * sizeof *row);
    return row == NULL ? ckpt_fail_memory(err, "a row", reader.cols)
                       : put_ints(r, &reader, row, err);
}

static source_range tile_range(const load_task *task, uint64_t i)
{
    const load_job *job = &task->job;
    const ckpt_tensor *t =
        ckpt_catalog_at(task->team->options.source->catalog, job->tensor);
    source_range range = { job->tensor, job->row + i * task->tile_rows, 0, SOURCE_WANT_ALL };

    if (job->rows != NULL) {
        range.row = job->rows[task->bands[i]].id / SOURCE_BAND_ROWS * SOURCE_BAND_ROWS;
        range.row_count = size_min(SOURCE_BAND_ROWS, ckpt_tensor_rows(t) - range.row);
    } else {
        range.row_count = size_min(task->tile_rows, job->row + job->row_count - range.row);
    }
    return range;
}

static ckpt_code load_tile(const load_task *task, uint64_t i, run_stage *stage, ckpt_error *err)
{
    const load_options *o = &task->team->options;
    read_tile r = { .task = task, .i = i, .range = tile_range(task, i), .stage = stage };
    arena scratch;
    ckpt_code code = o->backend->ops->stage_wait(stage, err);

    if (code != CKPT_OK)
        return code;
    arena_init_on(&scratch, stage->memory, stage->bytes);
    code = source_read_tile(o->source, &r.range, &scratch, &r.tile, err);
    return code != CKPT_OK ? code : put_tile(&r, &scratch, err);
}

/* ---- the team ---- */

static uint64_t tile_rows_of(const run_backend *backend, const ckpt_tensor *t,
                             uint64_t tile_bytes)
{
    const ckpt_tensor form = load_form(backend, t);
    const uint64_t row_bytes = size_max(ckpt_part_row_bytes(&form, CKPT_DATA), 1);

    return size_max(tile_bytes / row_bytes / SOURCE_BAND_ROWS * SOURCE_BAND_ROWS,
                    SOURCE_BAND_ROWS);
}

/* The stage size that the largest tile of any tensor needs. */
static uint64_t largest_tile(const load_options *o)
{
    const ckpt_catalog *catalog = o->source->catalog;
    uint64_t most = 0;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const uint64_t rows =
            size_min(tile_rows_of(o->backend, t, LOAD_TILE_BYTES), ckpt_tensor_rows(t));

        most = size_max(most, source_need(o->source, i, rows) + values_need(t) +
                                  form_need(o->backend, t, rows) +
                                  arena_cost(ckpt_tensor_cols(t) * sizeof(int64_t)));
    }
    return most;
}

static void record_error(load_task *task, uint64_t tile, ckpt_code code, const ckpt_error *err)
{
    if (task->code != CKPT_OK && task->error_tile < tile)
        return;
    task->code = code;
    task->err = *err;
    task->error_tile = tile;
}

/* Load tiles until the team closes. Called with the lock held; it is released during each load. */
static void work_on(load_team *team, run_stage **stages)
{
    const run_backend_ops *ops = team->options.backend->ops;
    unsigned turn = 0;

    while (!team->closing) {
        load_task *task = team->first;
        ckpt_code code = CKPT_OK;
        ckpt_error err;
        uint64_t i;

        if (task == NULL) {
            pthread_cond_wait(&team->wanted, &team->lock);
            continue;
        }
        i = task->begun_count++;
        if (task->begun_count == task->tile_count && (team->first = task->next) == NULL)
            team->last = &team->first;
        pthread_mutex_unlock(&team->lock);
        turn = (turn + 1) % STAGES;
        if (stages[turn] == NULL)
            code = ops->stage_create(team->options.backend, team->stage_bytes, &stages[turn],
                                     &err);
        if (code == CKPT_OK)
            code = load_tile(task, i, stages[turn], &err);
        pthread_mutex_lock(&team->lock);
        if (code != CKPT_OK)
            record_error(task, i, code, &err);
        if (++task->done_count == task->tile_count)
            pthread_cond_broadcast(&team->done);
    }
}

static void *work(void *context)
{
    load_team *team = context;
    run_stage *stages[STAGES] = { NULL };
    ckpt_error err;

    pthread_mutex_lock(&team->lock);
    work_on(team, stages);
    pthread_mutex_unlock(&team->lock);
    for (int i = 0; i < STAGES; i++) {
        if (stages[i] != NULL)
            team->options.backend->ops->stage_wait(stages[i], &err);
        team->options.backend->ops->stage_free(team->options.backend, stages[i]);
    }
    return NULL;
}

ckpt_code load_team_open(const load_options *options, load_team **out, ckpt_error *err)
{
    load_team *team = calloc(1, sizeof *team);

    if (team == NULL)
        return ckpt_fail_memory(err, "reading threads", sizeof *team);
    team->options = *options;
    team->stage_bytes = largest_tile(options);
    team->tile_bytes = LOAD_TILE_BYTES;
    team->last = &team->first;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wanted, NULL);
    pthread_cond_init(&team->done, NULL);
    team->threads = calloc(options->thread_count, sizeof *team->threads);
    while (team->threads != NULL && team->thread_count < options->thread_count &&
           pthread_create(&team->threads[team->thread_count], NULL, work, team) == 0)
        team->thread_count++;
    if (team->thread_count == 0) {
        load_team_close(team);
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot start a thread that reads");
    }
    *out = team;
    return CKPT_OK;
}

void load_team_close(load_team *team)
{
    if (team == NULL)
        return;
    pthread_mutex_lock(&team->lock);
    team->closing = 1;
    pthread_cond_broadcast(&team->wanted);
    pthread_mutex_unlock(&team->lock);
    for (unsigned i = 0; i < team->thread_count; i++)
        pthread_join(team->threads[i], NULL);
    pthread_mutex_destroy(&team->lock);
    pthread_cond_destroy(&team->wanted);
    pthread_cond_destroy(&team->done);
    free(team->threads);
    free(team);
}

uint64_t load_team_bytes(const load_team *team)
{
    return team->thread_count * STAGES * team->stage_bytes;
}

/* ---- loads ---- */

void load_team_expect(load_team *team, int is_few)
{
    team->tile_bytes = is_few ? LOAD_FEW_BYTES : LOAD_TILE_BYTES;
}

/* Divide single rows into tiles: one for each band of the tensor that contains any of them. */
static ckpt_code find_bands(load_task *task, ckpt_error *err)
{
    const load_job *job = &task->job;

    task->bands = malloc((job->single_count + 1) * sizeof *task->bands);
    if (task->bands == NULL)
        return ckpt_fail_memory(err, "rows", job->single_count);
    for (size_t i = 0; i < job->single_count; i++)
        if (i == 0 || job->rows[i].id / SOURCE_BAND_ROWS != job->rows[i - 1].id / SOURCE_BAND_ROWS)
            task->bands[task->tile_count++] = i;
    task->bands[task->tile_count] = job->single_count;
    return CKPT_OK;
}

static void task_free(load_task *task)
{
    free(task->bands);
    free(task);
}

ckpt_code load_begin(load_team *team, const load_job *job, load_task **out, ckpt_error *err)
{
    load_task *task = calloc(1, sizeof *task);
    ckpt_code code = CKPT_OK;

    if (task == NULL)
        return ckpt_fail_memory(err, "a tensor", sizeof *task);
    task->team = team;
    task->job = *job;
    task->tile_rows = tile_rows_of(team->options.backend,
                                   ckpt_catalog_at(team->options.source->catalog, job->tensor),
                                   team->tile_bytes);
    if (job->rows != NULL)
        code = find_bands(task, err);
    else
        task->tile_count = size_div_up(job->row_count, task->tile_rows);
    if (code != CKPT_OK) {
        task_free(task);
        return code;
    }
    *out = task;
    if (task->tile_count == 0)
        return CKPT_OK;
    pthread_mutex_lock(&team->lock);
    *team->last = task;
    team->last = &task->next;
    pthread_cond_broadcast(&team->wanted);
    pthread_mutex_unlock(&team->lock);
    return CKPT_OK;
}

ckpt_code load_end(load_task *task, ckpt_error *err)
{
    load_team *team = task->team;
    ckpt_code code;

    pthread_mutex_lock(&team->lock);
    while (task->done_count < task->tile_count)
        pthread_cond_wait(&team->done, &team->lock);
    pthread_mutex_unlock(&team->lock);
    code = task->code;
    if (code != CKPT_OK && err != NULL)
        *err = task->err;
    task_free(task);
    return code;
}
