/* A thread that hashes the data files of deltas. */
#include "delta_proof.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct delta_proof {
    const delta_chain *chain;
    const ckpt_run_options *run;
    pthread_t thread;
    int has_thread;
    atomic_int is_aborted;
    atomic_int has_failed;
    ckpt_code code;
    ckpt_error error;
};

static int is_aborted(void *context)
{
    delta_proof *p = context;

    return atomic_load(&p->is_aborted) ||
           (p->run->cancel != NULL && p->run->cancel(p->run->context));
}

static void *prove(void *context)
{
    delta_proof *p = context;

    for (size_t i = 0; i < p->chain->count && p->code == CKPT_OK; i++)
        p->code = delta_check_data(p->chain->deltas[i], is_aborted, p, &p->error);
    if (p->code != CKPT_OK)
        atomic_store(&p->has_failed, 1);
    return NULL;
}

ckpt_code delta_proof_begin(const delta_chain *chain, const ckpt_run_options *run,
                            delta_proof **out, ckpt_error *err)
{
    delta_proof *p = calloc(1, sizeof *p);

    if (p == NULL)
        return ckpt_fail_memory(err, "a proof", sizeof *p);
    p->chain = chain;
    p->run = run;
    p->has_thread = run->thread_count != 1 && pthread_create(&p->thread, NULL, prove, p) == 0;
    if (!p->has_thread)
        prove(p);
    *out = p;
    return CKPT_OK;
}

int delta_proof_has_failed(const delta_proof *proof)
{
    return atomic_load(&proof->has_failed);
}

ckpt_code delta_proof_end(delta_proof *p, ckpt_error *err)
{
    ckpt_code code;

    if (p->has_thread)
        pthread_join(p->thread, NULL);
    code = p->code;
    if (code != CKPT_OK && err != NULL)
        *err = p->error;
    free(p);
    return code;
}

void delta_proof_abort(delta_proof *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->is_aborted, 1);
    delta_proof_end(p, NULL);
}
