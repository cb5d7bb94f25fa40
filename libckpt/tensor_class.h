/*
 * tensor_class.h: the class of a tensor by its name. No other code interprets names.
 *
 * Canonical names, to which maps translate those of other software, obey five conventions: routed
 * experts are below a component `experts` and a number, shared ones below `shared_experts` or
 * `shared_expert`, attention below `attn` or `self_attn`, the grouped output projection of
 * DeepSeek-V4 is attn.wo_a.weight, and next-token blocks are mtp.{m}.* (digest_is_mtp). The other
 * lines of the table are for stored names of common software, for summaries of checkpoints that no
 * map describes.
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
    TENSOR_DENSE,                  /* feed-forward weights without experts */
    TENSOR_ROUTER,
    TENSOR_EMBEDDING,              /* or the output head */
    TENSOR_SCALE,                  /* of a weight that is stored as codes */
    TENSOR_CLASS_COUNT
} tensor_class;

tensor_class tensor_class_of(const char *name);

/* Find the number of a routed expert in its weight's name, and its length in digits; NULL: the name
 * is not of an expert's weight. */
const char *tensor_expert_number(const char *name, size_t *digits);

/* 1 for X.attn.wo_a.weight, which --wo-a is about: DeepSeek's own code and some servers run it in
 * BF16 in models whose other weights are quantised. */
int tensor_is_wo_a(const char *name);

/* 1 and the name of the weight that servers fuse with this one (w1 with w3, gate_proj with
 * up_proj), so that both need the same tensor scale; 0: none. */
int tensor_fused_partner(const char *name, char *out, size_t out_bytes);

#endif
