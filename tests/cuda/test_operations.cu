/*
 * test_operations: the operations of one token on the CUDA backend against the CPU backend, bit for
 * bit, in shapes of DeepSeek-V4-Flash and around the limits of kernels for a single row.
 *
 * Exit 0: all right, 1: a difference, 2: no device. `test_operations --time` also measures.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

extern "C" {
#include "reference-runner/backend.h"
}

enum { CPU, DEVICE, BACKENDS };

static run_backend *backends[BACKENDS];
static int failure_count;
static int is_timed;
static uint64_t random_state = 1;

static void must(ckpt_code code, const ckpt_error &err)
{
    if (code == CKPT_OK)
        return;
    fprintf(stderr, "test_operations: %s\n", err.text);
    exit(1);
}

static uint32_t next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* In (-2, 2), with a few large and small ones. */
static float next_float(void)
{
    const float x = (float)next_random() / 536870912.0f - 2.0f;

    return next_random() % 64 == 0 ? x * 100 : next_random() % 16 == 0 ? x * 1e-6f : x;
}

static float next_bf16(void)
{
    float x = next_float();
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    bits &= 0xFFFF0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- buffers and weights on both backends ---- */

struct buffers {
    run_buffer *of[BACKENDS];
    uint64_t count;
};

static buffers buffer_of(const std::vector<float> &values)
{
    buffers b = { {}, values.size() };
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        const run_backend_ops *ops = backends[i]->ops;

        must(ops->buffer_create(backends[i], b.count, &b.of[i], &err), err);
        must(ops->buffer_write(b.of[i], 0, values.data(), b.count, &err), err);
    }
    return b;
}

static buffers random_buffer(uint64_t count)
{
    std::vector<float> values(count);

    for (float &v : values)
        v = next_bf16();
    return buffer_of(values);
}

static buffers empty_buffer(uint64_t count)
{
    return buffer_of(std::vector<float>(count, 7));
}

static void drop(buffers &b)
{
    for (int i = 0; i < BACKENDS; i++)
        backends[i]->ops->buffer_free(backends[i], b.of[i]);
}

static void check(const buffers &b, const char *what)
{
    std::vector<float> values[BACKENDS];
    uint64_t different = 0;
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        values[i].resize(b.count);
        must(backends[i]->ops->buffer_read(b.of[i], 0, values[i].data(), b.count, &err), err);
    }
    for (uint64_t k = 0; k < b.count; k++)
        different += memcmp(&values[CPU][k], &values[DEVICE][k], sizeof(float)) != 0;
    failure_count += different > 0;
    printf("%-4s %s", different > 0 ? "FAIL" : "ok", what);
    if (different > 0)
        printf(": %llu of %llu differ", (unsigned long long)different,
               (unsigned long long)b.count);
    printf("\n");
}

/* The time of `queue(i)` on the device, i = 0, 1, ..., and the rate of reading `bytes` in it. */
template <typename Queue> static void print_time(const Queue &queue, uint64_t bytes)
{
    enum { WARM = 3, TIMED = 100 };
    const run_backend_ops *ops = backends[DEVICE]->ops;
    ckpt_error err;
    run_lap lap;

    if (!is_timed)
        return;
    for (int i = 0; i < WARM; i++)
        queue(i);
    must(ops->lap(backends[DEVICE], 1, &lap, &err), err);
    for (int i = 0; i < TIMED; i++)
        queue(i);
    must(ops->lap(backends[DEVICE], 1, &lap, &err), err);
    printf("     %.1f us, %.0f GB/s\n", lap.seconds / (double)TIMED * 1e6,
           (double)bytes * (double)TIMED / lap.seconds / 1e9);
}

/* For timing, more copies on the device than its cache holds: weights are used once a token. */
struct weights {
    run_weight *of[BACKENDS];
    uint64_t bytes;
    std::vector<run_weight *> cold;
    void *host;                  /* a copy of the device's weight; or nullptr */
    uint64_t host_bytes;
};

constexpr uint64_t COLD_BYTES = 200 << 20;

