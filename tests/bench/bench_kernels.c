/*
 * bench_kernels.c: bytes per second of each kernel in each instruction set, data in the L2 cache.
 *
 *   bench_kernels [TEXT]      only kernels whose name contains TEXT
 *
 * A rate counts the bytes read and written. Each figure is the best of several short runs:
 * other work on the machine can only slow a run down.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "libckpt/quantise.h"

enum {
    COLUMNS = 32768,        /* elements a call: 128 KiB as F32 */
    RUNS = 7
};

static const double run_seconds = 0.01;

/* One set of buffers for all kernels; random codes, and values that a quantiser would see. */
static struct {
    _Alignas(64) uint8_t codes[COLUMNS];
    _Alignas(64) uint8_t near_scales[COLUMNS / FP4_GROUP];
    _Alignas(64) uint8_t distances[COLUMNS / FP4_GROUP];
    _Alignas(64) float values[COLUMNS];
    _Alignas(64) uint16_t halves[COLUMNS];
    _Alignas(64) int64_t integers[COLUMNS / 4];
    _Alignas(64) float pow2_scales[COLUMNS / FP8_BLOCK];
    _Alignas(64) float any_scales[COLUMNS / FP8_BLOCK];
    _Alignas(64) uint8_t out[COLUMNS * sizeof(float)];
    hash128 sum;
    uint64_t checksum;
} data;

static uint32_t random_next(void)
{
    static uint64_t state = 1;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static void data_fill(void)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        const uint32_t bits = 0x3C000000u + (random_next() & 0x03FFFFFFu);

        memcpy(&data.values[i], &bits, sizeof bits);
        data.halves[i] = (uint16_t)(bits >> 16);
        data.codes[i] = (uint8_t)random_next();
        if ((data.codes[i] & 0x7F) == 0x7F)     /* no weight is NaN */
            data.codes[i] ^= 1;
    }
    for (size_t i = 0; i < COLUMNS / FP4_GROUP; i++) {
        data.near_scales[i] = (uint8_t)(115 + random_next() % 12);
        data.distances[i] = (uint8_t)(random_next() % 12);
    }
    for (size_t i = 0; i < COLUMNS / FP8_BLOCK; i++) {
        data.pow2_scales[i] = (float)(1 << (random_next() % 8)) / 4096.0f;
        data.any_scales[i] = data.pow2_scales[i] * 1.1f;
    }
}

#define DECODE(kernel, source) \
    static void run_##kernel(const ckpt_kernels *k) \
    { \
        k->kernel(source, (float *)data.out, COLUMNS); \
    }
#define ENCODE(kernel, type) \
    static void run_##kernel(const ckpt_kernels *k) \
    { \
        k->kernel(data.values, (type *)data.out, COLUMNS); \
    }

DECODE(e4m3_to_f32, data.codes)
DECODE(e5m2_to_f32, data.codes)
DECODE(e8m0_to_f32, data.codes)
DECODE(e2m1_to_f32, data.codes)
DECODE(bf16_to_f32, data.halves)
DECODE(f16_to_f32, data.halves)
ENCODE(f32_to_bf16, uint16_t)
ENCODE(f32_to_f16, uint16_t)
ENCODE(f32_to_e4m3, uint8_t)
ENCODE(f32_to_e5m2, uint8_t)
ENCODE(f32_to_e8m0, uint8_t)
ENCODE(f32_to_e2m1, uint8_t)

static void run_fp8_row_to_bf16(const ckpt_kernels *k)
{
    k->fp8_row_to_bf16(data.codes, data.pow2_scales, COLUMNS, (uint16_t *)data.out);
}

static void run_fp8_row_to_bf16_any_scale(const ckpt_kernels *k)
{
    k->fp8_row_to_bf16(data.codes, data.any_scales, COLUMNS, (uint16_t *)data.out);
}

static void run_fp8_row_to_f32(const ckpt_kernels *k)
{
    k->fp8_row_to_f32(data.codes, data.pow2_scales, COLUMNS, (float *)data.out);
}

static void run_fp4_row_to_bf16(const ckpt_kernels *k)
{
    k->fp4_row_to_bf16(data.codes, data.near_scales, COLUMNS, (uint16_t *)data.out);
}

static void run_fp4_row_to_f32(const ckpt_kernels *k)
{
    k->fp4_row_to_f32(data.codes, data.near_scales, COLUMNS, (float *)data.out);
}

static void run_fp4_group_masks(const ckpt_kernels *k)
{
    k->fp4_group_masks(data.codes, COLUMNS / FP4_GROUP, data.out);
}

static void run_fp4_row_to_fp8(const ckpt_kernels *k)
{
    k->fp4_row_to_fp8(data.codes, data.distances, COLUMNS, 0, data.out);
}

