/* ckpt-convert: change the encoding, names or files of a checkpoint, exactly. */
#include "convert_command.h"
#include "remote_places.h"

static convert_command opt = { .common = CLI_COMMON_DEFAULTS,  };

static const cli_option options[] = {
    CONVERT_OPTIONS(opt),
    CLI_COMMON_TIMED(opt.common),
    CLI_OPTIONS_END,
};

static const cli_rule rules[] = {
    CONVERT_RULES,
    { NULL, NULL, NULL }
};

static const cli_hint hints[] = { CONVERT_HINTS };

static const cli_words words[] = { CONVERT_WORDS, { NULL, NULL } };

static const cli_command command = {
    .name = "ckpt-convert",
    .summary = "change the encoding, names or files of a checkpoint, exactly",
    .usage = "[OPTIONS] SRC DST",
    .description =
        "Reads the checkpoint SRC in any layout (ckpt-shard writes the others) and writes the "
        "Hugging Face directory DST. Every value survives, or the command refuses and names the "
        "tensor, row and column. Memory is bounded by --memory whatever the model's size.\n"
        "\n"
        "DST appears when everything is written and synced; until then the data is in DST.partial. "
        "Run the same command again to resume after a kill. FP4 -> FP8 also writes fp4_scales.zst, "
        "from which FP8 -> FP4 restores the original bytes.\n"
        "\n"
        "The scale dtype follows the experts, as in the releases: F32 scales with FP8 experts "
        "(Base), E8M0 scales with FP4 experts. vLLM derives the dtype of all scales from "
        "expert_dtype in config.json and misreads any other. BF16 weights beside quantised ones "
        "are listed in modules_to_not_convert; encodings that config.json cannot express are "
        "refused."
        "\n\n" REMOTE_HELP("SRC, --like, --fill-from and --input-scale"),
    .examples = "ckpt-convert --dtype bf16 DeepSeek-V4-Flash Flash-BF16\n"
                "ckpt-convert --experts fp8 DeepSeek-V4-Flash Flash-FP8\n"
                "ckpt-convert --like DeepSeek-V4-Flash Flash-BF16 Flash-again",
    .options = options,
    .rules = rules,
    .arg_min = 2,
    .arg_max = 2,
    .surplus = "a checkpoint of several files is given by its folder",
    .checks_more = 1,
    .hints = hints,
    .last_arg = &opt.last_arg,
    .words = words,
    .environment = launcher_variables,
    .files = convert_files,
    .see_also = "ckpt-shard(1) ckpt-verify(1) ckpt-manifest(5) ckpt-json(5) ckpt-digest(7)",
};

int main(int argc, char **argv)
{
    return convert_command_main(&command, &opt, argc, argv, NULL);
}
