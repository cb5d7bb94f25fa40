/* The CPU backend: each operation equals plain.c bit for bit, and plain.c equals F64 arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "reference-runner/cpu/cpu.h"
#include "reference-runner/number.h"
#include "reference-runner/plain.h"

enum { FLOATS_MAX = 1 << 16 };

static uint64_t random_state = 1;

static uint32_t next_random(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33);
}

/* In (-2, 2), with a few large and small ones. */
static float next_float(void)
{
    const float x = (float)next_random() / 536870912.0f - 2.0f;

    return next_random() % 16 == 0 ? x * 1000 : next_random() % 16 == 0 ? x * 1e-6f : x;
}

static void fill(float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = next_float();
}

static int near(double expected, float got, double tolerance)
{
    const double size = fabs(expected) > 1 ? fabs(expected) : 1;

    return fabs((double)got - expected) <= tolerance * size;
}

/* ---- a backend with buffers ---- */

static run_backend *backend;

static int open_backend(void **state)
{
    ckpt_error err;

    (void)state;
    return run_backend_cpu.open(2, 0, &backend, &err) == CKPT_OK ? 0 : -1;
}

static int close_backend(void **state)
{
    (void)state;
    run_backend_cpu.close(backend);
    return 0;
}

static run_buffer *buffer_of(size_t count)
{
    ckpt_error err;
    run_buffer *b;

    assert_int_equal(run_backend_cpu.buffer_create(backend, count, &b, &err), CKPT_OK);
    fill(b->data, count);
    return b;
}

static run_rows rows(run_buffer *buffer, uint64_t pitch)
{
    return (run_rows){ buffer, 0, pitch };
}

static void done(run_buffer *buffer)
{
    run_backend_cpu.buffer_free(backend, buffer);
}

/* ---- numbers ---- */

static void test_exp_is_within_a_few_bits_of_the_library(void **state)
{
    (void)state;
    for (int i = -70000; i <= 70000; i++) {
        const double x = i / 100.0;
        const double expected = exp(x);

        assert_true(fabs(run_exp(x) - expected) <= 4e-16 * expected);
    }
    assert_true(run_exp(0) == 1);
    assert_true(run_exp(-1e9) == 0);
    assert_true(isinf(run_exp(1e9)));
    assert_true(isnan(run_exp((double)NAN)));
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_true(run_bf16(1.0f + 0x1p-8f) == 1.0f);
    assert_true(run_bf16(1.0f + 0x1.8p-7f) == 1.0f + 0x1p-6f);
    assert_true(run_bf16(1.0f + 0x1.01p-8f) == 1.0f + 0x1p-7f);
    assert_true(run_bf16(-3.0f) == -3.0f);
    assert_true(isinf(run_bf16(0x1.fffffep127f)));
    assert_true(isnan(run_bf16(NAN)));
}

/* ---- products ---- */

static void check_product(size_t depth, size_t block, size_t x_count, size_t w_count)
{
    static float x[FLOATS_MAX];
    static float w[FLOATS_MAX];
    static float fast[FLOATS_MAX];
    static float plain[FLOATS_MAX];
    cpu_product job = { x, w, fast, depth, depth, w_count, x_count, w_count, depth, block };

    fill(x, x_count * depth);
    fill(w, w_count * depth);
    cpu_of(backend)->product(&job);
    job.y = plain;
    cpu_product_plain(&job);
    assert_memory_equal(fast, plain, x_count * w_count * sizeof *fast);
    for (size_t i = 0; i < x_count * w_count; i++) {
        double sum = 0;
        double size = 1;

        for (size_t k = 0; k < depth; k++) {
            const double term =
                (double)x[i / w_count * depth + k] * (double)w[i % w_count * depth + k];

            sum += term;
            size += fabs(term);
        }
        assert_true(fabs(sum - (double)plain[i]) <= 1e-6 * size);
    }
}

static void test_products_equal_the_plain_loop_for_all_shapes(void **state)
{
    static const size_t depths[] = { 1, 7, 8, 9, 31, 32, 96, 128, 129, 300 };
    static const size_t blocks[] = { 0, 32, 128 };

    (void)state;
    for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (size_t t = 1; t <= 9; t += 2)
                for (size_t n = 1; n <= 9; n += 4)
                    check_product(depths[d], blocks[b], t, n);
}

