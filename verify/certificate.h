/*
 * certificate.h: facts about a release as plain data: checkpoints with their files, encodings and
 * digests; checks with verdicts and figures; findings. certificate_read.h reads the facts of a
 * checkpoint in one pass, certificate_judge.h derives checks from them, certificate_put.h writes
 * the document.
 *
 * The first checkpoint is the reference; the others are candidates, which were made from it.
 */
#ifndef CKPT_CERTIFICATE_H
#define CKPT_CERTIFICATE_H

#include "libckpt/config_meaning.h"
#include "libckpt/digest.h"
#include "libckpt/folder.h"
#include "libckpt/json.h"
#include "libckpt/map.h"
#include "libckpt/sha256.h"

/* ---- files ---- */

typedef enum {
    CERTIFICATE_WEIGHTS,           /* tensors and their indexes */
    CERTIFICATE_CONFIG,            /* config.json */
    CERTIFICATE_GENERATION,        /* generation_config.json */
    CERTIFICATE_TOKENIZER,         /* tokenizer.json, tokenizer_config.json, vocab.json ... */
    CERTIFICATE_TEMPLATE,          /* chat_template.jinja and similar files */
    CERTIFICATE_ENCODING,          /* below encoding/: how prompts are written */
    CERTIFICATE_OTHER
} certificate_role;

typedef struct {
    char *name;                    /* relative to the checkpoint's folder */
    certificate_role role;
    uint64_t size_bytes;
    char sha256[SHA256_HEX];       /* "": not computed */
} certificate_file;

/* ---- one checkpoint ---- */

/* Number and bytes of the tensors stored in one encoding. */
typedef struct {
    char *name;                    /* as from ckpt_tensor_encoding */
    uint64_t tensor_count;
    uint64_t bytes;
} certificate_encoding;

/* Origin of a checkpoint, from the record of ckpt-download. Members are malloc'd; NULL: unknown. */
typedef struct {
    char *hub;
    char *repo;
    char *revision;
    char *commit;
} certificate_origin;

/* Borrowed members are valid as long as the checkpoint that was read. */
typedef struct {
    char *label;                   /* its name in the document: the last component of its path */
    const char *path;              /* borrowed; as given by the user */
    const char *layout;            /* borrowed, as are family and names */
    const char *family;
    const char *names;
    certificate_origin origin;
    certificate_file *files;       /* sorted by name, in byte order */
    size_t file_count;
    certificate_encoding *encodings;   /* sorted by name */
    size_t encoding_count;
    const ckpt_catalog *tensors;   /* logical, borrowed; NULL: not recorded in the certificate that
                                      was read */
    ckpt_digest *digest;           /* of `tensors`; owned; NULL: values were not read */
    const ckpt_digest *recorded_digest;    /* the same, borrowed from a certificate that was read */
    char root[CKPT_ROOT_HEX];      /* "": values were not read */
    char main_root[CKPT_ROOT_HEX];
    size_t stored_count;           /* number of stored tensors */
    uint64_t stored_bytes;
    map_ledger ledger;             /* their fates */
    int has_place_for_config;      /* its layout has config.json and the files beside it */
    int has_config;
    config_meaning config;         /* members that affect the forward pass */
    const json_value *config_json; /* borrowed; NULL: there is none */
    const ckpt_folder *folder;     /* borrowed; NULL: one file */
    const ckpt_checkpoint *opened; /* borrowed; NULL: these are facts from a document */
    const file_list *notes;        /* borrowed: deviations accepted when opening */
    const file_list *unlisted;     /* borrowed: weight files that are not in its index; NULL:
                                      none */
} certificate_checkpoint;

/* ---- deltas ---- */

enum { CERTIFICATE_VERSION_BYTES = 64 };

/* A delta on the reference, or on the result of the delta before it. */
typedef struct {
    certificate_checkpoint own;    /* its label, path, and files with hashes; no tensors */
    char version[CERTIFICATE_VERSION_BYTES];
    char base_version[CERTIFICATE_VERSION_BYTES];
    const char *encoding;          /* a literal, as is the checksum's name */
    const char *checksum;
    size_t changed_count;          /* tensors */
    char base_root[CKPT_ROOT_HEX]; /* "": not known */
    char base_main[CKPT_ROOT_HEX];
    certificate_checkpoint result; /* what it makes: label, roots, config, files beside the weights;
                                      layout and family are the reference's */
} certificate_delta;

/* ---- checks and findings ---- */

