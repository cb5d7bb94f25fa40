/* encoding_rows.h: how the rows of each encoding are decoded. Private to encoding*.c. */
#ifndef CKPT_ENCODING_ROWS_H
#define CKPT_ENCODING_ROWS_H

#include "encoding.h"

extern const encoding_rows encoding_rows_fp8;        /* E4M3, a scale for 128 columns or a row */
extern const encoding_rows encoding_rows_fp8_narrow; /* E4M3, a scale for narrower blocks */
extern const encoding_rows encoding_rows_fp4;        /* E2M1, E8M0 scales of groups */
extern const encoding_rows encoding_rows_nvfp4;      /* E2M1, E4M3 scales and a tensor scale */
extern const encoding_rows encoding_rows_fp4_16;     /* E2M1, E4M3 scales as ggml reads them */
extern const encoding_rows encoding_rows_int8;       /* I8, scales of groups */
extern const encoding_rows encoding_rows_int8_codes; /* I8 without scales */
extern const encoding_rows encoding_rows_int4;       /* I4, BF16 scales of groups */
extern const encoding_rows encoding_rows_int4_codes; /* I4 without scales */
extern const encoding_rows encoding_rows_e2m1;       /* these and below: plain elements */
extern const encoding_rows encoding_rows_e4m3;
extern const encoding_rows encoding_rows_e5m2;
extern const encoding_rows encoding_rows_e8m0;
extern const encoding_rows encoding_rows_f16;
extern const encoding_rows encoding_rows_bf16;
extern const encoding_rows encoding_rows_f32;
extern const encoding_rows encoding_rows_int;        /* digests only: values_i64 decodes */

#endif
