/* memory_source.h: a source whose tensors lie in memory, for tests. */
#ifndef CKPT_TESTS_MEMORY_SOURCE_H
#define CKPT_TESTS_MEMORY_SOURCE_H

#include "libckpt/source.h"

typedef struct memory_source memory_source;

memory_source *memory_source_create(void);
void memory_source_free(memory_source *source);
ckpt_source *memory_source_base(memory_source *source);
const ckpt_catalog *memory_source_catalog(const memory_source *source);

/* Append a tensor of zero bytes. F8_E4M3 gets 128 x 128 E8M0 scales, F4 gets 1 x 32. Returns its
 * index; aborts when anything fails. */
size_t memory_source_add(memory_source *source, const char *name, ckpt_dtype dtype, uint64_t rows,
                         uint64_t cols);
/* The same of any description. */
size_t memory_source_add_tensor(memory_source *source, const ckpt_tensor *tensor);
/* Its bytes, packed rows, to fill in. */
void *memory_source_part(memory_source *source, size_t tensor, ckpt_part part);

#endif
