/*
 * manifest.h: the value digests of a checkpoint as a JSON document: printed by `ckpt-verify digest
 * --json`, left beside the output by a conversion, read by `ckpt-verify check`.
 *
 *   {"schema": "ckpt-manifest/1", "root": HEX64, "main": HEX64, "family": F, "layout": L,
 *    "config": {...}|null, "companions": [...], "files": [NAME, ...], "notes": [TEXT, ...],
 *    "tensors": [{"name": N, "class": "float"|"int", "shape": [..], "value": HEX32,
 *                 "encoding": E}, ...]}
 *
 * Tensors are sorted by name in byte order, like the input of the root. `files` is present if a
 * conversion wrote the manifest: the files it wrote beside it, which may be replaced together.
 * `notes` is present if `digest` made it: why the checkpoint may not be a complete model. `config`
 * has the members of config.json that affect the forward pass (config_meaning.h); null: no
 * config.json. `companions` has the files beside the weights (companions.h) with their hashes
 * (file_record.h). Manifests of earlier versions lack these two.
 */
#ifndef CKPT_MANIFEST_H
#define CKPT_MANIFEST_H

#include "certificate.h"
#include "libckpt/replaceable.h"

#define MANIFEST_SCHEMA "ckpt-manifest/1"

typedef struct {
    const ckpt_catalog *catalog;   /* logical tensors with their encodings */
    const ckpt_digest *digest;     /* over the same tensors */
    const char *family;
    const char *layout;
    const json_value *config;      /* config.json, parsed; NULL: there is none */
    const certificate_checkpoint *companions;  /* files beside the weights; NULL: omitted */
    const file_list *files;        /* files written beside the manifest; or NULL */
    const file_list *notes;        /* from opening the checkpoint; or NULL */
} manifest_info;

/* The document, as one value of `w`. Everything is borrowed. */
ckpt_code manifest_put(json_writer *w, const manifest_info *info, ckpt_error *err);
/* Write it to a file; compressed if its name ends in ".zst". */
ckpt_code manifest_write(const char *path, const manifest_info *info, ckpt_error *err);

/* A manifest that was read. The catalog's dtypes only represent the classes: F32 and I64. */
typedef struct {
    ckpt_catalog *catalog;
    ckpt_digest *digest;
    char root[CKPT_ROOT_HEX];
    char main_root[CKPT_ROOT_HEX];
    int has_config;                /* it has the member `config` */
    config_meaning config;         /* empty: there was none */
    int has_companions;            /* it has the member `companions` */
    certificate_checkpoint companions;     /* only its files */
} ckpt_manifest;

/* Read a manifest; its roots must match its tensors. `name` is a file in the folder, or with a
 * folder of NULL a path given by the user, which may be a pipe. *out is yours to release. */
ckpt_code manifest_read(const ckpt_folder *folder, const char *name, ckpt_manifest *out,
                        ckpt_error *err);
void manifest_release(ckpt_manifest *manifest);

/* The member `tensors`, for use in other documents: put it as one value of `w`; read it into
 * m->catalog and m->digest, to be released also on failure; check that the root `said` by a
 * document matches the tensors. `path` is for errors. */
ckpt_code manifest_put_tensors(json_writer *w, const ckpt_catalog *catalog,
                               const ckpt_digest *digest, ckpt_error *err);
ckpt_code manifest_read_tensors(const json_value *tensors, const char *path, ckpt_manifest *m,
                                ckpt_error *err);
ckpt_code manifest_check_root(const ckpt_manifest *m, int main_only, const char *said,
                              const char *path, ckpt_error *err);

/* Indexes of a catalog's tensors, sorted by name; malloc'd, NULL: out of memory. */
size_t *manifest_order(const ckpt_catalog *catalog);

#endif
