/* The commands that convert: options to plan, plan to run, run to report. */
#include "convert_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/convert/config_rewrite.h"
#include "libckpt/error.h"
#include "libckpt/json.h"
#include "launcher.h"
#include "verify/manifest.h"
#include "verify/report.h"

static plan_encoding encoding_of(const char *word, plan_encoding absent)
{
    if (word == NULL)
        return absent;
    return strcmp(word, "bf16") == 0  ? PLAN_BF16
           : strcmp(word, "fp8") == 0 ? PLAN_FP8
           : strcmp(word, "fp4") == 0 ? PLAN_FP4
                                      : PLAN_KEEP;
}

static void take_options(convert_command *o, const cli_args *args, cli_meter *meter)
{
    convert_options *c = &o->convert;

    c->source = args->items[0];
    c->target = args->items[1];
    c->policy.dtype = encoding_of(o->dtype, PLAN_KEEP);
    c->policy.experts = encoding_of(o->experts, c->policy.dtype);
    c->policy.scale_dtype = o->scale_dtype == NULL                ? CKPT_NONE
                            : strcmp(o->scale_dtype, "f32") == 0 ? CKPT_F32
                                                                  : CKPT_F8_E8M0;
    /* With a feed the download has the terminal's last line. */
    c->copy = cli_run_options(&o->common, o->shape == NULL ? meter : NULL);
    if (o->shape != NULL) {
        feed_converter_init(&o->feed, o->shape, cli_stop_flag());
        c->feed = &o->feed.base;
    }
}

/* ---- --dry-run ---- */

