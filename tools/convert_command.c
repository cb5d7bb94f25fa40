/* The converting commands: from options to plan, run and report. */
#include "convert_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "earlier_output.h"
#include "remote_places.h"
#include "libckpt/error.h"
#include "libckpt/folder.h"
#include "libckpt/json.h"
#include "launcher.h"
#include "time_guess.h"
#include "verify/certificate_read.h"
#include "verify/losses.h"
#include "verify/manifest.h"
#include "verify/report.h"
#include "libckpt/text.h"

const cli_topic convert_files[] = {
    { "DST.partial", "The unfinished output, with its journal .ckpt-journal. The same command "
      "resumes it, --restart discards it." },
    { "DST/ckpt-manifest.json", "Value digests of what was written; see ckpt-manifest(5)." },
    { "DST/fp4_scales.zst", "Written by FP4 -> FP8: the scales of FP4, from which --experts fp4 "
      "and --like restore the original bytes." },
    { NULL, NULL }
};

static void take_options(convert_command *o, const cli_args *args, cli_meter *meter)
{
    convert_options *c = &o->convert;

    c->quantise.only = o->only.items;
    c->quantise.only_count = o->only.count;
    c->quantise.skip = o->skip.items;
    c->quantise.skip_count = o->skip.count;
    c->open.places = remote_places(&o->common);
    c->source = args->items[0];
    c->target = args->items[1];
    /* With --feed, ckpt-download draws the progress line. */
    c->copy = cli_run_options(&o->common, o->headers_dir == NULL ? meter : NULL);
    if (o->headers_dir != NULL) {
        feed_converter_init(&o->feed, o->headers_dir, cli_stop_flag());
        c->feed = &o->feed.base;
    }
}

/* ---- --dry-run ---- */

static time_guess guess_time(const convert_command *o, const convert_summary *plan)
{
    const convert_options *c = &o->convert;
    const uint64_t share_count = c->share_count > 1 ? c->share_count : 1;
    const uint64_t out_bytes = plan->out_bytes / share_count;

    return time_guess_make(&(time_plan){
        .paths = &c->source,
        .path_count = c->feed == NULL,
        .work = TIME_COPY,
        .read_bytes = plan->in_bytes / share_count + (c->verify ? out_bytes : 0),
        .write_bytes = out_bytes }, &o->common);
}

