/* gguf_head.h: the head of one GGUF file: keys with their values, and infos of its tensors. */
#ifndef CKPT_GGUF_HEAD_H
#define CKPT_GGUF_HEAD_H

#include "gguf_scan.h"
#include "gguf_types.h"
#include "libckpt/arena.h"
#include "libckpt/table.h"

enum {
    GGUF_NAME_BYTES = 64,          /* ggml's, of a tensor, with the NUL */
    GGUF_RANK_MAX = 4,
    GGUF_ALIGNMENT = 32,           /* without general.alignment */
    GGUF_ALIGNMENT_MAX = 1 << 16
};

typedef struct {
    const char *name;
    gguf_kind kind;                /* of an array: that of its elements */
    int is_array;
    uint64_t count;                /* 1, or the elements of an array */
    uint64_t number;               /* see gguf_scan_number */
    const char *text;              /* of a string; NULL: longer than GGUF_STRING_BYTES */
    uint64_t offset;               /* of the first element of an array, or of a string's length */
} gguf_key;

typedef struct {
    const char *name;
    const gguf_type *type;
    uint32_t rank;
    uint64_t ne[GGUF_RANK_MAX];    /* the number of columns first */
    uint64_t offset;               /* in the file */
    uint64_t size_bytes;
} gguf_info;

typedef struct {
    const ckpt_file *file;         /* borrowed */
    uint32_t version;
    uint32_t alignment;
    uint64_t head_bytes;           /* to the end of the last info */
    uint64_t data_offset;
    uint64_t hash;                 /* of the bytes read */
    arena memory;                  /* names and texts */
    table names;                   /* of keys */
    gguf_key *keys;
    size_t key_count;
    gguf_info *infos;              /* in the order of the file */
    size_t info_count;
} gguf_head;

/*
 * Read and check a head: every count and length must fit the file, names of keys and tensors must
 * be unique, tensors aligned, inside the file and without overlap. On failure *out is released. The
 * file must outlive it.
 */
ckpt_code gguf_head_read(const ckpt_file *file, gguf_head *out, ckpt_error *err);
void gguf_head_release(gguf_head *head);

/* The key of this name, or NULL. */
const gguf_key *gguf_head_find(const gguf_head *head, const char *name);
/* 1 when the key exists and is an integer >= 0 of any kind. */
int gguf_head_u64(const gguf_head *head, const char *name, uint64_t *out);
/* The value of a string key, or NULL. */
const char *gguf_head_text(const gguf_head *head, const char *name);

/* Read an array of numbers into `out`, which has room for key->count. CKPT_E_FORMAT for an array of
 * strings. */
ckpt_code gguf_head_numbers(const gguf_head *head, const gguf_key *key, uint64_t *out,
                            ckpt_error *err);

#endif
