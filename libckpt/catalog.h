/* catalog.h: a list of tensors with unique names, and the look-up by name. */
#ifndef CKPT_CATALOG_H
#define CKPT_CATALOG_H

#include "arena.h"
#include "error.h"
#include "json.h"
#include "table.h"
#include "tensor.h"

struct ckpt_catalog {
    arena memory;             /* names and tensors */
    table names;
    ckpt_tensor *tensors;     /* malloc'd */
    size_t count;
    int borrows_names;        /* from another catalog */
};

/* NULL when there is no memory. Free with catalog_free (NULL is fine). */
ckpt_catalog *catalog_create(void);
/* The same, but names are not copied: those of its tensors must stay where they are as long as the
 * catalog is used. */
ckpt_catalog *catalog_create_borrowing(void);
void catalog_free(ckpt_catalog *catalog);

/*
 * Append a copy of *tensor; its name is copied too, unless the catalog borrows names. Refuses a
 * name that is there already, a rank over CKPT_RANK_MAX and what catalog_check_shape refuses.
 */
ckpt_code catalog_add(ckpt_catalog *catalog, const ckpt_tensor *tensor, ckpt_error *err);

/* The tensor of the name, dtype and shape of `tensor`, or CKPT_NOT_FOUND. */
int64_t catalog_find_same(const ckpt_catalog *catalog, const ckpt_tensor *tensor);

/* 1 when some tensor's name matches the shell pattern, see text_matches_any. */
int catalog_has_match(const ckpt_catalog *catalog, const char *glob);

/* Tensor i, to be changed in place. Its name must stay. */
ckpt_tensor *catalog_edit(ckpt_catalog *catalog, size_t i);

/* Bytes of memory that the catalog uses. */
uint64_t catalog_bytes(const ckpt_catalog *catalog);

#endif