static void test_a_block_sum_is_rounded_to_f32_before_it_is_added(void **state)
{
    float x[64];
    float w[64];

    (void)state;
    for (int i = 0; i < 64; i++) {
        x[i] = 1;
        w[i] = i == 0 ? 0x1p24f : i == 40 ? 1 : 0;
    }
    assert_true(plain_product(x, w, 64, 0) == 0x1p24f);      /* 2^24 + 1 rounds to even */
    w[41] = 1;
    assert_true(plain_product(x, w, 64, 0) == 0x1p24f + 2);
    w[41] = 0;
    w[1] = 1;
    assert_true(plain_product(x, w, 64, 0) == 0x1p24f + 2);
    assert_true(plain_product(x, w, 64, 32) == 0x1p24f);     /* lost in both blocks */
}

static void test_mixtures_equal_the_plain_loop_for_all_shapes(void **state)
{
    static float p[FLOATS_MAX];
    static float v[FLOATS_MAX];
    static float fast[FLOATS_MAX];
    static float plain[FLOATS_MAX];

    (void)state;
    for (size_t width = 1; width <= 200; width += 19)
        for (size_t heads = 1; heads <= 9; heads++) {
            cpu_mixture job = { p, v, fast, 37, width, width, heads, 37, width };

            fill(p, heads * 37);
            fill(v, 37 * width);
            cpu_of(backend)->mixture(&job);
            job.y = plain;
            cpu_mixture_plain(&job);
            assert_memory_equal(fast, plain, heads * width * sizeof *fast);
        }
}

/* ---- quantisers ---- */

static void test_e4m3_simulation_of_known_blocks(void **state)
{
    run_quantise op = { .col_count = 4, .block = 4, .grid = RUN_E4M3 };
    float x[4] = { 448, 17, 19, -0.3f };
    float y[4];

    (void)state;
    plain_quantise(x, y, &op);                     /* scale 1 */
    assert_true(y[0] == 448 && y[1] == 16 && y[2] == 20 && y[3] == -0.3125f);
    x[0] = 450;                                    /* one step more: scale 2 */
    plain_quantise(x, y, &op);
    assert_true(y[0] == 448 && y[1] == 17 - 1 && y[2] == 20);
    memset(x, 0, sizeof x);
    plain_quantise(x, y, &op);
    assert_true(y[0] == 0 && y[3] == 0);
}

static void test_e2m1_ties_go_to_the_even_code(void **state)
{
    static const float in[] = { 6, .25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5 };
    static const float out[] = { 6, 0, 1, 1, 2, 2, 4, 4 };
    const run_quantise op = { .col_count = 8, .block = 32, .grid = RUN_E2M1 };
    float y[8];

    (void)state;
    plain_quantise(in, y, &op);
    assert_memory_equal(y, out, sizeof y);
}

/* ---- norm, rotation ---- */

static void test_weighted_norm_equals_f64(void **state)
{
    const run_norm op = { .col_count = 100, .eps = 1e-6f };
    float x[100];
    float w[100];
    float y[100];
    double sum = 0;

    (void)state;
    fill(x, 100);
    fill(w, 100);
    plain_norm(x, w, y, &op);
    for (int i = 0; i < 100; i++)
        sum += (double)x[i] * (double)x[i];
    for (int i = 0; i < 100; i++)
        assert_true(near((double)w[i] * (double)x[i] / sqrt(sum / 100 + 1e-6), y[i], 1e-6));
}

static void test_rotating_back_restores_the_last_dimensions_and_leaves_the_first(void **state)
{
    run_rope op = { .head_dim = 12, .rope_dim = 8 };
    float x[12];
    float y[12];
    float angles[8];

    (void)state;
    fill(x, 12);
    memcpy(y, x, sizeof y);
    for (int i = 0; i < 4; i++) {
        angles[2 * i] = (float)cos(0.7 * (i + 1));
        angles[2 * i + 1] = (float)sin(0.7 * (i + 1));
    }
    plain_rope(y, angles, &op);
    assert_memory_equal(x, y, 4 * sizeof *x);
    assert_true(near((double)x[4] * cos(0.7) - (double)x[5] * sin(0.7), y[4], 1e-6));
    assert_true(near((double)x[4] * sin(0.7) + (double)x[5] * cos(0.7), y[5], 1e-6));
    op.inverse = 1;
    plain_rope(y, angles, &op);
    for (int i = 0; i < 12; i++)
        assert_true(near((double)x[i], y[i], 1e-5));
}

