/* test_copy.c: the tensor loop brings every tile once, whatever the threads. */
#include "libckpt/sink.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/synth.h"

enum { TENSORS = 23, COLUMNS = 2048, UNWANTED_STEP = 5 };

/* Counts rows and endings; refuses every fifth tensor if asked to. */
typedef struct {
    ckpt_sink base;
    pthread_mutex_t lock;
    int skips;
    int together;
    size_t failing;               /* tensor whose tiles fail, or TENSORS */
    uint64_t tiles;               /* that came so far */
    uint64_t most_ahead;          /* tiles before one that came which had not come yet, at most */
    uint64_t rows[TENSORS];
    uint64_t row_sums[TENSORS];   /* of the tiles' first rows: the same tile twice would show */
    unsigned ends[TENSORS];
} counting_sink;

static int counting_wants(const ckpt_sink *self, size_t tensor)
{
    return !((const counting_sink *)self)->skips || tensor % UNWANTED_STEP != 0;
}

/* Large and small tensors, tensors without rows, the largest last. */
static uint64_t rows_of(size_t tensor)
{
    if (tensor % 7 == 3)
        return 0;
    return tensor + 1 == TENSORS ? 1500 : tensor % 4 == 0 ? 700 : 1 + tensor;
}

/* Of the whole catalog, in its order. */
static uint64_t tiles_before(const source_range *range)
{
    const ckpt_tensor shape = { .dtype = CKPT_BF16, .rank = 2, .shape = { 1500, COLUMNS } };
    const uint64_t tile_rows = source_tile_rows(&shape);
    uint64_t count = range->row / tile_rows;

    for (size_t i = 0; i < range->tensor; i++)
        count += (rows_of(i) + tile_rows - 1) / tile_rows;
    return count;
}

static ckpt_code counting_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                              arena *scratch, ckpt_error *err)
{
    counting_sink *s = (counting_sink *)self;
    uint64_t ahead;

    (void)tile;
    (void)scratch;
    if (range->tensor == s->failing)
        return ckpt_fail(err, CKPT_E_IO, "no room");
    pthread_mutex_lock(&s->lock);
    ahead = tiles_before(range) - s->tiles++;
    s->most_ahead = (int64_t)ahead > (int64_t)s->most_ahead ? ahead : s->most_ahead;
    s->rows[range->tensor] += range->row_count;
    s->row_sums[range->tensor] += range->row;
    pthread_mutex_unlock(&s->lock);
    return CKPT_OK;
}

static ckpt_code counting_done(ckpt_sink *self, size_t tensor, ckpt_error *err)
{
    counting_sink *s = (counting_sink *)self;

    (void)err;
    s->ends[tensor]++;
    return CKPT_OK;
}

static const sink_ops counting_ops = { counting_wants, counting_put, NULL, counting_done };

static ckpt_catalog *make_catalog(void)
{
    ckpt_catalog *catalog = catalog_create();
    ckpt_error err;

    assert_non_null(catalog);
    for (size_t i = 0; i < TENSORS; i++) {
        char name[16];
        const ckpt_tensor tensor = { .name = name, .dtype = CKPT_BF16, .rank = 2,
                                     .shape = { rows_of(i), COLUMNS } };

        snprintf(name, sizeof name, "t%zu", i);
        assert_int_equal(catalog_add(catalog, &tensor, &err), CKPT_OK);
    }
    return catalog;
}

static ckpt_code run_copy(counting_sink *sink, unsigned thread_count, ckpt_error *err)
{
    ckpt_code (*copy)(ckpt_source *, ckpt_sink *, const ckpt_run_options *, ckpt_error *) =
        sink->together ? ckpt_copy_together : ckpt_copy;
    const synth_options values = { .seed = 1, .expert_count = 16 };
    const ckpt_run_options options = { .thread_count = thread_count };
    ckpt_catalog *catalog = make_catalog();
    ckpt_source *source;
    ckpt_code code;

    sink->base.ops = &counting_ops;
    assert_int_equal(source_synth(catalog, &values, &source, err), CKPT_OK);
    pthread_mutex_init(&sink->lock, NULL);
    code = copy(source, &sink->base, &options, err);
    pthread_mutex_destroy(&sink->lock);
    ckpt_source_free(source);
    catalog_free(catalog);
    return code;
}

static void check_counts(const counting_sink *sink)
{
    const ckpt_tensor tensor = { .dtype = CKPT_BF16, .rank = 2, .shape = { 1500, COLUMNS } };
    const uint64_t tile_rows = source_tile_rows(&tensor);

    for (size_t i = 0; i < TENSORS; i++) {
        const int wanted = counting_wants(&sink->base, i);
        uint64_t row_sum = 0;

        for (uint64_t row = 0; row < rows_of(i); row += tile_rows)
            row_sum += row;
        assert_int_equal(sink->rows[i], wanted ? rows_of(i) : 0);
        assert_int_equal(sink->row_sums[i], wanted ? row_sum : 0);
        assert_int_equal(sink->ends[i], wanted);
    }
}

static void test_every_tile_comes_once_for_any_thread_count(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 2 * TENSORS; threads++) {
        for (int together = 0; together < 2; together++) {
            counting_sink sink = { .failing = TENSORS, .together = together };
            ckpt_error err;

            assert_int_equal(run_copy(&sink, threads, &err), CKPT_OK);
            check_counts(&sink);
        }
    }
}