typedef enum {
    CERTIFICATE_PASS,
    CERTIFICATE_FAIL,
    CERTIFICATE_NOTE,              /* reported; does not affect the result */
    CERTIFICATE_SKIPPED            /* not requested, or its input is missing */
} certificate_verdict;

typedef struct {
    const char *name;              /* "max_kl"; a literal */
    double number;
} certificate_figure;

typedef struct {
    const char *name;              /* "values", as in policies and --require; a literal */
    size_t checkpoint;             /* its index */
    certificate_verdict verdict;
    char *text;                    /* one line of text */
    certificate_figure *figures;
    size_t figure_count;
} certificate_check;

/* A finding of a check. */
typedef struct {
    const char *check;             /* its name; a literal, as is the kind */
    size_t checkpoint;
    const char *kind;              /* "value", "missing", "nan", "zero_rows" */
    const char *subject;           /* a tensor, a config member or a file. In the certificate this
                                      and the next two are copies */
    const char *place;             /* "row 7, column 12"; or NULL */
    const char *text;              /* the number: "expected A, got B"; or NULL */
    int fails;                     /* it made its check fail */
} certificate_finding;

/* Result of the self-test for one mutation. */
typedef struct {
    const char *name;              /* "swap_experts"; a literal, as is the check */
    int is_applicable;
    int is_caught;
    const char *by;                /* the check that failed; NULL: none, or not applicable */
} certificate_mutation;

/* Options that affect what is read or required, except the policy. */
typedef struct {
    int structure_only;            /* values were not read */
    int lenient;                   /* as in ckpt_open_options, as are the next two */
    int u8_scales;
    int keep_copies;
    char map_sha256[SHA256_HEX];   /* of --map; "": not given */
    const char *const *required;   /* borrowed: by --require */
    size_t required_count;
} certificate_options;

typedef struct {
    certificate_checkpoint *checkpoints;
    size_t checkpoint_count;
    certificate_delta *deltas;     /* in the order of the chain */
    size_t delta_count;
    certificate_check *checks;
    size_t check_count;
    certificate_finding *findings; /* at most CERTIFICATE_FINDINGS_MAX of a check and checkpoint */
    size_t finding_count;
    certificate_mutation *mutations;
    size_t mutation_count;
    certificate_options options;
    char *tensor_file;             /* name of the file with the tensors' digests; NULL: they are in
                                      the certificate */
    char tensor_sha256[SHA256_HEX];    /* of that file */
    char *policy;                  /* its text, JSON; NULL: the default gates */
    int64_t made_at;               /* seconds since 1970 */
} certificate;

enum { CERTIFICATE_FINDINGS_MAX = 1000 };

/* An empty certificate is all zero. Frees everything that is not borrowed. */
void certificate_release(certificate *c);
void certificate_checkpoint_release(certificate_checkpoint *c);

/* Append a zeroed checkpoint for certificate_read; NULL: out of memory. May move earlier ones. */
certificate_checkpoint *certificate_add_checkpoint(certificate *c, ckpt_error *err);

/* Append a zeroed delta; NULL: out of memory. May move earlier ones. */
certificate_delta *certificate_add_delta(certificate *c, ckpt_error *err);

/* Append a check with the name, checkpoint and verdict of `check`; `format` makes its text. */
ckpt_code certificate_add_check(certificate *c, const certificate_check *check, ckpt_error *err,
                                const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Add a figure to the check that was added last. */
ckpt_code certificate_add_figure(certificate *c, const char *name, double number, ckpt_error *err);
/* Append a copy of a finding, unless its check has CERTIFICATE_FINDINGS_MAX already. The total is
 * in the text of the check. */
ckpt_code certificate_add_finding(certificate *c, const certificate_finding *finding,
                                  ckpt_error *err);
ckpt_code certificate_add_mutation(certificate *c, const certificate_mutation *mutation,
                                   ckpt_error *err);

/* The check of a checkpoint, or NULL. */
const certificate_check *certificate_find_check(const certificate *c, const char *name,
                                                size_t checkpoint);
/* The file of a checkpoint, or NULL. */
const certificate_file *certificate_find_file(const certificate_checkpoint *c, const char *name);

/* 1 when no check failed and at least one passed. */
int certificate_passes(const certificate *c);

const char *certificate_verdict_name(certificate_verdict verdict);     /* "pass" */
const char *certificate_role_name(certificate_role role);              /* "tokenizer" */

#endif