static void test_hadamard_equals_its_matrix(void **state)
{
    float x[32];
    float y[32];

    (void)state;
    fill(x, 32);
    memcpy(y, x, sizeof y);
    plain_hadamard(y, 32, 0);
    for (unsigned i = 0; i < 32; i++) {
        double sum = 0;

        for (unsigned j = 0; j < 32; j++)
            sum += __builtin_parity(i & j) ? -(double)x[j] : (double)x[j];
        assert_true(near(sum / sqrt(32), y[i], 1e-5));
    }
}

/* ---- choosing ---- */

static void test_selection_equals_the_plain_one_also_on_ties(void **state)
{
    enum { HEADS = 3, WIDTH = 8, ENTRIES = 70, ROWS = 5, TOPK = 6 };

    (void)state;
    for (int round = 0; round < 2; round++) {
        run_buffer *q = buffer_of(ROWS * HEADS * WIDTH);
        run_buffer *weights = buffer_of(ROWS * HEADS);
        run_buffer *keys = buffer_of(ENTRIES * WIDTH);
        run_buffer *chosen = buffer_of(ROWS * TOPK);
        run_buffer *gap = buffer_of(ROWS);
        const run_select op = { .q = rows(q, HEADS * WIDTH), .weights = rows(weights, HEADS),
                                .keys = rows(keys, WIDTH), .chosen = rows(chosen, TOPK),
                                .gap = gap, .row_count = ROWS, .position = 270, .ratio = 4,
                                .head_count = HEADS, .width = WIDTH, .topk = TOPK,
                                .round = round };
        ckpt_error err;

        for (int i = 0; i < 20 * WIDTH; i++)       /* many equal scores */
            keys->data[(i + 100) % (ENTRIES * WIDTH)] = 0;
        assert_int_equal(run_backend_cpu.select(backend, &op, &err), CKPT_OK);
        for (uint64_t t = 0; t < ROWS; t++) {
            const size_t count = (270 + t + 1) / 4;
            unsigned char taken[ENTRIES];
            float scores[ENTRIES];
            int32_t expected[TOPK];
            float expected_gap;

            for (size_t c = 0; c < count; c++)
                scores[c] = plain_score(cpu_row(op.q, t), cpu_row(op.weights, t),
                                        cpu_row(op.keys, c), &op);
            expected_gap = plain_best(scores, count, TOPK, expected, taken);
            assert_memory_equal(expected, cpu_int_row(op.chosen, t), sizeof expected);
            assert_true(expected_gap == gap->data[t]);
        }
        done(q);
        done(weights);
        done(keys);
        done(chosen);
        done(gap);
    }
}

static void test_fewer_candidates_than_wanted_are_all_taken(void **state)
{
    const float scores[3] = { 1, -1, 0 };
    unsigned char taken[3];
    int32_t chosen[5];

    (void)state;
    assert_true(isinf(plain_best(scores, 3, 5, chosen, taken)));
    assert_int_equal(chosen[0], 0);
    assert_int_equal(chosen[2], 2);
    assert_int_equal(chosen[3], -1);
    assert_true(plain_best(scores, 3, 1, chosen, taken) == 1);
    assert_int_equal(chosen[0], 0);
}

static void test_routing_takes_the_best_biased_and_weighs_the_unbiased(void **state)
{
    const run_route op = { .expert_count = 4, .active_count = 2, .route_scale = 1.5f };
    const float logits[4] = { 0.5f, 2, -1, 2 };
    const float bias[4] = { 0, 0, 9, 0 };
    const int32_t given[2] = { 3, 0 };
    float scores[8];
    float weights[2];
    int32_t ids[2];
    plain_token token = { logits, NULL, bias, scores, ids, weights };
    const double g1 = sqrt(log1p(exp(2)));
    const double g2 = sqrt(log1p(exp(-1)));
    const double g0 = sqrt(log1p(exp(0.5)));

    (void)state;
    assert_true(plain_route(&token, &op) == 0);      /* 1 and 3 are equal at the cut */
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 1);
    assert_true(near(1.5 * g2 / (g1 + g2), weights[0], 1e-6));
    assert_true(near(1.5 * g1 / (g1 + g2), weights[1], 1e-6));
    token.table = given;
    assert_true(isinf(plain_route(&token, &op)));
    assert_memory_equal(ids, given, sizeof given);
    assert_true(near(1.5 * g0 / (g1 + g0), weights[1], 1e-6));
}

/* ---- attention ---- */

