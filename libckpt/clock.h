/* clock.h: the time for durations and deadlines. */
#ifndef CKPT_CLOCK_H
#define CKPT_CLOCK_H

#include <time.h>

/* Seconds since an unspecified start, which never go back. */
static inline double clock_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
