/* gguf_split.h: names of the files of a split model: STEM-00001-of-00003.gguf. */
#ifndef CKPT_GGUF_SPLIT_H
#define CKPT_GGUF_SPLIT_H

#include <stddef.h>
#include <stdint.h>

enum { GGUF_FILES_MAX = 65535, GGUF_PATH_BYTES = 4096 };

/* Parse "STEM-00002-of-00003.gguf" into the length of the stem, the file's number (from 1) and the
 * number of files. 0: another name. */
int gguf_split_parse(const char *name, size_t *stem, uint32_t *number, uint32_t *count);

/* The name of file `number` (from 1) of the model that file `name` belongs to. 0: too long. */
int gguf_split_name(const char *name, size_t stem, uint32_t number, uint32_t count,
                    char out[GGUF_PATH_BYTES]);

#endif