static void print_plan_json(const convert_command *o, const convert_job *job,
                            const convert_summary *plan)
{
    const time_guess guess = guess_time(o, plan);
    json_writer w;

    cli_json_begin(&w, "ckpt-plan/1");
    json_put_object(&w);
    json_member_u64(&w, "in_bytes", plan->in_bytes);
    json_member_u64(&w, "out_bytes", plan->out_bytes);
    if (plan->is_room_known) {
        json_member_u64(&w, "needed_bytes", plan->room.need_bytes);
        if (plan->room.free_bytes != UINT64_MAX)
            json_member_u64(&w, "free_bytes", plan->room.free_bytes);
    }
    json_member_u64(&w, "fixed_memory_bytes", plan->fixed_bytes);
    json_member_u64(&w, "tile_bytes_per_thread", plan->tile_bytes);
    time_guess_put(&w, &guess);
    json_member_u64(&w, "keys", plan->key_count);
    json_member_u64(&w, "pieces", plan->piece_count);
    json_member_string(&w, "report", o->report);
    json_member_string(&w, "manifest", o->manifest);
    json_member_bool(&w, "may_be_there", plan->may_be_there);
    json_member_names(&w, "notes", plan->notes, plan->note_count);
    json_member_array(&w, "files");
    for (size_t i = 0; i < plan->file_count; i++) {
        uint64_t size_bytes;

        json_put_object(&w);
        json_member_string(&w, "name", convert_file(job, i, &size_bytes));
        json_member_u64(&w, "bytes", size_bytes);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_member_array(&w, "tensors");
    for (size_t i = 0; i < ckpt_catalog_count(plan->to); i++) {
        const ckpt_tensor *to = ckpt_catalog_at(plan->to, i);
        char from_text[64];
        char to_text[64];

        ckpt_tensor_encoding(ckpt_catalog_at(plan->from, i), from_text, sizeof from_text);
        ckpt_tensor_encoding(to, to_text, sizeof to_text);
        json_put_object(&w);
        json_member_string(&w, "name", to->name);
        json_member_string(&w, "from", from_text);
        json_member_string(&w, "to", to_text);
        if (plan->rules != NULL && plan->rules[i] != NULL)
            json_member_string(&w, "rule", plan->rules[i]->name);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_notes(const char *const *notes, size_t count)
{
    enum { NOTES_SHOWN = 10 };

    for (size_t i = 0; i < count && i < NOTES_SHOWN; i++)
        printf("note: %s\n", notes[i]);
    if (count > NOTES_SHOWN)
        printf("note: and %zu more\n", count - NOTES_SHOWN);
}

/* One line for each pair of encodings. */
static void print_changes(const convert_summary *plan)
{
    enum { PAIRS_MAX = 64, PAIR_BYTES = 160 };
    char pairs[PAIRS_MAX][PAIR_BYTES];
    uint64_t counts[PAIRS_MAX] = { 0 };
    size_t used = 0;
    size_t left = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->to); i++) {
        const quantise_rule *rule = plan->rules == NULL ? NULL : plan->rules[i];
        char from[64];
        char to[64];
        char pair[PAIR_BYTES];
        size_t p = 0;

        ckpt_tensor_encoding(ckpt_catalog_at(plan->from, i), from, sizeof from);
        ckpt_tensor_encoding(ckpt_catalog_at(plan->to, i), to, sizeof to);
        snprintf(pair, sizeof pair, "%-28s -> %s%s%s", from, to, rule == NULL ? "" : " by ",
                 rule == NULL ? "" : rule->name);
        left += plan->rules != NULL && rule == NULL && strcmp(from, to) == 0;
        while (p < used && strcmp(pairs[p], pair) != 0)
            p++;
        if (p == PAIRS_MAX)
            continue;
        if (p == used)
            memcpy(pairs[used++], pair, sizeof pair);
        counts[p]++;
    }
    for (size_t p = 0; p < used; p++)
        printf("%8" PRIu64 "  %s\n", counts[p], pairs[p]);
    if (left > 0)
        printf("%8zu  stay as they are: never quantised in this family, or of a class that was "
               "left out\n", left);
}

static void print_room(const convert_summary *plan)
{
    char need[CLI_SIZE_TEXT_BYTES];
    char available[CLI_SIZE_TEXT_BYTES] = "?";

    if (!plan->is_room_known)
        return;
    cli_size_text(plan->room.need_bytes, need);
    if (plan->room.free_bytes != UINT64_MAX)
        cli_size_text(plan->room.free_bytes, available);
    printf("space: %s needed, %s free\n", need, available);
}

static void print_plan(const convert_command *o, const convert_job *job,
                       const convert_summary *plan)
{
    const time_guess guess = guess_time(o, plan);
    char in[CLI_SIZE_TEXT_BYTES];
    char out[CLI_SIZE_TEXT_BYTES];
    char fixed[CLI_SIZE_TEXT_BYTES];
    char tile[CLI_SIZE_TEXT_BYTES];
    char pieces[TEXT_COUNT_BYTES + 16] = "";

    cli_size_text(plan->in_bytes, in);
    cli_size_text(plan->out_bytes, out);
    cli_size_text(plan->fixed_bytes, fixed);
    cli_size_text(plan->tile_bytes, tile);
    if (plan->is_cut)
        snprintf(pieces, sizeof pieces, ", cut in %s",
                 text_count(plan->piece_count, "piece", "pieces").text);
    printf("%s, %s -> %s%s, in %s, %s (%" PRIu64 " bytes)\n",
           text_count(ckpt_catalog_count(plan->to), "tensor", "tensors").text, in,
           text_count(plan->key_count, "stored tensor", "stored tensors").text, pieces,
           text_count(plan->file_count, "file", "files").text, out, plan->out_bytes);
    print_changes(plan);
    print_room(plan);
    printf("memory: %s for catalogs, %s for each thread\n", fixed, tile);
    time_guess_print(&guess);
    for (size_t i = 0; i < plan->file_count; i++) {
        uint64_t size_bytes;
        const char *name = convert_file(job, i, &size_bytes);

        printf("%16" PRIu64 "  %s\n", size_bytes, cli_name(name));
    }
    if (o->report != NULL)
        printf("a report goes to '%s', which is not written now\n", cli_name(o->report));
    if (o->manifest != NULL)
        printf("a manifest goes to '%s', which is not written now\n", cli_name(o->manifest));
    if (plan->may_be_there)
        printf("not checked: '%s' has files of these sizes; the run compares their values, and is "
               "refused if they differ\n", cli_name(o->convert.target));
    print_notes(plan->notes, plan->note_count);
}

/* ---- the run ---- */

/* The closing line of a run whose result may differ from its source. */
static void print_changes_of_values(const convert_command *o, const ckpt_outcome *outcome)
{
    const int is_lossy = o->convert.allow_lossy || outcome->rules != NULL;

    if (!is_lossy && outcome->changed_count == 0)
        return;
    if (is_lossy)
        printf("%s rounded%s", text_count(outcome->rounded, "value was", "values were").text,
               outcome->has_others ? " (in this run)" : "");
    else
        printf("BF16 values were restored to the exact products they had been rounded from");
    if (outcome->root != NULL)
        printf("; %zu of %s differ from '%s'; root of the source %s, of the result %s",
               outcome->changed_count,
               text_count(ckpt_catalog_count(outcome->target_logical), "tensor", "tensors").text,
               outcome->source.path, outcome->source_root, outcome->root);
    putchar('\n');
}

/* The closing line of a run that quantised. */
static void print_losses(const ckpt_outcome *outcome)
{
    enum { RULES_BYTES = 1024 };
    char rules[RULES_BYTES];
    loss_summary sum;

    if (outcome->rules == NULL || outcome->losses == NULL)
        return;
    losses_add_up(outcome, &sum);
    losses_rules_text(outcome, rules, sizeof rules);
    printf("quantised by %s: %zu exact, %zu restored, %zu rounded", rules, sum.exact_count,
           sum.restored_count, sum.rounded_count);
    if (sum.worst_error > 0)
        printf("; relative error %.3g, SQNR %.2f dB; worst '%s', %.3g",
               quantise_loss_relative(&sum.total), quantise_loss_sqnr(&sum.total),
               cli_name(ckpt_catalog_at(outcome->target_logical, sum.worst)->name),
               sum.worst_error);
    if (sum.total.saturated > 0)
        printf("; %s above the largest code",
               text_count(sum.total.saturated, "value is", "values are").text);
    if (sum.total.underflowed > 0)
        printf("; %" PRIu64 " became 0", sum.total.underflowed);
    if (sum.replaced > 0)
        printf("; %s NaN or infinite and became 0",
               text_count(sum.replaced, "value was", "values were").text);
    putchar('\n');
}

static void print_result(const ckpt_outcome *outcome)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-convert/1");
    json_put_object(&w);
    json_member_string(&w, "target", outcome->target.path);
    json_member_string(&w, "root", outcome->root);
    json_member_string(&w, "main", outcome->main_root);
    json_member_string(&w, "source_root", outcome->source_root);
    json_member_string(&w, "source_main", outcome->source_main_root);
    json_member_u64(&w, "rounded", outcome->rounded);
    json_member_bool(&w, "rounded_in_this_run_only", outcome->has_others);
    json_member_u64(&w, "changed_tensors", outcome->changed_count);
    json_member_u64(&w, "tensor_count", ckpt_catalog_count(outcome->target_logical));
    json_member_u64(&w, "kept", outcome->kept_count);
    json_member_u64(&w, "repaired", outcome->repaired_count);
    json_member_u64(&w, "left_out", outcome->drop_count);
    losses_put_summary(&w, outcome);
    json_member_names(&w, "notes", outcome->notes, outcome->note_count);
    json_member_u64(&w, "in_bytes", outcome->tensor_bytes);
    json_member_u64(&w, "out_bytes", outcome->target.total_bytes);
    json_member_double(&w, "seconds", outcome->seconds);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static ckpt_code write_manifest(const convert_command *o, const convert_job *job,
                                const ckpt_outcome *outcome, ckpt_error *err)
{
    file_list files = { NULL, 0 };
    json_document *config = NULL;
    ckpt_folder *folder = NULL;
    certificate_checkpoint beside = { .files = NULL };
    manifest_info info = {
        .catalog = outcome->target_logical,
        .digest = outcome->digest,
        .family = outcome->family,
        .layout = outcome->target.layout,
        .companions = &beside,
        .files = &files,
    };
    char *path = o->manifest != NULL ? strdup(o->manifest)
                                      : file_join(convert_directory(job), MANIFEST_FILE);
    ckpt_code code;

    if (path == NULL)
        code = ckpt_fail_memory(err, "a path", 0);
    else if ((code = convert_list_files(job, &files, err)) == CKPT_OK &&
             outcome->config != NULL &&
             (code = json_parse(outcome->config, strlen(outcome->config), "config.json", &config,
                                err)) == CKPT_OK)
        info.config = json_root(config);
    if (code == CKPT_OK &&
        (code = folder_open_local(convert_directory(job), &folder, err)) == CKPT_OK &&
        (code = certificate_read_companions(folder, &beside, err)) == CKPT_OK)
        code = manifest_write(path, &info, err);
    certificate_checkpoint_release(&beside);
    folder_close(folder);
    json_free(config);
    file_list_free(&files);
    free(path);
    return code;
}

/* One line for each reason. */
static void print_drops(const ckpt_outcome *outcome)
{
    for (size_t i = 0; i < outcome->drop_count; i++) {
        const char *reason = outcome->drops[i].reason;
        size_t count = 0;
        size_t first = 0;

        while (strcmp(outcome->drops[first].reason, reason) != 0)
            first++;
        if (first < i)
            continue;
        for (size_t j = i; j < outcome->drop_count; j++)
            count += strcmp(outcome->drops[j].reason, reason) == 0;
        printf("left out: %s (%s)\n", text_count(count, "tensor", "tensors").text, reason);
    }
}

/* Remarks on a successful run. */
static void print_remarks(const convert_command *o, const ckpt_outcome *outcome)
{
    if (outcome->kept_count > 0)
        printf("%zu of %s were already written by an earlier run\n", outcome->kept_count,
               text_count(ckpt_catalog_count(outcome->target_logical), "tensor", "tensors").text);
    if (outcome->repaired_count > 0)
        printf("damaged on disk and written again: %s of other processes\n",
               text_count(outcome->repaired_count, "tensor", "tensors").text);
    print_drops(outcome);
    print_notes(outcome->notes, outcome->note_count);
    print_losses(outcome);
    print_changes_of_values(o, outcome);
}

/* Reports and manifests are recognised by their first member, also of earlier versions. */
static int is_document(const earlier_begin *begin, const void *context)
{
    earlier_begin bare = *begin;

    (void)context;
    earlier_drop_blanks(&bare);
    return earlier_begins_as(&bare, "{\"schema\":\"ckpt-") ||
           earlier_begins_as(&bare, "{\"root\"") || earlier_begins_as(&bare, "{\"version\"");
}

/* Refuse outputs that must not be written, before any work is done. */
static ckpt_code check_place(const convert_options *o, const char *path, ckpt_error *err)
{
    const char *inputs[CONVERT_INPUTS];
    ckpt_code code;

    if (path == NULL || strcmp(path, "-") == 0)
        return CKPT_OK;
    if ((code = output_check_apart(o->target, path, err)) != CKPT_OK)
        return code;
    convert_inputs(o, inputs);
    for (size_t i = 0; i < CONVERT_INPUTS; i++)
        if (inputs[i] != NULL && (code = output_check_spares(path, inputs[i], err)) != CKPT_OK)
            return code;
    code = file_check_place(path, err);
    return code == CKPT_OK
               ? earlier_output_check(path, "a report or manifest", is_document, NULL, err) : code;
}

static ckpt_code check_places(const convert_command *o, ckpt_error *err)
{
    ckpt_code code;

    if ((code = check_place(&o->convert, o->report, err)) != CKPT_OK ||
        (code = check_place(&o->convert, o->manifest, err)) != CKPT_OK ||
        o->report == NULL || o->manifest == NULL || strcmp(o->report, "-") == 0 ||
        strcmp(o->manifest, "-") == 0)
        return code;
    return output_check_apart(o->report, o->manifest, err);
}

static ckpt_code dry_run(const convert_command *o, convert_job *job, ckpt_error *err)
{
    convert_summary plan;
    ckpt_code code;

    if ((code = check_places(o, err)) != CKPT_OK || (code = convert_check_run(job, err)) != CKPT_OK)
        return code;
    if (o->describe != NULL && (code = convert_describe(job, o->describe, err)) != CKPT_OK)
        return code;
    convert_summarise(job, &plan);
    if (o->common.json)
        print_plan_json(o, job, &plan);
    else
        print_plan(o, job, &plan);
    /* Last: the plan says where the space goes. What --describe has written is for a trainer, which
     * may be elsewhere. */
    return o->describe == NULL ? convert_check_space(job, err) : CKPT_OK;
}

/* Printed even with --quiet: a script must not continue as if DST existed. */
static void print_share(const convert_command *o, const convert_job *job)
{
    const convert_options *c = &o->convert;
    /* Another process may have finished the whole job since. */
    const int is_waiting = convert_state_of(job) == CONVERT_WAITING &&
                           file_exists(convert_directory(job));
    json_writer w;

    if (!o->common.json) {
        printf("share %u of %u is done; %s'%s'%s\n", c->share, c->share_count,
               is_waiting ? "the last process to finish creates " : "", cli_name(c->target),
               is_waiting ? "" : " exists");
        return;
    }
    cli_json_begin(&w, "ckpt-share/1");
    json_put_object(&w);
    json_member_bool(&w, "waiting", is_waiting);
    json_member_u64(&w, "share", c->share);
    json_member_u64(&w, "share_count", c->share_count);
    json_member_string(&w, "target", c->target);
    json_put_object_end(&w);
    cli_json_end(&w);
}

/* Reports on the result must be written before the result is renamed into place. */
static ckpt_code write_proof(const convert_command *o, const convert_job *job,
                             const ckpt_outcome *outcome, ckpt_error *err)
{
    const int with_manifest =
        !o->convert.no_digest &&
        (o->manifest != NULL || (!o->no_manifest && o->convert.like == NULL));
    ckpt_code code = CKPT_OK;

    if (with_manifest)
        code = write_manifest(o, job, outcome, err);
    return code == CKPT_OK && o->report != NULL ? report_write(o->report, outcome, err) : code;
}

static int is_stdout(const char *path)
{
    return path != NULL && strcmp(path, "-") == 0;
}

static ckpt_code run(const convert_command *o, convert_job *job, const char *const *words,
                     ckpt_error *err)
{
    ckpt_outcome outcome;
    ckpt_code code;

    if ((code = check_places(o, err)) != CKPT_OK ||
        (code = convert_run(job, err)) != CKPT_OK)
        return code;
    if (convert_state_of(job) != CONVERT_WRITTEN) {
        print_share(o, job);
        return CKPT_OK;
    }
    if ((code = convert_outcome(job, &outcome, err)) != CKPT_OK)
        return code;
    outcome.words = words;
    while (words[outcome.word_count] != NULL)
        outcome.word_count++;
    if ((code = write_proof(o, job, &outcome, err)) != CKPT_OK ||
        (code = convert_commit(job, err)) != CKPT_OK)
        return code;
    if (o->common.json)
        print_result(&outcome);
    else if (!o->common.quiet && !is_stdout(o->report) && !is_stdout(o->manifest))
        print_remarks(o, &outcome);
    fflush(stdout);                    /* the closing line is the last one */
    cli_say_written(&o->common,
                    &(cli_written){ .path = o->convert.target,
                                    .tensor_count = ckpt_catalog_count(outcome.target_logical),
                                    .bytes = outcome.target.total_bytes,
                                    .root = outcome.root,
                                    .note_count = outcome.note_count });
    return CKPT_OK;
}

/* ---- the command ---- */

/* A source that arrives file by file is converted by a single process. */
static ckpt_code take_share_option(convert_command *o, ckpt_error *err)
{
    const char *text = o->share == NULL && o->headers_dir != NULL ? "1/1" : o->share;

    return launcher_share(text, &o->convert.share, &o->convert.share_count, err);
}

/* Options that contradict each other. */
static ckpt_code check_words(const convert_command *o, ckpt_error *err)
{
    if (is_stdout(o->report) + is_stdout(o->manifest) + o->common.json > 1)
        return ckpt_fail(err, CKPT_E_USAGE, "only one of --json, --report - and --manifest - can "
                         "have standard output");
    if (o->manifest != NULL && (o->convert.no_digest || o->no_manifest))
        return ckpt_fail(err, CKPT_E_USAGE, "--manifest needs digests and cannot be used with %s",
                         o->convert.no_digest ? "--no-digest" : "--no-manifest");
    return CKPT_OK;
}

int convert_command_main(const cli_command *command, convert_command *o, int argc, char **argv,
                         ckpt_code (*finish_options)(convert_command *o, ckpt_error *err))
{
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    cli_meter meter;
    cli_args args;
    convert_job *job = NULL;
    ckpt_error err;
    ckpt_code code;
    int status;

    if (words != NULL)
        memcpy(words, argv, (size_t)argc * sizeof *words);      /* before they are reordered */
    if ((status = cli_parse(command, argc, argv, &args)) != CLI_GO) {
        free(words);
        return cli_finish(status);
    }
    take_options(o, &args, &meter);
    if (words == NULL)
        code = ckpt_fail_memory(&err, "the command line", (uint64_t)argc);
    else if ((code = check_words(o, &err)) == CKPT_OK)
        code = take_share_option(o, &err);
    if (code == CKPT_OK && finish_options != NULL)
        code = finish_options(o, &err);
    if (code == CKPT_OK)
        code = convert_take_words(&o->words, &o->convert, &err);
    if (code == CKPT_OK && args.checks_places &&
        (code = convert_check_target(&o->convert, &err)) == CKPT_OK)
        code = check_places(o, &err);
    if (code == CKPT_OK && !args.is_check &&
        (code = convert_plan(&o->convert, &job, &err)) == CKPT_OK)
        code = o->common.dry_run ? dry_run(o, job, &err) : run(o, job, words, &err);
    convert_free(job);
    free(words);
    return cli_finish(code == CKPT_OK ? CLI_DONE : cli_fail(&err));
}
