/*
 * delta_proof.h: the SHA-256 of the data files of deltas, computed beside the work on their frames.
 * Nothing that was made from frames may appear before the proof has ended well.
 */
#ifndef CKPT_DELTA_PROOF_H
#define CKPT_DELTA_PROOF_H

#include "delta_chain.h"
#include "libckpt/sha256.h"

typedef struct delta_proof delta_proof;

/* Memory for it, beside that of the work. */
enum { DELTA_PROOF_BYTES = SHA256_PIECE_BYTES };

/* Begin to prove a chain, which is borrowed, as is `run`, which may cancel it. With one thread the
 * files are read here, and a failure is that of the end. */
ckpt_code delta_proof_begin(const delta_chain *chain, const ckpt_run_options *run,
                            delta_proof **out, ckpt_error *err);
/* 1 when a file is known to be wrong, so that the work may stop. Thread-safe. */
int delta_proof_has_failed(const delta_proof *proof);
/* Wait for the end, and report the first file that is wrong. Consumes the proof. */
ckpt_code delta_proof_end(delta_proof *proof, ckpt_error *err);
/* Consumes the proof without its result; NULL is fine. */
void delta_proof_abort(delta_proof *proof);

#endif
