/* divide.h: checks whether a tensor can be divided over a number of ranks. */
#ifndef CKPT_DIVIDE_H
#define CKPT_DIVIDE_H

#include "libckpt/json.h"
#include "libckpt/map.h"

/* 1 if no group is split between ranks. Without a config the groups are unknown. */
int divide_keeps_groups(const map_shard *shard, const json_value *config, uint32_t count);

/* The numbers up to 256 that are legal, for an error: " 1 2 4", or " none". */
enum { DIVIDE_TEXT_BYTES = 512 };
typedef int divide_is_legal(const void *context, uint32_t count);
void divide_legal_text(divide_is_legal *is_legal, const void *context,
                       char out[DIVIDE_TEXT_BYTES]);

#endif
