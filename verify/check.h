/*
 * check.h: is a checkpoint what its manifest says, and do its files hold what their own checksums
 * say? Opening it has checked its structure already: headers, offsets, index, names, pairs of
 * weights and scales, the family's inventory.
 */
#ifndef CKPT_CHECK_H
#define CKPT_CHECK_H

#include "config_verdict.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "manifest.h"
#include "libckpt/sums.h"

typedef struct {
    const char *path;              /* of the checkpoint, as it was given */
    const char *manifest;          /* or NULL: the one in `path`, if it is there */
    int main_only;                 /* leave out mtp.* */
    int structure_only;            /* no values; else no manifest is an error */
    int files_are_right;           /* every byte is as a hub listed it: needs no manifest */
    int weights_only;              /* leave config.json out */
    const json_value *config;      /* of the checkpoint; NULL: it carries none */
    int has_place_for_config;      /* its layout carries one: that it is gone is a difference from a
                                      manifest that recorded it */
    ckpt_store *store;             /* of the checkpoint: checksums, copies that differ */
    const file_list *unread;       /* files of weights that opening left out; NULL: none matters */
    ckpt_run_options copy;
} check_options;

typedef enum {
    CHECK_VALUE,                   /* another digest */
    CHECK_SHAPE,                   /* another shape or class */
    CHECK_MISSING,                 /* in the manifest only */
    CHECK_EXTRA,                   /* in the checkpoint only */
    CHECK_UNLISTED,                /* a file of weights beside the index that it does not name */
    CHECK_COPY,                    /* stored twice, as by several ranks, and not the same */
    CHECK_CHECKSUM,                /* the bytes of a stored tensor have another CRC-32 */
    CHECK_CONFIG                   /* config.json is gone, of which the manifest has a record */
} check_kind;

typedef struct {
    check_kind kind;
    const char *name;              /* borrowed from the checkpoint or from the result's manifest;
                                      CHECK_UNLISTED, CHECK_CONFIG: of the file */
    const char *file;              /* CHECK_CHECKSUM, CHECK_COPY: where; else NULL */
    char expected[CKPT_DIGEST_HEX];    /* CHECK_VALUE, CHECK_CHECKSUM */
    char got[CKPT_DIGEST_HEX];
} check_difference;

typedef struct {
    char *manifest_path;           /* NULL: no values were checked */
    int files_are_right;           /* as the options say */
    size_t tensor_count;           /* logical tensors */
    size_t stored_count;
    uint64_t stored_bytes;         /* of their data */
    size_t file_count;
    size_t unlisted_count;         /* files: these are in `differing`, too */
    size_t copy_count;             /* CHECK_COPY in `differing` */
    int config_is_gone;            /* CHECK_CONFIG in `differing` */
    sums_result sums;              /* the wrong ones are in `differing`, too */
    const char *layout;            /* borrowed from the checkpoint */
    const char *family;
    ckpt_manifest manifest;        /* empty without one */
    config_verdict config;         /* A: as the manifest says */
    char root[CKPT_ROOT_HEX];      /* of the checkpoint; "" without a manifest */
    char main_root[CKPT_ROOT_HEX];
    check_difference *differing;   /* sorted by name */
    size_t differing_count;
} check_result;

/* *out is yours to release. */
ckpt_code check_checkpoint(const ckpt_checkpoint *checkpoint, const check_options *options,
                           check_result *out, ckpt_error *err);
void check_release(check_result *result);
int check_is_same(const check_result *result);           /* nothing was found to differ */
const char *check_kind_name(check_kind kind);            /* "value", "checksum" */

/* The document, as one value of `w`; `notes`: what opening let pass. */
void check_put(json_writer *w, const check_result *result, const file_list *notes);

#endif
