/* ckpt-delta: stores what changed between two checkpoints in the format of slime and SGLang. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "delta_command.h"
#include "option_words.h"

static delta_command opt = { .common = CLI_COMMON_DEFAULTS };

#define SPOOL_OPTION                                                                              \
    { CLI_STRING, "spool", "DIR", &opt.spool,                                                     \
      "folder with room for a delta that is '-' (default: TMPDIR, else /tmp)" }

#define WRITE_OPTIONS CLI_OPEN_OPTIONS(opt.open), CLI_COMMON_TIMED(opt.common), CLI_OPTIONS_END

#define MAKE_OPTIONS                                                                              \
    CLI_LAST_ARG(opt.last_arg),                                                                   \
    { CLI_CHOICE, "format", "slime|skyrl", &opt.format,                                           \
      "whose files: those of slime, miles and SGLang, or of SkyRL (default slime)" },             \
    { CLI_CHOICE, "checksum", "xxh3-128|blake3|adler32", &opt.checksum,                           \
      "of every changed tensor after the change (default xxh3-128)" },                            \
    { CLI_COUNT, "level", "N", &opt.level,                                                        \
      "of zstd, where much changes: 1 to 3 (default 1)" },                                        \
    { CLI_COUNT, "delta-version", "N", &opt.version,                                              \
      "number of the version (default: that of DELTA's name, weight_vN or delta-N, else 1)" },    \
    { CLI_SIZE, "max-shard-size", "SIZE", &opt.file_bytes_max,                                    \
      "data files of at most this size (default 4GiB)" },                                         \
    SPOOL_OPTION,                                                                                 \
    { CLI_FLAG, "restart", NULL, &opt.restart, "discard an unfinished run with other options" }

static const cli_option diff_options[] = {
    { CLI_HEADING, NULL, NULL, NULL, "Delta" },
    { CLI_CHOICE, "base", "none", &opt.base,
      "none: there is no OLD; NEW, of any layout, is packed into one file (--level 1 to 19)" },
    { CLI_CHOICE, "encoding", "xor|overwrite", &opt.encoding,
      "xor: smaller. overwrite: positions and new bytes, may be applied twice (default xor)" },
    MAKE_OPTIONS,
    { CLI_FLAG, "structural", NULL, &opt.structural,
      "NEW may have other tensors than OLD, or others of a name; only ckpt-delta reads such a "
      "delta, which has the files of NEW" },
    { CLI_FLAG, "measure", NULL, &opt.measure,
      "say what changed and how large the delta is, but keep nothing" },
    { CLI_HEADING, NULL, NULL, NULL, "Layout that the delta is over, as of ckpt-convert" },
    { CLI_STRING, "like", "PATH", &opt.layout.like,
      "names, encodings and scales as in PATH (default: as in OLD)" },
    { CLI_CHOICE, "dtype", "bf16|fp8|keep", &opt.rounding.words.dtype,
      "encoding of quantised weights" },
    { CLI_CHOICE, "experts", "bf16|fp8|fp4|keep", &opt.rounding.words.experts,
      "encoding of routed experts" },
    { CLI_CHOICE, "scale-dtype", "e8m0|f32", &opt.rounding.words.scale_dtype,
      "scales of FP8 weights" },
    { CLI_STRING, "names", "STYLE", &opt.layout.names, "native, sglang or transformers" },
    { CLI_FLAG, "allow-lossy", NULL, &opt.layout.allow_lossy,
      "round values that do not fit the encoding" },
    QUANTISE_OPTIONS(opt.rounding),
    WRITE_OPTIONS
};

#define PACK_EXCLUDES                                                                              \
    "format|encoding|checksum|delta-version|max-shard-size|measure|structural|like|dtype|"        \
    "experts|scale-dtype|names|allow-lossy|quantize|restart"

static const cli_rule layout_rules[] = {
    { "base", NULL, PACK_EXCLUDES },
    { "like", NULL, "dtype|experts|scale-dtype|names" },
    { "sticky-scale", "like", NULL },
    { "measure", NULL, "dry-run" },
    { "structural", NULL, "like|dtype|experts|scale-dtype|names|quantize" },
    { NULL, NULL, NULL }
};

static const cli_words layout_words[] = { { "names", word_of_names }, { NULL, NULL } };

static const cli_command diff_command = {
    .name = "diff",
    .summary = "write what changed from OLD to NEW",
    .usage = "[OPTIONS] OLD NEW DELTA | --base none NEW PACKED",
    .description =
        "OLD and NEW are checkpoints of one model in any layout. DELTA becomes a directory as "
        "slime and miles write it and SGLang reads it: per changed tensor the XOR of old and new "
        "bytes in one zstd frame, and a checksum of the result. Beside it ckpt-delta.json has the "
        "value digests of OLD and NEW, what every tensor was before, and SHA-256 of the files; "
        "config.json, tokenizer and other files that changed are carried whole. Equal inputs give "
        "equal bytes.\n\n"
        "Where OLD and NEW do not lie on disk in the same way, both are read as ckpt-convert would "
        "write them: as OLD, or as the options say.\n\n"
        "With --quantize NEW is quantised first, and OLD, unless it is quantised already: blocks "
        "of NEW with the values of OLD (of --like) keep its bytes.\n\n"
        "With '-' as DELTA the delta goes to standard output, as a tar archive that apply reads "
        "as its DELTA '-', through ssh for example.\n\n"
        "With --base none the delta is against nothing: PACKED is one compressed file with all "
        "files of NEW but hidden ones, every part of it with a checksum. All commands read it like "
        "the folder; ckpt-packed(5) describes it. Its index is at its end: as '-' it is made in "
        "--spool, read back there, and then sent.",
    .exit_notes = "0  done\n2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta diff step-100 step-200 deltas/weight_v000001\n"
                "ckpt-delta diff --like served iter_0000100 iter_0000200 deltas/weight_v000002\n"
                "ckpt-delta diff step-100 step-200 - | ssh host ckpt-delta apply step-100 - next\n"
                "ckpt-delta diff --base none DeepSeek-V4-Flash Flash.ckpt\n"
                "ckpt-delta diff --base none Flash - | ssh host ckpt-delta apply --base none - F",
    .options = diff_options,
    .rules = layout_rules,
    .words = layout_words,
    .arg_min = 2,
    .arg_max = 3,
    .last_arg = &opt.last_arg,
};

#define CHECK_OPTION                                                                              \
    { CLI_CHOICE, "base-check", "touched|full|none", &opt.base_check,                             \
      "touched: the tensors that change are what they were, and the root of the result. full: a " \
      "delta without the root of its base is refused. none: only what the tensors become "        \
      "(default touched)" }

static const cli_option apply_options[] = {
    CLI_LAST_ARG(opt.last_arg),
    { CLI_CHOICE, "base", "none", &opt.base,
      "none: there is no BASE; DELTA is a packed checkpoint, whose files are written to DST" },
    CHECK_OPTION,
    { CLI_FLAG, "in-place", NULL, &opt.in_place,
      "change BASE itself, where two copies have no room: all is checked before the first byte; "
      "there is no DST" },
    { CLI_FLAG, "restart", NULL, &opt.restart, "discard an unfinished run of other deltas" },
    { CLI_FLAG, "no-space-check", NULL, &opt.no_space_check,
      "start even if the disk is too small" },
    SPOOL_OPTION,
    WRITE_OPTIONS
};

static const cli_rule apply_rules[] = {
    { "base", NULL, "base-check|in-place" },
    { "in-place", NULL, "restart|out|no-space-check" },
    { NULL, NULL, NULL }
};

static const cli_command apply_command = {
    .name = "apply",
    .summary = "make the checkpoint DST from BASE and deltas",
    .usage = "[OPTIONS] BASE DELTA... DST | --in-place BASE DELTA... | --base none PACKED DST",
    .description =
        "DELTA is a version, or a folder of them (weight_v000001, ...), which are applied in "
        "order; each must follow the one before it. Every changed tensor is checked before and "
        "after, and the value digest of the whole result, where the delta tells it; DST appears "
        "when all of it was right, and not otherwise. A run that was killed goes on when the same "
        "command is given again.\n"
        "\n"
        "Deltas of slime, miles and SGLang name only what the changed tensors become: that is "
        "checked, and what cannot be is told.\n"
        "\n"
        "DELTA may be '-': the stream of diff on standard input. It is checked as it arrives; "
        "nothing is applied before all of it is there. With --base none PACKED may be '-'.",
    .exit_notes = "0  done\n1  the delta does not fit the base, or is applied already\n"
                  "2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta apply DeepSeek-V4-Flash deltas/weight_v000001 Flash-1\n"
                "ckpt-delta apply DeepSeek-V4-Flash deltas Flash-latest",
    .options = apply_options,
    .rules = apply_rules,
    .arg_min = 2,
    .arg_max = CLI_ANY_ARGS,
    .last_arg = &opt.last_arg,
};

static const cli_option verify_options[] = {
    CHECK_OPTION,
    SPOOL_OPTION,
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_command verify_command = {
    .name = "verify",
    .summary = "would deltas fit, and what would they make? Nothing is written",
    .usage = "[OPTIONS] BASE DELTA...",
    .description = "Reads and checks all that apply does, and prints the digest of the result.",
    .exit_notes = "0  they fit\n1  they do not, or are applied already\n"
                  "2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta verify DeepSeek-V4-Flash deltas/weight_v000001",
    .options = verify_options,
    .arg_min = 2,
    .arg_max = CLI_ANY_ARGS,
};

static const cli_option rework_options[] = {
    { CLI_CHOICE, "encoding", "xor|overwrite", &opt.encoding, "of OUT (default xor)" },
    MAKE_OPTIONS,
    WRITE_OPTIONS
};

static const cli_command squash_command = {
    .name = "squash",
    .summary = "write one delta that does what several do",
    .usage = "[OPTIONS] BASE DELTA... OUT",
    .description = "OUT leads from BASE to what the last DELTA makes. All is read and checked as "
                   "apply does; a tensor that is again what it was is left out.",
    .exit_notes = "0  done\n1  a delta does not fit\n"
                  "2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta squash DeepSeek-V4-Flash deltas all/weight_v000001",
    .options = rework_options,
    .arg_min = 3,
    .arg_max = CLI_ANY_ARGS,
    .last_arg = &opt.last_arg,
};

static const cli_command reverse_command = {
    .name = "reverse",
    .summary = "write the delta that leads back to BASE",
    .usage = "[OPTIONS] BASE DELTA... OUT",
    .description = "OUT leads from what the last DELTA makes back to BASE: an engine can return "
                   "without a full copy. All is read and checked as apply does.",
    .exit_notes = "0  done\n1  a delta does not fit\n"
                  "2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta reverse DeepSeek-V4-Flash deltas/weight_v000001 back/weight_v000002",
    .options = rework_options,
    .arg_min = 3,
    .arg_max = CLI_ANY_ARGS,
    .last_arg = &opt.last_arg,
};

static const cli_option inspect_options[] = {
    { CLI_LIST, "tensors", "GLOB", &opt.globs,
      "also print tensors whose names match, as in '*.experts.7.*' or '*'; may be repeated" },
    CLI_COMMON_READ(opt.common),
    CLI_OPTIONS_END
};

static const cli_command inspect_command = {
    .name = "inspect",
    .summary = "print what a delta changes, and how much of it; reads headers only",
    .usage = "[OPTIONS] DELTA",
    .description = "By class of tensors: how many changed, elements that changed, compressed "
                   "bytes. ckpt-delta.json tells the elements; a delta without it has sizes only.",
    .exit_notes = "0  done\n2  could not; one line on stderr says what failed",
    .examples = "ckpt-delta inspect deltas/weight_v000001",
    .options = inspect_options,
    .arg_min = 1,
    .arg_max = 1,
};

static const cli_command *const subcommands[] = {
    &diff_command, &apply_command, &verify_command, &squash_command, &reverse_command,
    &inspect_command, NULL
};

static const cli_hint hints[] = {
    { "create", "it is called diff" }, { "make", "it is called diff" },
    { "patch", "it is called apply" }, { "check", "it is called verify" },
    { "merge", "it is called squash" }, { "compose", "it is called squash" },
    { "revert", "it is called reverse" }, { "invert", "it is called reverse" },
    { "show", "it is called inspect" }, { "info", "it is called inspect" },
    { NULL, NULL }
};

static const cli_topic known_files[] = {
    { "DELTA/ckpt-delta.json", "Value digests of OLD and NEW, what every tensor was before, "
      "SHA-256 of the files. Deltas of other programs have none." },
    { "DELTA/model.safetensors.index.json", "Encoding, checksum and version, as SGLang reads "
      "them." },
    { "DST.partial", "An unfinished result. The same command resumes it, --restart discards it." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-delta",
    .summary = "what changed between two checkpoints: write it, apply it, prove it",
    .usage = "diff|apply|verify|squash|reverse|inspect [OPTIONS] ...",
    .subcommands = subcommands,
    .hints = hints,
    .files = known_files,
    .see_also = "ckpt-convert(1) ckpt-verify(1) ckpt-json(5) ckpt-digest(7)",
};

int main(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&command, argc, argv, &args);

    if (status != CLI_GO)
        return cli_finish(status);
    if (args.is_check)
        status = CLI_DONE;
    else if (opt.base != NULL)
        status = delta_command_pack(&opt, &args, args.command == &diff_command);
    else if (args.command == &diff_command)
        status = delta_command_diff(&opt, &args);
    else if (args.command == &apply_command)
        status = delta_command_apply(&opt, &args,
                                     opt.in_place ? NULL : args.items[args.count - 1]);
    else if (args.command == &squash_command || args.command == &reverse_command)
        status = delta_command_rework(&opt, &args, args.command == &reverse_command);
    else if (args.command == &verify_command)
        status = delta_command_apply(&opt, &args, NULL);
    else
        status = delta_command_inspect(&opt, &args);
    return cli_finish(status);
}
