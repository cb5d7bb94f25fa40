/*
 * tensor_class.h: what a tensor is, by its name: one table for all who ask.
 *
 * Canonical names, which maps give whatever other software calls a tensor, obey four conventions:
 * routed experts are below a component `experts` and a number, shared ones below `shared_experts`
 * or `shared_expert`, attention below `attn` or `self_attn`, and next-token blocks are mtp.{m}.*
 * (digest_is_mtp). The rest of the table describes stored names as writers in use have them, for
 * summaries of checkpoints that no map has read.
 */
#ifndef CKPT_TENSOR_CLASS_H
#define CKPT_TENSOR_CLASS_H

#include <stddef.h>

typedef enum {
    TENSOR_OTHER,
    TENSOR_EXPERT,                 /* of one routed expert */
    TENSOR_SHARED_EXPERT,
    TENSOR_EXPERT_STACK,           /* of all routed experts of a layer */
    TENSOR_NORM,
    TENSOR_ATTENTION,
    TENSOR_DENSE,                  /* what follows attention, without experts */
    TENSOR_ROUTER,
    TENSOR_EMBEDDING,              /* and the head */
    TENSOR_SCALE,                  /* of a weight that is stored as codes */
    TENSOR_CLASS_COUNT
} tensor_class;

tensor_class tensor_class_of(const char *name);

/* Where the number of a routed expert stands in its weight's name, and how many digits it has;
 * NULL: it is not of an expert. */
const char *tensor_expert_number(const char *name, size_t *digits);

/* The weight that servers put into one matrix with this one, w3 beside w1 and up_proj beside
 * gate_proj, so that both need one scale for the tensor: 1 and its name, or 0. */
int tensor_fused_partner(const char *name, char *out, size_t out_bytes);

#endif
