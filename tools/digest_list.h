/* digest_list.h: lists of digests and paths in the format that `ckpt-verify digest` prints. */
#ifndef CKPT_DIGEST_LIST_H
#define CKPT_DIGEST_LIST_H

#include <stddef.h>

#include "libckpt/ckpt.h"
#include "libckpt/json.h"

typedef struct {
    char root[CKPT_ROOT_HEX];
    char *path;                /* in the text of the list */
    int is_main;               /* the line is of main: its " (main)" is cut off */
} digest_entry;

typedef struct {
    char *text;
    digest_entry *entries;
    size_t count;
} digest_list;

/* Counts of a check. */
typedef struct {
    size_t different_count;
    size_t unread_count;
    ckpt_error first;          /* why a path could not be read */
} digest_tally;

/* Read a list; "-" is standard input. A malformed line is refused with its number, and so is an
 * empty list. Release *out, also on failure. */
ckpt_code digest_list_read(const char *path, digest_list *out, ckpt_error *err);
void digest_list_release(digest_list *list);

/* Print the verdict on an entry, `is_same`; `got` is its digest now, or NULL if the path could not
 * be read. `w`: the array of a JSON document; NULL: print text. */
void digest_list_tell(const digest_entry *entry, const char *got, int is_same, json_writer *w);

#endif
