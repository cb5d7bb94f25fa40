/* cuda_attend.cuh: an attention operation as its kernels see it. */
#ifndef RUN_CUDA_ATTEND_CUH
#define RUN_CUDA_ATTEND_CUH

#include "cuda_tile.cuh"

struct attend_job {
    cuda_rows q;
    cuda_rows y;
    cuda_ring window_kv;
    cuda_rows entries;
    cuda_rows chosen;
    const float *sink;
    float *scores;           /* rows x heads, `pitch` floats each */
    float *denominators;     /* rows x heads */
    uint64_t pitch;
    uint64_t first;          /* row of the slab */
    run_attend op;
};

/* The vectors that a row attends to: `window` rows of the ring from position `begin` on, then
 * entries; `count` in total. */
struct attend_list {
    uint64_t begin;
    uint64_t window;
    uint64_t count;
    const int32_t *chosen;
};

static __device__ __forceinline__ attend_list list_of(const attend_job &j, uint64_t t)
{
    const uint64_t p = j.op.position + t;
    const uint64_t begin = p + 1 > j.op.window ? p + 1 - j.op.window : 0;
    uint64_t visible = j.entries.data == nullptr ? 0 : (p + 1) / j.op.ratio;

    if (j.chosen.data != nullptr)
        visible = min(visible, (uint64_t)j.op.topk);
    return { begin, p + 1 - begin, p + 1 - begin + visible,
             j.chosen.data == nullptr ? nullptr : j.chosen.ints(t) };
}

static __device__ __forceinline__ const float *list_row(const attend_job &j, const attend_list &l,
                                                        uint64_t i)
{
    if (i >= l.count)
        return nullptr;
    if (i < l.window)
        return j.window_kv.row(l.begin + i);
    i -= l.window;
    return j.entries.row(l.chosen == nullptr ? i : (uint64_t)l.chosen[i]);
}

#endif
