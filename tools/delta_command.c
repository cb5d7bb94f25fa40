/* Runs the subcommands of ckpt-delta and prints their results. */
#include "delta_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/delta/delta_stream.h"
#include "libckpt/clock.h"
#include "libckpt/json.h"
#include "libckpt/text.h"
#include "time_guess.h"
#include "verify/losses.h"

#define FILE_BYTES_DEFAULT (UINT64_C(4) << 30)

/* ---- '-': a delta in a pipe ---- */

int delta_command_is_stream(const char *path)
{
    return strcmp(path, "-") == 0;
}

ckpt_code delta_command_check_source(const char *path, const char *role, ckpt_error *err)
{
    if (!delta_command_is_stream(path))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "%s is '-': expected a checkpoint on disk, which standard "
                     "input is not (use './-' for a folder '-')", role);
}

/* Receive the delta that is '-' among items 1 .. count, and put its path in its place. */
static ckpt_code take_stream(const delta_command *o, const cli_args *args, size_t count,
                             delta_spool *spool, ckpt_error *err)
{
    const ckpt_run_options run = cli_run_options(&o->common, NULL);
    size_t found = 0;
    ckpt_code code;

    for (size_t i = 1; i <= count; i++) {
        if (!delta_command_is_stream(args->items[i]))
            continue;
        if (found > 0)
            return ckpt_fail(err, CKPT_E_USAGE, "'-' is given twice: standard input has one delta");
        found = i;
    }
    if (found == 0)
        return CKPT_OK;
    if ((code = delta_spool_make(o->spool, spool, err)) == CKPT_OK)
        code = delta_stream_receive(STDIN_FILENO, spool->path, &run, err);
    args->items[found] = spool->path;
    return code;
}

ckpt_code delta_command_check_output(const delta_command *o, ckpt_error *err)
{
    if (!o->common.dry_run && (o->common.json || o->measure))
        return ckpt_fail(err, CKPT_E_USAGE, "'-' writes to standard output: --json and "
                         "--measure need another target");
    if (!o->common.dry_run && isatty(STDOUT_FILENO))
        return ckpt_fail(err, CKPT_E_USAGE, "'-' writes to standard output, which is a "
                         "terminal: expected a pipe or a file");
    return CKPT_OK;
}

/* Where the delta is made: at `target`, or for '-' in a folder that it is sent from. */
static ckpt_code take_target(const delta_command *o, const char *target, delta_make_options *out,
                             delta_spool *spool, ckpt_error *err)
{
    static const int output = STDOUT_FILENO;
    ckpt_code code;

    out->target = target;
    if (!delta_command_is_stream(target))
        return CKPT_OK;
    if ((code = delta_command_check_output(o, err)) != CKPT_OK)
        return code;
    if ((code = delta_spool_make(o->spool, spool, err)) == CKPT_OK) {
        out->target = spool->path;
        out->send_to = &output;
        out->discard = 1;
    }
    return code;
}

void delta_command_say_notes(const delta_command *o, const file_list *notes)
{
    for (size_t i = 0; i < notes->count && !o->common.quiet; i++) {
        char text[CKPT_ERROR_BYTES];

        snprintf(text, sizeof text, "note: %s", cli_name(notes->names[i]));
        cli_say(text);
    }
}

void delta_command_print_notes(const delta_command *o, const file_list *notes)
{
    for (size_t i = 0; i < notes->count && !o->common.quiet; i++)
        printf("note: %s\n", cli_name(notes->names[i]));
}

/* What a dry run tells. */
typedef struct {
    const char *version;
    size_t tensor_count;
    uint64_t bytes;
    const delta_outcome *applied;      /* NULL: a delta would be made */
    const file_list *notes;
    const char *input;                 /* a sample of which tells how fast disks are */
} delta_plan;

/* ---- the table of changes ---- */

static double percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

