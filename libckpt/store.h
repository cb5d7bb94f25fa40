/*
 * store.h: the stored tensors of a checkpoint and the files that contain them. A format's reader
 * fills a store in from headers; a format's writer makes one before any data exists. Tiles do not
 * depend on the stored form: interleaved blocks (stored_form.h) are split into codes and scales on
 * reading and joined on writing.
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
    uint64_t header_hash;     /* XXH3 of the parsed bytes, to detect a changed source */
    char *header;             /* writers: the bytes at offset 0; malloc'd; NULL in readers */
    size_t header_bytes;      /* readers too: data starts here */
    uint64_t root_at;         /* writers: where the root comes into the header at the end; or 0 */
    char *metadata;           /* __metadata__ as JSON text, or NULL; malloc'd */
    size_t metadata_bytes;    /* readers: its size as counted by memory.h; writers: 0 */
    char *prefix;             /* begins the names of its pieces in the catalog, but not in the file;
                                 malloc'd */
    ckpt_file *file;          /* open, or NULL */
} store_file;

/*
 * Callbacks for formats that store checksums of their data. `wrote` is called for every run of
 * bytes that is written to a piece, or that a resumed run finds there: `rect` in the file, rows in
 * memory pitch_bytes apart. Must be thread-safe.
 */
typedef struct store_watch {
    void (*wrote)(struct store_watch *self, size_t piece, const file_rect *rect,
                  const void *rows, size_t pitch_bytes);
    void (*forget)(struct store_watch *self, size_t piece);    /* it will be written anew */
    void (*free)(struct store_watch *self);
} store_watch;

/* A run of bytes of which the file stores a checksum; filled in by readers. */
typedef struct {
    size_t piece;
    uint32_t file;
    uint64_t offset;
    uint64_t size_bytes;
    uint32_t crc;             /* CRC-32; 0: the file has none */
} store_sum;

/* A tensor with the same name as one in an earlier file: the catalog has it as FILE:NAME. */
typedef struct {
    size_t tensor;
    uint32_t file;
} store_repeat;

/* The first difference between a copy and its original. */
typedef struct {
    int is_found;
    ckpt_part part;
    uint64_t row;             /* within the part */
    uint64_t col;             /* within the part, in its elements */
    uint32_t file;            /* that contains the copy */
} store_copy;

typedef struct {
    const ckpt_folder *folder;    /* to read from; borrowed; NULL in writers */
    char *directory;          /* to write to; malloc'd; NULL in readers */
    ckpt_catalog *catalog;    /* pieces, with .file and .offset; owned */
    ckpt_catalog *keys;       /* named tensors that a sharded layout cuts into pieces; owned; NULL:
                                 each piece is a named tensor */
    ckpt_layout *pieces;      /* where keys are in pieces; owned; NULL with keys == NULL */
    store_file *files;
    size_t file_count;
    store_watch *watch;       /* owned; or NULL */
    int keeps_repeats;        /* readers accept a tensor name that occurs in several files */
    store_repeat *repeats;    /* all occurrences of a name but the first */
    size_t repeat_count;
    store_sum *sums;
    size_t sum_count;
    store_copy *copies;       /* indexed by logical tensor, see store_keep_copies; owned; or NULL */
    pthread_mutex_t copies_lock;
} ckpt_store;

/* The named tensors: the keys if the store has any, else the pieces. */
const ckpt_catalog *store_names(const ckpt_store *store);

/* A store to write to a directory, or to read from a folder, which is borrowed. NULL when there is
 * no memory. */
ckpt_store *store_create(const char *directory);
ckpt_store *store_create_in(const ckpt_folder *folder);
void store_free(ckpt_store *store);       /* closes files; NULL is fine */

/* Append a file entry and return its number in *out. */
ckpt_code store_add_file(ckpt_store *store, const char *name, uint32_t *out, ckpt_error *err);
/* Open file i, unless it is open, for reading; with `writable` for reading and writing, and create
 * it if absent. */
ckpt_code store_open_file(ckpt_store *store, size_t i, int writable, ckpt_error *err);
ckpt_code store_add_sum(ckpt_store *store, const store_sum *sum, ckpt_error *err);
/* fsync all open files; they stay open. */
ckpt_code store_sync_files(ckpt_store *store, ckpt_error *err);

/* Close every file that is open. */
ckpt_code store_close_files(ckpt_store *store, ckpt_error *err);

/* file_check_unchanged of every file that is open. */
ckpt_code store_check_unchanged(const ckpt_store *store, int *is_touched, ckpt_error *err);

/* Add the names, sizes, versions and headers of all files to a fingerprint. All must be open. */
void store_mix_files(const ckpt_store *store, hash128 *sum);

/* From now on, reading a copy that differs from its original is not an error: the difference is
 * recorded in store->copies, which gets `tensor_count` entries, one for each logical tensor. */
ckpt_code store_keep_copies(ckpt_store *store, size_t tensor_count, ckpt_error *err);

/*
 * A source of the layout's logical tensors, read from the store's open files. Copies are read too
 * and must equal the originals, unless store_keep_copies was called. Borrows both arguments; the
 * layout's stored catalog must be the store's.
 */
ckpt_code source_stored(ckpt_store *store, const ckpt_layout *layout, ckpt_source **out,
                        ckpt_error *err);

/* A tile of a logical tensor to be written to files. */
typedef struct {
    const ckpt_layout *layout;
    const source_range *range;
    const ckpt_tile *tile;
    arena *scratch;           /* has room for store_write_need bytes */
} store_tile;

/* Bytes of scratch that writing a tile of this many rows takes. */
uint64_t store_write_need(const ckpt_layout *layout, size_t tensor, uint64_t row_count);
/* Write a tile to every extent that it overlaps. Thread-safe. */
ckpt_code store_write_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err);
/* Report a tile that is in the files already to the watch; does nothing without a watch. */
ckpt_code store_found_tile(ckpt_store *store, const store_tile *tile, ckpt_error *err);
/* Tell the watch that a tensor will be written anew. */
void store_forget_tensor(ckpt_store *store, const ckpt_layout *layout, size_t tensor);

#endif
