/*
 * download_stream.h: --delete-source: every file of tensors goes through a converter as soon as it
 * is verified, and then away, so that a disk holds the result and a few files of the source.
 *
 * There is one state, the converter's journal. First the headers of all files are fetched, from
 * which the converter plans everything (its --feed); it reads what an earlier run wrote, believes
 * what its journal can prove, and says which files it still needs. Those are fetched, and nothing
 * else is remembered: a file is gone for good only after the converter has synced all that it held.
 * So a kill at any moment costs what was not yet converted of the files in flight. The cleaning at
 * the end, when the journal is gone, has a note of its own (download_ending.h).
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
 * *d: the last download, yours to close. *status: what the converter exited with, when it came so
 * far; it has said itself what went wrong. CKPT_OK does not mean that files did not fail: see *d.
 */
ckpt_code download_stream(const stream_options *options, download **d, int *status,
                          ckpt_error *err);

#endif