static void print_class(const delta_class *c)
{
    char size[CLI_SIZE_TEXT_BYTES];
    char packed[CLI_SIZE_TEXT_BYTES];

    cli_size_text(c->bytes, size);
    cli_size_text(c->packed_bytes, packed);
    printf("%-20s %8zu of %8zu tensors  %8.4f %% of elements  %10s -> %10s (%.3f %%)\n", c->name,
           c->changed_count, c->tensor_count, percent(c->changed_elements, c->elements), size,
           packed, percent(c->packed_bytes, c->bytes));
}

static void print_summary(const delta_summary *s)
{
    for (unsigned i = 0; i < DELTA_CLASSES; i++)
        if (s->classes[i].tensor_count > 0)
            print_class(&s->classes[i]);
    if (s->total.tensor_count > 0)
        print_class(&s->total);
}

static void put_class(json_writer *w, const delta_class *c)
{
    json_put_object(w);
    json_member_string(w, "class", c->name);
    json_member_u64(w, "tensor_count", c->tensor_count);
    json_member_u64(w, "changed_tensors", c->changed_count);
    json_member_u64(w, "bytes", c->bytes);
    json_member_u64(w, "elements", c->elements);
    json_member_u64(w, "changed_bytes", c->changed_bytes);
    json_member_u64(w, "changed_elements", c->changed_elements);
    json_member_u64(w, "packed_bytes", c->packed_bytes);
    json_put_object_end(w);
}

static void put_summary(json_writer *w, const delta_summary *s)
{
    json_member_array(w, "classes");
    for (unsigned i = 0; i < DELTA_CLASSES; i++)
        if (s->classes[i].tensor_count > 0)
            put_class(w, &s->classes[i]);
    json_put_array_end(w);
    json_put_key(w, "total");
    put_class(w, &s->total);
}

/* ---- --dry-run ---- */

/* A delta is made of two checkpoints of this size; how large it will be is not known. Applied, it
 * is read with one, and another is written. */
static time_guess guess_time(const delta_command *o, const delta_plan *plan)
{
    const delta_outcome *applied = plan->applied;
    const uint64_t one_bytes = plan->bytes;

    return time_guess_make(&(time_plan){
        .paths = &plan->input, .path_count = 1, .work = TIME_COPY,
        .read_bytes = applied == NULL ? 2 * one_bytes : one_bytes + applied->packed_bytes,
        .write_bytes = applied == NULL ? 0 : applied->room.need_bytes }, &o->common);
}

static void print_plan_text(const delta_plan *plan)
{
    char size[CLI_SIZE_TEXT_BYTES];
    char need[CLI_SIZE_TEXT_BYTES];
    char available[CLI_SIZE_TEXT_BYTES] = "?";

    cli_size_text(plan->bytes, size);
    printf("plan: version %s, %s, %s", plan->version,
           text_count(plan->tensor_count, "tensor", "tensors").text, size);
    if (plan->applied != NULL) {
        cli_size_text(plan->applied->packed_bytes, need);
        printf("; the deltas change %zu of them, %s", plan->applied->changed_count, need);
    }
    if (plan->applied != NULL && plan->applied->room.need_bytes > 0) {
        cli_size_text(plan->applied->room.need_bytes, need);
        if (plan->applied->room.free_bytes != UINT64_MAX)
            cli_size_text(plan->applied->room.free_bytes, available);
        printf("; space: %s needed at most, %s free", need, available);
    }
    printf("\n");
}

