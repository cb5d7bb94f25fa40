/*
 * check.h: checks a checkpoint against its manifest, and its files against their stored checksums.
 * Its structure was already checked when it was opened: headers, offsets, index, names, pairs of
 * weights and scales, the family's inventory.
 */
#ifndef CKPT_CHECK_H
#define CKPT_CHECK_H

#include "companions.h"
#include "config_verdict.h"
#include "digest_compare.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "manifest.h"
#include "libckpt/sums.h"
#include "value_check.h"

typedef struct {
    const char *path;              /* of the checkpoint, as given by the user */
    const char *manifest;          /* or NULL: the one in `path`, if any */
    int main_only;                 /* leave out mtp.* */
    int structure_only;            /* do not read values; else a missing manifest is an error */
    int files_are_right;           /* all files match a hub's listing: no manifest is needed */
    int weights_only;              /* ignore config.json and the files of companions.h */
    const json_value *config;      /* of the checkpoint; NULL: none */
    int has_place_for_config;      /* its layout has config.json: a missing one differs from a
                                      manifest with a record of it */
    int values;                    /* look for faults in values: no manifest is needed */
    const ckpt_catalog *official;  /* for `values`: what the family expects, or NULL */
    ckpt_store *store;             /* of the checkpoint: checksums, copies that differ */
    const file_list *unread;       /* weight files skipped when opening; NULL: not checked */
    ckpt_run_options copy;
} check_options;

typedef enum {
    CHECK_VALUE = DIGEST_VALUE,    /* another digest */
    CHECK_SHAPE = DIGEST_SHAPE,    /* another shape or class */
    CHECK_MISSING = DIGEST_MISSING,    /* in the manifest only */
    CHECK_EXTRA = DIGEST_EXTRA,    /* in the checkpoint only */
    CHECK_UNLISTED,                /* a weight file that is not in the index */
    CHECK_COPY,                    /* copies of a tensor, e.g. from several ranks, differ */
    CHECK_CHECKSUM,                /* the CRC-32 of a stored tensor is wrong */
    CHECK_CONFIG,                  /* config.json is missing, but the manifest has a record of it */
    CHECK_ROOT                     /* the root that a GGUF file holds is not that of its values */
} check_kind;

typedef struct {
    check_kind kind;
    const char *name;              /* borrowed from the checkpoint or from the result's manifest;
                                      CHECK_UNLISTED, CHECK_CONFIG: of the file; CHECK_ROOT: key */
    const char *file;              /* CHECK_CHECKSUM, CHECK_COPY: where; else NULL */
    char expected[CKPT_DIGEST_HEX];    /* CHECK_VALUE, CHECK_CHECKSUM */
    char got[CKPT_DIGEST_HEX];
} check_difference;

typedef struct {
    char *manifest_path;           /* NULL: no values were checked */
    int files_are_right;           /* copied from the options */
    size_t tensor_count;           /* logical tensors */
    size_t stored_count;
    uint64_t stored_bytes;         /* of their data */
    size_t file_count;
    size_t unlisted_count;         /* files: also in `differing` */
    size_t copy_count;             /* CHECK_COPY in `differing` */
    int config_is_gone;            /* CHECK_CONFIG in `differing` */
    int root_is_other;             /* CHECK_ROOT in `differing` */
    const char *stored_root;       /* borrowed from the checkpoint, which holds it; NULL: none, or
                                      no values were digested */
    const char *root_key;          /* the key that holds it */
    sums_result sums;              /* the wrong ones are also in `differing` */
    const char *layout;            /* borrowed from the checkpoint */
    const char *family;
    ckpt_manifest manifest;        /* empty without one */
    config_verdict config;         /* A: as the manifest says */
    certificate_checkpoint files;  /* the files beside the weights */
    companion_comparison companions;   /* A: as the manifest says; empty: none were compared */
    const char *companion_note;    /* why none were compared; NULL: they were, or there are none */
    int has_values;
    value_findings values;         /* with has_values */
    char root[CKPT_ROOT_HEX];      /* of the checkpoint; "": no values were digested */
    char main_root[CKPT_ROOT_HEX];
    check_difference *differing;   /* sorted by name */
    size_t differing_count;
} check_result;

/* *out is yours to release. */
ckpt_code check_checkpoint(const ckpt_checkpoint *checkpoint, const check_options *options,
                           check_result *out, ckpt_error *err);
void check_release(check_result *result);
int check_is_same(const check_result *result);    /* no difference and no fault in values */
const char *check_kind_name(check_kind kind);            /* "value", "checksum" */

/* The document, as one value of `w`; `notes`: deviations accepted when opening. */
void check_put(json_writer *w, const check_result *result, const file_list *notes);

#endif
