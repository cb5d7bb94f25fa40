/* ckpt-verify digest: like sha256sum, but for the values of checkpoints. */
#include "digest_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest_list.h"
#include "open_options.h"
#include "option_words.h"
#include "remote_places.h"
#include "formats/format.h"
#include "formats/ids.h"
#include "formats/notes.h"
#include "libckpt/error.h"
#include "libckpt/text.h"
#include "verify/certificate_read.h"
#include "verify/manifest.h"

static struct {
    cli_common common;
    ckpt_open_options open;
    const char *check;
    cli_list globs;
    int jsonl;
} opt = { .common = CLI_COMMON_DEFAULTS };

static const cli_option options[] = {
    { CLI_ONCE, "check", "FILE", &opt.check,
      "read digests and paths from FILE (- is standard input), as they were printed, and check "
      "them" },
    { CLI_LIST, "tensors", "GLOB", &opt.globs,
      "also print the digests of tensors whose names match, as in '*.experts.7.*' or '*'; may be "
      "repeated" },
    { CLI_FLAG, "jsonl", NULL, &opt.jsonl, "print one JSON object in a line for each PATH" },
    CLI_CONFIG_OPTION(opt.open),
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_words words[] = { { "config", word_of_config }, { NULL, NULL } };

static const cli_rule rules[] = {
    { "check", NULL, "tensors|jsonl" },
    { "jsonl", NULL, "json|tensors" },
    { NULL, NULL, NULL }
};

const cli_command digest_command = {
    .name = "digest",
    .summary = "print the value digests of checkpoints",
    .usage = "[OPTIONS] PATH... | --check FILE",
    .description =
        "The value digest is the same in every layout and in every lossless encoding. Prints "
        "\"DIGEST  PATH\", like sha256sum, then the same for all tensors except mtp.*, marked "
        "(main). --tensors GLOB adds \"DIGEST  NAME\" lines, sorted by name. --json prints a "
        "manifest for `ckpt-verify check --manifest`; of several PATHs, a list of them. If "
        "the input may not be a complete model, for example one shard of several, notes are "
        "printed on stderr and in the manifest.\n"
        "\n" REMOTE_HELP("PATH") "\n"
        "\n"
        "--check prints \"PATH: OK\" or \"PATH: FAILED\" for every line of FILE. Paths are "
        "relative to the working directory.",
    .exit_notes = "0  done; with --check: all digests are as in FILE\n1  with --check: some are "
                  "not; or the root that a GGUF file holds is not that of its values\n2  error; "
                  "one line on stderr says what failed",
    .examples = "ckpt-verify digest DeepSeek-V4-Flash\n"
                "ckpt-verify digest --json DeepSeek-V4-Flash > flash.json\n"
                "ckpt-verify digest Flash Flash-BF16 > roots; ckpt-verify digest -c roots",
    .options = options,
    .words = words,
    .rules = rules,
    .arg_min = 0,
    .arg_max = CLI_ANY_ARGS,
};

/* ---- one checkpoint ---- */

typedef struct {
    ckpt_checkpoint *checkpoint;
    ckpt_digest *digest;
    char root[CKPT_ROOT_HEX];
    char main_root[CKPT_ROOT_HEX];
    int is_other;                  /* the checkpoint holds another root than that of its values */
} digested;

static void release(digested *d)
{
    ckpt_digest_free(d->digest);
    ckpt_close(d->checkpoint);
    memset(d, 0, sizeof *d);
}

#define OTHER_ROOT "its key %s says %s: the values changed since it was written"

/* A GGUF file or a packed checkpoint holds the root that its values had when it was written. */
static ckpt_code check_stored_root(digested *d, ckpt_error *err)
{
    const char *stored = checkpoint_stored_root(d->checkpoint);

    d->is_other = stored != NULL && strcmp(stored, d->root) != 0;
    return d->is_other ? note_add(&d->checkpoint->notes, err, OTHER_ROOT,
                                  checkpoint_root_key(d->checkpoint), stored)
                       : CKPT_OK;
}

/* Why the status is 1 although nothing is printed that differs. Also with --quiet. */
static void tell_other_root(const char *path, const digested *d)
{
    if (d->is_other)
        fprintf(stderr, "ckpt-verify: '%s': " OTHER_ROOT "\n", cli_name(path),
                checkpoint_root_key(d->checkpoint), checkpoint_stored_root(d->checkpoint));
}

/* Digest the checkpoint at `path`. Release *out, also on failure. */
static ckpt_code read_digest(const char *path, digested *out, ckpt_error *err)
{
    static cli_meter meter;      /* static, because cli_fail erases its line */
    ckpt_run_options run;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    opt.open.places = remote_places(&opt.common);
    if ((code = ckpt_open(path, &opt.open, &out->checkpoint, err)) != CKPT_OK ||
        (code = checkpoint_note_ids(out->checkpoint, err)) != CKPT_OK)
        return code;
    run = cli_run_options(&opt.common, &meter);
    run.fixed_bytes = ckpt_checkpoint_bytes(out->checkpoint);
    if ((code = ckpt_digest_source(out->checkpoint->logical, &run, &out->digest, err)) != CKPT_OK ||
        (code = ckpt_digest_root(out->digest, 0, out->root, err)) != CKPT_OK)
        return code;
    cli_meter_end(&meter);
    if ((code = ckpt_digest_root(out->digest, 1, out->main_root, err)) != CKPT_OK ||
        (code = checkpoint_check_unchanged(out->checkpoint, err)) != CKPT_OK)
        return code;
    return check_stored_root(out, err);
}

/* ---- text ---- */

static ckpt_code print_tensors(const char *path, const digested *d, ckpt_error *err)
{
    const ckpt_catalog *catalog = d->checkpoint->logical->catalog;
    size_t *order = manifest_order(catalog);
    size_t count = 0;

    if (order == NULL)
        return ckpt_fail_memory(err, "a list", ckpt_catalog_count(catalog));
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const char *name = ckpt_catalog_at(catalog, order[i])->name;
        char hex[CKPT_DIGEST_HEX];

        if (!text_matches_any(name, opt.globs.items, opt.globs.count))
            continue;
        ckpt_digest_tensor(d->digest, order[i], hex);
        printf("%s  %s\n", hex, cli_name(name));
        count++;
    }
    free(order);
    return count > 0 ? CKPT_OK
                     : ckpt_fail(err, CKPT_E_USAGE, "--tensors '%s' matches no tensor of '%s'",
                                 opt.globs.items[0], path);
}

