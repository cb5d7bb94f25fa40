/*
 * outcome.h: the result of a conversion as plain data, for its report.
 *
 * Everything is borrowed from the conversion. "Target" tensors are the logical tensors of the
 * output; they are matched with the source's logical tensors by name.
 */
#ifndef CKPT_OUTCOME_H
#define CKPT_OUTCOME_H

#include "encode.h"
#include "map.h"

/* One end of a conversion. */
typedef struct {
    const char *path;                  /* as it was given */
    const char *layout;                /* "hf" */
    const char *names;                 /* "native" */
    uint64_t file_count;               /* tensor files */
    uint64_t total_bytes;              /* of those files, headers included */
} outcome_side;

/* A logical tensor of the source that the output leaves out, and why. */
typedef struct {
    const char *name;
    const char *reason;
} outcome_drop;

/* A file without tensors: copied unchanged, edited, written or left out. */
typedef struct {
    const char *name;
    const char *action;                /* "copied", "edited", "written", "left out" */
} outcome_file;

typedef struct {
    const char *version;               /* CKPT_VERSION */
    const char *const *words;          /* the command line */
    size_t word_count;
    const char *family;                /* "deepseek_v4" */
    outcome_side source;
    outcome_side target;
    uint64_t tensor_bytes;             /* of the inputs' tensors, without headers */
    double seconds;

    /* The source as stored. Every stored tensor is accounted for. */
    const ckpt_catalog *stored;        /* .file is an index of file_names */
    const map_fate *fates;             /* by stored tensor; .logical: an index of source_logical */
    const char *const *file_names;
    size_t file_name_count;
    const ckpt_catalog *source_logical;
    const outcome_drop *drops;         /* logical tensors that are not in the target */
    size_t drop_count;

    /* The target. Arrays are indexed by target tensor. */
    const ckpt_catalog *target_logical;
    const encode_stats *stats;         /* NULL: no encoding was changed */
    const uint8_t *kept;               /* 1: kept from an earlier run, so no stats; NULL: none */
    size_t kept_count;
    size_t repaired_count;             /* tensors of other processes that were wrong on disk and
                                          were written again */
    int has_others;                    /* another run or process wrote some of the tensors; values
                                          that it rounded are not counted here */
    const quantise_rule *const *rules; /* NULL: no tensor was quantised; NULL entry: this tensor was
                                          not */
    const quantise_loss *losses;       /* with rules: the loss of each tensor */
    uint64_t rounded;                  /* values that this run rounded */
    size_t changed_count;              /* tensors whose values differ from the source's */
    const char *const *origins;        /* path of the checkpoint that supplied it (--fill-from);
                                          NULL entry: the source; NULL: all from the source */
    const ckpt_digest *digest;         /* over target_logical; NULL: --no-digest */
    const char *root;                  /* hex; NULL without a digest */
    const char *main_root;
    const char *source_root;           /* of the source; differs from root after rounding */
    const char *source_main_root;
    const char *config;                /* text of config.json; NULL: none */

    const outcome_file *files;         /* of the target, besides its tensor files */
    size_t file_count;
    const char *const *notes;          /* accepted deviations and omissions, one line each */
    size_t note_count;
} ckpt_outcome;

#endif
