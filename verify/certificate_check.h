/*
 * certificate_check.h: a certificate read back, and a checkpoint checked against it.
 *
 * What a certificate records of a checkpoint becomes a certificate_checkpoint again, so that a
 * checkpoint on the disk is judged against it as a candidate is against its reference.
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
    ckpt_manifest tensors;         /* of the reference; no catalog: not recorded, or the file with
                                      them is not there */
    const char *note;              /* why they are not known; NULL: they are */
} certificate_document;

/*
 * Read a certificate. With a key the signature must be right: CKPT_E_DIFFERENT if it is not, or if
 * there is none. A document that does not agree with itself is CKPT_E_FORMAT. *out is yours to
 * release, also on failure.
 */
ckpt_code certificate_open(const char *path, const signature_key *key, certificate_document *out,
                           ckpt_error *err);
void certificate_close(certificate_document *document);

/* The record of checkpoint `i`, as certificate_read would have filled it in. It borrows the
 * document; release it first. */
ckpt_code certificate_recorded(const certificate_document *document, size_t i,
                               certificate_checkpoint *out, ckpt_error *err);

/*
 * Judge c->checkpoints[1], which was read, against the record that fits it best: of equal root,
 * else of equal `main`, else the reference; that becomes c->checkpoints[0]. `files`: it must be
 * these very files; then the record is the one with the most of them.
 */
ckpt_code certificate_check_record(const certificate_document *document, certificate *c,
                                   int files, ckpt_error *err);

#endif
