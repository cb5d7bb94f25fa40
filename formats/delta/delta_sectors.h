/*
 * delta_sectors.h: the journal of a change in place: hashes of the old and new content of every
 * piece that changes, so that a later run can tell which pieces a killed run has changed.
 *
 *   .ckpt-delta-journal beside the weights, little endian. It gets this name when it is complete;
 *   nothing is changed before that.
 *     offset  0   "ckptdlt1"
 *     offset  8   128 bits: fingerprint of the deltas and of the base
 *     offset 24   u64: number of pieces
 *     offset 32   u64: XXH3 of all below
 *     offset 64   per piece u64 old, u64 new: the low half of its XXH3 128-bit
 *
 * A piece is the part of a tensor in one sector: 4096 bytes of the file at a multiple of 4096.
 * Pieces are sorted by stored tensor, then by position.
 */
#ifndef CKPT_DELTA_SECTORS_H
#define CKPT_DELTA_SECTORS_H

#include "formats/hf.h"
#include "libckpt/catalog.h"
#include "libckpt/file.h"
#include "kernels/kernels.h"

enum {
    DELTA_SECTOR_BYTES = 4096,
    /* Pieces are read and written in lots, which begin at its multiples in the file. */
    DELTA_LOT_SECTORS = 64,
    DELTA_LOT_BYTES = DELTA_LOT_SECTORS * DELTA_SECTOR_BYTES
};

/* The entry of a piece. */
typedef struct {
    uint64_t old_hash;
    uint64_t new_hash;
} delta_sector;

typedef struct {
    ckpt_file *file;
    char *path;
    char *unfinished;           /* its name until it is complete */
    uint64_t *first;            /* by stored tensor: number of its first piece */
    uint64_t piece_count;
} delta_sectors;

/* Count the pieces of each touched tensor. Release *out, also after a failure. */
ckpt_code delta_sectors_plan(const char *directory, const ckpt_catalog *stored,
                             const uint8_t *touched, delta_sectors *out, ckpt_error *err);
void delta_sectors_release(delta_sectors *s);

/* Open the journal of an earlier run, which has begun the change. *is_there: whether there is one.
 * The journal of another change is refused. */
ckpt_code delta_sectors_look(delta_sectors *s, hash128 fingerprint, int *is_there,
                             ckpt_error *err);
/* Create a new journal. */
ckpt_code delta_sectors_begin(delta_sectors *s, hash128 fingerprint, ckpt_error *err);
/* The entries of `count` pieces, one after another. Thread-safe. */
ckpt_code delta_sectors_put(delta_sectors *s, uint64_t piece, const delta_sector *entries,
                            size_t count, ckpt_error *err);
/* All pieces were put: sync the journal and rename it. The change may begin after this. */
ckpt_code delta_sectors_complete(delta_sectors *s, ckpt_error *err);
ckpt_code delta_sectors_get(const delta_sectors *s, uint64_t piece, delta_sector *entries,
                            size_t count, ckpt_error *err);
/* Remove the journal, when the change is complete and on the disk. */
ckpt_code delta_sectors_remove(delta_sectors *s, ckpt_error *err);

/* Bytes of a tensor from `at` on that lie in one sector, or in one lot. */
uint64_t delta_sector_left(const ckpt_tensor *stored, uint64_t at);
uint64_t delta_lot_left(const ckpt_tensor *stored, uint64_t at);

#endif