static ckpt_tensor tensor_of(ckpt_dtype dtype, uint64_t rows, uint64_t cols)
{
    ckpt_tensor t = {};

    t.name = "w";
    t.dtype = dtype;
    t.stored_dtype = dtype;
    t.rank = 2;
    t.shape[0] = rows;
    t.shape[1] = cols;
    if (dtype == CKPT_F4 || dtype == CKPT_F8_E4M3) {
        t.scale_dtype = CKPT_F8_E8M0;
        t.stored_scale_dtype = CKPT_F8_E8M0;
        t.block_rows = dtype == CKPT_F4 ? 1 : 128;
        t.block_cols = dtype == CKPT_F4 ? 32 : 128;
    }
    return t;
}

/* Codes without NaN and infinities, scales around 1. */
static void fill_codes(const ckpt_tensor &t, uint8_t *data, uint8_t *scale)
{
    const uint64_t data_bytes = ckpt_part_bytes(&t, CKPT_DATA);
    const uint64_t scale_bytes = ckpt_part_bytes(&t, CKPT_SCALE);

    for (uint64_t i = 0; i < data_bytes; i++) {
        data[i] = (uint8_t)next_random();
        if (t.dtype == CKPT_F8_E4M3 && (data[i] & 0x7F) == 0x7F)
            data[i] = 0;
    }
    for (uint64_t i = 0; t.dtype == CKPT_F32 && i < data_bytes / 4; i++)
        reinterpret_cast<float *>(data)[i] = next_float();
    for (uint64_t i = 0; t.dtype == CKPT_BF16 && i < data_bytes / 2; i++) {
        const float x = next_bf16();

        memcpy(data + 2 * i, reinterpret_cast<const char *>(&x) + 2, 2);
    }
    for (uint64_t i = 0; i < scale_bytes; i++)
        scale[i] = (uint8_t)(115 + next_random() % 12);
}

constexpr float TENSOR_SCALE = 0x1.8p-5f;

static run_weight *weight_on(run_backend *backend, const ckpt_tensor &t,
                             const std::vector<uint8_t> &codes)
{
    const run_backend_ops *ops = backend->ops;
    const uint64_t data_bytes = ckpt_part_bytes(&t, CKPT_DATA);
    const uint64_t scale_bytes = ckpt_part_bytes(&t, CKPT_SCALE);
    run_weight *weight;
    run_stage *stage;
    ckpt_tile tile = {};
    ckpt_error err;

    must(ops->stage_create(backend, codes.size() + 64, &stage, &err), err);
    memcpy(stage->memory, codes.data(), codes.size());
    tile.part[CKPT_DATA] = stage->memory;
    tile.part[CKPT_SCALE] = scale_bytes == 0 ? nullptr
                                             : static_cast<char *>(stage->memory) + data_bytes;
    tile.part_bytes[CKPT_DATA] = data_bytes;
    tile.part_bytes[CKPT_SCALE] = scale_bytes;
    if (t.tensor_scale != CKPT_TENSOR_SCALE_NONE) {
        tile.part[CKPT_TENSOR_SCALE] = const_cast<float *>(&TENSOR_SCALE);
        tile.part_bytes[CKPT_TENSOR_SCALE] = sizeof TENSOR_SCALE;
    }
    must(ops->weight_create(backend, &t, t.shape[0], &weight, &err), err);
    must(ops->weight_put(weight, 0, t.shape[0], &tile, stage, &err), err);
    must(ops->stage_wait(stage, &err), err);
    ops->stage_free(backend, stage);
    return weight;
}

/* `together`: weights of this size that an operation reads. */
static weights weight_with(const ckpt_tensor &t, const std::vector<uint8_t> &codes,
                           uint32_t together)
{
    weights w = { {}, codes.size(), {}, nullptr, 0 };

    for (int i = 0; i < BACKENDS; i++)
        w.of[i] = weight_on(backends[i], t, codes);
    w.cold.push_back(w.of[DEVICE]);
    while (is_timed && w.cold.size() * w.bytes * together < COLD_BYTES)
        w.cold.push_back(weight_on(backends[DEVICE], t, codes));
    return w;
}

