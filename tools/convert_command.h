/*
 * convert_command.h: common to ckpt-convert and ckpt-shard: options, dry run, run, outcome.
 */
#ifndef CKPT_CONVERT_COMMAND_H
#define CKPT_CONVERT_COMMAND_H

#include "tools/cli/cli.h"
#include "tools/download/feed.h"
#include "launcher.h"
#include "open_options.h"
#include "option_words.h"
#include "formats/convert/convert.h"

typedef struct {
    cli_common common;
    convert_words words;
    const char *last_arg;              /* --out: DST */
    const char *report;
    const char *manifest;
    int no_manifest;
    const char *describe;
    const char *share;
    const char *headers_dir;           /* --feed */
    feed_converter feed;
    cli_list only;
    cli_list skip;
    convert_options convert;
} convert_command;

/* Rows of an option table: rounding rules, the tensors they apply to, and limits of the loss. */
#define QUANTISE_OPTIONS(o)                                                                      \
    { CLI_ONCE, "quantize", "RULE[,CLASS=RULE...]", &(o).words.quantise,                       \
      "round plain weights by named rules: fp8-f32, fp8-ue8m0, fp8-channel, fp4, mxfp4, mxfp8, " \
      "nvfp4, nvfp4-exact (FP4 to NVFP4, or refused), q8_0 (GGUF) or another name of ckpt(7), "  \
      "of classes experts, shared, attention, mtp, mtp-experts, rest; or what a release has: "   \
      "v4-release, v4-vllm-fp8, v4-nvfp4, v3-release. What that lost is told" },                 \
    { CLI_ONCE, "quantise", "RULE[,CLASS=RULE...]", &(o).words.quantise,                       \
      "the same" },                                                                              \
    { CLI_LIST, "only", "PATTERN", &(o).only,                                                    \
      "quantise no other tensors than those whose canonical names match; may be repeated" },     \
    { CLI_LIST, "skip", "PATTERN", &(o).skip,                                                    \
      "do not quantise tensors whose canonical names match; may be repeated" },                  \
    { CLI_STRING, "max-relf", "X[,CLASS=X...]", &(o).words.max_relf,                             \
      "refuse when a tensor loses more: relative error (FP8 about 0.027, FP4 0.11 to 0.15)" },   \
    { CLI_FLAG, "sticky-scale", NULL, &(o).convert.sticky_scale,                                 \
      "with --like: blocks that changed keep their old scale where it is at most one power "     \
      "of two from the rule's, so that other values keep their codes" },                         \
    { CLI_STRING, "input-scale", "FILE|VALUE", &(o).words.input_scale,                           \
      "scales of activations beside NVFP4 weights, as a calibration found them: a value for "    \
      "all, or a checkpoint with F32 tensors X.input_scale, such as an NVFP4 release of "        \
      "Model-Optimizer, under the names of SRC, of DST or canonical ones (default: as in "       \
      "--like, else 1)" },                                                                       \
    { CLI_CHOICE, "nonfinite", "refuse|zero", &(o).words.nonfinite,                              \
      "NaN and infinity in what is quantised (default refuse)" },                                \
    { CLI_FLAG, "from-f32", NULL, &(o).convert.quantise_f32,                                     \
      "quantise F32 as it is (default: rounded to BF16 first, as exporters do)" },               \
    { CLI_CHOICE, "wo-a", "bf16|keep", &(o).words.wo_a,                                          \
      "bf16: leave attn.wo_a plain, as SGLang and miles also have it (default keep)" }

