/* digest_list.h: digests and paths, line by line, as `ckpt-verify digest` prints them. */
#ifndef CKPT_DIGEST_LIST_H
#define CKPT_DIGEST_LIST_H

#include <stddef.h>

#include "libckpt/ckpt.h"
#include "libckpt/json.h"

typedef struct {
    char root[CKPT_ROOT_HEX];
    const char *path;
    int is_main;               /* the line ends in " (main)" */
} digest_entry;

typedef struct {
    char *text;
    digest_entry *entries;
    size_t count;
} digest_list;

/* What a check has found. */
typedef struct {
    size_t different_count;
    size_t unread_count;
    ckpt_error first;          /* why a path could not be read */
} digest_tally;

/* "-" is standard input. A line that is no digest with a path is refused, by its number; an empty
 * list, too. *out is to be released also on failure. */
ckpt_code digest_list_read(const char *path, digest_list *out, ckpt_error *err);
void digest_list_release(digest_list *list);

/* Print how an entry fared; `got` is NULL where its path could not be read. `w`: the array of a
 * JSON document; NULL: as text. */
void digest_list_tell(const digest_entry *entry, const char *got, json_writer *w);

#endif