static void print_plan(const delta_command *o, const delta_plan *plan)
{
    const delta_outcome *applied = plan->applied;
    const time_guess guess = guess_time(o, plan);
    json_writer w;

    if (!o->common.json) {
        print_plan_text(plan);
        time_guess_print(&guess);
        delta_command_print_notes(o, plan->notes);
        return;
    }
    cli_json_begin(&w, "ckpt-delta-plan/1");
    json_put_object(&w);
    json_member_string(&w, "version", plan->version);
    json_member_u64(&w, "tensor_count", plan->tensor_count);
    json_member_u64(&w, "bytes", plan->bytes);
    time_guess_put(&w, &guess);
    if (applied != NULL) {
        json_member_u64(&w, "changed_tensors", applied->changed_count);
        json_member_u64(&w, "packed_bytes", applied->packed_bytes);
    }
    if (applied != NULL && applied->room.need_bytes > 0) {
        json_member_u64(&w, "needed_bytes", applied->room.need_bytes);
        if (applied->room.free_bytes != UINT64_MAX)
            json_member_u64(&w, "free_bytes", applied->room.free_bytes);
    }
    json_member_names(&w, "notes", (const char *const *)plan->notes->names, plan->notes->count);
    json_put_object_end(&w);
    cli_json_end(&w);
}

/* ---- diff ---- */

static void print_made(const delta_command *o, const delta_made *made, const char *target,
                       double seconds)
{
    const delta_class *total = &made->summary.total;
    json_writer w;
    char packed[CLI_SIZE_TEXT_BYTES];
    char rate[CLI_SIZE_TEXT_BYTES];

    if (o->common.json) {
        cli_json_begin(&w, "ckpt-delta-diff/1");
        json_put_object(&w);
        json_member_string(&w, "target", o->measure ? NULL : target);
        json_member_string(&w, "version", made->version);
        delta_roots_put(&w, "base", &made->before);
        delta_roots_put(&w, "result", &made->after);
        put_summary(&w, &made->summary);
        json_member_u64(&w, "carried_files", made->carried_count);
        if (made->is_rounded) {
            json_member_object(&w, "quantised");
            losses_put(&w, &made->loss);
            json_put_object_end(&w);
        }
        json_member_names(&w, "notes", (const char *const *)made->notes.names, made->notes.count);
        json_member_double(&w, "seconds", seconds);
        json_put_object_end(&w);
        cli_json_end(&w);
        return;
    }
    if (o->common.quiet)
        return;
    print_summary(&made->summary);
    if (made->is_rounded)
        printf("quantised: %" PRIu64 " of %s rounded, relative error %.3g\n", made->loss.rounded,
               text_count(made->loss.elements, "element", "elements").text,
               quantise_loss_relative(&made->loss));
    delta_command_print_notes(o, &made->notes);
    if (!o->measure)
        return;
    cli_size_text(total->packed_bytes, packed);
    cli_size_text((uint64_t)((double)total->bytes / (seconds > 0 ? seconds : 1e-9)), rate);
    printf("measured, not kept, '%s': version %s, %zu of %s changed, %s, %.1f s, "
           "%s/s%s%s\n",
           cli_name(target), made->version, total->changed_count,
           text_count(total->tensor_count, "tensor", "tensors").text, packed, seconds, rate,
           made->after.all[0] == '\0' ? "" : ", root ", made->after.all);
}

/* Print the closing line. */
static void say_written(const delta_command *o, const char *target, const char *version,
                        const size_t counts[2], const cli_written *rest)
{
    char detail[512];
    cli_written what = *rest;

    snprintf(detail, sizeof detail, "version %.200s, %zu of %s changed,", cli_name(version),
             counts[0], text_count(counts[1], "tensor", "tensors").text);
    if (delta_command_is_stream(target))
        what.stream = "a delta stream";
    else
        what.path = target;
    what.detail = detail;
    fflush(stdout);                          /* the closing line is the last one */
    cli_say_written(&o->common, &what);
}

static void finish_made(const delta_command *o, const delta_made *made, const cli_args *args,
                        double seconds)
{
    const char *target = args->items[args->count - 1];
    const size_t counts[2] = { made->summary.total.changed_count,
                               made->summary.total.tensor_count };

    if (o->common.dry_run) {
        print_plan(o, &(delta_plan){ made->version, counts[1], made->summary.total.bytes, NULL,
                                     &made->notes, args->items[0] });
        return;
    }
    if (delta_command_is_stream(target))
        delta_command_say_notes(o, &made->notes);
    else
        print_made(o, made, target, seconds);
    if (!o->measure)
        say_written(o, target, made->version, counts,
                    &(cli_written){ .bytes = made->summary.total.packed_bytes,
                                    .root = made->after.all[0] == '\0' ? NULL : made->after.all,
                                    .note_count = made->notes.count });
}

