/*
 * gguf.h: GGUF, the files of llama.cpp. Versions 2 and 3, little endian:
 *
 *   0            "GGUF", u32 version, u64 number of tensors, u64 number of keys
 *   24           keys: string name, u32 kind, value
 *                a string is u64 length and UTF-8; an array is u32 kind, u64 count, elements
 *   then         tensors: string name, u32 rank, u64 ne[rank], u32 type, u64 offset
 *   aligned      data of tensors, each aligned; offsets count from here
 *
 * Alignment is the value of the key general.alignment, or 32, and applies to offsets in the file.
 *
 * Order of dimensions: ne[0] is the number of columns, whose elements are adjacent. The shape
 * [E, out, in] is ne = (in, out, E). Only the order of the numbers differs: the bytes are row-major
 * in both cases.
 *
 * A model may be split: STEM-00001-of-00003.gguf and so on, each a whole GGUF file with some of the
 * tensors and the keys split.no (from 0), split.count and split.tensors.count (of all files); the
 * first has the keys of the model.
 *
 * Names and packing are described by maps (FAMILY.gguf.map), and the relation of keys to members of
 * config.json by FAMILY.gguf.keys (gguf_keys.h). If the arch is unknown, tensors keep their names.
 */
#ifndef CKPT_GGUF_H
#define CKPT_GGUF_H

#include "formats/format.h"

#define GGUF_SUFFIX ".gguf"

extern const ckpt_format format_gguf;

#endif
