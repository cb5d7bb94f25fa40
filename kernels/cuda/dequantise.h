/*
 * dequantise.h: decode rows of FP8 and FP4 codes to BF16 or F32 on the device, with the same bits
 * as fp8_row_to_* and fp4_row_to_* in kernels.h.
 *
 * The pointers in a job are device pointers (the job itself is in host memory); codes and out are
 * aligned to 16 bytes. The work is queued on `stream` (a cudaStream_t); an error of the kernel
 * itself is returned by the call that waits for the stream.
 */
#ifndef CKPT_CUDA_DEQUANTISE_H
#define CKPT_CUDA_DEQUANTISE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const uint8_t *codes;    /* rows packed without gaps */
    const void *scale;       /* FP8: [ceil(rows / 128), ceil(cols / 128)]; FP4: E8M0, 1 x 32 */
    void *out;
    uint64_t row_count;
    uint64_t col_count;      /* FP8: a multiple of 16; FP4: of 32 */
    int has_e8m0_scale;      /* FP8: the scales are E8M0 instead of F32 */
} cuda_dequantise_job;

/* Return a cudaError_t: 0 (success), or why the kernel could not be queued. */
int cuda_fp8_to_bf16(const cuda_dequantise_job *job, void *stream);
int cuda_fp8_to_f32(const cuda_dequantise_job *job, void *stream);
int cuda_fp4_to_bf16(const cuda_dequantise_job *job, void *stream);
int cuda_fp4_to_f32(const cuda_dequantise_job *job, void *stream);

#ifdef __cplusplus
}
#endif

#endif