static weights weight_of(const ckpt_tensor &t, uint32_t together = 1)
{
    const uint64_t data_bytes = ckpt_part_bytes(&t, CKPT_DATA);
    std::vector<uint8_t> codes(data_bytes + ckpt_part_bytes(&t, CKPT_SCALE));

    fill_codes(t, codes.data(), codes.data() + data_bytes);
    return weight_with(t, codes, together);
}

static void drop(weights &w)
{
    backends[CPU]->ops->weight_free(backends[CPU], w.of[CPU]);
    for (run_weight *each : w.cold)
        backends[DEVICE]->ops->weight_free(backends[DEVICE], each);
    if (w.host != nullptr)
        backends[DEVICE]->ops->host_free(backends[DEVICE], w.host, w.host_bytes);
}

static run_rows rows_at(const buffers &b, int i, uint64_t pitch)
{
    return { b.of[i], 0, pitch };
}

/* Put x on the E4M3 grid in blocks of 128 columns. */
static void quantise(const buffers &x, uint64_t cols)
{
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        const run_quantise op = { rows_at(x, i, cols), rows_at(x, i, cols), x.count / cols, cols,
                                  128, RUN_E4M3 };

        must(backends[i]->ops->quantise(backends[i], &op, &err), err);
    }
}

/* ---- products ---- */

struct linear_case {
    ckpt_dtype dtype;
    uint64_t rows;
    uint64_t cols;
    uint32_t block;
    int round;
    uint64_t group_rows;
};

static void time_linear(run_linear op, const weights &w)
{
    ckpt_error err;

    print_time(
        [&](int i) {
            op.weight = w.cold[i % w.cold.size()];
            backends[DEVICE]->ops->linear(backends[DEVICE], &op, &err);
        },
        w.bytes);
}

static void test_linear(const linear_case &c, uint64_t row_count)
{
    const uint64_t groups = c.group_rows == 0 ? 1 : c.rows / c.group_rows;
    weights w = weight_of(tensor_of(c.dtype, c.rows, c.cols));
    buffers x = random_buffer(row_count * groups * c.cols);
    buffers y = empty_buffer(row_count * c.rows);
    run_linear op[BACKENDS];
    char text[128];
    ckpt_error err;

    if (c.block == 128 && c.round)
        quantise(x, groups * c.cols);
    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(x, i, groups * c.cols), rows_at(y, i, c.rows), row_count, w.of[i],
                  nullptr, {}, 0, c.rows, c.group_rows, c.cols, c.block, 0, c.round };
        must(backends[i]->ops->linear(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "%llu rows by %s %llu x %llu, sums of %u%s%s",
             (unsigned long long)row_count, ckpt_dtype_name(c.dtype), (unsigned long long)c.rows,
             (unsigned long long)c.cols, c.block, c.round ? ", rounded" : "",
             c.group_rows > 0 ? ", in groups" : "");
    check(y, text);
    time_linear(op[DEVICE], w);
    drop(w);
    drop(x);
    drop(y);
}

/* Free the device's weight, overwrite its memory, and restore it from a copy. */
static void restore(weights &w, const ckpt_tensor &t)
{
    run_backend *device = backends[DEVICE];
    const run_backend_ops *ops = device->ops;
    std::vector<uint8_t> others(w.bytes, 1);
    run_weight *other;
    void *memory;
    ckpt_error err;

    w.host_bytes = ops->weight_save_bytes(w.of[DEVICE]);
    must(ops->host_create(device, w.host_bytes, &memory, &err), err);
    must(ops->weight_save(w.of[DEVICE], memory, &err), err);
    ops->weight_free(device, w.of[DEVICE]);
    other = weight_on(device, t, others);
    ops->weight_free(device, other);
    must(ops->weight_create(device, &t, t.shape[0], &w.of[DEVICE], &err), err);
    must(ops->weight_restore(w.of[DEVICE], memory, &err), err);
    w.cold = { w.of[DEVICE] };
    w.host = memory;
}

