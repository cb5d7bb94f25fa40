/* cuda_backend.h: the CUDA backend; only in builds with CKPT_CUDA. */
#ifndef RUN_CUDA_BACKEND_H
#define RUN_CUDA_BACKEND_H

#include "backend.h"

extern const run_backend_ops run_backend_cuda;

#endif
