/*
 * delta_write.h: writes a delta: copies frames from spool files into data files, then writes the
 * index and the side file. Tensors are sorted by name, so the bytes are deterministic.
 */
#ifndef CKPT_DELTA_WRITE_H
#define CKPT_DELTA_WRITE_H

#include "delta.h"

/* One changed tensor, borrowed. */
typedef struct {
    const ckpt_tensor *tensor;      /* as stored: name, dtype, shape. NULL dtype (CKPT_NONE): only
                                       its name is known, and there is no side file */
    const ckpt_file *from;          /* the file with the frame */
    uint64_t offset;
    uint64_t packed_bytes;
    const char *before;             /* xxh3-128; NULL: not known */
    const char *after_xxh3;         /* NULL: not known */
    const char *after;
    uint64_t elements;              /* of values, as in delta_tensor */
    uint64_t changed_bytes;
    uint64_t changed_elements;
} delta_entry;

typedef struct {
    const char *version;
    const char *base_version;
    delta_container container;
    delta_encoding encoding;        /* of DELTA_FOR_SKYRL: xor, and xxh3-128 */
    checksum_kind checksum;
    uint64_t file_bytes_max;
    delta_entry *entries;           /* sorted by name here */
    size_t count;
    const ckpt_run_options *run;    /* threads that copy, and when to stop */
    int with_side;
    const char *quantised_by;       /* rules that made the tensors; or NULL */
    delta_roots base;
    delta_roots result;
    size_t total_count;
    uint64_t total_bytes;
    uint64_t element_count;
    const delta_file *carried;      /* their files are already in the directory */
    size_t carried_count;
    const struct delta_shape *structure;     /* the same; NULL: no tensor is added or removed */
} delta_content;

/* Write the delta into an existing directory. */
ckpt_code delta_write(const char *directory, delta_content *content, ckpt_error *err);

#endif