static ckpt_code print_text(const char *path, const digested *d, ckpt_error *err)
{
    const file_list *notes = &d->checkpoint->notes;
    ckpt_code code = CKPT_OK;

    printf("%s  %s\n%s  %s (main)\n", d->root, path, d->main_root, path);
    if (opt.globs.count > 0)
        code = print_tensors(path, d, err);
    /* Notes go to stderr: standard output has only digests. */
    for (size_t i = 0; i < notes->count && code == CKPT_OK && !opt.common.quiet; i++)
        fprintf(stderr, "note: %s\n", cli_name(notes->names[i]));
    if (opt.common.quiet)
        tell_other_root(path, d);
    return code;
}

/* ---- JSON ---- */

static ckpt_code put_manifest(json_writer *w, const digested *d, ckpt_error *err)
{
    ckpt_checkpoint *c = d->checkpoint;
    certificate_checkpoint beside = { .files = NULL };
    const manifest_info info = {
        .catalog = c->logical->catalog,
        .digest = d->digest,
        .layout = ckpt_layout_name(c),
        .family = ckpt_family_name(c),
        .config = c->config == NULL ? NULL : json_root(c->config),
        .companions = &beside,
        .notes = &c->notes,
    };
    ckpt_code code = certificate_read_companions(checkpoint_folder(c), &beside, err);

    if (code == CKPT_OK && beside.file_count > 0)
        code = checkpoint_check_unchanged(c, err);
    if (code == CKPT_OK)
        code = manifest_put(w, &info, err);
    certificate_checkpoint_release(&beside);
    return code;
}

static void print_line(const char *path, const digested *d)
{
    const ckpt_checkpoint *c = d->checkpoint;
    json_writer w;

    cli_json_line(&w, "ckpt-digest/1");
    json_put_object(&w);
    json_member_string(&w, "path", path);
    json_member_string(&w, "root", d->root);
    json_member_string(&w, "main", d->main_root);
    json_member_string(&w, "family", ckpt_family_name(c));
    json_member_string(&w, "layout", ckpt_layout_name(c));
    json_member_u64(&w, "tensor_count", ckpt_catalog_count(c->logical->catalog));
    json_member_names(&w, "notes", (const char *const *)c->notes.names, c->notes.count);
    json_put_object_end(&w);
    cli_json_end(&w);
}

/* Print a manifest into the list `w`, or with NULL as a document by itself. */
static ckpt_code print_json(const digested *d, json_writer *w, ckpt_error *err)
{
    json_writer alone;
    ckpt_code code;

    if (w != NULL)
        return put_manifest(w, d, err);
    cli_json_begin(&alone, NULL);
    code = put_manifest(&alone, d, err);
    cli_json_end(&alone);
    return code;
}

/* ---- the command ---- */

/* Read and print one of several; `w`: into this list of manifests, or NULL. */
static ckpt_code print_one(const char *path, json_writer *w, int *status, ckpt_error *err)
{
    digested d;
    ckpt_code code = read_digest(path, &d, err);

    if (code == CKPT_OK && d.is_other)
        *status = CLI_DIFFERENT;
    if (code == CKPT_OK && opt.common.json)
        code = print_json(&d, w, err);
    else if (code == CKPT_OK && opt.jsonl)
        print_line(path, &d);
    else if (code == CKPT_OK)
        code = print_text(path, &d, err);
    release(&d);
    return code;
}

