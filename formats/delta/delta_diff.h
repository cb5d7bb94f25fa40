/*
 * delta_diff.h: compares two sources with the same tensors and writes the differences as frames to
 * spool files, in one pass and bounded memory. Frames do not depend on the number of threads.
 */
#ifndef CKPT_DELTA_DIFF_H
#define CKPT_DELTA_DIFF_H

#include "delta_model.h"
#include "kernels/changes.h"

enum { DELTA_LEVEL_DEFAULT = 1, DELTA_LEVEL_MAX = 3 };

typedef struct {
    delta_encoding encoding;
    checksum_kind checksum;
    int level;                      /* of zstd, 1 .. DELTA_LEVEL_MAX */
} delta_diff_options;

/* The change of one part of a tensor; all zero if nothing changed. */
typedef struct {
    int is_changed;
    unsigned spool;                 /* number of the file that has the frame */
    uint64_t offset;
    uint64_t packed_bytes;
    char before[CHECKSUM_HEX];      /* xxh3-128 */
    char after_xxh3[CHECKSUM_HEX];
    char after[CHECKSUM_HEX];       /* of the requested kind */
    difference_count count;
} delta_change;

typedef struct {
    delta_change *changes;          /* by CKPT_PART_COUNT * tensor + part */
    ckpt_file **spools;
    unsigned spool_count;
} delta_changes;

/*
 * `before` and `after` have the tensors of `model`, in its order. Spool files are created in
 * `directory`; their names end in .tmp. Release *out, also after a failure.
 */
typedef struct {
    const delta_model *model;
    ckpt_source *before;
    ckpt_source *after;
    const char *directory;
    int is_as_stored;               /* both are read from files as they are */
    int is_in_any_order;            /* both can be: no delta is applied on the way */
} delta_pair;
ckpt_code delta_diff(const delta_pair *pair, const delta_diff_options *options,
                     const ckpt_run_options *run, delta_changes *out, ckpt_error *err);
void delta_changes_release(delta_changes *changes);

/* Memory of one thread, without its scratch. */
enum { DELTA_DIFF_THREAD_BYTES = ZFRAME_WRITER_BYTES + (1 << 20) };

#endif
