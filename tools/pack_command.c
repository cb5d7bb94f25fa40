/* ckpt-delta with --base none: a whole checkpoint in one packed file, and back. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "delta_command.h"
#include "formats/delta/delta_pack.h"
#include "formats/delta/delta_stream.h"
#include "libckpt/clock.h"
#include "libckpt/packed.h"
#include "time_guess.h"
#include "libckpt/text.h"

/* What is packed is read back, too; how small it will be is not known. */
static time_guess guess_time(const delta_command *o, const char *source, const pack_outcome *out,
                             int is_packing)
{
    return time_guess_make(&(time_plan){ .paths = &source, .path_count = 1,
                                         .work = is_packing ? TIME_PACK : TIME_COPY,
                                         .read_bytes = out->bytes,
                                         .write_bytes = is_packing ? 0 : out->bytes }, &o->common);
}

static void print_packed(const delta_command *o, const pack_options *p, const pack_outcome *out,
                         double seconds, const time_guess *guess)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-delta-pack/1");
    json_put_object(&w);
    json_member_string(&w, "target", o->common.dry_run ? NULL : p->target);
    json_member_u64(&w, "file_count", out->file_count);
    json_member_u64(&w, "bytes", out->bytes);
    json_member_u64(&w, "packed_bytes", out->packed_bytes);
    json_member_string(&w, "root", out->roots.all[0] == '\0' ? NULL : out->roots.all);
    json_member_names(&w, "notes", (const char *const *)out->notes.names, out->notes.count);
    json_member_double(&w, "seconds", seconds);
    if (guess != NULL)
        time_guess_put(&w, guess);
    json_put_object_end(&w);
    cli_json_end(&w);
}

/* What a dry run tells. */
static void print_plan(const pack_outcome *out, const time_guess *guess)
{
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(out->bytes, size);
    printf("plan: %s, %s\n", text_count(out->file_count, "file", "files").text, size);
    time_guess_print(guess);
}

static void say_packed(const delta_command *o, const char *target, const pack_outcome *out,
                       int is_packing)
{
    char detail[128];
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(out->bytes, size);
    if (is_packing)
        snprintf(detail, sizeof detail, "%s, %s packed to %.2f %%,",
                 text_count(out->file_count, "file", "files").text, size,
                 out->bytes == 0 ? 100.0 : 100.0 * (double)out->packed_bytes / (double)out->bytes);
    else
        snprintf(detail, sizeof detail, "%s,", text_count(out->file_count, "file", "files").text);
    cli_say_written(&o->common, &(cli_written){
        .path = target, .stream = delta_command_is_stream(target) ? "a packed checkpoint" : NULL,
        .detail = detail, .bytes = is_packing ? out->packed_bytes : out->bytes,
        .root = out->roots.all[0] == '\0' ? NULL : out->roots.all,
        .note_count = out->notes.count });
}

/* A run, and the folder in which a packed file waits that is '-'. */
typedef struct {
    const delta_command *command;
    const char *target;             /* as it was given */
    int is_packing;
    int is_stream;
    pack_options options;
    pack_outcome out;
    delta_spool spool;
} pack_run;

static void finish(const pack_run *r, double seconds)
{
    const delta_command *o = r->command;
    time_guess guess;

    if (o->common.dry_run)
        guess = guess_time(o, r->options.source, &r->out, r->is_packing);
    if (o->common.json)
        print_packed(o, &r->options, &r->out, seconds, o->common.dry_run ? &guess : NULL);
    else if (r->is_stream && r->is_packing)
        delta_command_say_notes(o, &r->out.notes);
    else
        delta_command_print_notes(o, &r->out.notes);
    if (!o->common.dry_run)
        say_packed(o, r->target, &r->out, r->is_packing);
    else if (!o->common.json)
        print_plan(&r->out, &guess);
}

/* Put a path in the place of '-'. */
static ckpt_code take_stream(pack_run *r, ckpt_error *err)
{
    pack_options *p = &r->options;
    ckpt_code code;

    if (r->is_packing && (code = delta_command_check_source(p->source, "NEW", err)) != CKPT_OK)
        return code;
    r->is_stream = delta_command_is_stream(r->is_packing ? p->target : p->source);
    if (!r->is_stream)
        return CKPT_OK;
    if ((r->is_packing && (code = delta_command_check_output(r->command, err)) != CKPT_OK) ||
        (code = delta_spool_make(r->command->spool, &r->spool, err)) != CKPT_OK)
        return code;
    if (r->is_packing) {
        p->target = r->spool.path;
        return CKPT_OK;
    }
    p->source = r->spool.path;
    return delta_stream_receive_packed(STDIN_FILENO, r->spool.path, &p->run, err);
}

static ckpt_code run(pack_run *r, const cli_args *args, ckpt_error *err)
{
    const delta_command *o = r->command;
    ckpt_code code;

    if (args->count != 2)
        return ckpt_fail(err, CKPT_E_USAGE, "--base none: expected two arguments, %s",
                         r->is_packing ? "MODEL and PACKED" : "PACKED and DST");
    if (o->level > PACKED_LEVEL_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "--level %" PRIu64 ": expected 1 to %d", o->level,
                         PACKED_LEVEL_MAX);
    if ((code = take_stream(r, err)) == CKPT_OK)
        code = r->is_packing ? delta_pack(&r->options, &r->out, err)
                             : delta_unpack(&r->options, &r->out, err);
    if (code == CKPT_OK && r->is_stream && r->is_packing && !o->common.dry_run)
        code = delta_stream_send_packed(r->spool.path, STDOUT_FILENO, err);
    return code;
}

int delta_command_pack(const delta_command *o, const cli_args *args, int is_packing)
{
    static cli_meter meter;
    pack_run r = {
        .command = o, .target = args->items[args->count - 1], .is_packing = is_packing,
        .options = { .source = args->items[0], .target = args->items[1],
                     .level = o->level == 0 ? PACK_LEVEL_DEFAULT : (int)o->level,
                     .dry_run = o->common.dry_run, .restart = o->restart,
                     .no_space_check = o->no_space_check, .open = o->open },
    };
    const double begin = clock_seconds();
    ckpt_error err;
    ckpt_code code;

    r.options.run = cli_run_options(&o->common, &meter);
    code = run(&r, args, &err);
    cli_meter_end(&meter);
    if (code == CKPT_OK)
        finish(&r, clock_seconds() - begin);
    else
        delta_spool_hide(&r.spool, err.text);
    delta_spool_release(&r.spool);
    file_list_free(&r.out.notes);
    return code == CKPT_OK ? CLI_DONE : cli_fail(&err);
}
