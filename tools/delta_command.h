/* delta_command.h: the subcommands of ckpt-delta, from options to report. */
#ifndef CKPT_DELTA_COMMAND_H
#define CKPT_DELTA_COMMAND_H

#include "formats/delta/delta_apply.h"
#include "formats/delta/delta_make.h"
#include "formats/delta/delta_rework.h"
#include "convert_command.h"
#include "open_options.h"
#include "tools/cli/cli.h"

typedef struct {
    cli_common common;
    ckpt_open_options open;
    delta_layout layout;               /* without words, which are in `rounding` */
    convert_command rounding;          /* options of layout and encoding */
    const char *last_arg;              /* --out */
    const char *encoding;
    const char *checksum;
    const char *base;                  /* "none": pack or unpack a whole checkpoint */
    const char *format;
    const char *base_check;
    const char *spool;                 /* folder for deltas that are '-'; NULL: temporary files */
    uint64_t level;
    uint64_t version;
    uint64_t file_bytes_max;
    int restart;
    int in_place;
    int measure;
    int structural;
    int no_space_check;
    cli_list globs;
} delta_command;

/* Each returns the exit status. With a `target` of NULL the delta is only verified. */
int delta_command_diff(const delta_command *o, const cli_args *args);
int delta_command_apply(const delta_command *o, const cli_args *args, const char *target);
int delta_command_rework(const delta_command *o, const cli_args *args, int is_reverse);
int delta_command_pack(const delta_command *o, const cli_args *args, int is_packing);
/* '-': standard input or output. */
int delta_command_is_stream(const char *path);
/* Refuse '-' as a checkpoint. */
ckpt_code delta_command_check_source(const char *path, const char *role, ckpt_error *err);
/* Refuse options, and a terminal, that do not go with a delta on standard output. */
ckpt_code delta_command_check_output(const delta_command *o, ckpt_error *err);
/* On stdout, and where that is the delta's on stderr, unless the options forbid it. */
void delta_command_print_notes(const delta_command *o, const file_list *notes);
void delta_command_say_notes(const delta_command *o, const file_list *notes);
int delta_command_inspect(const delta_command *o, const cli_args *args);

#endif
