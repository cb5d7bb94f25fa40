/* open_options.h: options that control how tensors are read: rows of an option table for a
 * ckpt_open_options. */
#ifndef CKPT_OPEN_OPTIONS_H
#define CKPT_OPEN_OPTIONS_H

#include "tools/cli/cli.h"

#define CLI_OPEN_OPTIONS(open)                                                                   \
    { CLI_HEADING, NULL, NULL, NULL, "Reading" },                                                \
    { CLI_FLAG, "lenient", NULL, &(open).lenient,                                                \
      "report stale index entries, unlisted files, orphan scales, unknown and missing tensors, " \
      "malformed scales instead of refusing them" },                                             \
    { CLI_FLAG, "u8-scales", NULL, &(open).u8_scales, "interpret U8 scales as E8M0 codes" },     \
    { CLI_FLAG, "keep-copies", NULL, &(open).keep_copies,                                        \
      "treat MTP copies of embedding and head as separate tensors" },                            \
    { CLI_CHOICE, "dialect", "miles|slime|bridge", &(open).dialect,                              \
      "the software that wrote a torch_dist of DeepSeek-V3.2 or GLM-5, where nothing in it "     \
      "tells; also whose form of torch_dist is written (default miles)" },                       \
    { CLI_STRING, "map", "FILE", &(open).map_file,                                               \
      "read tensor names by this map instead of the built-in ones" }

/* For commands that read one checkpoint after the other; that of ckpt-convert is for SRC. */
#define CLI_CONFIG_OPTION(open)                                                   \
    { CLI_STRING, "config", "FILE|NAME", &(open).config,                          \
      "config.json for a PATH that has none, as Megatron's: a file, or flash or " \
      "pro" }

/* Rows for a command that only reads; put after its own rows. */
#define CLI_READ_OPTIONS(open, common) \
    CLI_OPEN_OPTIONS(open),            \
    CLI_COMMON_READ(common),           \
    CLI_OPTIONS_END

#endif