static void test_restored(const ckpt_tensor &t)
{
    const uint64_t rows = t.shape[0];
    const uint64_t cols = t.shape[1];
    weights w = weight_of(t);
    buffers x = random_buffer(cols);
    buffers y = empty_buffer(rows);
    char text[128];
    ckpt_error err;

    restore(w, t);
    for (int i = 0; i < BACKENDS; i++) {
        const run_linear op = { rows_at(x, i, cols), rows_at(y, i, rows), 1, w.of[i], nullptr, {},
                                0, rows, 0, cols, 0, 0, 0 };

        must(backends[i]->ops->linear(backends[i], &op, &err), err);
    }
    snprintf(text, sizeof text, "%s with scales %s, restored from a copy",
             ckpt_dtype_name(t.dtype), ckpt_dtype_name(t.scale_dtype));
    check(y, text);
    drop(w);
    drop(x);
    drop(y);
}

static ckpt_tensor nvfp4_of(uint64_t rows, uint64_t cols)
{
    ckpt_tensor t = tensor_of(CKPT_F4, rows, cols);

    t.scale_dtype = t.stored_scale_dtype = CKPT_F8_E4M3;
    t.block_cols = 16;
    t.tensor_scale = CKPT_TENSOR_SCALE_FACTOR;
    return t;
}

/* A row of x whose sums are often halfway between two F32: no bound tells how those are rounded. */
typedef enum { INTEGERS, EXPONENTS, INEXACT } tie_kind;

static const char *const tie_names[] = { "sums of integers, many of them ties",
                                         "ties of products of many exponents",
                                         "ties that depend on the order of additions" };

/* The weights are small integers, and 1 where x is LARGE or -LARGE. EXPONENTS: many exponents, but
 * every sum is exact. INEXACT: between LARGE and -LARGE the bits of smaller values are lost. */
constexpr float LARGE = 0x1p58f;
constexpr uint32_t TIE_PERIOD = 128;
constexpr uint32_t TIE_LARGE = 17;

static float tie_value(tie_kind kind, uint32_t k)
{
    const float integer = (float)(int)(next_random() % (1u << 22)) * 0x1p-6f;

    if (kind == EXPONENTS)
        return ldexpf((float)(1 + 2 * (int)(next_random() % 4)) * (k % 3 == 0 ? -1.0f : 1.0f),
                      (int)(next_random() % 17));
    if (kind == INEXACT && k % TIE_PERIOD == TIE_LARGE)
        return k / TIE_PERIOD % 2 == 0 ? LARGE : -LARGE;
    return integer;
}

static weights tie_weight(const ckpt_tensor &t)
{
    static const uint8_t fp8[] = { 0, 0x38, 0x40, 0x44, 0x48, 0x4A, 0x4C, 0x4E };
    const uint64_t count = t.shape[0] * t.shape[1];
    const uint64_t bytes = ckpt_part_bytes(&t, CKPT_DATA) + ckpt_part_bytes(&t, CKPT_SCALE);
    std::vector<uint8_t> codes(bytes, 127);      /* of scales: 1 */

    for (uint64_t i = 0; i < count; i++) {
        const int is_one = i % t.shape[1] % TIE_PERIOD == TIE_LARGE;
        const uint32_t integer = is_one ? 1 : next_random() % 8;
        const uint32_t negative = is_one ? 0 : next_random() % 2;
        const float value = negative ? -(float)integer : (float)integer;

        if (t.dtype == CKPT_F8_E4M3)
            codes[i] = (uint8_t)(fp8[integer] | negative << 7);
        else
            memcpy(&codes[2 * i], reinterpret_cast<const char *>(&value) + 2, 2);
    }
    return weight_with(t, codes, 1);
}