/* When a thread comes with a tile, the others have at most one each of those before it. */
static void test_threads_stay_together(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 6; threads++) {
        counting_sink sink = { .failing = TENSORS, .together = 1 };
        ckpt_error err;

        assert_int_equal(run_copy(&sink, threads, &err), CKPT_OK);
        assert_true(sink.most_ahead < threads);
    }
}

static void test_unwanted_tensors_are_left_out(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= TENSORS; threads++) {
        counting_sink sink = { .skips = 1, .failing = TENSORS };
        ckpt_error err;

        assert_int_equal(run_copy(&sink, threads, &err), CKPT_OK);
        check_counts(&sink);
    }
}

static void test_a_failure_ends_the_copy(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 8; threads++) {
        counting_sink sink = { .failing = TENSORS - 1 };
        ckpt_error err;

        assert_int_equal(run_copy(&sink, threads, &err), CKPT_E_IO);
        assert_string_equal(err.text, "no room");
        assert_int_equal(sink.ends[TENSORS - 1], 0);
    }
}

/* ---- tensors as streams ---- */

/* Takes the tiles of a tensor in turns. */
typedef struct {
    ckpt_sink base;
    copy_turns turns;
    uint64_t done[TENSORS];       /* rows */
    uint64_t failing_row;         /* of the last tensor; UINT64_MAX: none */
    pthread_mutex_t lock;
    pthread_cond_t met;
    unsigned waiting;             /* threads with a tile of the last tensor */
    unsigned most_waiting;
} stream_sink;

/* Until another thread has a tile of the last tensor, too, or for ten seconds. */
static void meet(stream_sink *s)
{
    struct timespec end;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 10;
    while (s->most_waiting < 2 && pthread_cond_timedwait(&s->met, &s->lock, &end) == 0)
        ;
}

static void arrive(stream_sink *s, const source_range *range)
{
    pthread_mutex_lock(&s->lock);
    s->waiting++;
    s->most_waiting = s->waiting > s->most_waiting ? s->waiting : s->most_waiting;
    pthread_cond_broadcast(&s->met);
    if (range->row == 0)
        meet(s);
    pthread_mutex_unlock(&s->lock);
}

static ckpt_code stream_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                            arena *scratch, ckpt_error *err)
{
    stream_sink *s = (stream_sink *)self;
    uint64_t *done = &s->done[range->tensor];
    const int is_last = range->tensor == TENSORS - 1;

    (void)tile;
    (void)scratch;
    if (is_last)
        arrive(s, range);
    if (is_last && range->row >= s->failing_row)
        return ckpt_fail(err, CKPT_E_IO, "no room");
    if (!turns_wait(&s->turns, done, range->row))
        return ckpt_fail(err, CKPT_E_INTERRUPTED, "stopped");
    turns_pass(&s->turns, done, range->row + range->row_count);
    if (is_last) {
        pthread_mutex_lock(&s->lock);
        s->waiting--;
        pthread_mutex_unlock(&s->lock);
    }
    return CKPT_OK;
}

static ckpt_code run_stream(stream_sink *sink, unsigned thread_count, ckpt_error *err)
{
    static const sink_ops ops = { NULL, stream_put, NULL, NULL };
    const synth_options values = { .seed = 1, .expert_count = 16 };
    const ckpt_run_options options = { .thread_count = thread_count };
    const copy_tiles tiles = { .turns = &sink->turns };
    ckpt_catalog *catalog = make_catalog();
    ckpt_source *source;
    ckpt_code code;

    sink->base.ops = &ops;
    assert_int_equal(source_synth(catalog, &values, &source, err), CKPT_OK);
    turns_init(&sink->turns);
    pthread_mutex_init(&sink->lock, NULL);
    pthread_cond_init(&sink->met, NULL);
    code = ckpt_copy_in_order(source, &sink->base, &tiles, &options, err);
    pthread_cond_destroy(&sink->met);
    pthread_mutex_destroy(&sink->lock);
    turns_release(&sink->turns);
    ckpt_source_free(source);
    catalog_free(catalog);
    return code;
}

static void test_threads_share_a_stream_in_turns(void **state)
{
    (void)state;
    for (unsigned threads = 2; threads <= 8; threads++) {
        stream_sink sink = { .failing_row = UINT64_MAX };
        ckpt_error err;

        assert_int_equal(run_stream(&sink, threads, &err), CKPT_OK);
        for (size_t i = 0; i < TENSORS; i++)
            assert_int_equal(sink.done[i], rows_of(i));
        assert_true(sink.most_waiting >= 2);
    }
}

/* The failing tile never passes, and the threads with those behind it wait for it. */
static void test_a_failure_ends_the_waiting(void **state)
{
    (void)state;
    for (unsigned threads = 2; threads <= 8; threads++) {
        stream_sink sink = { .failing_row = 500 };
        ckpt_error err;

        assert_int_equal(run_stream(&sink, threads, &err), CKPT_E_IO);
        assert_string_equal(err.text, "no room");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_tile_comes_once_for_any_thread_count),
        cmocka_unit_test(test_threads_stay_together),
        cmocka_unit_test(test_unwanted_tensors_are_left_out),
        cmocka_unit_test(test_a_failure_ends_the_copy),
        cmocka_unit_test(test_threads_share_a_stream_in_turns),
        cmocka_unit_test(test_a_failure_ends_the_waiting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
