/* generate.h: chooses the next token from logits. */
#ifndef RUN_GENERATE_H
#define RUN_GENERATE_H

#include <stdint.h>

/*
 * temperature 0: the largest logit, ties by lower id. Otherwise a draw from softmax(logits /
 * temperature), computed as argmax(logits / temperature - log(e)) with e from Exp(1) (the Gumbel
 * trick). The random numbers depend only on seed, prompt, position and token id.
 */
typedef struct {
    double temperature;
    uint64_t seed;
    uint64_t prompt;
    uint64_t position;
} run_draw;
uint32_t run_next_token(const float *logits, uint32_t vocab_size, const run_draw *draw);

/* 1 + the id of the first logit that is NaN; 0: none is. */
uint32_t run_find_nan(const float *logits, uint32_t vocab_size);

#endif
