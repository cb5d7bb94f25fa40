/*
 * test_cuda: the device kernels against scalar.c, bit for bit, and their bandwidth.
 *
 * Exit 0: all right, 1: a difference, 2: no device. `test_cuda --bandwidth` also measures; the
 * bar is 0.8 of what a copy on the device moves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

extern "C" {
#include "kernels/kernels.h"
}
#include "kernels/cuda/codecs.cuh"
#include "kernels/cuda/dequantise.h"

static const ckpt_kernels *scalar;
static int failure_count;

static void check(int holds, const char *what)
{
    printf("%-4s %s\n", holds ? "ok" : "FAIL", what);
    failure_count += !holds;
}

static void must(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "test_cuda: %s: %s\n", what, cudaGetErrorString(error));
    exit(error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ? 2 : 1);
}

static int same(const float *a, const float *b, size_t count)
{
    return memcmp(a, b, count * sizeof *a) == 0;
}

/* ---- element codecs: on the host all, and on the device the same text ---- */

enum { CODEC_E4M3, CODEC_E5M2, CODEC_E8M0, CODEC_E2M1, CODEC_F16, CODEC_BF16, CODEC_COUNT };

static __host__ __device__ float decode(int codec, uint32_t code)
{
    switch (codec) {
    case CODEC_E4M3:
        return cuda_e4m3(code & 0xFF);
    case CODEC_E5M2:
        return cuda_e5m2(code & 0xFF);
    case CODEC_E8M0:
        return cuda_e8m0(code & 0xFF);
    case CODEC_E2M1:
        return cuda_e2m1(code & 15);
    case CODEC_F16:
        return cuda_f16(code);
    default:
        return cuda_bf16(code);
    }
}

static __global__ void decode_kernel(int codec, float *out)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

    out[i] = decode(codec, i);
}

static void decode_scalar(int codec, float *out)
{
    std::vector<uint8_t> bytes(65536);
    std::vector<uint16_t> words(65536);
    std::vector<uint8_t> nibbles(32768);

    for (size_t i = 0; i < 65536; i++) {
        bytes[i] = (uint8_t)i;
        words[i] = (uint16_t)i;
    }
    for (size_t i = 0; i < 32768; i++)
        nibbles[i] = (uint8_t)((2 * i & 15) | (2 * i + 1 & 15) << 4);
    switch (codec) {
    case CODEC_E4M3:
        scalar->e4m3_to_f32(bytes.data(), out, 65536);
        break;
    case CODEC_E5M2:
        scalar->e5m2_to_f32(bytes.data(), out, 65536);
        break;
    case CODEC_E8M0:
        scalar->e8m0_to_f32(bytes.data(), out, 65536);
        break;
    case CODEC_E2M1:
        scalar->e2m1_to_f32(nibbles.data(), out, 65536);
        break;
    case CODEC_F16:
        scalar->f16_to_f32(words.data(), out, 65536);
        break;
    default:
        scalar->bf16_to_f32(words.data(), out, 65536);
        break;
    }
}

static void test_decoding_is_that_of_scalar(int on_device)    /* every code */
{
    static const char *const names[] = { "E4M3", "E5M2", "E8M0", "E2M1", "F16", "BF16" };
    std::vector<float> wanted(65536);
    std::vector<float> got(65536);
    float *memory = nullptr;
    char text[64];

    if (on_device)
        must(cudaMalloc(&memory, 65536 * sizeof *memory), "memory");
    for (int codec = 0; codec < CODEC_COUNT; codec++) {
        decode_scalar(codec, wanted.data());
        if (on_device) {
            decode_kernel<<<256, 256>>>(codec, memory);
            must(cudaMemcpy(got.data(), memory, 65536 * sizeof *memory, cudaMemcpyDeviceToHost),
                 "decode");
        } else {
            for (uint32_t i = 0; i < 65536; i++)
                got[i] = decode(codec, i);
        }
        snprintf(text, sizeof text, "%s decodes as scalar does, on the %s", names[codec],
                 on_device ? "device" : "host");
        check(same(wanted.data(), got.data(), 65536), text);
    }
    cudaFree(memory);
}

/* Encoders and scale rules: F32 values 256 apart are all exponents and leading mantissas; around
 * each BF16 value its neighbours, where the ties are. */
