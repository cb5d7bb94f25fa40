/* catalog.h: a list of tensors with unique names, and the look-up by name. */
#ifndef CKPT_CATALOG_H
#define CKPT_CATALOG_H

#include "arena.h"
#include "error.h"
#include "json.h"
#include "table.h"

struct ckpt_catalog {
    arena memory;             /* names and tensors */
    table names;
    ckpt_tensor *tensors;     /* malloc'd */
    size_t count;
};

/* NULL when there is no memory. Free with catalog_free (NULL is fine). */
ckpt_catalog *catalog_create(void);
void catalog_free(ckpt_catalog *catalog);

/*
 * Append a copy of *tensor; its name is copied too. Refuses a name that is there already, a rank
 * over CKPT_RANK_MAX and what catalog_check_shape refuses.
 */
ckpt_code catalog_add(ckpt_catalog *catalog, const ckpt_tensor *tensor, ckpt_error *err);

/* 1 when a tensor's name matches the shell pattern, see text_matches_any. */
int catalog_has_match(const ckpt_catalog *catalog, const char *glob);

/* Change a tensor in place (not its name). */
ckpt_tensor *catalog_edit(ckpt_catalog *catalog, size_t i);

/* Bytes this catalog holds, for the memory plan. */
uint64_t catalog_bytes(const ckpt_catalog *catalog);

/* Check a tensor's shape: fails when the bytes of a part overflow, when a sub-byte row is no whole
 * number of bytes, or when the shape cannot have the encoding (FP4 rows that are not whole groups).
 * After this the ckpt_part_* functions cannot overflow, and no kernel leaves its row. */
ckpt_code catalog_check_shape(const ckpt_tensor *tensor, ckpt_error *err);

/* 1 for parts that are one number for the whole tensor. */
static inline int catalog_is_of_whole(ckpt_part part)
{
    return part == CKPT_TENSOR_SCALE || part == CKPT_INPUT_SCALE;
}

/* The dtype of one part as a tile holds it; CKPT_NONE: the tensor has no such part. */
ckpt_dtype catalog_part_dtype(const ckpt_tensor *tensor, ckpt_part part);

/* Two tensors have one encoding: dtype, scale dtype, block and scale of the tensor. */
int catalog_same_encoding(const ckpt_tensor *a, const ckpt_tensor *b);
int catalog_same_shape(const ckpt_tensor *a, const ckpt_tensor *b);

/* Make it plain elements of `dtype`, without scales. */
void catalog_set_plain(ckpt_tensor *tensor, ckpt_dtype dtype);

/* CKPT_OK when `got` has the shape and class (float or integer) of `expected`, or is of codes that
 * are not decoded; `where` ("" or
 * " of 'PATH'") is added to the name in the complaint. */
ckpt_code catalog_check_same(const ckpt_tensor *got, const ckpt_tensor *expected,
                             const char *where, ckpt_error *err);

/* "[128, 64]": into out, NUL-terminated. */
void catalog_shape_text(const ckpt_tensor *tensor, char *out, size_t out_bytes);

/* The member "shape" of an object: [128, 64]. */
void catalog_put_shape(json_writer *w, const ckpt_tensor *tensor);

#endif