static void test_ties(tie_kind kind, ckpt_dtype dtype, uint64_t rows)
{
    enum { COLS = 4096 };
    std::vector<float> values(COLS);
    const ckpt_tensor t = tensor_of(dtype, rows, COLS);
    weights w = kind == INTEGERS ? weight_of(t) : tie_weight(t);
    char text[96];
    ckpt_error err;

    for (uint32_t k = 0; k < COLS; k++)
        values[k] = tie_value(kind, k);
    buffers x = buffer_of(values);
    buffers y = empty_buffer(rows);
    run_linear op[BACKENDS];

    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(x, i, COLS), rows_at(y, i, rows), 1, w.of[i],
                  nullptr, {}, 0, rows, 0, 0, 0, 0, 0 };
        must(backends[i]->ops->linear(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "%s, %s x %llu", tie_names[kind], ckpt_dtype_name(dtype),
             (unsigned long long)rows);
    check(y, text);
    time_linear(op[DEVICE], w);
    drop(w);
    drop(x);
    drop(y);
}

/* Two weights in one operation, of the same encoding or not. */
static void test_pair(ckpt_dtype other_dtype, uint64_t rows, uint64_t row_count)
{
    enum { COLS = 4096 };
    weights w = weight_of(tensor_of(CKPT_BF16, rows, COLS));
    weights other = weight_of(tensor_of(other_dtype, rows, COLS));
    buffers x = random_buffer(row_count * COLS);
    buffers y = empty_buffer(row_count * rows);
    buffers other_y = empty_buffer(row_count * rows);
    char text[96];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        const run_linear op = { rows_at(x, i, COLS), rows_at(y, i, rows), row_count, w.of[i],
                                other.of[i], rows_at(other_y, i, rows), 0, rows, 0, 0, 0, 0, 0 };

        must(backends[i]->ops->linear(backends[i], &op, &err), err);
    }
    snprintf(text, sizeof text, "%llu rows by BF16 and %s %llu x %d: the first",
             (unsigned long long)row_count, ckpt_dtype_name(other_dtype),
             (unsigned long long)rows, COLS);
    check(y, text);
    check(other_y, "  the other");
    for (weights *each : { &w, &other })
        drop(*each);
    for (buffers *each : { &x, &y, &other_y })
        drop(*each);
}

static void test_products(void)
{
    static const linear_case cases[] = {
        { CKPT_F32, 24, 16384, 0, 0, 0 },     { CKPT_F32, 4, 16384, 0, 0, 0 },
        { CKPT_BF16, 256, 4096, 0, 0, 0 },    { CKPT_BF16, 1024, 4096, 0, 0, 0 },
        { CKPT_BF16, 66, 4096, 0, 1, 0 },     { CKPT_BF16, 601, 1032, 0, 0, 0 },
        { CKPT_F8_E4M3, 8192, 4096, 0, 1, 1024 },   { CKPT_F8_E4M3, 600, 1024, 0, 0, 0 },
        { CKPT_F8_E4M3, 512, 4096, 128, 1, 0 },     { CKPT_F8_E4M3, 1024, 4096, 128, 1, 0 },
        { CKPT_F8_E4M3, 8192, 1024, 128, 1, 0 },    { CKPT_F8_E4M3, 32768, 1024, 128, 1, 0 },
        { CKPT_F8_E4M3, 33001, 1408, 128, 1, 0 },
        { CKPT_F8_E4M3, 4096, 8192, 128, 1, 0 },    { CKPT_F8_E4M3, 301, 1536, 128, 1, 0 },
        { CKPT_F8_E4M3, 130, 384, 128, 1, 0 },      { CKPT_F8_E4M3, 130, 400, 128, 1, 0 },
        { CKPT_BF16, 8192, 4096, 0, 0, 0 },
    };

    for (const linear_case &c : cases)
        test_linear(c, 1);
    test_linear(cases[0], 3);
    for (const tie_kind kind : { INTEGERS, EXPONENTS, INEXACT })
        for (const uint64_t rows : { 100, 600, 5000 }) {
            test_ties(kind, CKPT_BF16, rows);
            test_ties(kind, CKPT_F8_E4M3, rows);
        }
    test_pair(CKPT_BF16, 1024, 1);
    test_pair(CKPT_BF16, 100, 1);
    test_pair(CKPT_F32, 100, 1);
    test_pair(CKPT_BF16, 100, 2);
}