static void test_encoding_is_that_of_scalar(void)
{
    int is_same[5] = { 1, 1, 1, 1, 1 };

    for (uint32_t high = 0; high < 65536; high++)
        for (int low = -2; low <= 2; low++) {
            const float pair[2] = { cuda_float((high << 16) + (uint32_t)low),
                                    cuda_float((high << 16) + 0x8000u + (uint32_t)low) };
            uint16_t bf16[2];
            uint8_t e4m3[2];
            uint8_t e2m1;

            scalar->f32_to_bf16(pair, bf16, 2);
            scalar->f32_to_e4m3(pair, e4m3, 2);
            scalar->f32_to_e2m1(pair, &e2m1, 2);
            for (int i = 0; i < 2; i++) {
                is_same[0] &= cuda_to_bf16(pair[i]) == bf16[i];
                is_same[1] &= cuda_to_e4m3(pair[i]) == e4m3[i];
                is_same[2] &= cuda_to_e2m1(pair[i]) == (e2m1 >> (4 * i) & 15u);
                if (!(pair[i] >= 0) || pair[i] > 3e38f)
                    continue;
                is_same[3] &= cuda_fp8_scale(pair[i]) == fp8_scale_pow2(pair[i]);
                is_same[4] &= cuda_fp4_scale(pair[i]) == fp4_scale_code(pair[i]);
            }
        }
    check(is_same[0], "BF16 encodes as scalar does");
    check(is_same[1], "E4M3 encodes as scalar does");
    check(is_same[2], "E2M1 encodes as scalar does");
    check(is_same[3], "FP8 scales are those of rules.c");
    check(is_same[4], "FP4 scales are those of rules.c");
}

/* ---- rows ---- */

typedef int (*dequantise_fn)(const cuda_dequantise_job *job, void *stream);