static void print_plan_json(const convert_job *job, uint64_t tile_bytes)
{
    convert_room room;
    json_writer w;

    json_writer_begin(&w, json_write_stdio, stdout, 1);
    json_put_object(&w);
    json_member_u64(&w, "in_bytes", job->in_bytes);
    json_member_u64(&w, "out_bytes", job->out_bytes);
    if (convert_plan_room(job, &room, NULL) == CKPT_OK) {
        json_member_u64(&w, "needed_bytes", room.need_bytes);
        if (room.free_bytes != UINT64_MAX)
            json_member_u64(&w, "free_bytes", room.free_bytes);
    }
    json_member_u64(&w, "fixed_memory_bytes", job->fixed_bytes);
    json_member_u64(&w, "tile_bytes_per_thread", tile_bytes);
    json_member_u64(&w, "keys", ckpt_catalog_count(store_names(job->store)));
    json_member_u64(&w, "pieces", ckpt_catalog_count(job->store->catalog));
    json_member_names(&w, "notes", (const char *const *)job->notes.names, job->notes.count);
    json_member_array(&w, "files");
    for (size_t i = 0; i < job->store->file_count; i++) {
        json_put_object(&w);
        json_member_string(&w, "name", job->store->files[i].name);
        json_member_u64(&w, "bytes", job->store->files[i].size_bytes);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_member_array(&w, "tensors");
    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        const ckpt_tensor *to = ckpt_catalog_at(job->targets, i);
        char from_text[64];
        char to_text[64];

        ckpt_tensor_encoding(ckpt_catalog_at(job->picked->catalog, i), from_text,
                             sizeof from_text);
        ckpt_tensor_encoding(to, to_text, sizeof to_text);
        json_put_object(&w);
        json_member_string(&w, "name", to->name);
        json_member_string(&w, "from", from_text);
        json_member_string(&w, "to", to_text);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_put_object_end(&w);
    json_writer_end(&w);
    putchar('\n');
}

static void print_notes(const convert_job *job)
{
    enum { NOTES_SHOWN = 10 };

    for (size_t i = 0; i < job->notes.count && i < NOTES_SHOWN; i++)
        printf("note: %s\n", job->notes.names[i]);
    if (job->notes.count > NOTES_SHOWN)
        printf("note: and %zu more\n", job->notes.count - NOTES_SHOWN);
}

/* One line for each pair of encodings. */
static void print_changes(const convert_job *job)
{
    enum { PAIRS_MAX = 64, PAIR_BYTES = 160 };
    char pairs[PAIRS_MAX][PAIR_BYTES];
    uint64_t counts[PAIRS_MAX] = { 0 };
    size_t used = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++) {
        char from[64];
        char to[64];
        char pair[PAIR_BYTES];
        size_t p = 0;

        ckpt_tensor_encoding(ckpt_catalog_at(job->picked->catalog, i), from, sizeof from);
        ckpt_tensor_encoding(ckpt_catalog_at(job->targets, i), to, sizeof to);
        snprintf(pair, sizeof pair, "%-28s -> %s", from, to);
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
}

static void print_room(const convert_job *job)
{
    char need[CLI_SIZE_TEXT_BYTES];
    char available[CLI_SIZE_TEXT_BYTES] = "?";
    convert_room room;

    if (convert_plan_room(job, &room, NULL) != CKPT_OK)
        return;
    cli_size_text(room.need_bytes, need);
    if (room.free_bytes != UINT64_MAX)
        cli_size_text(room.free_bytes, available);
    printf("space: %s needed, %s free\n", need, available);
}

static void print_plan(const convert_job *job, uint64_t tile_bytes)
{
    char in[CLI_SIZE_TEXT_BYTES];
    char out[CLI_SIZE_TEXT_BYTES];
    char fixed[CLI_SIZE_TEXT_BYTES];
    char tile[CLI_SIZE_TEXT_BYTES];
    char pieces[64] = "";

    cli_size_text(job->in_bytes, in);
    cli_size_text(job->out_bytes, out);
    cli_size_text(job->fixed_bytes, fixed);
    cli_size_text(tile_bytes, tile);
    if (job->store->keys != NULL)
        snprintf(pieces, sizeof pieces, ", cut in %zu pieces",
                 ckpt_catalog_count(job->store->catalog));
    printf("%zu tensors, %s -> %zu stored tensors%s, in %zu files, %s (%" PRIu64 " bytes)\n",
           ckpt_catalog_count(job->targets), in, ckpt_catalog_count(store_names(job->store)),
           pieces, job->store->file_count, out, job->out_bytes);
    print_changes(job);
    print_room(job);
    printf("memory: %s for catalogs, %s for each thread\n", fixed, tile);
    for (size_t i = 0; i < job->store->file_count; i++)
        printf("%16" PRIu64 "  %s\n", job->store->files[i].size_bytes,
               cli_name(job->store->files[i].name));
    print_notes(job);
}

static ckpt_code dry_run(const convert_command *o, convert_job *job, ckpt_error *err)
{
    uint64_t tile_bytes = 0;
    ckpt_code code = convert_tile_bytes(job, &tile_bytes, err);

    if (code == CKPT_OK && o->describe != NULL)
        code = convert_describe(job, o->describe, err);
    if (code != CKPT_OK)
        return code;
    if (o->common.json)
        print_plan_json(job, tile_bytes);
    else
        print_plan(job, tile_bytes);
    return CKPT_OK;
}

/* ---- the run ---- */

/* Did another run or part write some of the tensors? What it rounded is not counted here. */
static int has_others(const convert_job *job)
{
    return job->kept_count > 0 || job->share != NULL;
}

/* Values that were rounded, as far as this run wrote them. */
static uint64_t count_rounded(const convert_job *job)
{
    uint64_t total = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->targets); i++)
        total += job->stats[i].inexact;
    return total;
}

/* Tensors with other values than the source's, whoever wrote them. */
static size_t count_changed(const convert_job *job)
{
    size_t total = 0;

    for (size_t i = 0; job->written_digest != NULL && i < ckpt_catalog_count(job->targets); i++) {
        const hash128 before = digest_get(job->digest, i);
        const hash128 after = digest_get(job->written_digest, i);

        total += memcmp(&before, &after, sizeof after) != 0;
    }
    return total;
}

