/*
 * download_stream.h: --delete-source: every tensor file is converted as soon as it is verified and
 * then deleted, so that a disk needs to hold only the result and a few files of the source.
 *
 * The only state is the converter's journal. First the headers of all files are fetched, from
 * which the converter makes its plan (its --feed); it reads what an earlier run wrote, accepts
 * what its journal can prove, and reports which files it still needs. Those are fetched. A file is
 * deleted only after the converter has synced everything made from it, so a kill at any moment
 * costs only the unconverted data of the files in flight. The cleanup at the end, when the journal
 * no longer exists, has its own record (download_ending.h).
 */
#ifndef CKPT_DOWNLOAD_STREAM_H
#define CKPT_DOWNLOAD_STREAM_H

#include "download.h"

typedef struct {
    hub *h;
    hub_listing *listing;
    place *where;
    const download_options *download;
    char **words;                /* the converter's command line */
    download_progress *progress;
    void *progress_context;
} stream_options;

/*
 * *d: the last download, yours to close. *status: exit status of the converter, if it was started;
 * it has printed its own errors. CKPT_OK does not mean that no file failed: see *d.
 */
ckpt_code download_stream(const stream_options *options, download **d, int *status,
                          ckpt_error *err);

#endif