/* ---- experts ---- */

enum { EXPERTS_MAX = 8 };

struct experts_case {
    ckpt_dtype dtype;
    uint32_t count;
    uint32_t dim;
    uint32_t expert_dim;
    uint32_t block;
};

static void test_experts(const experts_case &c)
{
    buffers x = random_buffer(c.dim);
    buffers y = random_buffer(c.dim);
    std::vector<weights> all;
    run_expert experts[BACKENDS][EXPERTS_MAX];
    const uint32_t row = 0;
    const float factor = 0.37f;
    run_experts op[BACKENDS];
    char text[128];
    uint64_t bytes = 0;
    ckpt_error err;

    quantise(x, c.dim);
    for (uint32_t e = 0; e < 3 * c.count; e++) {
        const int is_out = e % 3 == 1;

        all.push_back(weight_of(tensor_of(c.dtype, is_out ? c.dim : c.expert_dim,
                                          is_out ? c.expert_dim : c.dim), 3 * c.count));
        bytes += all.back().bytes;
    }
    for (int i = 0; i < BACKENDS; i++) {
        for (uint32_t e = 0; e < c.count; e++)
            experts[i][e] = { all[3 * e].of[i], all[3 * e + 1].of[i], all[3 * e + 2].of[i],
                              &row, &factor, 1 };
        op[i] = { rows_at(x, i, c.dim), rows_at(y, i, c.dim), experts[i], c.count, c.dim,
                  c.expert_dim, c.block, 10, 1 };
        must(backends[i]->ops->experts(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "a row by %u experts %s, %u x %u", c.count,
             ckpt_dtype_name(c.dtype), c.expert_dim, c.dim);
    check(y, text);
    print_time(
        [&](int i) {
            const size_t copy = i % all[0].cold.size();

            for (uint32_t e = 0; e < c.count; e++) {
                experts[DEVICE][e].w1 = all[3 * e].cold[copy];
                experts[DEVICE][e].w2 = all[3 * e + 1].cold[copy];
                experts[DEVICE][e].w3 = all[3 * e + 2].cold[copy];
            }
            backends[DEVICE]->ops->experts(backends[DEVICE], &op[DEVICE], &err);
        },
        bytes);
    for (weights &w : all)
        drop(w);
    drop(x);
    drop(y);
}

/* ---- rows ---- */

static void test_norm(uint64_t row_count, uint64_t cols, int is_weighted, int round)
{
    buffers x = random_buffer(row_count * cols);
    buffers weight = random_buffer(cols);
    buffers y = empty_buffer(row_count * cols);
    buffers quantised = empty_buffer(row_count * cols);
    run_norm op[BACKENDS];
    char text[96];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(x, i, cols), rows_at(y, i, cols), row_count, cols,
                  is_weighted ? weight.of[i] : nullptr, rows_at(quantised, i, cols), 1e-6f, round };
        must(backends[i]->ops->norm(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "norm of %llu x %llu%s%s", (unsigned long long)row_count,
             (unsigned long long)cols, is_weighted ? ", weighted" : "", round ? ", rounded" : "");
    check(y, text);
    check(quantised, "  quantised");
    print_time([&](int) { backends[DEVICE]->ops->norm(backends[DEVICE], &op[DEVICE], &err); }, 0);
    drop(x);
    drop(weight);
    drop(y);
    drop(quantised);
}

static void test_streams(int is_head)
{
    enum { STREAMS = 4, DIM = 4096, MIX = (2 + STREAMS) * STREAMS };
    const uint32_t width = is_head ? STREAMS : MIX;
    buffers x = random_buffer(STREAMS * DIM);
    buffers mix = random_buffer(width);
    buffers scale = random_buffer(3);
    buffers base = random_buffer(MIX);
    buffers u = empty_buffer(DIM);
    buffers post = empty_buffer(STREAMS);
    buffers comb = empty_buffer(STREAMS * STREAMS);
    run_streams op[BACKENDS];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        const run_backend_ops *ops = backends[i]->ops;

        op[i] = { rows_at(x, i, STREAMS * DIM), rows_at(mix, i, width), rows_at(u, i, DIM),
                  rows_at(post, i, STREAMS), rows_at(comb, i, STREAMS * STREAMS), scale.of[i],
                  base.of[i], 1, STREAMS, DIM, 20, 1e-6f, 1e-6f, 1 };
        must((is_head ? ops->hc_head : ops->hc_pre)(backends[i], &op[i], &err), err);
    }
    check(u, is_head ? "hc_head: u" : "hc_pre: u");
    check(post, "  post");
    check(comb, "  comb");
    print_time([&](int) { backends[DEVICE]->ops->hc_pre(backends[DEVICE], &op[DEVICE], &err); }, 0);
    for (buffers *b : { &x, &mix, &scale, &base, &u, &post, &comb })
        drop(*b);
}

static void test_route(uint32_t experts)
{
    enum { ROWS = 2, ACTIVE = 6 };
    buffers logits = random_buffer(ROWS * experts);
    buffers bias = random_buffer(experts);
    buffers ids = empty_buffer(ROWS * ACTIVE);
    buffers factors = empty_buffer(ROWS * ACTIVE);
    buffers gap = empty_buffer(ROWS);
    run_route op[BACKENDS];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(logits, i, experts), {}, rows_at(ids, i, ACTIVE),
                  rows_at(factors, i, ACTIVE), gap.of[i], bias.of[i], ROWS, experts, ACTIVE, 1.5f };
        must(backends[i]->ops->route(backends[i], &op[i], &err), err);
    }
    check(ids, "route: experts");
    check(factors, "  factors");
    check(gap, "  gaps");
    print_time([&](int) { backends[DEVICE]->ops->route(backends[DEVICE], &op[DEVICE], &err); }, 0);
    for (buffers *b : { &logits, &bias, &ids, &factors, &gap })
        drop(*b);
}