/* The closing line of a run whose result may have other values than its source. */
static void print_changes_of_values(const convert_job *job)
{
    const uint64_t rounded = count_rounded(job);
    const size_t changed = count_changed(job);

    if (!job->options.allow_lossy && changed == 0)
        return;
    if (job->options.allow_lossy)
        printf("%" PRIu64 " values were rounded%s", rounded,
               has_others(job) ? " (in this run)" : "");
    else
        printf("BF16 values are again the products that they had been rounded from");
    if (job->root[0] != '\0')
        printf("; %zu of %zu tensors differ from '%s'; root of the source %s, of the result %s",
               changed, ckpt_catalog_count(job->targets), job->options.source, job->source_root,
               job->root);
    putchar('\n');
}

static void print_result(const convert_job *job)
{
    json_writer w;

    json_writer_begin(&w, json_write_stdio, stdout, 1);
    json_put_object(&w);
    json_member_string(&w, "target", job->options.target);
    json_member_string(&w, "root", job->root[0] == '\0' ? NULL : job->root);
    json_member_string(&w, "main", job->root[0] == '\0' ? NULL : job->main_root);
    json_member_string(&w, "source_root", job->root[0] == '\0' ? NULL : job->source_root);
    json_member_string(&w, "source_main", job->root[0] == '\0' ? NULL : job->source_main_root);
    json_member_u64(&w, "rounded", count_rounded(job));
    json_member_bool(&w, "rounded_in_this_run_only", has_others(job));
    json_member_u64(&w, "changed_tensors", count_changed(job));
    json_member_u64(&w, "tensors", ckpt_catalog_count(job->targets));
    json_member_u64(&w, "kept", job->kept_count);
    json_member_u64(&w, "repaired", job->repaired_count);
    json_member_u64(&w, "left_out", job->drop_count);
    json_member_names(&w, "notes", (const char *const *)job->notes.names, job->notes.count);
    json_member_u64(&w, "in_bytes", job->in_bytes);
    json_member_u64(&w, "out_bytes", job->out_bytes);
    json_member_double(&w, "seconds", job->seconds);
    json_put_object_end(&w);
    json_writer_end(&w);
    putchar('\n');
}

static ckpt_code write_manifest(const convert_command *o, const convert_job *job, ckpt_error *err)
{
    file_list files = { NULL, 0 };
    json_document *config = NULL;
    manifest_info info = {
        .catalog = job->targets,
        .digest = job->written_digest != NULL ? job->written_digest : job->digest,
        .family = ckpt_family_name(job->source),
        .layout = job->options.format->name,
        .files = &files,
    };
    char *path = o->manifest != NULL ? strdup(o->manifest)
                                      : file_join(convert_directory(job), MANIFEST_FILE);
    ckpt_code code;

    if (path == NULL)
        code = ckpt_fail_memory(err, "a path", 0);
    else if ((code = convert_list_files(job, &files, err)) == CKPT_OK &&
             job->config_text != NULL &&
             (code = json_parse(job->config_text, strlen(job->config_text), "config.json", &config,
                                err)) == CKPT_OK)
        info.config = json_root(config);
    if (code == CKPT_OK)
        code = manifest_write(path, &info, err);
    json_free(config);
    file_list_free(&files);
    free(path);
    return code;
}

static uint64_t store_bytes(const ckpt_store *store)
{
    uint64_t total = 0;

    for (size_t i = 0; i < store->file_count; i++)
        total += store->files[i].size_bytes;
    return total;
}

static const char *file_action(const convert_job *job, const char *name)
{
    if (strcmp(name, CONFIG_INFERENCE_FILE) == 0)
        return job->inference_text != NULL ? "written" : job->like != NULL ? "copied" : "edited";
    return strcmp(name, "config.json") == 0 ? "edited" : "copied";
}

