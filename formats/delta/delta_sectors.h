/*
 * delta_sectors.h: the journal of a checkpoint that is changed in place: what every touched piece
 * of a file was and will be. A run that was killed can tell for each piece which of both it is.
 *
 *   .ckpt-delta-journal beside the weights, little endian; it has this name when all of it is
 *   there, and nothing is changed before
 *     offset  0   "ckptdlt1"
 *     offset  8   128 bits: fingerprint of the change and of what it is made to
 *     offset 24   u64: pieces
 *     offset 32   u64: XXH3 of all below
 *     offset 64   per piece u64 old, u64 new: the low half of its XXH3 128-bit
 *
 * A piece is what a tensor has of one sector: 4096 bytes of the file at a multiple of 4096. Pieces
 * come by stored tensor, then by place.
 */
#ifndef CKPT_DELTA_SECTORS_H
#define CKPT_DELTA_SECTORS_H

#include "formats/hf.h"
#include "libckpt/catalog.h"
#include "libckpt/file.h"
#include "kernels/kernels.h"

enum { DELTA_SECTOR_BYTES = 4096 };

typedef struct {
    ckpt_file *file;
    char *path;
    char *unfinished;           /* its name while it is made */
    uint64_t *first;            /* by stored tensor: number of its first piece */
    uint64_t piece_count;
} delta_sectors;

/* Which stored tensors have pieces, and how many. Release *out, also after a failure. */
ckpt_code delta_sectors_plan(const char *directory, const ckpt_catalog *stored,
                             const uint8_t *touched, delta_sectors *out, ckpt_error *err);
void delta_sectors_release(delta_sectors *s);

/* Is there one already, so that the change was begun? It is open then. One of another change is
 * refused. */
ckpt_code delta_sectors_look(delta_sectors *s, hash128 fingerprint, int *is_there,
                             ckpt_error *err);
/* Make it anew. */
ckpt_code delta_sectors_begin(delta_sectors *s, hash128 fingerprint, ckpt_error *err);
/* Thread-safe. */
ckpt_code delta_sectors_put(delta_sectors *s, uint64_t piece, uint64_t old_hash, uint64_t new_hash,
                            ckpt_error *err);
/* All pieces were put: from here on the change is made, or gone on with. Durable. */
ckpt_code delta_sectors_complete(delta_sectors *s, ckpt_error *err);
ckpt_code delta_sectors_get(const delta_sectors *s, uint64_t piece, uint64_t *old_hash,
                            uint64_t *new_hash, ckpt_error *err);
/* The change is made, and durable: the journal goes. */
ckpt_code delta_sectors_remove(delta_sectors *s, ckpt_error *err);

/* Bytes of a tensor from `at` on that lie in one sector, at most `left`. */
uint64_t delta_sector_left(const ckpt_tensor *stored, uint64_t at);

#endif
