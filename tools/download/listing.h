/*
 * listing.h: the hub's listing, stored beside the download (listing.json: download_place.h), for
 * use without the hub.
 */
#ifndef CKPT_LISTING_H
#define CKPT_LISTING_H

#include "libckpt/hub/hub.h"

typedef struct {
    char *path;                  /* of listing.json itself */
    hub_listing files;
    const char *hub;             /* its origin; memory of the listing */
    const char *repo;
    const char *type;
    const char *revision;
} kept_listing;

/* listing.json of a folder (--local-dir) or of a snapshot in a cache, malloc'd; NULL: none. */
ckpt_code listing_find(const char *folder, char **out, ckpt_error *err);
/* The file is validated like a hub's reply. *out is yours to release. */
ckpt_code listing_read(const char *path, kept_listing *out, ckpt_error *err);
void listing_release(kept_listing *listing);

/* One file that differs from the listing. */
typedef enum { LISTING_RIGHT, LISTING_MISSING, LISTING_SIZE, LISTING_HASH } listing_verdict;
const char *listing_verdict_name(listing_verdict verdict);

typedef struct {
    listing_verdict verdict;
    char got[65];                /* its hash; its size in decimal */
} listing_result;

/*
 * Hash every listed file that is in the folder; selected files must exist. *results: by file of
 * the listing, yours to free. Records of earlier hashing are ignored.
 */
ckpt_code listing_check(const kept_listing *listing, const char *folder, unsigned thread_count,
                        listing_result **results, ckpt_error *err);

#endif
