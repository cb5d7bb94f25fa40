/* divide.h: can ranks divide a tensor, and which numbers of ranks can? */
#ifndef CKPT_DIVIDE_H
#define CKPT_DIVIDE_H

#include "libckpt/json.h"
#include "libckpt/map.h"

/* 1 when no rank gets a part of a group. Without a config nobody knows the groups. */
int divide_keeps_groups(const map_shard *shard, const json_value *config, uint32_t count);

/* The numbers up to 256 that are legal, for an error: " 1 2 4", or " none". */
enum { DIVIDE_TEXT_BYTES = 512 };
typedef int divide_is_legal(const void *context, uint32_t count);
void divide_legal_text(divide_is_legal *is_legal, const void *context,
                       char out[DIVIDE_TEXT_BYTES]);

#endif
