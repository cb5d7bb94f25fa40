/* remote_places.h: makes a command read checkpoints by URL. */
#ifndef CKPT_REMOTE_PLACES_H
#define CKPT_REMOTE_PLACES_H

#include "libckpt/folder.h"
#include "tools/cli/cli.h"

/* A paragraph of the help; `what`: which arguments may be URLs. */
#define REMOTE_HELP(what)                                                                        \
    what " may be a URL, which is read by ranges, without a copy on disk: "                      \
    "hf://OWNER/NAME[@REVISION][/PATH] (Hugging Face), ms://... (ModelScope), or the https:// "  \
    "address of a folder or file on any server that serves ranges. A change while it is being "  \
    "read is refused: of the commit, the listed hashes (listed again at the end) or the ETag "   \
    "(asked for again at the end). Hashes are computed of files that are read whole, such as "   \
    "config.json, but not of weights; ckpt-download does that. Tokens and endpoints are those "  \
    "of ckpt-download (HF_TOKEN, HF_ENDPOINT, MODELSCOPE_API_TOKEN ...)."

/* For ckpt_open_options.places. Uses the options of `common` when a URL is opened. */
const struct ckpt_places *remote_places(const cli_common *common);

#endif