/* ---- attention ---- */

struct attend_case {
    uint32_t heads;
    uint32_t head_dim;
    uint32_t topk;           /* 0: all entries */
    uint32_t ratio;          /* 0: no entries */
    uint64_t position;
};

/* Chosen entries as select returns them: ascending. */
static buffers chosen_buffer(uint32_t topk, uint64_t visible)
{
    std::vector<float> values(topk + 1);

    for (uint32_t i = 0; i < topk; i++) {
        const int32_t entry = i < visible ? (int32_t)(i * visible / topk) : -1;

        memcpy(&values[i], &entry, sizeof entry);
    }
    return buffer_of(values);
}

static void test_attend(const attend_case &c)
{
    enum { WINDOW = 128, CAPACITY = 192 };
    const uint64_t visible = c.ratio == 0 ? 0 : (c.position + 1) / c.ratio;
    buffers q = random_buffer(c.heads * c.head_dim);
    buffers window = random_buffer(CAPACITY * c.head_dim);
    buffers entries = random_buffer((visible + 1) * c.head_dim);
    buffers chosen = chosen_buffer(c.topk, visible);
    buffers sink = random_buffer(c.heads);
    buffers y = empty_buffer(c.heads * c.head_dim);
    run_attend op[BACKENDS];
    char text[128];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(q, i, c.heads * c.head_dim), rows_at(y, i, c.heads * c.head_dim),
                  { window.of[i], CAPACITY, c.head_dim }, rows_at(entries, i, c.head_dim),
                  rows_at(chosen, i, c.topk), sink.of[i], 1, c.position, WINDOW, c.ratio, c.topk,
                  c.heads, c.head_dim, 0.01f, 1 };
        if (c.ratio == 0)
            op[i].entries.buffer = nullptr;
        if (c.topk == 0)
            op[i].chosen.buffer = nullptr;
        must(backends[i]->ops->attend(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "attention of %u heads of %u, position %llu, ratio %u, %u chosen",
             c.heads, c.head_dim, (unsigned long long)c.position, c.ratio, c.topk);
    check(y, text);
    print_time([&](int) { backends[DEVICE]->ops->attend(backends[DEVICE], &op[DEVICE], &err); }, 0);
    for (buffers *b : { &q, &window, &entries, &chosen, &sink, &y })
        drop(*b);
}

