/* download_say.h: output of a download: its plan, progress and result. */
#ifndef CKPT_DOWNLOAD_SAY_H
#define CKPT_DOWNLOAD_SAY_H

#include "tools/cli/cli.h"
#include "download.h"

/* The plan of a run. */
typedef struct {
    uint64_t total_bytes;
    uint64_t fetch_bytes;        /* to download */
    uint64_t reuse_bytes;        /* in partials of earlier runs */
    uint64_t space_bytes;        /* on the disk, beyond what partials have */
    uint64_t free_bytes;
    int is_free_known;
    uint64_t orphan_bytes;
    uint64_t rate_bytes;             /* --limit-rate; 0: no limit. Set by the caller */
} download_plan;

/* Patterns of --include and --exclude that match no file. */
typedef struct {
    const char *items[2 * CLI_LIST_MAX];
    size_t count;
} say_unmatched;

/* What the plan is about; force: all is fetched again, whatever is there. */
typedef struct {
    const hub_listing *listing;
    const place *where;
    int force;
    const say_unmatched *unmatched;
    const place_pruned *pruned;      /* what would be deleted */
} say_subject;

download_plan say_make_plan(const say_subject *about);
void say_plan(const say_subject *about, const download_plan *plan, int as_json);

/* The state of a download for cli_progress.c. HF_HUB_DISABLE_PROGRESS_BARS is obeyed. */
typedef struct {
    cli_meter meter;
    double begin;
} say_meter;
void say_meter_begin(say_meter *meter, const cli_common *common);
void say_progress(void *context, const download *d);     /* a download_progress */
/* The closing line. */
void say_written(const cli_common *common, const char *path, const download *d);

/* The JSON document; d and where may be NULL if the run failed early. */
typedef struct {
    const hub *h;
    const hub_listing *listing;
    const place *where;
    const download *d;
    hub_reason reason;
    const char *error;
    const say_unmatched *unmatched;
} say_outcome;
void say_json(const say_outcome *o);

#endif
