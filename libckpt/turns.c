/* Threads that wait for one another's tiles. */
#include "turns.h"

#include <assert.h>
#include <stddef.h>

void turns_init(copy_turns *turns)
{
    pthread_mutex_init(&turns->lock, NULL);
    pthread_cond_init(&turns->passed, NULL);
    turns->is_stopped = 0;
}

void turns_release(copy_turns *turns)
{
    pthread_cond_destroy(&turns->passed);
    pthread_mutex_destroy(&turns->lock);
}

int turns_wait(copy_turns *turns, const uint64_t *done, uint64_t at)
{
    int is_there;

    if (turns == NULL) {
        assert(*done == at);
        return 1;
    }
    pthread_mutex_lock(&turns->lock);
    while (!(is_there = *done == at) && !turns->is_stopped)
        pthread_cond_wait(&turns->passed, &turns->lock);
    pthread_mutex_unlock(&turns->lock);
    return is_there;
}

void turns_pass(copy_turns *turns, uint64_t *done, uint64_t at)
{
    if (turns == NULL) {
        *done = at;
        return;
    }
    pthread_mutex_lock(&turns->lock);
    *done = at;
    pthread_cond_broadcast(&turns->passed);
    pthread_mutex_unlock(&turns->lock);
}

void turns_stop(copy_turns *turns)
{
    if (turns == NULL)
        return;
    pthread_mutex_lock(&turns->lock);
    turns->is_stopped = 1;
    pthread_cond_broadcast(&turns->passed);
    pthread_mutex_unlock(&turns->lock);
}