static void test_select(uint64_t position, int has_ties)
{
    enum { HEADS = 64, WIDTH = 128, TOPK = 512, RATIO = 4 };
    const uint64_t count = (position + 1) / RATIO;
    std::vector<float> values(count * WIDTH);

    for (uint64_t i = 0; i < values.size(); i++)
        values[i] = has_ties && i / WIDTH % 3 != 0 ? 0 : next_bf16();
    buffers q = random_buffer(HEADS * WIDTH);
    buffers weight = random_buffer(HEADS);
    buffers keys = buffer_of(values);
    buffers chosen = empty_buffer(TOPK);
    buffers gap = empty_buffer(1);
    run_select op[BACKENDS];
    char text[96];
    ckpt_error err;

    for (int i = 0; i < BACKENDS; i++) {
        op[i] = { rows_at(q, i, HEADS * WIDTH), rows_at(weight, i, HEADS), rows_at(keys, i, WIDTH),
                  rows_at(chosen, i, TOPK), gap.of[i], 1, position, RATIO, HEADS, WIDTH, TOPK, 1 };
        must(backends[i]->ops->select(backends[i], &op[i], &err), err);
    }
    snprintf(text, sizeof text, "selection of %d from %llu%s", TOPK, (unsigned long long)count,
             has_ties ? ", with ties" : "");
    check(chosen, text);
    check(gap, "  gap");
    print_time([&](int) { backends[DEVICE]->ops->select(backends[DEVICE], &op[DEVICE], &err); }, 0);
    for (buffers *b : { &q, &weight, &keys, &chosen, &gap })
        drop(*b);
}

static void test_attention(void)
{
    static const attend_case cases[] = {
        { 64, 512, 512, 4, 4095 }, { 64, 512, 0, 128, 4095 }, { 64, 512, 0, 0, 4095 },
        { 64, 512, 0, 4, 2600 },   { 17, 40, 0, 4, 300 },     { 8, 128, 8, 4, 70 },
        { 64, 512, 0, 0, 4 },
    };

    for (const attend_case &c : cases)
        test_attend(c);
    test_select(4095, 0);
    test_select(4095, 1);
    test_select(8300, 0);
}

int main(int argc, char **argv)
{
    static const char *const names[BACKENDS] = { "cpu", "cuda" };
    ckpt_error err;

    is_timed = argc > 1 && strcmp(argv[1], "--time") == 0;
    for (int i = 0; i < BACKENDS; i++) {
        const run_backend_ops *ops = run_backend_find(names[i]);

        if (ops == nullptr || ops->open(0, 0, &backends[i], &err) != CKPT_OK) {
            printf("no device\n");
            return 2;
        }
    }
    test_products();
    test_restored(tensor_of(CKPT_F4, 256, 512));
    test_restored(tensor_of(CKPT_F8_E4M3, 384, 512));
    test_restored(tensor_of(CKPT_BF16, 100, 300));
    test_restored(nvfp4_of(256, 512));
    test_experts({ CKPT_F4, 6, 4096, 2048, 32 });
    test_experts({ CKPT_F4, 2, 256, 128, 32 });
    test_experts({ CKPT_F4, 1, 7168, 384, 32 });
    test_experts({ CKPT_F8_E4M3, 1, 4096, 2048, 128 });
    test_experts({ CKPT_F8_E4M3, 2, 384, 256, 128 });
    for (int kind = 0; kind < 4; kind++) {
        test_norm(1, 4096, kind % 2, kind / 2);
        test_norm(2, 300, kind % 2, kind / 2);
        test_norm(64, 512, kind % 2, kind / 2);
    }
    test_streams(0);
    test_streams(1);
    test_route(256);
    test_route(20);
    test_attention();
    for (run_backend *backend : backends)
        backend->ops->close(backend);
    printf("%d failed\n", failure_count);
    return failure_count > 0;
}
