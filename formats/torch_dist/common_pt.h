/*
 * common_pt.h: the options that a Megatron checkpoint stores beside its tensors. They are a dict in
 * common.pt, a torch.save archive, or (newer) in a list in the byte entry
 * "common_state/shard_0_1":
 *
 *   args                 argparse.Namespace: the options of the run
 *   checkpoint_version   3.0
 *   iteration            int
 *   content_metadata     {singleton_local_shards: False, chained_optim_avoid_prefix: True}
 *   num_floating_point_operations_so_far   0
 */
#ifndef CKPT_COMMON_PT_H
#define CKPT_COMMON_PT_H

#include "libckpt/file.h"

typedef enum {
    COMMON_NONE = 0,
    COMMON_BOOL,         /* integer: 0 or 1 */
    COMMON_INT,
    COMMON_FLOAT,
    COMMON_TEXT,
    COMMON_LIST,         /* items without names; a tuple is read as a list */
    COMMON_OTHER         /* read only: a value of another kind, a list inside a list */
} common_kind;

typedef struct common_arg common_arg;
struct common_arg {
    const char *name;    /* NULL in a list */
    common_kind kind;
    int64_t integer;
    double number;
    const char *text;    /* NUL-terminated */
    const common_arg *items;
    size_t item_count;
};

typedef struct {
    int has_args;                /* read only: `args` was present */
    const common_arg *args;
    size_t arg_count;
    int64_t iteration;           /* -1 when absent */
    double checkpoint_version;   /* read only: 0 when absent; written as 3.0 */
} common_pt;

/* Make the file; its bytes are deterministic. *out is malloc'd, yours to free. */
ckpt_code common_pt_write(const common_pt *common, unsigned char **out, size_t *out_bytes,
                          ckpt_error *err);

/*
 * Read the archive at [offset, offset + length) of a file: all of common.pt, or the item of the
 * byte entry. *out is yours to free with common_pt_free.
 */
ckpt_code common_pt_read(const ckpt_file *file, uint64_t offset, uint64_t length, common_pt **out,
                         ckpt_error *err);
/* Check that the archive is complete: positions of records and checksums. The contents are not
 * interpreted. */
ckpt_code common_pt_check(const ckpt_file *file, uint64_t offset, uint64_t length,
                          ckpt_error *err);
void common_pt_free(common_pt *common);      /* NULL is fine; only for results of common_pt_read */

/* The argument called `name`, or NULL. */
const common_arg *common_pt_find(const common_pt *common, const char *name);

#endif
