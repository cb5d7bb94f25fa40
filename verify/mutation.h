/*
 * mutation.h: faults that a release must not have, made on purpose and in flight, to see whether
 * the checks find them. Each kind has a name and is chosen by shapes, encodings and names of
 * tensors, not by facts of one model; what a checkpoint has no place for is not applicable.
 */
#ifndef CKPT_MUTATION_H
#define CKPT_MUTATION_H

#include "libckpt/digest.h"
#include "libckpt/folder.h"
#include "mutation_source.h"

enum { MUTATION_TEXT_BYTES = 256 };

/* What is mutated. All borrowed. */
typedef struct {
    ckpt_source *source;           /* logical tensors */
    const ckpt_digest *digest;     /* of them: tensors of equal values are not exchanged */
    const char *config;            /* text of config.json, or NULL */
    int has_place_for_config;      /* its layout has one: that it is gone is a fault */
    const ckpt_folder *folder;     /* with the files beside the weights, or NULL */
} mutation_input;

/* A file beside the weights that has other bytes; NULL bytes: it is gone. */
typedef struct {
    char *name;
    char *bytes;
    size_t size;
} mutation_file;

enum { MUTATION_FILES = 2 };

typedef struct {
    const char *name;              /* "swap_experts" */
    const char *reason;            /* why it is not applicable; NULL: it was made */
    char text[MUTATION_TEXT_BYTES];    /* what was changed */
    ckpt_source *source;           /* the mutated tensors; NULL: they are as they were */
    uint8_t *touched;              /* by tensor of `source`: may have other values */
    const char *dropped;           /* a tensor that `source` lacks, or NULL; borrowed */
    int is_each;                   /* found only when every tensor that was touched is named */
    char *config;                  /* the mutated text; NULL: as it was */
    mutation_file files[MUTATION_FILES];
    size_t file_count;
} mutation;

size_t mutation_count(void);
const char *mutation_name(size_t kind);
const char *mutation_describe(size_t kind);        /* one line */
/* The kind of that name, or mutation_count(). */
size_t mutation_find(const char *name);

/* Make kind `kind`: the same for the same input. *out is yours to release, also on failure. */
ckpt_code mutation_make(size_t kind, const mutation_input *in, mutation *out, ckpt_error *err);
void mutation_release(mutation *m);

#endif
