/* backends.c: the list of the backends in this build. */
#include <string.h>

#include "backend.h"
#include "reference-runner/cpu/cpu.h"
#ifdef CKPT_CUDA
#include "cuda_backend.h"
#endif

static const run_backend_ops *const backends[] = {
    &run_backend_cpu,
#ifdef CKPT_CUDA
    &run_backend_cuda,
#endif
};

const run_backend_ops *run_backend_find(const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}
