/* download_side.h: records of the files that were hashed. */
#ifndef CKPT_DOWNLOAD_SIDE_H
#define CKPT_DOWNLOAD_SIDE_H

#include <sys/stat.h>

#include "download_root.h"

ckpt_code place_load_verified(place *p, ckpt_error *err);
/* 1: the file was hashed by us, had this hash and has not changed since. */
int place_is_recorded(const place *p, const char *target, const char *hash,
                      const struct stat *status);
ckpt_code place_append_record(place *p, const char *target, const char *hash,
                              const struct stat *status, ckpt_error *err);

#endif
