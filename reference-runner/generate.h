/* generate.h: the next token from logits. */
#ifndef RUN_GENERATE_H
#define RUN_GENERATE_H

#include <stdint.h>

/*
 * temperature 0: the largest logit, ties by lower id. Else a draw from softmax(logits /
 * temperature) as argmax(logits / temperature - log(e)), e from Exp(1), its random numbers a
 * function of seed, prompt, position and token id alone.
 */
typedef struct {
    double temperature;
    uint64_t seed;
    uint64_t prompt;
    uint64_t position;
} run_draw;
uint32_t run_next_token(const float *logits, uint32_t vocab_size, const run_draw *draw);

/* A NaN carries no information, and everything computed from it is NaN: its place + 1, or 0. */
uint32_t run_has_nan(const float *logits, uint32_t vocab_size);

#endif