static ckpt_code take_make_options(const delta_command *o, delta_make_options *out, ckpt_error *err)
{
    out->layout = o->layout;
    out->layout.words = o->rounding.words;
    out->layout.quantise = (quantise_policy){ .only = o->rounding.only.items,
                                              .only_count = o->rounding.only.count,
                                              .skip = o->rounding.skip.items,
                                              .skip_count = o->rounding.skip.count };
    out->layout.sticky_scale = o->rounding.convert.sticky_scale;
    out->layout.quantise_f32 = o->rounding.convert.quantise_f32;
    out->version = o->version;
    out->file_bytes_max = o->file_bytes_max == 0 ? FILE_BYTES_DEFAULT : o->file_bytes_max;
    out->restart = o->restart;
    out->structural = o->structural;
    out->discard = o->measure;
    out->dry_run = o->common.dry_run;
    out->open = o->open;
    out->diff.level = o->level == 0 ? DELTA_LEVEL_DEFAULT : (int)o->level;
    if (o->level > DELTA_LEVEL_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "--level %" PRIu64 ": expected 1 to %d, which readers "
                         "of other projects take", o->level, DELTA_LEVEL_MAX);
    if (o->encoding != NULL)
        delta_encoding_find(o->encoding, &out->diff.encoding);
    if (o->checksum != NULL)
        checksum_find(o->checksum, &out->diff.checksum);
    if (o->format == NULL || strcmp(o->format, "skyrl") != 0)
        return CKPT_OK;
    out->container = DELTA_FOR_SKYRL;
    if (out->diff.encoding != DELTA_XOR || out->diff.checksum != CHECKSUM_XXH3_128)
        return ckpt_fail(err, CKPT_E_USAGE, "--format skyrl has the encoding xor and the checksum "
                         "xxh3-128 only");
    return CKPT_OK;
}

int delta_command_diff(const delta_command *o, const cli_args *args)
{
    const double begin = clock_seconds();
    delta_make_options options = { .before = args->items[0], .after = args->items[1] };
    static cli_meter meter;          /* outlives this function: cli_fail erases its line */
    delta_made made = { .carried_count = 0 };
    delta_spool out = { NULL, NULL };
    ckpt_error err;
    ckpt_code code;

    if (args->count != 3) {
        ckpt_fail(&err, CKPT_E_USAGE, "%s arguments: expected OLD NEW DELTA, or --base none NEW "
                  "PACKED", args->count < 3 ? "too few" : "too many");
        return cli_fail(&err);
    }
    options.run = cli_run_options(&o->common, &meter);
    if ((code = take_make_options(o, &options, &err)) == CKPT_OK &&
        (code = delta_command_check_source(args->items[0], "OLD", &err)) == CKPT_OK &&
        (code = delta_command_check_source(args->items[1], "NEW", &err)) == CKPT_OK &&
        (code = take_target(o, args->items[2], &options, &out, &err)) == CKPT_OK)
        code = delta_make(&options, &made, &err);
    cli_meter_end(&meter);
    if (code == CKPT_OK)
        finish_made(o, &made, args, clock_seconds() - begin);
    else
        delta_spool_hide(&out, err.text);
    delta_spool_release(&out);
    delta_made_release(&made);
    return code == CKPT_OK ? CLI_DONE : cli_fail(&err);
}

/* ---- squash, reverse ---- */

