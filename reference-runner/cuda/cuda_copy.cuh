/* cuda_copy.cuh: copies from device memory to shared memory that need no registers. */
#ifndef RUN_CUDA_COPY_CUH
#define RUN_CUDA_COPY_CUH

#include <stdint.h>

/* Of weights, which are read in pieces of a line: the hint makes the L2 load all of it at once. */
static __device__ __forceinline__ void cuda_copy16(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from)
                 : "memory");
}

static __device__ __forceinline__ void cuda_copy4(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from)
                 : "memory");
}

/* End a group of this thread's copies. */
static __device__ __forceinline__ void cuda_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Wait until at most `groups` of this thread's groups, the last ones, are not complete. */
template <uint32_t groups> static __device__ __forceinline__ void cuda_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

#endif
