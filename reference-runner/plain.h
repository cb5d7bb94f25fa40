/*
 * plain.h: every operation of backend.h in plain C, for one row. These functions define the
 * results: the CPU backend calls them or returns the same bits; other backends are tested against
 * them.
 */
#ifndef RUN_PLAIN_H
#define RUN_PLAIN_H

#include "backend.h"

enum { RUN_STREAM_LIMIT = 8 };

/* One output of `linear`: block sums rounded to F32, added in F32. */
float plain_product(const float *x, const float *w, size_t depth, size_t block);

void plain_quantise(const float *x, float *y, const run_quantise *op);
void plain_norm(const float *x, const float *weight, float *y, const run_norm *op);
/* One head. angles: rope_dim / 2 pairs of cos and sin. */
void plain_rope(float *x, const float *angles, const run_rope *op);
void plain_hadamard(float *x, uint32_t width, int round);

/* One entry from `count` slots; k[i] and s[i] point to `width` columns each. */
void plain_pool(const float *const *k, const float *const *s, size_t count, float *y,
                const run_pool *op);

/* The score of one candidate: q has head_count * width values, weights head_count. */
float plain_score(const float *q, const float *weights, const float *key, const run_select *op);
/* Write the indices of the best `wanted` of `count` scores (ties by lower index) to `chosen` in
 * ascending order; return the gap (run_select). `taken` is scratch of `count` bytes. */
float plain_best(const float *scores, size_t count, uint32_t wanted, int32_t *chosen,
                 unsigned char *taken);

/* Attention of one head over `count` vectors; `scores` is scratch for `count` values. */
typedef struct {
    const float *q;
    const float *const *list;
    size_t count;
    float sink;
    float *scores;
    float *y;
} plain_head;
void plain_attend(const plain_head *head, const run_attend *op);

/* Replace each score s by exp(s - M); return the denominator l (run_attend). */
float plain_softmax(float *scores, size_t count, float sink);

/* One row of run_streams. */
typedef struct {
    const float *x;
    const float *mix;
    const float *scale;
    const float *base;
    float *u;
    float *post;
    float *comb;
} plain_streams;
void plain_hc_pre(const plain_streams *row, const run_streams *op);
void plain_hc_head(const plain_streams *row, const run_streams *op);
void plain_hc_post(float *x, const float *y, const float *post, const float *comb,
                   const run_streams_post *op);

/* One row of run_route. `scores` is scratch for 2 * expert_count values. table and bias may be
 * NULL. plain_route returns the gap. */
typedef struct {
    const float *logits;
    const int32_t *table;
    const float *bias;
    float *scores;
    int32_t *ids;
    float *weights;
} plain_token;
float plain_route(const plain_token *token, const run_route *op);

/* h of run_experts from a and b, in place in a; not yet quantised. */
void plain_swiglu(float *a, const float *b, float factor, const run_experts *op);

#endif