static uint32_t random_next(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* Host and device copies of one job's input. */
struct rows_case {
    uint64_t rows;
    uint64_t cols;
    int is_fp4;
    std::vector<uint8_t> codes;
    std::vector<uint8_t> scale;
    cuda_dequantise_job job;
};

static void make_case(rows_case *c)
{
    const uint64_t blocks = (c->cols + 127) / 128;

    c->codes.resize(c->rows * c->cols / (c->is_fp4 ? 2 : 1));
    for (uint8_t &code : c->codes)
        code = (uint8_t)random_next();
    c->scale.resize(c->is_fp4 ? c->rows * c->cols / 32
                              : (c->rows + 127) / 128 * blocks * sizeof(float));
    for (size_t i = 0; c->is_fp4 && i < c->scale.size(); i++)
        c->scale[i] = (uint8_t)random_next();
    for (size_t i = 0; !c->is_fp4 && i < c->scale.size() / 4; i++)
        reinterpret_cast<uint32_t *>(c->scale.data())[i] =
            i % 7 == 0 ? random_next() : (random_next() & 0x807FFFFFu) | 0x3F000000u;
    must(cudaMalloc(const_cast<uint8_t **>(&c->job.codes), c->codes.size()), "memory");
    must(cudaMalloc(const_cast<void **>(&c->job.scale), c->scale.size()), "memory");
    must(cudaMalloc(&c->job.out, c->rows * c->cols * sizeof(float)), "memory");
    must(cudaMemcpy(const_cast<uint8_t *>(c->job.codes), c->codes.data(), c->codes.size(),
                    cudaMemcpyHostToDevice), "copy");
    must(cudaMemcpy(const_cast<void *>(c->job.scale), c->scale.data(), c->scale.size(),
                    cudaMemcpyHostToDevice), "copy");
    c->job.row_count = c->rows;
    c->job.col_count = c->cols;
}

static void free_case(rows_case *c)
{
    cudaFree(const_cast<uint8_t *>(c->job.codes));
    cudaFree(const_cast<void *>(c->job.scale));
    cudaFree(c->job.out);
}

static void scalar_row(const rows_case *c, uint64_t row, int is_f32, void *out)
{
    const uint64_t blocks = (c->cols + 127) / 128;
    const uint8_t *codes = c->codes.data() + row * c->cols / (c->is_fp4 ? 2 : 1);
    const uint8_t *fp4_scale = c->scale.data() + row * c->cols / 32;
    const float *fp8_scale =
        reinterpret_cast<const float *>(c->scale.data()) + row / 128 * blocks;

    if (c->is_fp4 && is_f32)
        scalar->fp4_row_to_f32(codes, fp4_scale, c->cols, static_cast<float *>(out));
    else if (c->is_fp4)
        scalar->fp4_row_to_bf16(codes, fp4_scale, c->cols, static_cast<uint16_t *>(out));
    else if (is_f32)
        scalar->fp8_row_to_f32(codes, fp8_scale, c->cols, static_cast<float *>(out));
    else
        scalar->fp8_row_to_bf16(codes, fp8_scale, c->cols, static_cast<uint16_t *>(out));
}

static const dequantise_fn functions[2][2] = {
    { cuda_fp8_to_bf16, cuda_fp8_to_f32 }, { cuda_fp4_to_bf16, cuda_fp4_to_f32 }
};

static void test_rows_are_those_of_scalar(uint64_t rows, uint64_t cols)
{
    for (int is_fp4 = 0; is_fp4 < 2; is_fp4++)
        for (int is_f32 = 0; is_f32 < 2; is_f32++) {
            rows_case c = { rows, cols, is_fp4, {}, {}, {} };
            const uint64_t row_bytes = cols * (is_f32 ? 4 : 2);
            std::vector<uint8_t> got(rows * row_bytes);
            std::vector<uint8_t> wanted(row_bytes);
            uint64_t different = 0;
            char text[128];

            make_case(&c);
            must((cudaError_t)functions[is_fp4][is_f32](&c.job, nullptr), "dequantise");
            must(cudaMemcpy(got.data(), c.job.out, got.size(), cudaMemcpyDeviceToHost), "rows");
            for (uint64_t row = 0; row < rows; row++) {
                scalar_row(&c, row, is_f32, wanted.data());
                different += memcmp(wanted.data(), got.data() + row * row_bytes, row_bytes) != 0;
            }
            free_case(&c);
            snprintf(text, sizeof text, "%s to %s, %llu x %llu, as scalar has it",
                     is_fp4 ? "FP4" : "FP8", is_f32 ? "F32" : "BF16", (unsigned long long)rows,
                     (unsigned long long)cols);
            check(different == 0, text);
        }
}

/* ---- bandwidth ---- */

template <typename Queue> static double seconds_of(const Queue &queue)
{
    enum { WARM = 3, TIMED = 20 };
    cudaEvent_t begin;
    cudaEvent_t end;
    float milliseconds;

    must(cudaEventCreate(&begin), "event");
    must(cudaEventCreate(&end), "event");
    for (int i = 0; i < WARM; i++)
        queue();
    cudaEventRecord(begin);
    for (int i = 0; i < TIMED; i++)
        queue();
    cudaEventRecord(end);
    must(cudaEventSynchronize(end), "timing");
    must(cudaEventElapsedTime(&milliseconds, begin, end), "timing");
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return milliseconds / 1e3 / (double)TIMED;
}

/* What weights can reach on their way to the device: pinned pieces as large as they travel in. */
static void print_pinned_bandwidth(void)
{
    enum { PIECE = 1 << 22, PIECES = 256 };
    uint8_t *from;
    uint8_t *to;

    must(cudaMallocHost(&from, PIECE), "pinned memory");
    must(cudaMalloc(&to, PIECE), "memory");
    const double seconds = seconds_of([&] {
        for (int i = 0; i < PIECES; i++)
            cudaMemcpyAsync(to, from, PIECE, cudaMemcpyHostToDevice);
    });

    printf("pinned copy to the device: %.1f GB/s\n",
           (double)((uint64_t)PIECE * PIECES) / seconds / 1e9);
    cudaFree(to);
    cudaFreeHost(from);
}

static void test_bandwidth(void)
{
    enum { ROWS = 65536, COLS = 16384 };     /* 1 Gi elements: far more than any cache */
    const uint64_t count = (uint64_t)ROWS * COLS;
    uint8_t *from;
    uint8_t *to;
    double copy;

    must(cudaMalloc(&from, 2 * count), "memory");
    must(cudaMalloc(&to, 2 * count), "memory");
    must(cudaMemset(from, 0x35, 2 * count), "memory");
    copy = 2 * 2.0 * (double)count /
           seconds_of([&] { cudaMemcpyAsync(to, from, 2 * count, cudaMemcpyDeviceToDevice); });
    printf("copy on the device: %.0f GB/s, read and written\n", copy / 1e9);
    for (int is_fp4 = 0; is_fp4 < 2; is_fp4++) {
        const uint64_t scale_bytes = is_fp4 ? count / 32 : count / 128 / 128 * 4;
        void *scale;

        must(cudaMalloc(&scale, scale_bytes), "memory");
        must(cudaMemset(scale, 0x3F, scale_bytes), "memory");
        const cuda_dequantise_job job = { from, scale, to, ROWS, COLS, 0 };
        const double bytes = (double)count * (is_fp4 ? 0.5 : 1) + (double)scale_bytes +
                             2.0 * (double)count;
        const double speed =
            bytes / seconds_of([&] { functions[is_fp4][0](&job, nullptr); });
        char text[96];

        snprintf(text, sizeof text, "%s to BF16: %.0f GB/s, %.2f of the copy",
                 is_fp4 ? "FP4" : "FP8", speed / 1e9, speed / copy);
        check(speed >= 0.8 * copy, text);
        cudaFree(scale);
    }
    cudaFree(from);
    cudaFree(to);
}

int main(int argc, char **argv)
{
    int device_count = 0;

    scalar = kernels_find("scalar");
    test_decoding_is_that_of_scalar(0);
    test_encoding_is_that_of_scalar();
    if (cudaGetDeviceCount(&device_count) != cudaSuccess || device_count == 0) {
        printf("no device: the rest is not tested\n");
        return failure_count > 0 ? 1 : 2;
    }
    test_decoding_is_that_of_scalar(1);
    test_rows_are_those_of_scalar(256, 4096);
    test_rows_are_those_of_scalar(130, 160);
    test_rows_are_those_of_scalar(1, 32);
    if (argc > 1 && strcmp(argv[1], "--bandwidth") == 0) {
        print_pinned_bandwidth();
        test_bandwidth();
    }
    printf("%d failed\n", failure_count);
    return failure_count > 0;
}
