/* side_data_private.h: private to the reader, the writer and the sorter of side data. */
#ifndef CKPT_SIDE_DATA_PRIVATE_H
#define CKPT_SIDE_DATA_PRIVATE_H

#include <pthread.h>

#include "libckpt/file.h"
#include "side_data.h"
#include "libckpt/zfile.h"

static const char side_data_magic[] = "ckpt-fp4-scales 2 ";

typedef struct {
    char roots[2][CKPT_ROOT_HEX];  /* all, main; "-" when they are not known */
    uint64_t entry_count;
} side_data_head;

/* Visitors of the entries of a text, in order: a tensor, then its groups. */
typedef struct {
    ckpt_code (*head)(void *context, const side_data_head *head);      /* or NULL */
    ckpt_code (*tensor)(void *context, const char *name, ckpt_error *err);
    ckpt_code (*group)(void *context, const encode_exception *entry, ckpt_error *err);
    void *context;
} side_data_visit;

/* Visit all of `text`, which is checked while reading and not stored; `subject` is for errors. */
ckpt_code side_data_walk(zfile_reader *text, const char *subject, const side_data_visit *visit,
                         ckpt_error *err);

typedef struct {
    const char *name;
    size_t first;                  /* of its entries */
    size_t count;
} side_tensor;

struct side_data {
    encode_exception_table base;
    side_data_head head;
    arena memory;                  /* names */
    table names;
    side_tensor *tensors;          /* malloc'd */
    size_t tensor_count;
    size_t tensor_capacity;
    encode_exception *entries;     /* malloc'd */
    size_t entry_count;
    size_t entry_capacity;
};

/* One exception in native byte order: a spill is never moved to another machine. */
typedef struct {
    uint64_t group;
    uint32_t tensor;
    uint8_t scale;
    uint8_t check[3];
} spill_record;

struct side_data_writer {
    encode_exception_sink base;
    side_data_options options;
    char *path;                    /* of the result */
    char *spill_path;
    ckpt_file *spill;
    uint64_t spill_bytes;
    uint64_t synced_bytes;
    pthread_mutex_t lock;          /* of spill_bytes */
};

typedef ckpt_code spill_visit(void *context, const spill_record *record, ckpt_error *err);

/* Visit all records; they were checked when the spill was opened. */
ckpt_code side_data_visit_spill(const side_data_writer *w, spill_visit *visit, void *context,
                                ckpt_error *err);

#endif
