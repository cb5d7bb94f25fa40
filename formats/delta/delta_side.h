/*
 * delta_side.h: ckpt-delta.json: information that the index of a delta has no place for.
 *
 *   {"schema": "ckpt-delta/1", "writer": VERSION,
 *    "quantize": RULES,                                       if rules made the tensors
 *    "base": {"root": HEX64|null, "main": HEX64|null}, "result": {the same},
 *    "total": {"tensors": N, "bytes": N, "elements": N},      of the whole target layout
 *    "files": [{"name": FILE, "sha256": HEX64}],               of this directory, but for this one
 *    "carried": [{"name": FILE, "as": FILE|null, "sha256": HEX64}],   other files that changed
 *    "structure": {...},                                      if it adds or removes tensors:
 *                                                             delta_structure.h
 *    "tensors": [{"name", "dtype", "shape", "bytes", "before", "after": xxh3-128,
 *                 "elements", "changed_bytes", "changed_elements"}]}
 *
 * Elements are values: 4-bit codes stored as U8 or I32 are counted singly.
 * Roots are value roots (ckpt-digest(7)). The file's own SHA-256 is the delta's identity.
 */
#ifndef CKPT_DELTA_SIDE_H
#define CKPT_DELTA_SIDE_H

#include "delta.h"

/* Read it into a delta whose tensors are listed, and check that it describes the same ones. Does
 * nothing if the file does not exist. */
ckpt_code delta_side_read(ckpt_delta *delta, ckpt_error *err);

/* CKPT_E_FORMAT unless a file of the delta has the SHA-256 that is told. */
ckpt_code delta_side_check_hash(const char *path, const char *told, const char *got,
                                ckpt_error *err);

/* The entry of a changed tensor. */
typedef struct {
    const ckpt_tensor *tensor;           /* as stored */
    char before[CHECKSUM_HEX];
    char after[CHECKSUM_HEX];
    uint64_t elements;
    uint64_t changed_bytes;
    uint64_t changed_elements;
} delta_side_tensor;

/* A file whose hash is known. */
typedef struct {
    const char *name;
    char sha256[CKPT_ROOT_HEX];
} delta_file_hash;

typedef struct {
    const char *quantised_by;
    const delta_roots *base;
    const delta_roots *result;
    size_t total_count;
    uint64_t total_bytes;
    uint64_t element_count;
    const file_list *files;              /* in `directory` */
    const delta_file_hash *hashes;       /* of some of them; the others are hashed */
    size_t hash_count;
    const delta_file *carried;
    size_t carried_count;
    const delta_side_tensor *tensors;
    size_t tensor_count;
    const struct delta_shape *structure;     /* or NULL */
} delta_side;

/* Write DELTA_SIDE_FILE into `directory`. */
ckpt_code delta_side_write(const char *directory, const delta_side *side, ckpt_error *err);

#endif
