/*
 * packed.h: a packed checkpoint: the files of a folder, compressed into one file of frames that can
 * be read one by one. As a source it is a kind of folder (folder.h).
 *
 * All numbers are little endian. The file is a sequence of zstd frames and skippable frames:
 *
 *   head      0x184D2A50, u32 16; "ckptpak1", u64 0
 *   chunks    for each a zstd frame with the size of its content and no checksum. Chunk: at most
 *             4 MiB of one file, divided into planes (planes.h)
 *   index     0x184D2A5D, u32 size; u64 bytes of the JSON text, u64 chunks, the JSON text, and for
 *             each chunk, in the order of files and positions:
 *               u32 bytes, u32 bytes of its frame, u32 planes_kind, u32 0,
 *               u64 low and u64 high half of XXH3 128-bit of its bytes
 *   footer    0x184D2A5F, u32 40; u64 position of the index frame, u64 bytes of it, u64 low and u64
 *             high half of XXH3 128-bit of its bytes, "ckptpak1"
 *
 * JSON: {"schema": "ckpt-packed/1", "writer": VERSION, "root": HEX64|null, "main": HEX64|null,
 * "files": [{"name": NAME, "bytes": N, "chunks": N}]}, sorted by name; the roots are value roots,
 * in lower case. No name has control characters, and none is a folder of another.
 */
#ifndef CKPT_PACKED_H
#define CKPT_PACKED_H

#include "folder.h"
#include "kernels/kernels.h"
#include "planes.h"
#include "zblock.h"

#define PACKED_SCHEMA "ckpt-packed/1"
#define PACKED_ROOT_KEY "root"

enum {
    PACKED_CHUNK_MAX = 4 << 20,
    PACKED_CHUNK_BYTES = 1 << 20,       /* of chunks that are written: about a tile */
    PACKED_HEAD_BYTES = 24,
    PACKED_FOOTER_BYTES = 48,
    PACKED_RECORD_BYTES = 32,
    PACKED_LEVEL_MAX = 19
};

static const uint32_t packed_head_magic = 0x184D2A50;
static const uint32_t packed_index_magic = 0x184D2A5D;
static const uint32_t packed_footer_magic = 0x184D2A5F;
static const char packed_mark[8] = { 'c', 'k', 'p', 't', 'p', 'a', 'k', '1' };

typedef struct {
    uint32_t bytes;
    uint32_t packed_bytes;
    planes_kind kind;
    hash128 hash;
} packed_chunk;

/* 1 if the file at `path` begins as a packed checkpoint. */
int packed_detect(const char *path);

/* Open one as a folder. Reads and checks the index. Every chunk is compared with its hash when it
 * is read. *out is yours to close; files of it may outlive it. */
ckpt_code packed_open(const char *path, ckpt_folder **out, ckpt_error *err);
/* Memory that a folder of this kind holds for chunks; 0 for other kinds. */
uint64_t packed_bytes(const ckpt_folder *folder);
/* The value root that its index tells, 64 hex digits, which nobody has compared with the values;
 * NULL: it has none, or the folder is of another kind. */
const char *packed_root(const ckpt_folder *folder);
/* A hash that differs where any byte of the files, or a name, does; zero for other kinds. */
hash128 packed_hash(const ckpt_folder *folder);

/* ---- writing ---- */

typedef struct packed_writer packed_writer;

/* Some bytes of a file that are of one kind. */
typedef struct {
    uint64_t bytes;
    planes_kind kind;
    zblock_content content;
} packed_run;

/* Writes to an empty file, which is borrowed. `level` of zstd: 1 to PACKED_LEVEL_MAX. *out is yours
 * to free. */
ckpt_code packed_writer_create(ckpt_file *to, int level, packed_writer **out, ckpt_error *err);
void packed_writer_free(packed_writer *w);              /* NULL is fine */
/* Add a file of a folder; names must ascend. The runs cover all of it. */
ckpt_code packed_writer_add(packed_writer *w, const ckpt_folder *folder, const char *name,
                            const packed_run *runs, size_t run_count, ckpt_error *err);
/* Compress all files, with the threads of the options. The bytes do not depend on their number. */
ckpt_code packed_writer_run(packed_writer *w, const ckpt_run_options *run, ckpt_error *err);
/* Write the index behind the chunks; may be called again with other roots ("": not known). Fails if
 * one of the files was changed since it was added. */
ckpt_code packed_writer_seal(packed_writer *w, const char *root, const char *main,
                             uint64_t *total_bytes, ckpt_error *err);

#endif
