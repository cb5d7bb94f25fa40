/*
 * side_data.h: the information that FP4 -> FP8 loses, stored so that FP8 -> FP4 restores the
 * original bytes.
 *
 * The FP8 form keeps every value, but not which of two scales a group had. FP8 -> FP4 takes the
 * canonical scale (kernels.h, fp4_group_scale_exact); groups for which that is not the original are
 * listed in `fp4_scales.zst`, a zstd stream of text lines, sorted by tensor name, then group:
 *
 *   ckpt-fp4-scales 2 ROOT MAIN ENTRIES           the checkpoint's value digest roots (README), or
 *                                                 - for both; how many group lines there are
 *   tensor NAME COUNT                             NAME is escaped as a JSON string
 *   GROUP SCALE                                   COUNT lines; SCALE is the E8M0 code in decimal
 *
 * The file is written by every FP4 -> FP8, also without entries, so that its absence is
 * meaningful: without it the inverse conversion keeps the values but may choose different scales.
 *
 * While converting, tiles arrive in any order: their exceptions are appended to a spill file and
 * sorted at the end. The spill survives a kill; tiles that are repeated give the same entries.
 */
#ifndef CKPT_SIDE_DATA_H
#define CKPT_SIDE_DATA_H

#include "formats/format.h"
#include "libckpt/encode.h"

/* ---- writing ---- */

typedef struct side_data_writer side_data_writer;

typedef struct {
    const char *directory;         /* borrowed until the end, as the catalog */
    const ckpt_catalog *catalog;   /* tensor indexes are its */
    unsigned share;                 /* 1 .. share_count */
    unsigned share_count;           /* 0 or 1: one process does it all; else each has a spill */
    uint64_t synced_bytes;         /* last result of side_data_sync: finished tensors rely on it */
} side_data_options;

/*
 * Create the spill file in the directory, or open it for appending. A damaged record before
 * synced_bytes is an error; one after it was being written when the machine stopped, and the spill
 * is truncated there.
 */
ckpt_code side_data_begin(const side_data_options *options, side_data_writer **out,
                          ckpt_error *err);
/* The sink to hand to source_encode. Thread-safe, order-free. */
encode_exception_sink *side_data_sink(side_data_writer *writer);
/* Sync what was put so far; costs nothing if nothing was put since. *synced_bytes:
 * how much of the spill that is. */
ckpt_code side_data_sync(side_data_writer *writer, uint64_t *synced_bytes, ckpt_error *err);
/* When all shares are done, with synced_bytes[share_count] of their spills: take over the entries
 * of the others, before side_data_finish. Their spills are removed with their journals. */
ckpt_code side_data_join(side_data_writer *writer, const uint64_t *synced_bytes, ckpt_error *err);
/* Sort, write directory/fp4_scales.zst, remove the spill. The roots are those of the values, both
 * NULL if unknown. Takes about memory_bytes at most; the bytes depend on roots and exceptions
 * alone. Consumes writer, also on failure. */
ckpt_code side_data_finish(side_data_writer *writer, const char *const roots[2],
                           uint64_t memory_bytes, ckpt_error *err);
void side_data_close(side_data_writer *writer);     /* leaves the spill for a later run */

/* ---- reading ---- */

typedef struct side_data side_data;

/* Read fp4_scales.zst of the folder; *out is NULL if it does not exist. Refuses a file that needs
 * more than memory_bytes, unsorted or repeated entries, a number of entries that differs from the
 * head, and scales of 255 (NaN). */
ckpt_code side_data_read(const ckpt_folder *folder, uint64_t memory_bytes, side_data **out,
                         ckpt_error *err);
/* The same from its text. */
ckpt_code side_data_parse(const char *text, size_t size, uint64_t memory_bytes, side_data **out,
                          ckpt_error *err);
const encode_exception_table *side_data_table(const side_data *data);
uint64_t side_data_bytes(const side_data *data);
/* Check that every listed tensor is in the catalog, an FP4 target, and its groups in range. Those
 * of mtp.* may be missing from a catalog without any. */
ckpt_code side_data_check(const side_data *data, const ckpt_catalog *targets, ckpt_error *err);
/* 1 if it has the digest of the values it was made for. */
int side_data_has_roots(const side_data *data);
/* Check that it was made for the values with these roots. A checkpoint without MTP blocks has equal
 * roots; then only the main root is compared. */
ckpt_code side_data_check_roots(const side_data *data, const char *const roots[2],
                                ckpt_error *err);
void side_data_free(side_data *data);               /* NULL is fine */

#endif
