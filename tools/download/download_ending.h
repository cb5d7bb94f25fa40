/*
 * download_ending.h: the end of --delete-source. A run that is killed before the result's journal
 * goes is found by its journal; one that is killed after that, before the source is cleaned away,
 * by this note, the file `ending` in the side folder: this command, of these files, has made that
 * folder, and these are to be removed. It goes last.
 */
#ifndef CKPT_DOWNLOAD_ENDING_H
#define CKPT_DOWNLOAD_ENDING_H

#include "download_place.h"

typedef struct {
    const place *where;
    const hub_listing *listing;  /* its selected files are the source */
    char **words;                /* the converter's command line */
} ending;

/* The result is the folder `path`, absolute; is_source: by file of the listing. */
ckpt_code ending_write(const ending *e, const uint8_t *is_source, const char *path,
                       ckpt_error *err);
/* *found: an earlier run of the same has ended, and its result stands there, without a journal;
 * is_source is filled in then. */
ckpt_code ending_find(const ending *e, uint8_t *is_source, int *found, ckpt_error *err);
ckpt_code ending_remove(const ending *e, ckpt_error *err);

#endif