/* The list of one row by the rules of backend.h, and plain_attend on it. */
static void check_row(const run_attend *op, uint64_t t)
{
    const float *list[256];
    float scores[256];
    float y[64];
    const uint64_t p = op->position + t;
    const int32_t *chosen = op->chosen.buffer == NULL ? NULL : cpu_int_row(op->chosen, t);
    size_t count = 0;

    for (uint64_t at = p >= op->window ? p - op->window + 1 : 0; at <= p; at++)
        list[count++] = cpu_ring_row(&op->window_kv, at);
    for (uint64_t c = 0; op->entries.buffer != NULL && c < (p + 1) / op->ratio; c++) {
        if (chosen != NULL && (c >= op->topk || chosen[c] < 0))
            break;
        list[count++] = cpu_row(op->entries, chosen == NULL ? c : (uint64_t)chosen[c]);
    }
    for (uint32_t h = 0; h < op->head_count; h++) {
        const plain_head head = { cpu_row(op->q, t) + h * op->head_dim, list, count,
                                  op->sink->data[h], scores, y };

        plain_attend(&head, op);
        assert_memory_equal(y, cpu_row(op->y, t) + h * op->head_dim,
                            op->head_dim * sizeof *y);
    }
}

static void test_attention_equals_the_plain_one(void **state)
{
    enum { HEADS = 19, DIM = 40, ROWS = 9, WINDOW = 6, ENTRIES = 12, TOPK = 4 };
    run_buffer *q = buffer_of(ROWS * HEADS * DIM);
    run_buffer *y = buffer_of(ROWS * HEADS * DIM);
    run_buffer *ring = buffer_of((WINDOW + ROWS) * DIM);
    run_buffer *entries = buffer_of(ENTRIES * DIM);
    run_buffer *chosen = buffer_of(ROWS * TOPK);
    run_buffer *sink = buffer_of(HEADS);
    ckpt_error err;

    (void)state;
    sink->data[3] = 500;                             /* far above every score */
    for (int i = 0; i < ROWS * TOPK; i++)
        ((int32_t *)(void *)chosen->data)[i] = i % TOPK == TOPK - 1 && i % 3 ? -1 : i % TOPK * 2;
    for (int kind = 0; kind < 6; kind++) {
        const run_attend op = {
            .q = rows(q, HEADS * DIM), .y = rows(y, HEADS * DIM),
            .window_kv = { ring, WINDOW + ROWS, DIM },
            .entries = rows(kind % 3 == 0 ? NULL : entries, DIM),
            .chosen = rows(kind % 3 == 2 ? chosen : NULL, TOPK), .sink = sink,
            .row_count = ROWS, .position = kind % 3 == 2 ? 35 : 3, .window = WINDOW, .ratio = 4,
            .topk = TOPK, .head_count = HEADS, .head_dim = DIM, .scale = 0.158f,
            .round = kind >= 3,
        };

        assert_int_equal(run_backend_cpu.attend(backend, &op, &err), CKPT_OK);
        for (uint64_t t = 0; t < ROWS; t++)
            check_row(&op, t);
    }
    done(q);
    done(y);
    done(ring);
    done(entries);
    done(chosen);
    done(sink);
}

static void test_the_sink_takes_its_share_and_gives_no_value(void **state)
{
    const run_attend op = { .head_dim = 2, .scale = 1 };
    const float q[2] = { 1, 0 };
    const float key[2] = { 0, 5 };
    const float *const list[1] = { key };
    float score;
    float y[2];
    const plain_head head = { q, list, 1, 0.5f, &score, y };

    (void)state;
    plain_attend(&head, &op);
    assert_true(near(5 / (1 + exp(0.5)), y[1], 1e-6));
    assert_true(y[0] == 0);
}

/* ---- streams ---- */

static void test_sinkhorn_ends_with_columns_of_one(void **state)
{
    const run_streams op = { .stream_count = 4, .dim = 8, .iters = 20, .hc_eps = 1e-6f,
                             .norm_eps = 1e-6f };
    const float scale[3] = { 1, 1, 1 };
    float x[32];
    float mix[24];
    float base[24];
    float u[8];
    float post[4];
    float comb[16];
    const plain_streams row = { x, mix, scale, base, u, post, comb };

    (void)state;
    fill(x, 32);
    for (int i = 0; i < 24; i++) {
        mix[i] = (float)(next_random() % 100) / 50;
        base[i] = 0.1f;
    }
    plain_hc_pre(&row, &op);
    for (int o = 0; o < 4; o++)
        assert_true(near(1, comb[o] + comb[4 + o] + comb[8 + o] + comb[12 + o], 1e-5));
    memset(mix, 0, sizeof mix);
    plain_hc_pre(&row, &op);
    for (int i = 0; i < 16; i++)
        assert_true(near(0.25, comb[i], 1e-6));
}

