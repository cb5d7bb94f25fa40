/* remote_places.c: makes a command read checkpoints by URL. */
#include "remote_places.h"

#include "libckpt/remote/remote.h"

typedef struct {
    struct ckpt_places base;
    const cli_common *common;
} command_places;

static ckpt_code open_url(const struct ckpt_places *self, const char *path, folder_place *out,
                          ckpt_error *err)
{
    const cli_common *common = ((const command_places *)self)->common;
    const remote_options options = { common->memory_bytes, common->quiet, cli_stop_flag() };

    return remote_open(&options, path, out, err);
}

const struct ckpt_places *remote_places(const cli_common *common)
{
    static command_places places = { .base = { remote_is_url, open_url } };

    places.common = common;
    return &places.base;
}
