/* download_check.h: are the downloaded files a valid checkpoint? */
#ifndef CKPT_DOWNLOAD_CHECK_H
#define CKPT_DOWNLOAD_CHECK_H

#include "libckpt/hub/hub.h"

/*
 * Headers, offsets and index of the safetensors files, by ckpt_open's rules: the whole folder if
 * all of them were fetched, else one by one. Without such files nothing is checked.
 */
ckpt_code download_check(const char *folder, const hub_listing *listing, ckpt_error *err);

#endif