static void test_the_streams_are_mixed_over_the_first_index(void **state)
{
    const run_streams_post op = { .stream_count = 2, .dim = 1 };
    const float comb[4] = { 1, 2, 3, 4 };
    const float post[2] = { 10, 20 };
    const float y = 1;
    float x[2] = { 5, 7 };

    (void)state;
    plain_hc_post(x, &y, post, comb, &op);
    assert_true(x[0] == 10 + 1 * 5 + 3 * 7 && x[1] == 20 + 2 * 5 + 4 * 7);
}

/* ---- compressor and experts ---- */

static void test_pooling_takes_the_block_before_from_the_first_columns(void **state)
{
    enum { D = 3, CAPACITY = 20 };
    run_buffer *k = buffer_of(CAPACITY * 2 * D);
    run_buffer *s = buffer_of(CAPACITY * 2 * D);
    run_buffer *y = buffer_of(3 * D);
    const run_pool op = { .k = { k, CAPACITY, 2 * D }, .s = { s, CAPACITY, 2 * D },
                          .y = rows(y, D), .entry = 0, .entry_count = 3, .ratio = 4, .width = D,
                          .overlap = 1 };
    ckpt_error err;

    (void)state;
    for (int i = 0; i < CAPACITY * 2 * D; i++)
        s->data[i] = (float)(next_random() % 64) / 16;
    assert_int_equal(run_backend_cpu.pool(backend, &op, &err), CKPT_OK);
    for (int c = 0; c < 3; c++)
        for (int j = 0; j < D; j++) {
            double sum = 0;
            double weight_sum = 0;

            for (int t = c == 0 ? 0 : 4 * c - 4; t < 4 * c + 4; t++) {
                const int at = t * 2 * D + (t >= 4 * c ? D : 0) + j;

                weight_sum += exp((double)s->data[at]);
                sum += exp((double)s->data[at]) * (double)k->data[at];
            }
            assert_true(near(sum / weight_sum, y->data[c * D + j], 1e-5));
        }
    done(k);
    done(s);
    done(y);
}

static void test_swiglu_clamps_the_gate_on_one_side_and_up_on_both(void **state)
{
    const run_experts op = { .expert_dim = 3, .limit = 1 };
    float a[3] = { 5, -5, 0.5f };
    const float b[3] = { -3, 3, 0.5f };

    (void)state;
    plain_swiglu(a, b, 2, &op);
    assert_true(near(2 * (1 / (1 + exp(-1))) * -1, a[0], 1e-6));
    assert_true(near(2 * (-5 / (1 + exp(5))) * 1, a[1], 1e-6));
    assert_true(near(2 * (0.5 / (1 + exp(-0.5))) * 0.5, a[2], 1e-6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_is_within_a_few_bits_of_the_library),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_products_equal_the_plain_loop_for_all_shapes),
        cmocka_unit_test(test_a_block_sum_is_rounded_to_f32_before_it_is_added),
        cmocka_unit_test(test_mixtures_equal_the_plain_loop_for_all_shapes),
        cmocka_unit_test(test_e4m3_simulation_of_known_blocks),
        cmocka_unit_test(test_e2m1_ties_go_to_the_even_code),
        cmocka_unit_test(test_weighted_norm_equals_f64),
        cmocka_unit_test(test_rotating_back_restores_the_last_dimensions_and_leaves_the_first),
        cmocka_unit_test(test_hadamard_equals_its_matrix),
        cmocka_unit_test(test_selection_equals_the_plain_one_also_on_ties),
        cmocka_unit_test(test_fewer_candidates_than_wanted_are_all_taken),
        cmocka_unit_test(test_routing_takes_the_best_biased_and_weighs_the_unbiased),
        cmocka_unit_test(test_attention_equals_the_plain_one),
        cmocka_unit_test(test_the_sink_takes_its_share_and_gives_no_value),
        cmocka_unit_test(test_sinkhorn_ends_with_columns_of_one),
        cmocka_unit_test(test_the_streams_are_mixed_over_the_first_index),
        cmocka_unit_test(test_pooling_takes_the_block_before_from_the_first_columns),
        cmocka_unit_test(test_swiglu_clamps_the_gate_on_one_side_and_up_on_both),
    };

    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
