/* gguf_split.h: the files of a model that is split: STEM-00001-of-00003.gguf. */
#ifndef CKPT_GGUF_SPLIT_H
#define CKPT_GGUF_SPLIT_H

#include <stddef.h>
#include <stdint.h>

enum { GGUF_FILES_MAX = 65535, GGUF_PATH_BYTES = 4096 };

/* "STEM-00002-of-00003.gguf": the length of the stem, the number (from 1), and how many there are.
 * 0: another name. */
int gguf_split_parse(const char *name, size_t *stem, uint32_t *number, uint32_t *count);

/* The name of file `number`, from 1, beside one with this stem. 0: too long. */
int gguf_split_name(const char *name, size_t stem, uint32_t number, uint32_t count,
                    char out[GGUF_PATH_BYTES]);

#endif