static void fill_outcome(const convert_job *job, const char **file_names, outcome_file *files,
                         ckpt_outcome *out)
{
    const ckpt_checkpoint *source = job->source;

    for (size_t i = 0; i < source->store->file_count; i++)
        file_names[i] = source->store->files[i].name;
    for (size_t i = 0; i < job->written.count; i++) {
        files[i].name = job->written.names[i];
        files[i].action = file_action(job, files[i].name);
    }
    for (size_t i = 0; i < source->unread.count; i++)
        files[job->written.count + i] = (outcome_file){ source->unread.names[i], "left out" };
    out->version = CKPT_VERSION;
    out->family = ckpt_family_name(source);
    out->source = (outcome_side){ job->options.source, ckpt_layout_name(source),
                                  ckpt_names_style(source), source->store->file_count,
                                  store_bytes(source->store) };
    out->target = (outcome_side){ job->options.target, job->options.format->name,
                                  ckpt_names_style(job->like != NULL ? job->like : source),
                                  job->store->file_count, store_bytes(job->store) };
    if (job->map != NULL)
        out->target.names = job->map->names;
    out->seconds = job->seconds;
    out->stored = store_names(source->store);
    out->fates = source->reading.fates;
    out->file_names = file_names;
    out->file_name_count = source->store->file_count;
    out->source_logical = source->reading.logical;
    out->drops = job->drops;
    out->drop_count = job->drop_count;
    out->target_logical = job->targets;
    out->stats = job->stats;
    out->kept = job->kept;
    out->origins = job->origins;
    out->digest = job->written_digest != NULL ? job->written_digest : job->digest;
    out->root = job->root[0] == '\0' ? NULL : job->root;
    out->main_root = job->root[0] == '\0' ? NULL : job->main_root;
    out->source_root = job->root[0] == '\0' ? NULL : job->source_root;
    out->files = files;
    out->file_count = job->written.count + source->unread.count;
    out->notes = (const char *const *)job->notes.names;
    out->note_count = job->notes.count;
}

static ckpt_code write_report(const convert_job *job, const char *path,
                              const char *const *words, ckpt_error *err)
{
    const char **names = calloc(job->source->store->file_count + 1, sizeof *names);
    outcome_file *files = calloc(job->written.count + job->source->unread.count + 1,
                                 sizeof *files);
    ckpt_outcome outcome = { .words = words };
    ckpt_code code;

    while (words[outcome.word_count] != NULL)
        outcome.word_count++;
    if (names == NULL || files == NULL) {
        code = ckpt_fail_memory(err, "a report", job->written.count);
    } else {
        fill_outcome(job, names, files, &outcome);
        code = report_write(path, &outcome, err);
    }
    free(names);
    free(files);
    return code;
}

/* What a person should know of a run that went well. */
static void print_remarks(const convert_job *job)
{
    if (job->kept_count > 0)
        printf("%zu of %zu tensors were there from an earlier run\n", job->kept_count,
               ckpt_catalog_count(job->targets));
    if (job->repaired_count > 0)
        printf("%zu tensors that other parts had written were damaged on disk, and were written "
               "again\n", job->repaired_count);
    if (job->drop_count > 0)
        printf("left out: %zu tensors (%s)\n", job->drop_count, job->drops[0].reason);
    print_notes(job);
    print_changes_of_values(job);
}

/* What is there is replaced if it is an earlier report or manifest: by its first member, or packed
 * as those are. */
static ckpt_code check_earlier(const char *path, ckpt_error *err)
{
    static const char zstd[] = "\x28\xb5\x2f\xfd";
    char begin[64] = "";
    ckpt_file *file = NULL;
    const char *member = begin + 1;
    ckpt_code code = CKPT_OK;
    size_t size;

    if (!file_exists(path))
        return CKPT_OK;
    if ((code = file_open(path, &file, err)) != CKPT_OK)
        return code;
    size = file_size(file) < sizeof begin - 1 ? (size_t)file_size(file) : sizeof begin - 1;
    code = file_read_at(file, 0, begin, size, err);
    file_close(file, NULL);
    if (code != CKPT_OK || size == 0 || memcmp(begin, zstd, sizeof zstd - 1) == 0)
        return code;
    member += strspn(member, " \n");
    if (begin[0] == '{' && (strncmp(member, "\"root\"", 6) == 0 ||
                            strncmp(member, "\"version\"", 9) == 0))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' is there, and is not a report or manifest: move it "
                     "away, or choose another name", path);
}

