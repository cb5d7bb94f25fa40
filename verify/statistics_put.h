/* statistics_put.h: writes statistics as JSON. */
#ifndef CKPT_STATISTICS_PUT_H
#define CKPT_STATISTICS_PUT_H

#include "libckpt/json.h"
#include "statistics.h"

/*
 * One object as a value of `w`:
 *   count, zeros, zero_rows; min, max (null: no finite value)
 *   of floats: nans, infinities, first_nonfinite [row, column] or null, mean, rms
 *   of block scales: scales {count, min, max, zeros, nans}
 *   of FP8 and FP4: saturated, codes [..]
 *   if counted: exponents {"-7": how many values have 2^-7 <= |x| < 2^-6, ...}; all subnormals
 *   of F32 are "-127"
 */
void statistics_put(json_writer *w, const tensor_statistics *s, const ckpt_tensor *tensor);

#endif
