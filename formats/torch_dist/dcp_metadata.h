/*
 * dcp_metadata.h: the `.metadata` pickle of PyTorch's distributed checkpoints (DCP): the keys, the
 * boxes (chunks) into which they are cut, and the file and position of each chunk.
 *
 *   Metadata: state_dict_metadata  {key: TensorStorageMetadata {properties, size, chunks}
 *                                        or BytesStorageMetadata}
 *             storage_data         {MetadataIndex {fqn, offset}: _StorageInfo {relative_path,
 *                                                                              offset, length}}
 *
 * Read from every torch and Megatron version; all else in the pickle is ignored. Written in
 * protocol 2, always the same bytes for the same content.
 */
#ifndef CKPT_DCP_METADATA_H
#define CKPT_DCP_METADATA_H

#include "libckpt/arena.h"
#include "libckpt/folder.h"

#define DCP_FILE ".metadata"

typedef struct {
    const char *key;
    const char *dtype_name;      /* torch's: "bfloat16"; NULL for byte entries and for writing */
    ckpt_dtype dtype;            /* CKPT_NONE: unsupported */
    uint8_t is_bytes;            /* a byte entry: one chunk without a box */
    uint32_t rank;
    uint64_t size[CKPT_RANK_MAX];    /* as torch counts: an element of F4 is a byte */
    size_t first_chunk;          /* chunks [first_chunk, first_chunk + chunk_count) */
    size_t chunk_count;
} dcp_entry;

typedef struct {
    uint64_t offsets[CKPT_RANK_MAX];
    uint64_t sizes[CKPT_RANK_MAX];
    size_t file;                 /* number in files[] */
    uint64_t offset;             /* the item, see zip_item.h */
    uint64_t length;
} dcp_chunk;

typedef struct {
    dcp_entry *entries;          /* in the order of state_dict_metadata */
    size_t entry_count;
    dcp_chunk *chunks;           /* in the order of entries */
    size_t chunk_count;
    const char **files;          /* distinct paths relative to the folder of .metadata */
    size_t file_count;
    size_t unused_count;         /* entries of storage_data that no chunk refers to */
    const char *unused;          /* the key of one of them, or NULL */
    arena memory;                /* keys and paths that it owns */
} dcp_metadata;

/*
 * Read a pickle. Refused: a chunk or byte entry without its storage entry, two of the same, paths
 * that are absolute or climb with '..', transformed items, shapes over CKPT_RANK_MAX dimensions.
 * memory_bytes limits what reading takes (0: PICKLE_MEMORY). *out is yours to free.
 */
typedef struct {
    const char *subject;         /* names the pickle in errors */
    uint64_t memory_bytes;
} dcp_options;
ckpt_code dcp_parse(const void *bytes, size_t size, const dcp_options *options,
                    dcp_metadata **out, ckpt_error *err);
/* The file DCP_FILE of a folder. */
ckpt_code dcp_read(const ckpt_folder *folder, uint64_t memory_bytes, dcp_metadata **out,
                   ckpt_error *err);
void dcp_free(dcp_metadata *m);          /* NULL is fine; only for results of dcp_read */

/*
 * Prove that the chunks of entry `i` lie inside the tensor, do not overlap and cover it. Chunks
 * without elements are allowed. About n log n for regularly cut tensors.
 */
ckpt_code dcp_check_cover(const dcp_metadata *m, size_t i, ckpt_error *err);

/*
 * Write entries, chunks and files as torch and Megatron read them. `write` gets the bytes in
 * pieces; non-zero means failure. Only the three arrays are used.
 */
typedef int dcp_write_fn(void *context, const void *bytes, size_t size);
ckpt_code dcp_write(const dcp_metadata *m, dcp_write_fn *write, void *context, ckpt_error *err);

#endif
