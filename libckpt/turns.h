/*
 * turns.h: the tiles of one tensor, in order, by several threads.
 *
 * Some work on a tensor is a stream: its checksum, its compressed frame. Threads that share the
 * tensor read and write their tiles side by side, and take turns for that work: the thread with the
 * next tile goes first. A number says how far the work on a tensor is; only turns_pass writes it.
 */
#ifndef CKPT_TURNS_H
#define CKPT_TURNS_H

#include <pthread.h>
#include <stdint.h>

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t passed;
    int is_stopped;
} copy_turns;

void turns_init(copy_turns *turns);
void turns_release(copy_turns *turns);

/* Wait until the work has come to `at`. 0: never, since the run has failed. NULL in place of the
 * turns: one thread has all tiles of the tensor, and it is there already. */
int turns_wait(copy_turns *turns, const uint64_t *done, uint64_t at);
/* The work has come to `at`: let the thread go on that waits for it. */
void turns_pass(copy_turns *turns, uint64_t *done, uint64_t at);
/* The run has failed: nobody waits any more. NULL is fine. */
void turns_stop(copy_turns *turns);

#endif