/* Rows of an option table; `o` is a convert_command. */
#define CONVERT_OPTIONS(o)                                                                       \
    { CLI_HEADING, NULL, NULL, NULL, "Encoding" },                                               \
    { CLI_CHOICE, "dtype", "bf16|f32|fp8|keep", &(o).words.dtype,                                \
      "encoding of quantised weights, also of experts unless --experts is given (default "       \
      "keep); f32 is always exact; with BF16 experts start SGLang with "                         \
      "SGLANG_DSV4_FP4_EXPERTS=0; llama.cpp's converter reads FP4 experts only" },               \
    { CLI_CHOICE, "experts", "bf16|f32|fp8|fp4|keep", &(o).words.experts,                        \
      "encoding of routed experts (default: as --dtype)" },                                      \
    { CLI_CHOICE, "scale-dtype", "e8m0|f32", &(o).words.scale_dtype,                             \
      "dtype of the scales of FP8 weights (default: f32 if experts become FP8, because vLLM "    \
      "reads no other with them; e8m0 if experts become FP4; else, and in layout mp, "           \
      "unchanged)" },                                                                            \
    QUANTISE_OPTIONS(o),                                                                         \
    { CLI_FLAG, "match-reference", NULL, &(o).convert.match_reference,                           \
      "FP4 -> FP8 bit-identical to DeepSeek's converter: code 8 (-0) becomes +0" },              \
    { CLI_FLAG, "allow-lossy", NULL, &(o).convert.allow_lossy,                                   \
      "round values that are not exactly representable instead of refusing; the count is "       \
      "printed at the end, in --json and in the report. Plain weights are rounded by "          \
      "fp8-ue8m0 and fp4; with --like, blocks that did not change keep their bytes" },           \
    { CLI_HEADING, NULL, NULL, NULL, "Names and files" },                                        \
    CLI_LAST_ARG((o).last_arg),                                                                  \
    { CLI_STRING, "names", "STYLE", &(o).convert.names,                                          \
      "native: for all inference servers. sglang: BF16 for Megatron, and torch's reader of "     \
      "quantised files. transformers: BF16 for transformers (default: as in SRC)" },             \
    { CLI_FLAG, "force-names", NULL, &(o).convert.force_names,                                   \
      "write the names even if a known reader of them misreads the encoding" },                  \
    { CLI_STRING, "like", "PATH", &(o).convert.like,                                             \
      "restore the exact encodings, scales, names, files and headers of PATH (undoes a cast)" }, \
    { CLI_STRING, "fill-from", "PATH", &(o).convert.fill_from,                                   \
      "take tensors that are missing in SRC from PATH" },                                        \
    { CLI_STRING, "config", "FILE|NAME", &(o).convert.config,                                    \
      "config.json for a SRC that has none, as Megatron's: a file, or flash or pro" },           \
    { CLI_SIZE, "max-shard-size", "SIZE", &(o).convert.file_bytes_max,                           \
      "new files of at most this size (default: the files of SRC)" },                            \
    { CLI_FLAG, "many-files", NULL, &(o).convert.many_files,                                     \
      "let --max-shard-size make more than 1000 files" },                                        \
    { CLI_FLAG, "no-space-check", NULL, &(o).convert.no_space_check,                             \
      "start, or print the plan of --dry-run, even if the disk is too small" },                  \
    { CLI_STRING, "part", "I/N|auto", &(o).share,                                                 \
      "do share I of N of the job; the last process to finish makes DST appear. Needs a shared " \
      "file system with coherent locks and writes. Default: the rank and size set by srun, "     \
      "mpirun or PMI, else the whole job. RANK and WORLD_SIZE, which are set in whole pods and " \
      "torchrun shells, are used only with auto" },                                              \
    { CLI_FLAG, "overwrite", NULL, &(o).convert.overwrite,                                       \
      "replace DST if it contains nothing but a checkpoint, and the leftovers of an unfinished " \
      "run" },                                                                                   \
    { CLI_FLAG, "restart", NULL, &(o).convert.restart,                                           \
      "discard an unfinished run with other options instead of refusing" },                      \
    { CLI_STRING, "feed", "DIR", &(o).headers_dir,                                               \
      "internal, used by ckpt-download --delete-source: SRC arrives file by file, announced on " \
      "standard input; DIR has the headers of all files" },                                      \
    CLI_OPEN_OPTIONS((o).convert.open),                                                          \
    { CLI_HEADING, NULL, NULL, NULL, "Proof" },                                                  \
    { CLI_STRING, "report", "FILE", &(o).report,                                                 \
      "write the fate of every tensor to FILE, as JSON (compressed if FILE ends in .zst; - is "   \
      "standard output)" },                                                                      \
    { CLI_STRING, "manifest", "FILE", &(o).manifest,                                             \
      "write the value digests to FILE (default: DST/ckpt-manifest.json; with --like no "        \
      "manifest)" },                                                                             \
    { CLI_FLAG, "no-manifest", NULL, &(o).no_manifest, "do not write DST/ckpt-manifest.json" },  \
    { CLI_FLAG, "verify", NULL, &(o).convert.verify,                                             \
      "read the result back and verify its digests before DST appears" },                        \
    { CLI_FLAG, "no-digest", NULL, &(o).convert.no_digest,                                       \
      "compute no digests: faster, but nothing is verified and a stopped run starts over" }

