/* download_then.h: the command after --then, looked at before anything is fetched. */
#ifndef CKPT_DOWNLOAD_THEN_H
#define CKPT_DOWNLOAD_THEN_H

#include "libckpt/hub/hub_reason.h"

/*
 * Refuse a program that cannot be run, and options that one of our own tools does not take: they
 * would fail after hours. `words`: the command, NULL behind the last one. with_places: refuse also
 * what our own tools could not write, as to a folder that exists.
 */
ckpt_code then_check(char **words, int with_places, ckpt_error *err);

#endif
