/* hub_name.h: parses the names of repositories, as users give them. */
#ifndef CKPT_HUB_NAME_H
#define CKPT_HUB_NAME_H

#include <stddef.h>

typedef struct {
    char repo[256];
    char revision[256];          /* "" when it has none */
    char path[1024];             /* in the repository; "" when it has none */
    size_t path_bytes;           /* of the end of the text in which the path is written */
    const char *type;            /* "model", "dataset", "space"; NULL when it has none */
} hub_name;

/* All of these return NULL, or what is wrong with the name. */

/* "owner/name[@revision]", "hf://[models/|datasets/|spaces/]owner/name[@revision][/path]" or the
 * address of its page on huggingface.co. */
const char *hub_parse_name(const char *text, hub_name *out);
/* What follows "hf://" in it, for any hub. */
const char *hub_parse_parts(const char *text, hub_name *out);
/* What follows the host in the address of a page: OWNER/NAME[/tree/REVISION[/PATH]], of which
 * revision and path are percent-encoded. */
const char *hub_parse_page(const char *text, hub_name *out);

#endif
