/* tensor_group.h: tensors by layer and by kind, from their names alone. */
#ifndef CKPT_TENSOR_GROUP_H
#define CKPT_TENSOR_GROUP_H

#include <stddef.h>

/* Both write a NUL-terminated text of at most tensor_group_bytes(name) to `out`. */
size_t tensor_group_bytes(const char *name);

/* Up to the first number: "model.layers.3", "mtp.0"; "rest" for tensors of no layer. */
void tensor_layer(const char *name, char *out);

/* Numbers are '*': "layers.*.attn.wq_a.weight". */
void tensor_kind(const char *name, char *out);

#endif