/* 1 when the paths after one that failed are read nevertheless, as sha256sum does. */
static int goes_on(ckpt_code code)
{
    return code == CKPT_E_IO || code == CKPT_E_FORMAT;
}

static ckpt_code fail_unread(const digest_tally *tally, const char *of, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "%zu of the checkpoints%s could not be read; the first: %s",
                     tally->unread_count, of, tally->first.text);
}

static ckpt_code print_all(const cli_args *args, int *status, ckpt_error *err)
{
    const int is_list = opt.common.json && args->count > 1;
    digest_tally tally = { .unread_count = 0 };
    ckpt_code code = CKPT_OK;
    json_writer w;

    if (args->count == 1)
        return print_one(args->items[0], NULL, status, err);
    if (is_list) {
        cli_json_begin(&w, "ckpt-digests/1");
        json_put_object(&w);
        json_member_array(&w, "checkpoints");
    }
    for (unsigned i = 0; i < args->count && code == CKPT_OK; i++) {
        code = print_one(args->items[i], is_list ? &w : NULL, status, err);
        if (goes_on(code)) {
            if (tally.unread_count++ == 0)
                tally.first = *err;
            code = CKPT_OK;
        }
    }
    if (code == CKPT_OK && tally.unread_count == 1)
        code = ckpt_fail(err, CKPT_E_IO, "%s", tally.first.text);
    else if (code == CKPT_OK && tally.unread_count > 1)
        code = fail_unread(&tally, "", err);
    if (is_list) {
        json_put_array_end(&w);
        if (code != CKPT_OK)
            json_member_string(&w, "error", err->text);
        json_put_object_end(&w);
        cli_json_end(&w);
    }
    return code;
}

/* The last path that was read. A list has two adjacent lines for a path, which is read once. */
typedef struct {
    const char *path;
    digested digested;
    ckpt_code code;
} last_read;

static ckpt_code check_entry(const digest_entry *entry, last_read *last, digest_tally *tally,
                             json_writer *w)
{
    const char *got;
    ckpt_error err;
    int is_same;

    if (last->path == NULL || strcmp(last->path, entry->path) != 0) {
        release(&last->digested);
        last->path = entry->path;
        last->code = read_digest(entry->path, &last->digested, &err);
        if (last->code == CKPT_E_INTERRUPTED || last->code == CKPT_E_MEMORY) {
            tally->first = err;
            return last->code;
        }
        if (last->code != CKPT_OK && tally->unread_count++ == 0)
            tally->first = err;
        if (last->code == CKPT_OK)
            tell_other_root(entry->path, &last->digested);
    }
    got = last->code != CKPT_OK ? NULL
          : entry->is_main      ? last->digested.main_root
                                : last->digested.root;
    is_same = got != NULL && strcmp(got, entry->root) == 0 && !last->digested.is_other;
    tally->different_count += got != NULL && !is_same;
    digest_list_tell(entry, got, is_same, w);
    return CKPT_OK;
}

static ckpt_code check_list(int *status, ckpt_error *err)
{
    last_read last = { .path = NULL };
    digest_tally tally = { .unread_count = 0 };
    digest_list list;
    json_writer w;
    char of[256];
    ckpt_code code = digest_list_read(opt.check, &list, err);

    if (code == CKPT_OK && opt.common.json) {
        cli_json_begin(&w, "ckpt-digest-check/1");
        json_put_object(&w);
        json_member_array(&w, "checkpoints");
    }
    for (size_t i = 0; i < list.count && code == CKPT_OK; i++) {
        code = check_entry(&list.entries[i], &last, &tally, opt.common.json ? &w : NULL);
        if (code != CKPT_OK)
            *err = tally.first;
    }
    release(&last.digested);
    if (code == CKPT_OK && opt.common.json) {
        json_put_array_end(&w);
        json_member_bool(&w, "same", tally.different_count + tally.unread_count == 0);
        json_put_object_end(&w);
        cli_json_end(&w);
    }
    digest_list_release(&list);
    *status = tally.different_count > 0 ? CLI_DIFFERENT : CLI_DONE;
    if (code != CKPT_OK || tally.unread_count == 0)
        return code;
    snprintf(of, sizeof of, " in '%.200s'", opt.check);
    return fail_unread(&tally, of, err);
}

ckpt_code digest_run(const cli_args *args, int *status, ckpt_error *err)
{
    ckpt_code code;

    if (opt.check != NULL && args->count > 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--check FILE takes the paths from FILE: leave out "
                         "'%s'", args->items[0]);
    if (opt.check == NULL && args->count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "too few arguments: expected PATH, or --check FILE; "
                         "see --help");
    if (opt.check == NULL)
        return print_all(args, status, err);
    if ((code = cli_refuse_folder(opt.check, "a list that ckpt-verify digest printed", err)) !=
        CKPT_OK)
        return code;
    return check_list(status, err);
}