int delta_command_rework(const delta_command *o, const cli_args *args, int is_reverse)
{
    const double begin = clock_seconds();
    delta_rework_options options = { .base = args->items[0], .deltas = args->items + 1,
                                     .delta_count = args->count - 2, .is_reverse = is_reverse };
    const char *target = args->items[args->count - 1];
    static cli_meter meter;
    delta_made made = { .carried_count = 0 };
    delta_spool in = { NULL, NULL };
    delta_spool out = { NULL, NULL };
    ckpt_error err;
    ckpt_code code;

    options.make.run = cli_run_options(&o->common, &meter);
    if ((code = take_make_options(o, &options.make, &err)) == CKPT_OK &&
        (code = delta_command_check_source(args->items[0], "BASE", &err)) == CKPT_OK &&
        (code = take_stream(o, args, options.delta_count, &in, &err)) == CKPT_OK &&
        (code = take_target(o, target, &options.make, &out, &err)) == CKPT_OK)
        code = delta_rework(&options, &made, &err);
    cli_meter_end(&meter);
    if (code == CKPT_OK)
        finish_made(o, &made, args, clock_seconds() - begin);
    if (code != CKPT_OK) {
        delta_spool_hide(&in, err.text);
        delta_spool_hide(&out, err.text);
    }
    delta_spool_release(&in);
    delta_spool_release(&out);
    delta_made_release(&made);
    return code == CKPT_OK ? CLI_DONE : cli_fail(&err);
}

/* ---- apply, verify ---- */

static void print_applied(const delta_command *o, const delta_outcome *out, const char *target,
                          double seconds)            /* target NULL: nothing was written */
{
    json_writer w;
    char size[CLI_SIZE_TEXT_BYTES];
    char rate[CLI_SIZE_TEXT_BYTES];

    if (o->common.json) {
        cli_json_begin(&w, "ckpt-delta-apply/1");
        json_put_object(&w);
        json_member_string(&w, "target", target);
        json_member_string(&w, "version", out->version);
        delta_roots_put(&w, "base", &out->base);
        delta_roots_put(&w, "result", &out->result);
        json_member_u64(&w, "tensor_count", out->tensor_count);
        json_member_u64(&w, "changed_tensors", out->changed_count);
        json_member_u64(&w, "kept", out->kept_count);
        json_member_u64(&w, "bytes", out->bytes);
        json_member_u64(&w, "packed_bytes", out->packed_bytes);
        json_member_names(&w, "notes", (const char *const *)out->notes.names, out->notes.count);
        json_member_double(&w, "seconds", seconds);
        json_put_object_end(&w);
        cli_json_end(&w);
        return;
    }
    if (o->common.quiet)
        return;
    delta_command_print_notes(o, &out->notes);
    if (target != NULL)
        return;
    cli_size_text(out->bytes, size);
    cli_size_text((uint64_t)((double)out->bytes / (seconds > 0 ? seconds : 1e-9)), rate);
    printf("the deltas fit: version %s, %zu of %s changed, %s, %.1f s, %s/s%s%s\n", out->version,
           out->changed_count, text_count(out->tensor_count, "tensor", "tensors").text, size,
           seconds, rate, out->result.all[0] == '\0' ? "" : ", root ", out->result.all);
}

static void finish_applied(const delta_command *o, const delta_outcome *out, const char *base,
                           const char *target, double seconds)
{
    const size_t counts[2] = { out->changed_count, out->tensor_count };

    if (o->common.dry_run) {
        print_plan(o, &(delta_plan){ out->version, out->tensor_count, out->bytes, out,
                                     &out->notes, base });
        return;
    }
    print_applied(o, out, target, seconds);
    if (target != NULL)
        say_written(o, target, out->version, counts,
                    &(cli_written){ .bytes = out->bytes,
                                    .root = out->result.all[0] == '\0' ? NULL : out->result.all,
                                    .note_count = out->notes.count });
}

