/*
 * certificate_check.h: reads a certificate and checks a checkpoint against it.
 *
 * The record of a checkpoint becomes a certificate_checkpoint again, so that a checkpoint on the
 * disk is judged against it by the same code as a candidate against its reference.
 */
#ifndef CKPT_CERTIFICATE_CHECK_H
#define CKPT_CERTIFICATE_CHECK_H

#include "certificate_judge.h"
#include "dsse.h"
#include "manifest.h"

typedef struct {
    json_document *envelope;       /* of the file, if it is signed */
    json_document *document;       /* the statement */
    dsse_content content;          /* of the envelope */
    int is_signed;
    const char *verdict;           /* "pass" or "fail" */
    const char *made_at;
    const json_value *checkpoints; /* of the predicate */
    size_t count;                  /* of checkpoints, at least 1 */
    const json_value *deltas;      /* of the predicate; NULL: none */
    size_t delta_count;
    ckpt_manifest tensors;         /* of the reference; no catalog: not recorded, or their file is
                                      missing */
    const char *note;              /* why `tensors` is empty; NULL: it is not */
} certificate_document;

/*
 * Read a certificate. With a key the signature must be valid: CKPT_E_DIFFERENT if it is not, or if
 * there is none. CKPT_E_FORMAT if the document contradicts itself. *out is yours to release, also
 * on failure.
 */
ckpt_code certificate_open(const char *path, const signature_key *key, certificate_document *out,
                           ckpt_error *err);
void certificate_close(certificate_document *document);

/* The record of checkpoint `i` in the form of certificate_read; from document->count on, the
 * results of the deltas. It borrows the document; release it first. */
ckpt_code certificate_recorded(const certificate_document *document, size_t i,
                               certificate_checkpoint *out, ckpt_error *err);

/*
 * Judge c->checkpoints[1], which was read, against the record that fits it best, which becomes
 * c->checkpoints[0]: one with an equal root, else with an equal `main`, else the reference. Results
 * of deltas are such records. With `files` its files must be identical, and the checkpoint with the
 * most equal files is chosen.
 */
ckpt_code certificate_check_record(const certificate_document *document, certificate *c,
                                   int files, ckpt_error *err);

/*
 * Judge a delta whose files were read into c->checkpoints[1] against the recorded delta that has
 * most of them, which becomes c->checkpoints[0]: the files must be identical. `roots`: what it says
 * of its base and result; one that is "" is not known, and not compared.
 */
typedef struct {
    char base[CKPT_ROOT_HEX];
    char result[CKPT_ROOT_HEX];
} certificate_delta_roots;
ckpt_code certificate_check_delta(const certificate_document *document, certificate *c,
                                  const certificate_delta_roots *roots, ckpt_error *err);

#endif
