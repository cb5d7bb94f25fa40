/* ckpt-delta with --base none: a whole checkpoint in one packed file, and back. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "delta_command.h"
#include "formats/delta/delta_pack.h"
#include "libckpt/packed.h"
#include "time_guess.h"

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
    printf("plan: %zu files, %s\n", out->file_count, size);
    time_guess_print(guess);
}

static void say_packed(const delta_command *o, const char *target, const pack_outcome *out,
                       int is_packing)
{
    char detail[128];
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(out->bytes, size);
    if (is_packing)
        snprintf(detail, sizeof detail, "%zu files, %s packed to %.2f %%,", out->file_count, size,
                 out->bytes == 0 ? 100.0
                                 : 100.0 * (double)out->packed_bytes / (double)out->bytes);
    else
        snprintf(detail, sizeof detail, "%zu files,", out->file_count);
    cli_say_written(&o->common, &(cli_written){
        .path = target, .detail = detail, .bytes = is_packing ? out->packed_bytes : out->bytes,
        .root = out->roots.all[0] == '\0' ? NULL : out->roots.all,
        .note_count = out->notes.count });
}

static void finish(const delta_command *o, const pack_options *p, const pack_outcome *out,
                   int is_packing, double seconds)
{
    time_guess guess;

    if (o->common.dry_run)
        guess = guess_time(o, p->source, out, is_packing);
    if (o->common.json)
        print_packed(o, p, out, seconds, o->common.dry_run ? &guess : NULL);
    else
        delta_command_print_notes(o, &out->notes);
    if (!o->common.dry_run)
        say_packed(o, p->target, out, is_packing);
    else if (!o->common.json)
        print_plan(out, &guess);
}

int delta_command_pack(const delta_command *o, const cli_args *args, int is_packing)
{
    static cli_meter meter;
    pack_options options = { .source = args->items[0], .target = args->items[1],
                             .level = o->level == 0 ? PACK_LEVEL_DEFAULT : (int)o->level,
                             .dry_run = o->common.dry_run, .restart = o->restart,
                             .no_space_check = o->no_space_check,
                             .open = o->open };
    struct timespec begin;
    struct timespec end;
    pack_outcome out = { .file_count = 0 };
    ckpt_error err;
    ckpt_code code;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    options.run = cli_run_options(&o->common, &meter);
    if (args->count != 2)
        code = ckpt_fail(&err, CKPT_E_USAGE, "--base none: expected two arguments, %s",
                         is_packing ? "MODEL and PACKED" : "PACKED and DST");
    else if (o->level > PACKED_LEVEL_MAX)
        code = ckpt_fail(&err, CKPT_E_USAGE, "--level %" PRIu64 ": expected 1 to %d", o->level,
                         PACKED_LEVEL_MAX);
    else
        code = is_packing ? delta_pack(&options, &out, &err) : delta_unpack(&options, &out, &err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    cli_meter_end(&meter);
    if (code != CKPT_OK) {
        file_list_free(&out.notes);
        return cli_fail(&err);
    }
    finish(o, &options, &out, is_packing,
           (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9);
    file_list_free(&out.notes);
    return CLI_DONE;
}