static void run_f32_block_amax(const ckpt_kernels *k)
{
    data.checksum += k->f32_block_amax(data.values, 128, 128, 256) > 1.0f;
}

static void run_bf16_block_amax(const ckpt_kernels *k)
{
    data.checksum += k->bf16_block_amax(data.halves, 128, 128, 256) > 1.0f;
}

static void run_f32_block_to_fp8(const ckpt_kernels *k)
{
    const encode_result r = k->f32_block_to_fp8(data.values, 128, 128, 256, 0x1p-8f, data.out,
                                                128);

    data.checksum += r.inexact_count;
}

static void run_f32_block_to_fp8_any_scale(const ckpt_kernels *k)
{
    const encode_result r = k->f32_block_to_fp8(data.values, 128, 128, 256, 0.0042f, data.out,
                                                128);

    data.checksum += r.inexact_count;
}

static void run_f32_row_to_fp4(const ckpt_kernels *k)
{
    const encode_result r = k->f32_row_to_fp4(data.values, data.near_scales, COLUMNS, data.out);

    data.checksum += r.inexact_count;
}

static void run_fp4_group_scale_exact(const ckpt_kernels *k)
{
    for (size_t c = 0; c < COLUMNS; c += FP4_GROUP)
        data.checksum += (uint64_t)k->fp4_group_scale_exact(data.values + c);
}

static void run_digest_row_bf16(const ckpt_kernels *k)
{
    k->digest_row_bf16(data.halves, COLUMNS, 0, &data.sum);
}

static void run_digest_row_f32(const ckpt_kernels *k)
{
    k->digest_row_f32(data.values, COLUMNS, 0, &data.sum);
}

static void run_digest_row_fp8(const ckpt_kernels *k)
{
    k->digest_row_fp8(data.codes, data.pow2_scales, COLUMNS, 0, &data.sum);
}

static void run_digest_row_fp4(const ckpt_kernels *k)
{
    k->digest_row_fp4(data.codes, data.near_scales, COLUMNS, 0, &data.sum);
}

static void run_digest_row_i64(const ckpt_kernels *k)
{
    k->digest_row_i64(data.integers, COLUMNS / 4, 0, &data.sum);
}

static void run_hash_bytes(const ckpt_kernels *k)
{
    data.checksum += k->hash_bytes(data.values, sizeof data.values, 1).low64;
}

/* A panel of BF16 by a rule: maxima, scales, codes, loss. The rows of one block, or long ones. */
static void run_rule(const ckpt_kernels *k, const char *name)
{
    const quantise_rule *rule = quantise_rule_find(name);
    const quantise_setup setup = { k, rule, quantise_tensor_scale(rule, 2.0f) };
    const size_t rows = rule->block_rows > 1 ? rule->block_rows : 16;
    const size_t cols = COLUMNS / rows;
    const quantise_panel panel = { .halves = data.halves, .rows = rows, .cols = cols,
                                   .pitch = cols };
    const quantise_target target = { data.out, cols, data.out + 2 * COLUMNS, cols / 16,
                                     rule->scale_dtype };
    static quantise_loss loss;

    data.checksum += quantise_panel_run(&setup, &panel, &target, &loss).outcome;
}

#define RULE(function, name) \
    static void run_##function(const ckpt_kernels *k) \
    { \
        run_rule(k, name); \
    }

RULE(fp8_b128_f32, "fp8-b128-f32")
RULE(fp8_b128_f32_deepseek, "fp8-b128-f32-deepseek")
RULE(fp8_b128_ue8m0, "fp8-b128-ue8m0")
RULE(fp4_b32_deepseek, "fp4-b32-deepseek")
RULE(fp4_b32_floor, "fp4-b32-floor")
RULE(fp4_b32_even, "fp4-b32-even")
RULE(mxfp8_rceil, "mxfp8-rceil")
RULE(mxfp8_floor, "mxfp8-floor")
RULE(nvfp4_modelopt, "nvfp4-modelopt")
RULE(fp8_channel, "fp8-channel")

typedef struct {
    const char *name;
    void (*run)(const ckpt_kernels *k);
    double bytes;           /* read and written by one run */
} bench;

