/* cuda.h: the CUDA backend, in builds that have it (CKPT_CUDA). */
#ifndef RUN_CUDA_H
#define RUN_CUDA_H

#include "backend.h"

extern const run_backend_ops run_backend_cuda;

/* Bytes that are free on the device now. No device: CKPT_E_USAGE, one line. */
ckpt_code run_cuda_free_bytes(uint64_t *out, ckpt_error *err);

#endif
