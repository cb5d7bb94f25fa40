/*
 * convert.h: one conversion of a checkpoint, from plan to commit.
 *
 *   convert_plan     opens everything, decides every tensor and byte position; reads no tensor data
 *   convert_run      writes DST.partial, or goes on where an earlier run was stopped
 *   convert_commit   makes it durable and renames it to DST
 */
#ifndef CKPT_CONVERT_H
#define CKPT_CONVERT_H

#include "convert_feed.h"
#include "formats/format.h"
#include "libckpt/outcome.h"
#include "libckpt/output.h"
#include "libckpt/plan.h"
#include "side_data.h"

typedef struct {
    const char *source;
    const char *target;
    const char *like;                /* or NULL */
    const char *fill_from;           /* or NULL */
    const char *names;               /* style, or NULL: as in the source */
    int force_names;                 /* also quantised weights that a reader of them misreads */
    const ckpt_format *format;       /* of the target */
    format_sharding sharding;        /* of sharded formats */
    ckpt_open_options open;
    plan_policy policy;              /* not with like */
    uint64_t file_bytes_max;         /* greedy files of at most this; 0: as in the source */
    int match_reference;
    int allow_lossy;
    int no_digest;
    int verify;                      /* read the result back and compare digests */
    int overwrite;
    int no_space_check;
    int many_files;                  /* more than 1,000 by file_bytes_max are meant */
    int restart;                     /* discard an unfinished run of other options */
    unsigned part;                   /* 1 .. part_count: the share of this process */
    unsigned part_count;             /* 0 or 1: it does everything */
    ckpt_run_options copy;
    convert_feed *feed;              /* the source comes file by file; or NULL */
} convert_options;

/* What a conversion reads, and must not be replaced: paths, NULL for what is not given. */
enum { CONVERT_INPUTS = 4 };
void convert_inputs(const convert_options *options, const char *paths[CONVERT_INPUTS]);

typedef struct {
    convert_options options;
    ckpt_checkpoint *source;
    ckpt_checkpoint *like;           /* or NULL */
    ckpt_checkpoint *fill;           /* or NULL */
    ckpt_source *picked;             /* every input tensor, in the order of the target */
    const char **origins;            /* by target tensor: fill_from, or NULL */
    outcome_drop *drops;             /* inputs that the target's layout cannot carry */
    size_t drop_count;
    ckpt_catalog *targets;           /* logical tensors as they shall be */
    ckpt_map *map;                   /* of the target */
    ckpt_store *store;               /* target files, laid out */
    ckpt_layout *layout;
    char *config_text;               /* of the target, or NULL */
    char *inference_text;            /* CONFIG_INFERENCE_FILE, made of it; or NULL */
    side_data *side;                 /* of the source, or NULL */
    int writes_side_data;            /* FP4 -> FP8 */
    int with_index;
    hash128 fingerprint;
    uint8_t *share;                  /* by target tensor: this process writes it; NULL: all */
    uint64_t fixed_bytes;            /* what the catalogs take */
    uint64_t in_bytes;
    uint64_t out_bytes;
    file_list notes;                 /* of the inputs, and what the target leaves out */

    /* Set by convert_run. */
    ckpt_digest *digest;             /* of the inputs, in the order of the targets; or NULL */
    ckpt_digest *written_digest;     /* of what was written, if it was read back; or NULL */
    ckpt_digest *encoded_digest;     /* of what was meant to be written, where its values may be
                                        others than the inputs' and --verify compares; or NULL */
    char root[CKPT_ROOT_HEX];        /* of the target; "" without digests */
    char main_root[CKPT_ROOT_HEX];
    char source_root[CKPT_ROOT_HEX];  /* of the inputs: others than those above after rounding */
    char source_main_root[CKPT_ROOT_HEX];
    encode_stats *stats;             /* by target tensor */
    uint8_t *kept;                   /* by target tensor: an earlier run had finished it */
    size_t kept_count;
    ckpt_output *output;
    int is_waiting;                  /* this share is done; another process will commit */
    uint64_t extra_bytes;            /* of the files that are carried along */
    int is_there;                    /* DST holds it already, from the same job */
    size_t repaired_count;           /* tensors that others had written and the disk lost */
    int is_refused;                  /* what the inputs hold forbids it: nothing may be left */
    file_list written;               /* files of the target that are no tensor files */
    const char **source_names;       /* of the source's tensor files: for the outcome */
    outcome_file *other_files;       /* of the target, and what it leaves out: for the outcome */
    double seconds;
} convert_job;

/* *out is yours to free. The options' strings are borrowed. */
ckpt_code convert_plan(const convert_options *options, convert_job **out, ckpt_error *err);
ckpt_code convert_run(convert_job *job, ckpt_error *err);
/* Instead of convert_run: write what describes the data (.metadata, an index) below `directory`. */
ckpt_code convert_describe(convert_job *job, const char *directory, ckpt_error *err);
/* Append the names of what the run makes: weights, and what is carried along. */
ckpt_code convert_list_files(const convert_job *job, file_list *out, ckpt_error *err);
/* The directory that convert_run writes to: for files of the caller's own, before the commit. */
const char *convert_directory(const convert_job *job);
/* What convert_run did, if it went well. *out is borrowed from the job, until this is called again;
 * `words` are left to the caller. */
ckpt_code convert_outcome(convert_job *job, ckpt_outcome *out, ckpt_error *err);
ckpt_code convert_commit(convert_job *job, ckpt_error *err);
void convert_free(convert_job *job);         /* NULL is fine; leaves the partial output */

/* Room that the result takes beside DST, for the plan that is printed. */
ckpt_code convert_plan_room(const convert_job *job, convert_room *out, ckpt_error *err);

/* Memory of one thread's tile, for the plan that is printed. */
ckpt_code convert_tile_bytes(convert_job *job, uint64_t *out, ckpt_error *err);

#endif
