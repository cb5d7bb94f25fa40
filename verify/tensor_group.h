/* tensor_group.h: tensors by layer and by kind, from their names alone. */
#ifndef CKPT_TENSOR_GROUP_H
#define CKPT_TENSOR_GROUP_H

#include <stddef.h>

/* Bytes of the name up to its first number, "model.layers.3", "mtp.0"; 0: it is of no layer. */
size_t tensor_layer_bytes(const char *name);

/* 1 when two names are of one layer; when they differ in numbers alone. */
int tensor_same_layer(const char *a, const char *b);
int tensor_same_kind(const char *a, const char *b);

/* Both write a NUL-terminated text of at most tensor_group_bytes(name) to `out`. */
size_t tensor_group_bytes(const char *name);

/* As tensor_layer_bytes has it; "rest" for tensors of no layer. */
void tensor_layer(const char *name, char *out);

/* Numbers are '*': "layers.*.attn.wq_a.weight". */
void tensor_kind(const char *name, char *out);

#endif
