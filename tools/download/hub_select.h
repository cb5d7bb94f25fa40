/* hub_select.h: selects files of a listing, with the same options as `hf`. */
#ifndef CKPT_HUB_SELECT_H
#define CKPT_HUB_SELECT_H

#include "libckpt/hub/hub.h"
#include "libckpt/hub/hub_name.h"
#include "tools/cli/cli.h"

typedef struct {
    char *const *names;          /* files on the command line */
    size_t name_count;
    const cli_list *include;
    const cli_list *exclude;
} hub_selection;
ckpt_code hub_select(hub *h, hub_listing *listing, const hub_selection *selection,
                     ckpt_error *err);
/* Patterns that match no file of the listing, into `out` (CLI_LIST_MAX); returns their number. */
size_t hub_unmatched(const hub_listing *listing, const cli_list *patterns, const char **out);

#endif
