/* download_root.h: the state of the download folder and its location; the lowest layer of
 * download_place. */
#ifndef CKPT_DOWNLOAD_ROOT_H
#define CKPT_DOWNLOAD_ROOT_H

#include <pthread.h>

#include "download_place.h"
#include "libckpt/table.h"

enum { PLACE_PATH_BYTES = 4400 };

typedef struct {
    uint64_t size;
    int64_t mtime_ns;
    uint64_t inode;
    const char *hash;
} place_record_entry;

struct place {
    place_options options;
    int is_cache;
    int is_hf;
    int root_fd;
    int side_fd;                 /* -1: not there (dry run) */
    int lock_fd;
    int verified_fd;
    char *root;                  /* absolute */
    char (*keys)[PARTIAL_KEY_BYTES];    /* of the listing's files; NULL: there are none */
    char *shown;
    arena memory;
    table verified;              /* path -> index in records; read only after opening */
    place_record_entry *records;
    size_t record_count;
    pthread_mutex_t mutex;       /* protects what many threads write */
};

/* 0: too long for a path. */
int place_format(char *out, const char *format, const char *a, const char *b)
    __attribute__((format(printf, 2, 0)));

/* The folder that contains the files: D, or CACHE/models--OWNER--NAME. malloc'd. */
char *place_root_of(const place_options *options);
ckpt_code place_make_root(const char *root, ckpt_error *err);
/* refs/REV of the repository in the Hugging Face cache, which is outside D. */
ckpt_code place_write_ref(const place *p, ckpt_error *err);

#endif
