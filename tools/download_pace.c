/*
 * download_pace.c: how many connections. Two more every two seconds while that helps; half of them
 * when the other side pushes back or more made it slower.
 */
#include "download_run.h"

static const double PACE_SECONDS = 2;
static const double HOLD_SECONDS = 30;
enum { PACE_BEGIN = 8, PACE_STEP = 2, PACE_MIN = 2 };

unsigned pace_limit(const download *d)
{
    const unsigned most = d->options.connection_count;

    if (d->options.is_fixed)
        return most;
    return d->limit < 1 ? (most < PACE_BEGIN ? most : PACE_BEGIN)
                        : d->limit > most ? most : (unsigned)d->limit;
}

void pace_update(download *d)
{
    const double now = hub_now();
    const unsigned limit = pace_limit(d);
    double rate;

    if (d->limit < 1) {
        d->limit = limit;
        d->limit_time = now;
        d->last_bytes = d->stats.fetched_bytes;
        return;
    }
    if (d->options.is_fixed || now - d->limit_time < PACE_SECONDS)
        return;
    rate = (double)(d->stats.fetched_bytes - d->last_bytes) / (now - d->limit_time);
    d->last_bytes = d->stats.fetched_bytes;
    d->limit_time = now;
    /* Only a pool that is full tells anything about its size. */
    if (d->was_raised && rate < 0.7 * d->last_rate) {
        download_slow_down(d);
    } else if (now >= d->hold_until && d->busy_count >= limit &&
               (d->last_rate <= 0 || rate >= 1.05 * d->last_rate) &&
               limit < d->options.connection_count) {
        d->limit = limit + PACE_STEP;
        d->was_raised = 1;
        d->last_rate = rate;
        return;
    }
    d->was_raised = 0;
    d->last_rate = rate > d->last_rate ? rate : d->last_rate;
}

void download_slow_down(download *d)
{
    const double now = hub_now();

    if (d->options.is_fixed || now < d->hold_until)
        return;
    d->limit = pace_limit(d) / 2;
    if (d->limit < PACE_MIN)
        d->limit = PACE_MIN;
    d->hold_until = now + HOLD_SECONDS;
    d->was_raised = 0;
}
