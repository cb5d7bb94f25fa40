/* certificate_files.h: lists the files of a checkpoint and hashes them in separate threads. */
#ifndef CKPT_CERTIFICATE_FILES_H
#define CKPT_CERTIFICATE_FILES_H

#include <pthread.h>
#include <stdatomic.h>

#include "certificate_read.h"

/* List the files of the folder, or the single file, with their roles, without sizes and hashes. */
ckpt_code certificate_list_files(const ckpt_checkpoint *checkpoint,
                                 const certificate_read_options *options,
                                 certificate_checkpoint *out, ckpt_error *err);

/* The same for a folder that need not be a checkpoint. */
ckpt_code certificate_list_folder(const ckpt_folder *folder,
                                  const certificate_read_options *options,
                                  certificate_checkpoint *out, ckpt_error *err);

/* State of hashing files. */
typedef struct {
    certificate_checkpoint *of;
    const char *path;              /* of the single file, if there is no folder */
    int without_weights;           /* sizes only */
    ckpt_run_options run;
    atomic_size_t next;
    uint64_t window_bytes;         /* see certificate_hashing_keep_pace; 0: not used */
    uint64_t lead_bytes;           /* then: how far ahead of the other reader the hashing may be */
    pthread_mutex_t lock;          /* protects the following members */
    pthread_cond_t moved;
    uint64_t hashed_bytes;         /* in whole pieces */
    uint64_t passed_bytes;         /* read by the other reader */
    unsigned ended_count;          /* threads that have finished */
    int is_alone;                  /* the other reader has ended: poll run.cancel here */
    ckpt_code code;                /* of the first failure */
    ckpt_error error;
    pthread_t *threads;
    unsigned thread_count;
} certificate_hashing;

/* Start the threads, which work until certificate_hashing_end. The caller has set of, path,
 * without_weights and run, may set window_bytes and lead_bytes, and zeroed the rest. */
ckpt_code certificate_hashing_begin(certificate_hashing *h, ckpt_error *err);
/* Called by another reader of the same weights after reading `bytes` more. Waits while that reader
 * is more than a window ahead of the hashing: its data would leave the page cache before it is
 * hashed. The hashing waits for the other reader likewise, until certificate_hashing_end. */
void certificate_hashing_keep_pace(certificate_hashing *h, uint64_t bytes);
/* Wait for the threads. With `give_up` they stop at the next block. */
ckpt_code certificate_hashing_end(certificate_hashing *h, int give_up, ckpt_error *err);

#endif
