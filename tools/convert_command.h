/*
 * convert_command.h: what ckpt-convert and ckpt-shard share: options, dry run, run, outcome.
 */
#ifndef CKPT_CONVERT_COMMAND_H
#define CKPT_CONVERT_COMMAND_H

#include "tools/cli/cli.h"
#include "tools/download/feed.h"
#include "open_options.h"
#include "formats/convert/convert.h"

typedef struct {
    cli_common common;
    convert_words words;
    const char *report;
    const char *manifest;
    int no_manifest;
    const char *describe;
    const char *part;
    const char *shape;           /* --feed */
    feed_converter feed;
    convert_options convert;
} convert_command;

/* Rows of an option table; `o` is a convert_command. */
#define CONVERT_OPTIONS(o)                                                                     \
    { CLI_HEADING, NULL, NULL, NULL, "Encoding" },                                             \
    { CLI_CHOICE, "dtype", "bf16|fp8|keep", &(o).words.dtype,                                  \
      "encoding of quantised weights, experts too unless --experts says otherwise "            \
      "(default keep)" },                                                                      \
    { CLI_CHOICE, "experts", "bf16|fp8|fp4|keep", &(o).words.experts,                          \
      "encoding of routed experts (default: as --dtype)" },                                    \
    { CLI_CHOICE, "scale-dtype", "e8m0|f32", &(o).words.scale_dtype,                           \
      "scales of FP8 weights (default: f32 for all when experts become FP8, since vLLM reads " \
      "no others beside them; e8m0 for all when experts become FP4; else, and in the layout "  \
      "mp, as they are)" },                                                                    \
    { CLI_FLAG, "match-reference", NULL, &(o).convert.match_reference,                         \
      "FP4 -> FP8 codes bit for bit as DeepSeek's converter: code 8 (-0) becomes +0" },        \
    { CLI_FLAG, "allow-lossy", NULL, &(o).convert.allow_lossy,                                 \
      "round values that do not fit instead of refusing; told at the end, in --json and in "   \
      "the report. With --like, values far beyond the old scales are refused all the same" },  \
    { CLI_HEADING, NULL, NULL, NULL, "Names and files" },                                      \
    { CLI_STRING, "names", "STYLE", &(o).convert.names,                                        \
      "native: for servers, all of them. sglang: BF16 for Megatron, and torch's reader of "    \
      "quantised files. transformers: BF16 for transformers (default: as in SRC)" },           \
    { CLI_FLAG, "force-names", NULL, &(o).convert.force_names,                                 \
      "also where a known reader of these names misreads the encoding" },                      \
    { CLI_STRING, "like", "PATH", &(o).convert.like,                                           \
      "encodings, scales, names, files and headers as in PATH: the exact un-cast" },           \
    { CLI_STRING, "fill-from", "PATH", &(o).convert.fill_from,                                 \
      "take tensors that SRC lacks from PATH" },                                               \
    { CLI_SIZE, "max-shard-size", "SIZE", &(o).convert.file_bytes_max,                         \
      "new files of at most this size (default: the files of SRC)" },                          \
    { CLI_FLAG, "many-files", NULL, &(o).convert.many_files,                                   \
      "let --max-shard-size make more than 1000 files" },                                      \
    { CLI_FLAG, "no-space-check", NULL, &(o).convert.no_space_check,                           \
      "begin even if the disk is too small" },                                                 \
    { CLI_STRING, "part", "I/N|auto", &(o).part,                                               \
      "do part I of N; the last process to finish makes DST appear, the others say that they " \
      "wait for it. Needs a shared file system with coherent locks and writes. Default: the "  \
      "rank and size that a step of srun, mpirun or PMI sets in its processes, else "          \
      "everything. RANK and WORLD_SIZE, which whole pods and torchrun shells have, count "     \
      "with auto only" },                                                                      \
    { CLI_FLAG, "overwrite", NULL, &(o).convert.overwrite,                                     \
      "replace DST if it is a checkpoint and nothing else, and what an unfinished run left" }, \
    { CLI_FLAG, "restart", NULL, &(o).convert.restart,                                         \
      "discard an unfinished run with other options instead of refusing" },                    \
    { CLI_STRING, "feed", "DIR", &(o).shape,                                                   \
      "SRC comes file by file, as standard input tells; DIR has the headers of all "           \
      "(ckpt-download --delete-source says this)" },                                           \
    CLI_OPEN_OPTIONS((o).convert.open),                                                        \
    { CLI_HEADING, NULL, NULL, NULL, "Proof" },                                                \
    { CLI_STRING, "report", "FILE", &(o).report,                                               \
      "write what became of every tensor, as JSON (zstd if it ends in .zst)" },                \
    { CLI_STRING, "manifest", "FILE", &(o).manifest,                                           \
      "write the value digests to FILE (default: DST/ckpt-manifest.json, none with --like)" }, \
    { CLI_FLAG, "no-manifest", NULL, &(o).no_manifest, "leave DST/ckpt-manifest.json out" },   \
    { CLI_FLAG, "verify", NULL, &(o).convert.verify,                                           \
      "read the result back and compare its digests before DST appears" },                     \
    { CLI_FLAG, "no-digest", NULL, &(o).convert.no_digest,                                     \
      "no digests: faster, but nothing to verify, and a stopped run starts over" }

/* Rows of a table of rules, for the same options. */
#define CONVERT_RULES { "many-files", "max-shard-size", NULL }

/* Parse the command line, plan, and run or print the plan. `finish_options` may be NULL; else it is
 * called between parsing and planning. Returns the exit status. */
int convert_command_main(const cli_command *command, convert_command *o, int argc, char **argv,
                         ckpt_code (*finish_options)(convert_command *o, ckpt_error *err));

#endif
