/* ckpt-shard: convert any layout to any other in one pass, optionally re-encoding. */
#include <stdio.h>
#include <string.h>

#include "convert_command.h"
#include "libckpt/error.h"
#include "remote_places.h"

static convert_command opt = { .common = CLI_COMMON_DEFAULTS };
static const char *preset;
static const char *files;
static const char *iteration;
static struct {
    uint64_t mp;
    uint64_t tp;
    uint64_t pp;
    uint64_t ep;
    uint64_t etp;
    uint64_t first_stage_layers;
    uint64_t last_stage_layers;
} ranks;

static const cli_option options[] = {
    { CLI_HEADING, NULL, NULL, NULL, "Layout" },
    { CLI_STRING, "layout", "LAYOUT", &opt.words.layout,
      "hf, mp, torch_dist or gguf: layout of DST (required)" },
    { CLI_COUNT, "mp", "N", &ranks.mp, "model-parallel ranks of the layout mp" },
    { CLI_FLAG, "mtp", NULL, &opt.convert.mtp,
      "also write next-token blocks into gguf, which llama.cpp refuses beside the layers, and into "
      "torch_dist, of families with keys for them" },
    { CLI_HEADING, NULL, NULL, NULL, "torch_dist" },
    { CLI_COUNT, "tp", "N", &ranks.tp,
      "tensor parallelism (default: boxes that suit any TP up to 8)" },
    { CLI_COUNT, "pp", "N", &ranks.pp, "pipeline stages (default 1)" },
    { CLI_COUNT, "ep", "N", &ranks.ep, "expert parallelism (default 1)" },
    { CLI_COUNT, "etp", "N", &ranks.etp, "tensor parallelism of experts (default 1)" },
    { CLI_COUNT, "first-stage-layers", "N", &ranks.first_stage_layers,
      "layers of the first stage (default: equal stages)" },
    { CLI_COUNT, "last-stage-layers", "N", &ranks.last_stage_layers, "layers of the last stage" },
    { CLI_STRING, "preset", "NAME", &preset,
      "a parallel layout known to train: sets the parallelism options above; for DeepSeek-V4: "
      "flash-convert, flash-h200, flash-gb300, pro-convert, pro-train" },
    { CLI_CHOICE, "files", "layer|rank", &files,
      "one file per layer, or the files that ranks would write (default layer)" },
    { CLI_CHOICE, "key-style", "v1|v2|stacked|layers", &opt.words.key_style,
      "v1, v2: DeepSeek-V4 in the fork that miles runs (default) or in upstream's newer modules; "
      "stacked: one key for all layers, where these are alike (default for Llama and Qwen3); "
      "layers: a key for each (default for others)" },
    { CLI_CHOICE, "layer-keys", "per-layer|stacked", &opt.words.layer_keys,
      "a key for each layer, or one for all (default: as the --dialect has them)" },
    { CLI_FLAG, "extra-state", NULL, &opt.convert.sharding.extra_state,
      "add the empty _extra_state entries that upstream Megatron's strict loader requires" },
    { CLI_STRING, "iteration", "release|N", &iteration,
      "name of the iteration folder (default release)" },
    { CLI_STRING, "describe", "DIR", &opt.describe,
      "with --dry-run: write .metadata and the other small files into DIR, a new folder, so that "
      "other programs can inspect them before the data exists" },
    { CLI_HEADING, NULL, NULL, NULL, "GGUF" },
    { CLI_FLAG, "without-tokenizer", NULL, &opt.convert.without_tokenizer,
      "write files without a vocabulary where SRC has no tokenizer.json" },
    { CLI_CHOICE, "gguf-dialect", "llama.cpp|ds4", &opt.words.gguf_dialect,
      "the program to write for (default llama.cpp); ds4 is refused, with the types that it wants "
      "and ckpt does not write; files of both are read" },
    CONVERT_OPTIONS(opt),
    CLI_COMMON_TIMED(opt.common),
    CLI_OPTIONS_END,
};

static const cli_rule rules[] = {
    { "preset", NULL, "tp|pp|ep|etp|first-stage-layers|last-stage-layers" },
    { "describe", "dry-run", NULL },
    { "key-style", NULL, "dialect|layer-keys" },
    CONVERT_RULES,
    { NULL, NULL, NULL }
};

static const cli_hint hints[] = { CONVERT_HINTS };