/* Rows of a table of hints. */
#define CONVERT_HINTS                                                                            \
    { "--force", "use --overwrite" }, { "-f", "use --overwrite" }, { "-y", "use --overwrite" },  \
    { "--resume", "run the same command again: it resumes" },                                    \
    { "--continue", "run the same command again: it resumes" },                                  \
    { "--bf16", "use --dtype bf16" }, { "--fp8", "use --dtype fp8" },                            \
    { "--fp4", "use --experts fp4" }, { "--torch-dtype", "use --dtype" },                        \
    { "--output", "use --out" }, { "--dst", "use --out" }, { "--output-dir", "use --out" },      \
    { "--lossy", "use --allow-lossy, or --quantize RULE" },                                      \
    { "--workers", "use --threads" }, { "--jobs", "use --threads" },                             \
    { "--to", "use --dtype, or --layout of ckpt-shard" },                                        \
    { "--format", "use --layout of ckpt-shard" }, { "-t", "use --dtype, or -j for threads" },    \
    { "--gpu", "conversions need none" }, { "--device", "conversions need none" },               \
    { "--cuda", "conversions need none" },                                                       \
    { "--compress", "ckpt-delta diff --base none SRC DST packs a checkpoint" },                  \
    { "--outtype", "use --dtype, or ckpt-shard --layout gguf" },                                 \
    { "--outfile", "give the folder DST as the last argument" },                                 \
    { "--split-max-size", "use --max-shard-size" }, { "--gguf", "use ckpt-shard --layout gguf" },  \
    { "--imatrix", "llama-quantize uses it, on the GGUF file that ckpt-shard writes" },          \
    { "bfloat16", "it is called bf16" }, { "float32", "it is called f32" },                      \
    { "float16", "use bf16 or f32" }, { "fp16", "use bf16 or f32" }, { "f16", "use bf16 or f32" }, \
    { "fp4", "use --experts fp4; --quantize experts=fp4 rounds" },                               \
    { "--tokenizer", "put tokenizer.json beside the weights" },                                  \
    { "fp32", "it is called f32" }, { "nvfp4", "use --quantize nvfp4, or experts=nvfp4" },       \
    { "mxfp4", "use --quantize experts=mxfp4" }, { "mxfp8", "use --quantize mxfp8" },            \
    { "q8_0", "use ckpt-shard --layout gguf --quantize q8_0" }, { NULL, NULL }

/* Rows of a table of rules, for the same options. */
#define CONVERT_RULES { "many-files", "max-shard-size", NULL }

/* Entries of cli_command.words. */
#define CONVERT_WORDS                                                                            \
    { "quantize", word_of_rule }, { "quantise", word_of_rule }, { "names", word_of_names },      \
    { "config", word_of_config }

/* For the man pages. */
extern const cli_topic convert_files[];

/* Parse the command line, plan, and run or print the plan. `finish_options` may be NULL; else it is
 * called between parsing and planning. Returns the exit status. */
int convert_command_main(const cli_command *command, convert_command *o, int argc, char **argv,
                         ckpt_code (*finish_options)(convert_command *o, ckpt_error *err));

#endif
