/*
 * store.h: stored tensors in files. A format's reader fills one in from headers; a format's writer
 * lays one out before any data exists. Tiles are the same however their tensors are stored: those
 * of interleaved blocks (stored_form.h) are taken apart on the way in and put together on the way
 * out.
 */
#ifndef CKPT_STORE_H
#define CKPT_STORE_H

#include <pthread.h>

#include "kernels/kernels.h"
#include "catalog.h"
#include "file.h"
#include "folder.h"
#include "layout.h"
#include "source.h"

typedef struct {
    char *name;               /* relative to the folder or directory; malloc'd */
    uint64_t size_bytes;
    uint64_t header_hash;     /* XXH3 of what was parsed: a changed source is noticed */
    char *header;             /* writers: the bytes at offset 0; malloc'd; NULL in readers */
    size_t header_bytes;      /* readers too: data starts here */
    char *metadata;           /* __metadata__ as JSON text, or NULL; malloc'd */
    size_t metadata_bytes;    /* of it, where memory.h counts them: in readers */
    char *prefix;             /* of its pieces' names in the catalog, not in the file; malloc'd */
    ckpt_file *file;          /* open, or NULL */
} store_file;

/*
 * Told of every run of bytes that is written to a piece (or found there by a resumed run): `rect`
 * in the file, rows in memory pitch_bytes apart. Thread-safe; for checksums that a format keeps.
 */
typedef struct store_watch {
    void (*wrote)(struct store_watch *self, size_t piece, const file_rect *rect,
                  const void *rows, size_t pitch_bytes);
    void (*forget)(struct store_watch *self, size_t piece);    /* it will be written again */
    void (*free)(struct store_watch *self);
} store_watch;

/* A run of bytes that a file keeps a checksum of; readers note it. */
typedef struct {
    size_t piece;
    uint32_t file;
    uint64_t offset;
    uint64_t size_bytes;
    uint32_t crc;             /* CRC-32; 0: the file has none */
} store_sum;

/* A tensor whose name was there already: it is called FILE:NAME in the catalog. */
typedef struct {
    size_t tensor;
    uint32_t file;
} store_repeat;

/* Where a copy is first not what its original is. */
typedef struct {
    int is_found;
    ckpt_part part;
    uint64_t row;             /* of the part */
    uint64_t col;             /* of the part, in its elements */
    uint32_t file;            /* the copy's */
} store_copy;

typedef struct {
    const ckpt_folder *folder;    /* that it is read from; borrowed; NULL: it is written */
    char *directory;          /* that it is written to; malloc'd; NULL: it is read */
    ckpt_catalog *catalog;    /* pieces: .file and .offset of each; owned */
    ckpt_catalog *keys;       /* what sharded layouts cut into pieces; owned; NULL: the pieces */
    ckpt_layout *pieces;      /* how keys lie in pieces; owned; NULL: one to one */
    store_file *files;
    size_t file_count;
    store_watch *watch;       /* owned; or NULL */
    int keeps_repeats;        /* readers keep tensors of one name in several files */
    store_repeat *repeats;    /* all but the first of each name */
    size_t repeat_count;
    store_sum *sums;
    size_t sum_count;
    store_copy *copies;       /* by logical tensor, see store_keep_copies; owned; or NULL */
    pthread_mutex_t copies_lock;
} ckpt_store;

/* The tensors that have names: keys where there are some, else the pieces. */
const ckpt_catalog *store_names(const ckpt_store *store);

/* NULL when there is no memory. One is written to a directory, the other read from a folder, which
 * is borrowed. */
ckpt_store *store_create(const char *directory);
ckpt_store *store_create_in(const ckpt_folder *folder);
void store_free(ckpt_store *store);       /* closes files; NULL is fine */

/* Append a file entry; its number in *out. */
ckpt_code store_add_file(ckpt_store *store, const char *name, uint32_t *out, ckpt_error *err);
/* Open file i for reading (writable: for both, made if absent), if it is not open. */
ckpt_code store_open_file(ckpt_store *store, size_t i, int writable, ckpt_error *err);
ckpt_code store_add_sum(ckpt_store *store, const store_sum *sum, ckpt_error *err);
/* Make what was written durable; the files stay open. */
ckpt_code store_sync_files(ckpt_store *store, ckpt_error *err);

/* Close every file that is open. */
ckpt_code store_close_files(ckpt_store *store, ckpt_error *err);

/* file_check_unchanged of every file that is open. */
ckpt_code store_check_unchanged(const ckpt_store *store, int *is_touched, ckpt_error *err);

/* Mix into a fingerprint which files these are: names, sizes, versions, headers. All are open. */
void store_mix_files(const ckpt_store *store, hash128 *sum);

/* From now on a copy that differs from its original is noted in store->copies, of `tensor_count`
 * logical tensors, instead of refused: for those who look for differences. */
ckpt_code store_keep_copies(ckpt_store *store, size_t tensor_count, ckpt_error *err);

/*
 * Source of the layout's logical tensors, read from the store's open files. Copies are read too
 * and must equal the originals, unless store_keep_copies was called. Borrows both; the layout's
 * stored catalog is the store's.
 */
ckpt_code source_stored(ckpt_store *store, const ckpt_layout *layout, ckpt_source **out,
                        ckpt_error *err);

/* A tile of a logical tensor on its way into files. */
typedef struct {
    const ckpt_layout *layout;
    const source_range *range;
    const ckpt_tile *tile;
    arena *scratch;           /* store_write_need of it */
} store_tile;

/* Scratch that a tile of this many rows takes. */
uint64_t store_write_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count);
/* Write it to every extent that it touches. Thread-safe. */
ckpt_code store_write_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err);
/* Tell the watch of a tile that is in the files already; free without a watch. */
ckpt_code store_found_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err);
/* Tell it that a tensor will be written again. */
void store_forget_tensor(ckpt_store *store, const ckpt_layout *layout, size_t tensor);

#endif