int delta_command_apply(const delta_command *o, const cli_args *args, const char *target)
{
    const double begin = clock_seconds();
    const char *check = o->base_check == NULL ? "touched" : o->base_check;
    delta_apply_options options = {
        .base = args->items[0],
        .deltas = args->items + 1,
        .delta_count = args->count - (target == NULL ? 1u : 2u),
        .target = target,
        .in_place = o->in_place,
        .check = strcmp(check, "full") == 0   ? DELTA_CHECK_FULL
                 : strcmp(check, "none") == 0 ? DELTA_CHECK_NONE
                                              : DELTA_CHECK_TOUCHED,
        .restart = o->restart,
        .no_space_check = o->no_space_check,
        .dry_run = o->common.dry_run,
        .open = o->open,
    };
    const char *last = args->items[args->count - 1];
    static cli_meter meter;
    int is_begun = 0;                        /* nothing is kept of a stream that did not end */
    delta_outcome outcome = { .tensor_count = 0 };
    delta_spool in = { NULL, NULL };
    ckpt_error err;
    ckpt_code code;

    options.run = cli_run_options(&o->common, &meter);
    if (options.delta_count == 0)
        code = ckpt_fail(&err, CKPT_E_USAGE, "DST is missing: expected BASE DELTA... DST, got only "
                         "'%s' '%s'; name the new folder, or say --in-place to change '%s'",
                         args->items[0], args->items[1], args->items[0]);
    else if (o->in_place && !delta_command_is_stream(last) && !file_exists(last))
        code = ckpt_fail(&err, CKPT_E_USAGE, "'%s' does not exist: with --in-place all arguments "
                         "behind BASE are deltas, and there is no DST", last);
    else if ((code = delta_command_check_source(args->items[0], "BASE", &err)) == CKPT_OK &&
             (code = take_stream(o, args, options.delta_count, &in, &err)) == CKPT_OK) {
        is_begun = 1;
        code = delta_apply(&options, &outcome, &err);
    }
    cli_meter_end(&meter);
    if (code == CKPT_OK)
        finish_applied(o, &outcome, args->items[0], o->in_place ? args->items[0] : target,
                       clock_seconds() - begin);
    delta_outcome_release(&outcome);
    if (code != CKPT_OK)
        delta_spool_hide(&in, err.text);
    delta_spool_release(&in);
    if (code == CKPT_E_INTERRUPTED && target != NULL && is_begun)
        ckpt_fail(&err, code, "%s; run the same command again to resume", err.text);
    return code == CKPT_OK ? CLI_DONE : cli_fail(&err);
}

/* ---- inspect ---- */

static void sum_delta(const ckpt_delta *d, delta_summary *out)
{
    for (size_t i = 0; i < d->count; i++) {
        const delta_tensor *t = &d->tensors[i];
        delta_class one = { .tensor_count = 1, .changed_count = 1, .bytes = t->bytes,
                            .elements = t->elements, .changed_bytes = t->changed_bytes,
                            .changed_elements = t->changed_elements,
                            .packed_bytes = t->frame.packed_bytes };

        delta_summary_add(out, delta_class_of(t->name, t->dtype), &one);
    }
}

static void put_delta_tensor(json_writer *w, const delta_tensor *t)
{
    json_put_object(w);
    json_member_string(w, "name", t->name);
    json_member_u64(w, "packed_bytes", t->frame.packed_bytes);
    json_member_string(w, "after", t->after);
    json_member_string(w, "before", t->before[0] == '\0' ? NULL : t->before);
    if (t->is_told) {
        json_member_string(w, "dtype", ckpt_dtype_name(t->dtype));
        json_member_u64(w, "bytes", t->bytes);
        json_member_u64(w, "elements", t->elements);
        json_member_u64(w, "changed_bytes", t->changed_bytes);
        json_member_u64(w, "changed_elements", t->changed_elements);
    }
    json_put_object_end(w);
}

