/*
 * download_ending.h: the end of --delete-source. A run that is killed while the result's journal
 * exists is resumed from the journal. A run that is killed later, before the source is deleted, is
 * resumed from the file `ending` in the side folder: it records that this command has made that
 * folder from these files, which are to be deleted. It is removed last.
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
/* *found: an earlier run of the same command has finished, its result exists and has no journal;
 * then is_source is filled in. */
ckpt_code ending_find(const ending *e, uint8_t *is_source, int *found, ckpt_error *err);
ckpt_code ending_remove(const ending *e, ckpt_error *err);

#endif
