/* download_private.h: what the files of a place share. */
#ifndef CKPT_DOWNLOAD_PRIVATE_H
#define CKPT_DOWNLOAD_PRIVATE_H

#include <pthread.h>
#include <sys/stat.h>

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
    int was_download;            /* before this run */
    int root_fd;
    int side_fd;                 /* -1: not there (dry run) */
    int lock_fd;
    int verified_fd;
    char *root;                  /* absolute */
    char *shown;
    arena memory;
    table verified;              /* path -> index in records; read only after opening */
    place_record_entry *records;
    size_t record_count;
    pthread_mutex_t mutex;       /* of what is written from many threads */
};

/* 0: too long for a path. */
int place_format(char *out, const char *format, const char *a, const char *b)
    __attribute__((format(printf, 2, 0)));

/* refs/REV of the repository in Hugging Face's cache, which is elsewhere. */
ckpt_code place_write_ref(const place *p, ckpt_error *err);
ckpt_code place_load_verified(place *p, ckpt_error *err);
int place_is_recorded(const place *p, const char *target, const char *hash,
                      const struct stat *status);
ckpt_code place_append_record(place *p, const char *target, const char *hash,
                              const struct stat *status, ckpt_error *err);

#endif