static const bench benches[] = {
    { "e4m3_to_f32", run_e4m3_to_f32, 5.0 * COLUMNS },
    { "e5m2_to_f32", run_e5m2_to_f32, 5.0 * COLUMNS },
    { "e8m0_to_f32", run_e8m0_to_f32, 5.0 * COLUMNS },
    { "e2m1_to_f32", run_e2m1_to_f32, 4.5 * COLUMNS },
    { "bf16_to_f32", run_bf16_to_f32, 6.0 * COLUMNS },
    { "f16_to_f32", run_f16_to_f32, 6.0 * COLUMNS },
    { "f32_to_bf16", run_f32_to_bf16, 6.0 * COLUMNS },
    { "f32_to_f16", run_f32_to_f16, 6.0 * COLUMNS },
    { "f32_to_e4m3", run_f32_to_e4m3, 5.0 * COLUMNS },
    { "f32_to_e5m2", run_f32_to_e5m2, 5.0 * COLUMNS },
    { "f32_to_e8m0", run_f32_to_e8m0, 5.0 * COLUMNS },
    { "f32_to_e2m1", run_f32_to_e2m1, 4.5 * COLUMNS },
    { "fp8_row_to_bf16", run_fp8_row_to_bf16, 3.0 * COLUMNS },
    { "fp8_row_to_bf16 any scale", run_fp8_row_to_bf16_any_scale, 3.0 * COLUMNS },
    { "fp8_row_to_f32", run_fp8_row_to_f32, 5.0 * COLUMNS },
    { "fp4_row_to_bf16", run_fp4_row_to_bf16, 2.5 * COLUMNS },
    { "fp4_row_to_f32", run_fp4_row_to_f32, 4.5 * COLUMNS },
    { "fp4_group_masks", run_fp4_group_masks, 0.5 * COLUMNS },
    { "fp4_row_to_fp8", run_fp4_row_to_fp8, 1.5 * COLUMNS },
    { "f32_block_amax", run_f32_block_amax, 4.0 * 128 * 128 },
    { "bf16_block_amax", run_bf16_block_amax, 2.0 * 128 * 128 },
    { "f32_block_to_fp8", run_f32_block_to_fp8, 5.0 * 128 * 128 },
    { "f32_block_to_fp8 any scale", run_f32_block_to_fp8_any_scale, 5.0 * 128 * 128 },
    { "f32_row_to_fp4", run_f32_row_to_fp4, 4.5 * COLUMNS },
    { "fp4_group_scale_exact", run_fp4_group_scale_exact, 4.0 * COLUMNS },
    { "digest_row_bf16", run_digest_row_bf16, 2.0 * COLUMNS },
    { "digest_row_f32", run_digest_row_f32, 4.0 * COLUMNS },
    { "digest_row_fp8", run_digest_row_fp8, 1.0 * COLUMNS },
    { "digest_row_fp4", run_digest_row_fp4, 0.5 * COLUMNS },
    { "digest_row_i64", run_digest_row_i64, 2.0 * COLUMNS },
    { "hash_bytes", run_hash_bytes, 4.0 * COLUMNS },
    { "fp8-b128-f32", run_fp8_b128_f32, 3.0 * COLUMNS },
    { "fp8-b128-f32-deepseek", run_fp8_b128_f32_deepseek, 3.0 * COLUMNS },
    { "fp8-b128-ue8m0", run_fp8_b128_ue8m0, 3.0 * COLUMNS },
    { "fp4-b32-deepseek", run_fp4_b32_deepseek, 2.5 * COLUMNS },
    { "fp4-b32-floor", run_fp4_b32_floor, 2.5 * COLUMNS },
    { "fp4-b32-even", run_fp4_b32_even, 2.5 * COLUMNS },
    { "mxfp8-rceil", run_mxfp8_rceil, 3.0 * COLUMNS },
    { "mxfp8-floor", run_mxfp8_floor, 3.0 * COLUMNS },
    { "nvfp4-modelopt", run_nvfp4_modelopt, 2.5 * COLUMNS },
    { "fp8-channel", run_fp8_channel, 3.0 * COLUMNS }
};

static double seconds_now(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0)
        return 0.0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Gigabytes per CPU second of the best run; a run repeats the kernel for `run_seconds`. */
static double bench_rate(const bench *b, const ckpt_kernels *k)
{
    double best = 0.0;

    b->run(k);
    for (int i = 0; i < RUNS; i++) {
        const double begin = seconds_now();
        double elapsed = 0.0;
        double bytes = 0.0;

        do {
            for (int repeat = 0; repeat < 8; repeat++)
                b->run(k);
            bytes += 8 * b->bytes;
            elapsed = seconds_now() - begin;
        } while (elapsed < run_seconds);
        if (bytes / elapsed > best)
            best = bytes / elapsed;
    }
    return best * 1e-9;
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "scalar", "avx2", "avx512" };
    const size_t name_count = sizeof names / sizeof names[0];

    data_fill();
    printf("%-28s%10s%10s%10s   GB/s read + written, one thread\n", "kernel", names[0], names[1],
           names[2]);
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        if (argc > 1 && strstr(benches[i].name, argv[1]) == NULL)
            continue;
        printf("%-28s", benches[i].name);
        for (size_t n = 0; n < name_count; n++) {
            const ckpt_kernels *k = kernels_find(names[n]);

            if (k == NULL)
                printf("%10s", "-");
            else
                printf("%10.2f", bench_rate(&benches[i], k));
        }
        printf("\n");
    }
    return data.checksum == 42 && data.sum.low64 == 42;     /* keeps the results alive */
}
