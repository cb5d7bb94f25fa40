/* ckpt-shard: turn any layout into any other in one pass, re-encoding on the way if asked. */
#include <string.h>

#include "convert_command.h"
#include "formats/hf.h"
#include "libckpt/error.h"

static convert_command opt = { .common = CLI_COMMON_DEFAULTS, .convert.format = &format_hf };
static const char *layout;
static uint64_t mp;

static const cli_option options[] = {
    { CLI_HEADING, NULL, NULL, NULL, "Layout" },
    { CLI_CHOICE, "layout", "hf|mp", &layout, "layout of DST (required)" },
    { CLI_U64, "mp", "N", &mp, "model-parallel ranks of the layout mp" },
    CONVERT_OPTIONS(opt),
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END,
};

static const cli_command command = {
    .name = "ckpt-shard",
    .summary = "turn any checkpoint layout into any other in one pass",
    .usage = "[OPTIONS] --layout LAYOUT SRC DST",
    .description =
        "Reads the checkpoint SRC in any layout and writes DST in another: a Hugging Face "
        "directory (hf) or model{rank}-mp{N}.safetensors for DeepSeek's own code (mp). Weights "
        "are re-encoded on the way if asked; nothing is written twice. In the layout mp, wo_a is "
        "BF16 as the reference code wants it; --dtype fp8 keeps it FP8.",
    .examples = "ckpt-shard --layout mp --mp 8 DeepSeek-V4-Flash Flash-mp8\n"
                "ckpt-shard --layout hf --like DeepSeek-V4-Flash Flash-mp8 Flash-again",
    .options = options,
    .arg_min = 2,
    .arg_max = 2,
};

static ckpt_code take_layout(convert_command *o, ckpt_error *err)
{
    if (layout == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout is missing: hf or mp");
    for (size_t i = 0; ckpt_formats[i] != NULL; i++)
        if (strcmp(ckpt_formats[i]->name, layout) == 0)
            o->convert.format = ckpt_formats[i];
    if (mp > UINT32_MAX || (mp != 0) != (strcmp(layout, "mp") == 0))
        return ckpt_fail(err, CKPT_E_USAGE, "--mp N goes with --layout mp, and it with --mp N");
    o->convert.sharding.mp = (uint32_t)mp;
    return CKPT_OK;
}

int main(int argc, char **argv)
{
    return convert_command_main(&command, &opt, argc, argv, take_layout);
}
