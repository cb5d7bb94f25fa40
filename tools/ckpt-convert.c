/* ckpt-convert: change the encoding, names or files of a checkpoint, exactly. */
#include "convert_command.h"
#include "formats/hf.h"

static convert_command opt = { .common = CLI_COMMON_DEFAULTS,  };

static const cli_option options[] = {
    CONVERT_OPTIONS(opt),
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END,
};

static const cli_rule rules[] = {
    CONVERT_RULES,
    { NULL, NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-convert",
    .summary = "change the encoding, names or files of a checkpoint, exactly",
    .usage = "[OPTIONS] SRC DST",
    .description =
        "Reads the checkpoint SRC in any layout (ckpt-shard writes the others) and writes the "
        "Hugging Face directory DST. Every value survives, or the command refuses and names the "
        "tensor, row and column. Memory is bounded by --memory whatever the model's size.\n"
        "\n"
        "DST appears when everything is written and synced; until then the data is in "
        "DST.partial, and the same command goes on from there after a kill. FP4 -> FP8 also "
        "writes fp4_scales.zst, with which FP8 -> FP4 returns the original bytes.\n"
        "\n"
        "Scales follow the experts, as in the releases: FP8 experts (Base) have F32 scales, FP4 "
        "experts E8M0 scales. vLLM takes the dtype of all scales from expert_dtype in config.json, "
        "and the bytes of others for numbers. Weights that are BF16 beside quantised ones are "
        "listed in modules_to_not_convert; what config.json cannot say is refused.",
    .examples = "ckpt-convert --dtype bf16 DeepSeek-V4-Flash Flash-BF16\n"
                "ckpt-convert --experts fp8 DeepSeek-V4-Flash Flash-FP8\n"
                "ckpt-convert --like DeepSeek-V4-Flash Flash-BF16 Flash-again",
    .options = options,
    .rules = rules,
    .arg_min = 2,
    .arg_max = 2,
    .checks_more = 1,
};

int main(int argc, char **argv)
{
    return convert_command_main(&command, &opt, argc, argv, NULL);
}
