/* download_check.h: do the files that arrived make a checkpoint? */
#ifndef CKPT_DOWNLOAD_CHECK_H
#define CKPT_DOWNLOAD_CHECK_H

#include "libckpt/hub/hub.h"

/*
 * Headers, offsets and index of the safetensors files, by ckpt_open's rules: the folder as a whole
 * where all of them were fetched, else one by one. Without such files there is nothing to check.
 */
ckpt_code download_check(const char *folder, const hub_listing *listing, ckpt_error *err);

#endif
