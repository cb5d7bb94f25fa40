/*
 * download_pace.c: how many connections at a time.
 *
 * The best number depends on the network, the server and other users, and changes over time, so it
 * is searched for continuously by hill climbing: once a second the rate is compared with that of
 * the previous second, and the number moves two further in the direction that helped, or two back
 * if it hurt. A change below 5 % is noise: then the number stays for HOLD_SECONDS, and one more
 * step tests whether conditions have changed.
 *
 * More connections may also make it much slower (a server that throttles clients with many): after
 * a step up that cost 30 % of the rate the number is halved: steps of two would take too long. The
 * same applies when the server pushes back (429, 503, broken transfers); then nothing is changed
 * for HOLD_SECONDS, because all current transfers may fail for one reason and must not halve the
 * number repeatedly.
 */
#include "download_run.h"
#include "libckpt/clock.h"

static const double PACE_SECONDS = 1;
static const double HOLD_SECONDS = 30;
enum { PACE_BEGIN = 8, PACE_STEP = 2, PACE_MIN = 2 };

unsigned pace_limit(const download *d)
{
    const unsigned most = d->env.options.connection_count;

    if (d->env.options.is_fixed)
        return most;
    return d->limit < 1 ? (most < PACE_BEGIN ? most : PACE_BEGIN)
                        : d->limit > most ? most : (unsigned)d->limit;
}

/* 0: the limit in that direction is reached. */
static int step(download *d, int direction)
{
    const unsigned limit = pace_limit(d);

    d->direction = direction;
    if (direction > 0 ? limit >= d->env.options.connection_count : limit <= PACE_MIN)
        return 0;
    d->limit = direction > 0 ? limit + PACE_STEP : limit - PACE_STEP;
    if (d->limit < PACE_MIN)
        d->limit = PACE_MIN;
    return 1;
}

/* Evaluate the last change and choose the next. */
static void judge(download *d, double rate, double before)
{
    int moved = 1;

    if (before <= 0)
        moved = step(d, 1);
    else if (d->direction > 0 && rate < 0.7 * before) {
        d->limit = pace_limit(d) / 2 < PACE_MIN ? PACE_MIN : pace_limit(d) / 2;
        d->direction = -1;
    } else if (rate >= 1.05 * before)
        moved = step(d, d->direction);
    else if (rate <= 0.95 * before)
        moved = step(d, -d->direction);
    else
        moved = 0;
    if (!moved)
        d->hold_until = clock_seconds() + HOLD_SECONDS;
}

void pace_update(download *d)
{
    const double now = clock_seconds();
    const double before = d->last_rate;

    if (d->limit < 1) {
        d->limit = pace_limit(d);
        d->limit_time = now;
        d->last_bytes = d->env.stats.fetched_bytes;
        return;
    }
    if (d->env.options.is_fixed || now - d->limit_time < PACE_SECONDS)
        return;
    d->last_rate = (double)(d->env.stats.fetched_bytes - d->last_bytes) / (now - d->limit_time);
    d->last_bytes = d->env.stats.fetched_bytes;
    d->limit_time = now;
    /* With fewer transfers than allowed, something else is the limit (few segments are left, the
     * hashing lags), and the rate says nothing about the number. */
    if (fetch_count(d->fetch) < pace_limit(d) || now < d->hold_until)
        return;
    if (d->hold_until > 0) {
        d->hold_until = 0;      /* conditions may have changed: try more */
        step(d, 1);
        return;
    }
    judge(d, d->last_rate, before);
}

void pace_slow_down(download *d)
{
    const double now = clock_seconds();

    if (d->env.options.is_fixed || now < d->hold_until)
        return;
    d->limit = pace_limit(d) / 2;
    if (d->limit < PACE_MIN)
        d->limit = PACE_MIN;
    d->hold_until = now + HOLD_SECONDS;
}
