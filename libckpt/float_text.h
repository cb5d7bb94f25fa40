/* float_text.h: an F32 as text. */
#ifndef CKPT_FLOAT_TEXT_H
#define CKPT_FLOAT_TEXT_H

enum { FLOAT_TEXT_BYTES = 32 };

/* Write the fewest digits that read back as the same F32; or NaN, Infinity, -Infinity. */
void float_text(float value, char out[FLOAT_TEXT_BYTES]);

#endif