static void print_delta_json(const ckpt_delta *d, const delta_summary *sum)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-delta-inspect/1");
    json_put_object(&w);
    json_member_string(&w, "version", d->version);
    json_member_string(&w, "base_version", d->base_version);
    json_member_string(&w, "encoding", delta_encoding_name(d->encoding));
    json_member_string(&w, "checksum", checksum_name(d->checksum));
    json_member_bool(&w, "side_file", d->has_side);
    delta_roots_put(&w, "base", &d->base);
    delta_roots_put(&w, "result", &d->result);
    put_summary(&w, sum);
    json_member_names(&w, "added", (const char *const *)d->added.names, d->added.count);
    json_member_names(&w, "removed", (const char *const *)d->removed.names, d->removed.count);
    json_member_array(&w, "carried");
    for (size_t i = 0; i < d->file_count; i++)
        json_put_string(&w, d->files[i].name);
    json_put_array_end(&w);
    json_member_array(&w, "tensors");
    for (size_t i = 0; i < d->count; i++)
        put_delta_tensor(&w, &d->tensors[i]);
    json_put_array_end(&w);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_delta(const delta_command *o, const ckpt_delta *d, const delta_summary *sum)
{
    char packed[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];

    cli_size_text(delta_packed_bytes(d), packed);
    cli_size_text(d->total_bytes, total);
    printf("version %s on %s, %s, checksums %s, %s\n", cli_name(d->version),
           cli_name(d->base_version), delta_encoding_name(d->encoding),
           checksum_name(d->checksum), packed);
    if (d->has_side)
        printf("%zu of %s change, of %s\nbase    %s\nresult  %s\n", d->count,
               text_count(d->total_count, "tensor", "tensors").text, total,
               d->base.all[0] == '\0' ? "no digest" : d->base.all,
               d->result.all[0] == '\0' ? "no digest" : d->result.all);
    else
        printf("%s; no ckpt-delta.json: roots, dtypes and counts are not known\n",
               text_count(d->count, "tensor changes", "tensors change").text);
    print_summary(sum);
    for (size_t i = 0; i < d->added.count; i++)
        printf("adds tensor  %s\n", cli_name(d->added.names[i]));
    for (size_t i = 0; i < d->removed.count; i++)
        printf("removes tensor  %s\n", cli_name(d->removed.names[i]));
    for (size_t i = 0; i < d->file_count; i++)
        printf("%s  %s\n", d->files[i].carried == NULL ? "removes" : "carries",
               cli_name(d->files[i].name));
    for (size_t i = 0; i < d->count; i++)
        if (o->globs.count > 0 &&
            text_matches_any(d->tensors[i].name, o->globs.items, o->globs.count))
            printf("%12" PRIu64 "  %10" PRIu64 "  %s\n", d->tensors[i].frame.packed_bytes,
               d->tensors[i].changed_elements, cli_name(d->tensors[i].name));
}

/* Every pattern must match a tensor that the delta changes; there may be none at all. */
static ckpt_code check_globs(const delta_command *o, const ckpt_delta *d, const char *path,
                             ckpt_error *err)
{
    for (size_t g = 0; g < o->globs.count && d->count > 0; g++) {
        size_t i = 0;

        while (i < d->count && !text_matches_any(d->tensors[i].name, &o->globs.items[g], 1))
            i++;
        if (i == d->count)
            return ckpt_fail(err, CKPT_E_USAGE, "--tensors '%s' matches no tensor that '%s' "
                             "changes", o->globs.items[g], path);
    }
    return CKPT_OK;
}

int delta_command_inspect(const delta_command *o, const cli_args *args)
{
    ckpt_delta *d = NULL;
    delta_summary sum = { .total = { .name = "all" } };
    ckpt_error err;

    if (delta_open(args->items[0], &d, &err) != CKPT_OK)
        return cli_fail(&err);
    if (check_globs(o, d, args->items[0], &err) != CKPT_OK) {
        delta_close(d);
        return cli_fail(&err);
    }
    sum_delta(d, &sum);
    if (o->common.json)
        print_delta_json(d, &sum);
    else
        print_delta(o, d, &sum);
    delta_close(d);
    return CLI_DONE;
}
