/*
 * mutation.h: makes faults that a release must not have, while tensors are read, to test that the
 * checks find them. The tensors to change are chosen by shape, encoding and name, not by facts
 * about one model. A kind that a checkpoint has no suitable tensor for is not applicable.
 */
#ifndef CKPT_MUTATION_H
#define CKPT_MUTATION_H

#include "libckpt/digest.h"
#include "libckpt/folder.h"
#include "mutation_source.h"

enum { MUTATION_TEXT_BYTES = 256 };

/* The input of a mutation. All borrowed. */
typedef struct {
    ckpt_source *source;           /* logical tensors */
    const ckpt_digest *digest;     /* of these: tensors with equal values are not exchanged */
    const char *config;            /* text of config.json, or NULL */
    int has_place_for_config;      /* its layout has config.json: removing it is a fault */
    const ckpt_folder *folder;     /* with the files beside the weights, or NULL */
} mutation_input;

/* A file beside the weights with changed bytes; bytes NULL: it is removed. */
typedef struct {
    char *name;
    char *bytes;
    size_t size;
} mutation_file;

enum { MUTATION_FILES = 2 };

typedef struct {
    const char *name;              /* "swap_experts" */
    const char *reason;            /* why it is not applicable; NULL: it is */
    char text[MUTATION_TEXT_BYTES];    /* what was changed */
    ckpt_source *source;           /* the mutated tensors; NULL: unchanged */
    uint8_t *touched;              /* by tensor of `source`: 1 if it may have other values */
    const char *dropped;           /* name of a tensor removed from `source`, or NULL; borrowed */
    int is_each;                   /* found only if every touched tensor is reported */
    char *config;                  /* the mutated text; NULL: unchanged */
    mutation_file files[MUTATION_FILES];
    size_t file_count;
} mutation;

size_t mutation_count(void);
const char *mutation_name(size_t kind);
const char *mutation_describe(size_t kind);        /* one line */
/* The kind of that name, or mutation_count(). */
size_t mutation_find(const char *name);

/* Make a mutation of this kind; deterministic. *out is yours to release, also on failure. */
ckpt_code mutation_make(size_t kind, const mutation_input *in, mutation *out, ckpt_error *err);
void mutation_release(mutation *m);

#endif