/* Refuse what must not be written, before the work is done. */
static ckpt_code check_place(const convert_options *o, const char *path, ckpt_error *err)
{
    const char *inputs[CONVERT_INPUTS];
    ckpt_code code;

    if (path == NULL)
        return CKPT_OK;
    if ((code = output_check_apart(o->target, path, err)) != CKPT_OK)
        return code;
    convert_inputs(o, inputs);
    for (size_t i = 0; i < CONVERT_INPUTS; i++)
        if (inputs[i] != NULL && (code = output_check_spares(path, inputs[i], err)) != CKPT_OK)
            return code;
    code = file_check_place(path, err);
    return code == CKPT_OK ? check_earlier(path, err) : code;
}

static ckpt_code check_places(const convert_command *o, ckpt_error *err)
{
    ckpt_code code;

    if ((code = check_place(&o->convert, o->report, err)) != CKPT_OK ||
        (code = check_place(&o->convert, o->manifest, err)) != CKPT_OK ||
        o->report == NULL || o->manifest == NULL)
        return code;
    return output_check_apart(o->report, o->manifest, err);
}

/* Said in any case: a script that goes on as if DST were there would be wrong. */
static void print_share(const convert_command *o, const convert_job *job)
{
    const convert_options *c = &job->options;
    /* Another part may have finished all of it since. */
    const int is_waiting = !job->is_there && file_exists(convert_directory(job));
    json_writer w;

    if (!o->common.json) {
        printf("part %u of %u is done; %s'%s'%s\n", c->part, c->part_count,
               is_waiting ? "the last one to finish makes " : "", cli_name(c->target),
               is_waiting ? " appear" : " is there");
        return;
    }
    json_writer_begin(&w, json_write_stdio, stdout, 1);
    json_put_object(&w);
    json_member_bool(&w, "waiting", is_waiting);
    json_member_u64(&w, "part", c->part);
    json_member_u64(&w, "parts", c->part_count);
    json_member_string(&w, "target", c->target);
    json_put_object_end(&w);
    json_writer_end(&w);
    putchar('\n');
}

static ckpt_code run(const convert_command *o, convert_job *job, const char *const *words,
                     ckpt_error *err)
{
    const int with_manifest =
        !o->convert.no_digest &&
        (o->manifest != NULL || (!o->no_manifest && job->like == NULL));
    ckpt_code code;

    if ((code = check_places(o, err)) != CKPT_OK ||
        (code = convert_run(job, err)) != CKPT_OK)
        return code;
    if (job->is_waiting || job->is_there) {
        print_share(o, job);
        return CKPT_OK;
    }
    if ((with_manifest && (code = write_manifest(o, job, err)) != CKPT_OK) ||
        (o->report != NULL && (code = write_report(job, o->report, words, err)) != CKPT_OK) ||
        (code = convert_commit(job, err)) != CKPT_OK)
        return code;
    if (o->common.json)
        print_result(job);
    else if (!o->common.quiet)
        print_remarks(job);
    return CKPT_OK;
}

/* ---- the command ---- */

/* A source that comes file by file has one process for all. */
static ckpt_code take_part(convert_command *o, ckpt_error *err)
{
    const char *text = o->part == NULL && o->shape != NULL ? "1/1" : o->part;

    return launcher_part(text, &o->convert.part, &o->convert.part_count, err);
}

/* Options that contradict each other. */
static ckpt_code check_words(const convert_command *o, ckpt_error *err)
{
    if (o->convert.no_digest && o->convert.verify)
        return ckpt_fail(err, CKPT_E_USAGE, "--verify compares digests: leave out --no-digest");
    if (o->manifest != NULL && (o->convert.no_digest || o->no_manifest))
        return ckpt_fail(err, CKPT_E_USAGE, "--manifest writes digests: leave out %s",
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
        code = take_part(o, &err);
    if (code == CKPT_OK && finish_options != NULL)
        code = finish_options(o, &err);
    if (code == CKPT_OK && !args.is_check &&
        (code = convert_plan(&o->convert, &job, &err)) == CKPT_OK)
        code = o->common.dry_run ? dry_run(o, job, &err) : run(o, job, words, &err);
    convert_free(job);
    free(words);
    return cli_finish(code == CKPT_OK ? CLI_DONE : cli_fail(&err));
}
