/* tensor_group.h: groups tensors by layer and kind, from their names only. */
#ifndef CKPT_TENSOR_GROUP_H
#define CKPT_TENSOR_GROUP_H

#include <stddef.h>

/* Length of the layer's name: up to the first number, "model.layers.3", "mtp.0"; 0: no layer. */
size_t tensor_layer_bytes(const char *name);

/* 1 when two names are of the same layer; when they differ only in numbers. */
int tensor_same_layer(const char *a, const char *b);
int tensor_same_kind(const char *a, const char *b);

/* Both write a NUL-terminated text of at most tensor_group_bytes(name) to `out`. */
size_t tensor_group_bytes(const char *name);

/* The layer's name; "rest" for tensors in no layer. */
void tensor_layer(const char *name, char *out);

/* The name with numbers replaced by '*': "layers.*.attn.wq_a.weight". */
void tensor_kind(const char *name, char *out);

#endif
