/* certificate_files.h: the files of a checkpoint, listed and hashed by threads of their own. */
#ifndef CKPT_CERTIFICATE_FILES_H
#define CKPT_CERTIFICATE_FILES_H

#include <pthread.h>
#include <stdatomic.h>

#include "certificate_read.h"

/* List the files of the folder, or the one file, with their roles; sizes and hashes are open. */
ckpt_code certificate_list_files(const ckpt_checkpoint *checkpoint,
                                 const certificate_read_options *options,
                                 certificate_checkpoint *out, ckpt_error *err);

/* Those of a folder that need not be a checkpoint's. */
ckpt_code certificate_list_folder(const ckpt_folder *folder,
                                  const certificate_read_options *options,
                                  certificate_checkpoint *out, ckpt_error *err);

/* Files that are being hashed. */
typedef struct {
    certificate_checkpoint *of;
    const char *path;              /* of the one file; used without a folder */
    int without_weights;           /* sizes only */
    ckpt_run_options run;
    atomic_size_t next;
    uint64_t window_bytes;         /* see certificate_hashing_keep_pace; 0: nobody keeps pace */
    uint64_t lead_bytes;           /* with it: how far ahead of the other the hashing may be */
    pthread_mutex_t lock;          /* of what follows */
    pthread_cond_t moved;
    uint64_t hashed_bytes;         /* in whole pieces */
    uint64_t passed_bytes;         /* that the other reader took */
    unsigned ended_count;          /* threads that have nothing more to do */
    int is_alone;                  /* nobody else asks run.cancel any more */
    ckpt_code code;                /* of the first failure */
    ckpt_error error;
    pthread_t *threads;
    unsigned thread_count;
} certificate_hashing;

/* Begin: of, path, without_weights and run are set, all else is zero; a window and a lead that are
 * set stay. The threads work until certificate_hashing_end. */
ckpt_code certificate_hashing_begin(certificate_hashing *h, ckpt_error *err);
/* Another reader of the same weights took `bytes` more. Wait while it is more than a window ahead
 * of the hashing, which would no longer find in the page cache what that reader left there. The
 * hashing waits for the other reader in the same way, until certificate_hashing_end is called. */
void certificate_hashing_keep_pace(certificate_hashing *h, uint64_t bytes);
/* Wait. With `give_up` the threads stop at the next piece. */
ckpt_code certificate_hashing_end(certificate_hashing *h, int give_up, ckpt_error *err);

#endif
