/*
 * convert.h: one conversion of a checkpoint, from plan to commit.
 *
 *   convert_plan     opens everything, decides every tensor and byte position; reads no tensor data
 *   convert_run      writes DST.partial, or resumes an earlier run
 *   convert_commit   makes it durable and renames it to DST
 */
#ifndef CKPT_CONVERT_H
#define CKPT_CONVERT_H

#include "convert_feed.h"
#include "formats/format.h"
#include "libckpt/outcome.h"
#include "libckpt/output.h"
#include "libckpt/plan.h"
#include "libckpt/plan_quantise.h"

typedef struct {
    const char *source;
    const char *target;
    const char *like;                /* or NULL */
    const char *fill_from;           /* or NULL */
    const char *config;              /* of a source that has none; see ckpt_open_options; or NULL */
    const char *names;               /* style, or NULL: as in the source */
    const char *layer_keys;          /* see convert_words; the dialect is that of `open` */
    int mtp;                         /* next-token blocks go to layouts that have them on demand */
    int force_names;                 /* allow encodings that a reader of the names misreads */
    const ckpt_format *format;       /* of the target */
    format_sharding sharding;        /* of sharded formats */
    ckpt_open_options open;
    plan_policy policy;              /* not with like */
    quantise_policy quantise;        /* not with policy */
    class_limits max_relf;           /* more than that lost is refused; one process only */
    int sticky_scale;                /* with like and quantise; see quantise_panel */
    int zero_nonfinite;              /* NaN and infinity become 0 where they are quantised */
    int quantise_f32;                /* F32 is not rounded to BF16 before */
    float input_scale;               /* of NVFP4 weights that have none; 0: not given */
    const char *input_scales;        /* or a checkpoint with theirs; or NULL */
    int plain_wo_a;                  /* attn.wo_a is BF16 whatever else is said */
    uint64_t file_bytes_max;         /* fill files up to this size; 0: as in the source */
    int match_reference;
    int allow_lossy;
    int no_digest;
    int verify;                      /* read the result back and compare digests */
    int overwrite;
    int no_space_check;
    int without_tokenizer;           /* of a format whose header holds one */
    int many_files;                  /* allow file_bytes_max to give more than 1,000 files */
    int restart;                     /* discard an unfinished run with other options */
    unsigned share;                   /* 1 .. share_count: the share of this process */
    unsigned share_count;             /* 0 or 1: the whole job */
    ckpt_run_options copy;
    convert_feed *feed;              /* the source arrives file by file; or NULL */
} convert_options;

/* Options given as text, by a command or a caller of the library. NULL: not given. */
typedef struct {
    const char *layout;              /* "hf" (the default), "mp", "torch_dist" */
    const char *dtype;               /* "bf16", "fp8", "fp4", "keep" (the default) */
    const char *experts;
    const char *scale_dtype;         /* "e8m0", "f32" */
    const char *key_style;           /* of torch_dist: "v1", "v2", "stacked", "layers" */
    const char *gguf_dialect;        /* "llama.cpp", "ds4" */
    const char *layer_keys;          /* of torch_dist: "per-layer", "stacked" */
    const char *quantise;            /* see class_rules.h */
    const char *max_relf;            /* see class_limits_parse */
    const char *nonfinite;           /* "refuse" (the default), "zero" */
    const char *wo_a;                /* "bf16", "keep" (the default) */
    const char *input_scale;         /* a number above 0, or a checkpoint with such numbers */
} convert_words;

enum { CONVERT_RANKS_MAX = 65536 };

/* The format of the layout, if it can be written, else an error that lists those that can. NULL:
 * the error says that the option is missing. */
ckpt_code convert_find_layout(const char *layout, const ckpt_format **out, ckpt_error *err);

/* Set format, policy and, for torch_dist, names; refuse options that exclude each other. All
 * others must be set already. */
ckpt_code convert_take_words(const convert_words *words, convert_options *out, ckpt_error *err);

/* Refuse a target that exists (unless it may be replaced), cannot be made, or is one of the inputs.
 * The source need not exist yet. */
ckpt_code convert_check_target(const convert_options *options, ckpt_error *err);

/* The inputs of a conversion, which must not be replaced: paths, NULL if not given. */
enum { CONVERT_INPUTS = 6 };
void convert_inputs(const convert_options *options, const char *paths[CONVERT_INPUTS]);

/* A conversion in three stages: plan, output, result. */
typedef struct convert_job convert_job;

/* *out is yours to free. The options' strings are borrowed. */
ckpt_code convert_plan(const convert_options *options, convert_job **out, ckpt_error *err);
ckpt_code convert_run(convert_job *job, ckpt_error *err);
ckpt_code convert_commit(convert_job *job, ckpt_error *err);
void convert_free(convert_job *job);         /* NULL is fine; leaves the partial output */

/* ---- the plan ---- */

/* The contents of a plan, borrowed from the job. */
typedef struct {
    const ckpt_catalog *from;        /* the inputs' tensors, in the order of `to` */
    const ckpt_catalog *to;          /* the target's tensors */
    const quantise_rule *const *rules;   /* by which tensors are rounded, NULL: by none; or NULL */
    uint64_t in_bytes;               /* of the inputs' tensors */
    uint64_t out_bytes;              /* of the target's files */
    uint64_t fixed_bytes;            /* memory of the catalogs */
    uint64_t tile_bytes;             /* memory of one thread's tile */
    size_t key_count;                /* stored tensors */
    size_t piece_count;              /* into which they are cut */
    int is_cut;                      /* if the layout cuts tensors */
    size_t file_count;               /* see convert_file */
    const char *const *notes;
    size_t note_count;
    int may_be_there;                /* of a share: DST has all files (convert_check_run) */
    int is_room_known;
    convert_room room;               /* beside DST */
} convert_summary;

void convert_summarise(const convert_job *job, convert_summary *out);
/* Name of the target's tensor file i, and its size. */
const char *convert_file(const convert_job *job, size_t i, uint64_t *size_bytes);
/* Append the names of the files that the run writes: weights and files copied along. */
ckpt_code convert_list_files(const convert_job *job, file_list *out, ckpt_error *err);
/* Instead of convert_run: refuse the places that it would refuse, and change nothing. Of the data
 * only tables of expert ids are looked at, where convert_run refuses wrong ones first. A share with
 * a DST that has all files, as another process may have finished the job, is not refused:
 * convert_run compares their values. */
ckpt_code convert_check_run(convert_job *job, ckpt_error *err);
/* The same for the space on the disk. */
ckpt_code convert_check_space(const convert_job *job, ckpt_error *err);
/* Instead of convert_run: write the files that describe the data (.metadata, an index) below
 * `directory`. */
ckpt_code convert_describe(convert_job *job, const char *directory, ckpt_error *err);

/* ---- after the run ---- */

typedef enum {
    CONVERT_WRITTEN,                 /* complete: commit it */
    CONVERT_WAITING,                 /* this share is done; another process will commit */
    CONVERT_THERE                    /* DST already exists, from the same job */
} convert_state;
convert_state convert_state_of(const convert_job *job);

/* The directory that the run writes to, for additional files of the caller, before the commit. */
const char *convert_directory(const convert_job *job);

/* The outcome of a run that has written everything. *out is borrowed from the job until the next
 * call; the caller sets `words`. */
ckpt_code convert_outcome(convert_job *job, ckpt_outcome *out, ckpt_error *err);

#endif
