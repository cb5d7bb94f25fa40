/*
 * synth.h: a source of synthetic weights with the statistics of real ones.
 *
 * Deterministic: a value depends on the seed, the tensor's name and the position alone, never on
 * tiles, threads, machine or libm.
 *   FP4       groups have largest magnitude 3, 4 or 6 in the shares that DeepSeek's rule gives on
 *             Gaussian weights (28 / 36.6 / 35.4 %); one group in 10^5 is zero, with scale code 1
 *   FP8       Gaussian codes; the largest of each block, and only that, lies in 0x77..0x7E
 *   scales    powers of two spread over a few steps around a centre, E8M0 codes 115..126
 *   BF16 F32  Gaussian; norms and gains (names in norm.weight, _scale) are near 1; the sigma of
 *             others depends on the name. F32 values are not exact in BF16
 *   I64       expert tables [V,K] have K distinct ids below expert_count in each row, K <= 64
 * Weights have a sigma of about 0.02 to 0.04, so that a model made of them runs.
 */
#ifndef CKPT_SYNTH_H
#define CKPT_SYNTH_H

#include "source.h"

typedef struct {
    uint64_t seed;
    uint64_t expert_count;     /* bound of I64 values; rows hold distinct ones */
} synth_options;

/* Borrows `catalog` (logical tensors: F4/F8_E4M3 with E8M0 or F32 scales, BF16, F32, I64). */
ckpt_code source_synth(const ckpt_catalog *catalog, const synth_options *options,
                       ckpt_source **out, ckpt_error *err);

#endif