static const cli_words words[] = {
    { "layout", word_of_layout }, { "preset", word_of_preset }, CONVERT_WORDS, { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-shard",
    .summary = "convert any checkpoint layout to any other in one pass",
    .usage = "[OPTIONS] --layout LAYOUT SRC DST",
    .description =
        "Reads the checkpoint SRC in any layout and writes DST in another: a Hugging Face "
        "directory (hf), model{rank}-mp{N}.safetensors for DeepSeek's own code (mp), a Megatron "
        "checkpoint (torch_dist), or GGUF files for llama.cpp (gguf). Weights are re-encoded in "
        "the same pass if requested; neither GPU nor Python is needed. In layout mp, wo_a is "
        "always BF16, as the reference code requires. torch_dist holds BF16. Without --mtp neither "
        "it nor GGUF has a next-token block: restore it with --fill-from. In GGUF, FP4 experts "
        "keep their codes and scales (MXFP4, NVFP4), other weights are BF16 and what element-wise "
        "operations take is F32: the same values, or a refusal. Tables of expert ids are read "
        "first, with --dry-run, too: an id of no expert is refused. The first file has the value "
        "digest in its key ckpt.value_root."
        "\n\n" REMOTE_HELP("SRC, --like, --fill-from and --input-scale"),
    .examples = "ckpt-shard --layout mp --mp 8 DeepSeek-V4-Flash Flash-mp8\n"
                "ckpt-shard --layout torch_dist DeepSeek-V4-Flash DeepSeek-V4-Flash_torch_dist\n"
                "ckpt-shard --layout gguf DeepSeek-V4-Flash DeepSeek-V4-Flash-GGUF\n"
                "ckpt-shard --layout hf --like DeepSeek-V4-Flash --fill-from DeepSeek-V4-Flash "
                "trained again",
    .options = options,
    .rules = rules,
    .arg_min = 2,
    .arg_max = 2,
    .surplus = "the layout is given by --layout, a checkpoint of several files by its folder",
    .checks_more = 1,
    .hints = hints,
    .last_arg = &opt.last_arg,
    .words = words,
    .environment = launcher_variables,
    .files = convert_files,
    .see_also = "ckpt-convert(1) ckpt-verify(1) ckpt-manifest(5) ckpt-json(5) ckpt-digest(7)",
};

/* The name of a given option that only applies to torch_dist, or NULL. */
static const char *find_torch_dist_option(void)
{
    return preset != NULL      ? "preset"
           : files != NULL     ? "files"
           : iteration != NULL ? "iteration"
                               : NULL;
}

static ckpt_code take_preset(ckpt_error *err)
{
    map_preset found;
    ckpt_code code;

    if (preset == NULL)
        return CKPT_OK;
    if ((code = checkpoint_find_preset(preset, &found, err)) != CKPT_OK)
        return code;
    ranks.tp = found.numbers[PRESET_TP];
    ranks.pp = found.numbers[PRESET_PP];
    ranks.ep = found.numbers[PRESET_EP];
    ranks.etp = found.numbers[PRESET_ETP];
    ranks.first_stage_layers = found.numbers[PRESET_FIRST];
    ranks.last_stage_layers = found.numbers[PRESET_LAST];
    return CKPT_OK;
}

static ckpt_code take_number(uint64_t number, const char *name, uint32_t *out, ckpt_error *err)
{
    if (number > CONVERT_RANKS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "--%s %llu: expected at most %d", name,
                         (unsigned long long)number, CONVERT_RANKS_MAX);
    *out = (uint32_t)number;
    return CKPT_OK;
}

/* "release", or "iter_0000012" for 12. */
static ckpt_code take_iteration(format_sharding *to, ckpt_error *err)
{
    static char folder[32];
    uint64_t number;

    if (iteration == NULL || strcmp(iteration, "release") == 0)
        return CKPT_OK;
    if (!cli_parse_u64(iteration, &number) || number > 999999999)
        return ckpt_fail(err, CKPT_E_USAGE, "--iteration '%s': expected release or a number",
                         iteration);
    snprintf(folder, sizeof folder, "iter_%07llu", (unsigned long long)number);
    to->iteration = folder;
    return CKPT_OK;
}

static ckpt_code take_layout(convert_command *o, ckpt_error *err)
{
    format_sharding *to = &o->convert.sharding;
    const char *layout = o->words.layout;
    const char *torch_dist_option = find_torch_dist_option();
    ckpt_code code;

    if (layout == NULL)
        return convert_find_layout(NULL, &o->convert.format, err);
    if (strcmp(layout, "torch_dist") == 0 && (code = take_preset(err)) != CKPT_OK)
        return code;
    if ((code = take_number(ranks.mp, "mp", &to->mp, err)) != CKPT_OK ||
        (code = take_number(ranks.tp, "tp", &to->tp, err)) != CKPT_OK ||
        (code = take_number(ranks.pp, "pp", &to->pp, err)) != CKPT_OK ||
        (code = take_number(ranks.ep, "ep", &to->ep, err)) != CKPT_OK ||
        (code = take_number(ranks.etp, "etp", &to->etp, err)) != CKPT_OK ||
        (code = take_number(ranks.first_stage_layers, "first-stage-layers",
                            &to->first_stage_layers, err)) != CKPT_OK ||
        (code = take_number(ranks.last_stage_layers, "last-stage-layers", &to->last_stage_layers,
                            err)) != CKPT_OK ||
        (code = convert_find_layout(layout, &o->convert.format, err)) != CKPT_OK)
        return code;
    if (torch_dist_option != NULL && strcmp(layout, "torch_dist") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--%s needs --layout torch_dist, got %s",
                         torch_dist_option, layout);
    to->per_rank_files = files != NULL && strcmp(files, "rank") == 0;
    return take_iteration(to, err);
}

int main(int argc, char **argv)
{
    return convert_command_main(&command, &opt, argc, argv, take_layout);
}
