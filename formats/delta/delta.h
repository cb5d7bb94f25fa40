/*
 * delta.h: weight deltas: what changed between two checkpoints of one model, over the stored
 * tensors of a Hugging Face layout.
 *
 * A directory as slime and miles write it and SGLang reads it (slime/utils/disk_delta.py of
 * THUDM/slime, python/sglang/srt/weight_sync/local_checkpoint.py of sgl-project/sglang):
 *
 *   weight_v000001/
 *     model-00000-of-00002.safetensors   per changed tensor one U8 entry [n] of its name: one zstd
 *                                        frame. "__metadata__": {NAME: checksum of all bytes of
 *                                        the tensor after the change}
 *     model.safetensors.index.json       {"metadata": {"version": "000001",
 *                                        "base_version": "000000",
 *                                        "delta_encoding": "xor"|"overwrite",
 *                                        "compression_format": "zstd",
 *                                        "checksum_format": "xxh3-128"|"blake3"|"adler32"},
 *                                        "weight_map": {NAME: FILE}}
 *     ckpt-delta.json                    ours, ignored by those readers: delta_side.h
 *
 * Content of a frame, for a tensor of n bytes:
 *   xor        n bytes, old ^ new
 *   overwrite  u32 count, count positions (u32, ascending), count new bytes; little endian
 *
 * Dtype and shape of a tensor are not stored: the base has them. A tensor that did not change is
 * absent.
 */
#ifndef CKPT_DELTA_H
#define CKPT_DELTA_H

#include "formats/format.h"
#include "libckpt/checksum.h"
#include "libckpt/zframe.h"

#define DELTA_SIDE_FILE "ckpt-delta.json"
/* Prefix of the members of "__metadata__" with a tensor's xxh3-128 before the change. Other readers
 * look up tensor names only. */
#define DELTA_BEFORE_KEY "ckpt.base:"

enum { DELTA_VERSION_BYTES = 64 };

typedef enum { DELTA_XOR, DELTA_OVERWRITE } delta_encoding;

/* Who the files are for: slime, miles and SGLang, or SkyRL (delta_skyrl.h). */
typedef enum { DELTA_FOR_SLIME, DELTA_FOR_SKYRL } delta_container;

const char *delta_encoding_name(delta_encoding encoding);
/* 0 when no encoding has this name. */
int delta_encoding_find(const char *name, delta_encoding *out);

/* The two value roots of a checkpoint; empty: not known. */
typedef struct {
    char all[CKPT_ROOT_HEX];
    char main[CKPT_ROOT_HEX];
} delta_roots;

/* Put them as the member `key`: {"root": ..., "main": ...}, null for one that is not known. */
void delta_roots_put(json_writer *w, const char *key, const delta_roots *roots);

/* What a delta tells of a root, compared with that of the values. */
typedef enum { DELTA_ROOT_UNKNOWN, DELTA_ROOT_RIGHT, DELTA_ROOT_WRONG } delta_root_verdict;
delta_root_verdict delta_roots_judge(const delta_roots *told, const delta_roots *got);

/* CKPT_E_FORMAT when the delta at `path` tells another root than `got`, of values that are known to
 * be right, or another main root. `whose`: "base" or "result". */
ckpt_code delta_roots_check(const char *path, const char *whose, const delta_roots *told,
                            const delta_roots *got, ckpt_error *err);

/* One changed tensor. */
typedef struct {
    const char *name;
    zframe_place frame;             /* in a file that is open */
    char after[CHECKSUM_HEX];       /* of the kind of the delta */
    char before[CHECKSUM_HEX];      /* xxh3-128 before the change; empty: not stored */
    int has_shape;                  /* the next four are stored */
    ckpt_dtype dtype;               /* as stored */
    uint32_t rank;
    uint64_t shape[CKPT_RANK_MAX];
    uint64_t bytes;                 /* of the tensor */
    /* From the side file; valid if is_told. */
    int is_told;
    char after_xxh3[CHECKSUM_HEX];
    uint64_t elements;              /* values: 4-bit codes stored as U8 or I32 are counted singly */
    uint64_t changed_bytes;
    uint64_t changed_elements;
} delta_tensor;

/* A file beside the weights that changed, carried whole. */
typedef struct {
    const char *name;               /* in the checkpoint */
    const char *carried;            /* in the delta; NULL: it is removed */
    char sha256[CKPT_ROOT_HEX];
} delta_file;

typedef struct {
    char *path;                     /* as given by the user */
    folder_place place;
    ckpt_store *store;              /* its data files, open */
    char version[DELTA_VERSION_BYTES];
    char base_version[DELTA_VERSION_BYTES];
    delta_encoding encoding;
    checksum_kind checksum;
    char (*sha256)[CKPT_ROOT_HEX];  /* by file of it, as told; empty: not told. NULL: none is */
    delta_tensor *tensors;          /* by tensor of store->catalog */
    size_t count;
    int has_side;
    arena memory;                   /* of names */
    delta_roots base;
    delta_roots result;
    uint64_t element_count;         /* of all target tensors; 0: unknown */
    uint64_t total_bytes;
    size_t total_count;
    delta_file *files;
    size_t file_count;
    int has_files;                  /* the delta records which other files changed */
    int is_structural;              /* its result has other tensors: delta_structure.h */
    struct delta_weights *weights;  /* then: all files of weights of the result */
    size_t weights_count;
    const char *result_index;       /* its index, in the delta; NULL: it has none */
    file_list added;                /* tensors */
    file_list removed;
} ckpt_delta;

/* 1 when `place` is a delta, complete or damaged. */
int delta_detect(const folder_place *place);

/*
 * Open a delta: reads index and headers, but no frames. Index and files must agree in both
 * directions. *out is yours to close. The second one leaves delta_check_data to the caller.
 */
ckpt_code delta_open(const char *path, ckpt_delta **out, ckpt_error *err);
ckpt_code delta_open_unproven(const char *path, ckpt_delta **out, ckpt_error *err);
/* Check the SHA-256 of its data files, as far as they are told. `stop` as in sha256_of. */
ckpt_code delta_check_data(const ckpt_delta *delta, int (*stop)(void *context), void *context,
                           ckpt_error *err);
void delta_close(ckpt_delta *delta);           /* NULL is fine */

/* Add its data files and the files that it carries to the fingerprint of a run. */
void delta_mix(const ckpt_delta *delta, hash128 *sum);

/* Compressed bytes of all frames. */
uint64_t delta_packed_bytes(const ckpt_delta *delta);

/* Tensor of that name, or NULL. */
const delta_tensor *delta_find(const ckpt_delta *delta, const char *name);

#endif
