/* download_then.h: checks the command after --then before anything is fetched. */
#ifndef CKPT_DOWNLOAD_THEN_H
#define CKPT_DOWNLOAD_THEN_H

#include "libckpt/hub/hub_reason.h"

/*
 * Refuse a program that cannot be run, and options that one of our own tools does not accept: they
 * would fail after hours. `words`: the command, NULL behind the last one. with_places: also refuse
 * outputs that our own tools could not write, e.g. an existing folder.
 */
ckpt_code then_check(char **words, int with_places, ckpt_error *err);

/* 1 if an argument of the command is a path of this folder, or if nothing can be said because its
 * parent does not exist. */
int then_names(char **words, const char *folder);

#endif
