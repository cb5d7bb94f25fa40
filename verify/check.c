/* Checks a checkpoint against its manifest. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate_read.h"
#include "libckpt/checkpoint.h"
#include "json_line.h"

const char *check_kind_name(check_kind kind)
{
    static const char *const names[] = {
        [CHECK_VALUE] = "value",
        [CHECK_SHAPE] = "shape",
        [CHECK_MISSING] = "missing",
        [CHECK_EXTRA] = "extra",
        [CHECK_UNLISTED] = "unlisted",
        [CHECK_COPY] = "copy",
        [CHECK_CHECKSUM] = "checksum",
        [CHECK_CONFIG] = "config",
        [CHECK_ROOT] = "root",
    };

    return names[kind];
}

/* ---- results of opening ---- */

static void count_stored(const ckpt_checkpoint *checkpoint, check_result *out)
{
    const ckpt_catalog *stored = ckpt_source_catalog(ckpt_stored(checkpoint));

    out->layout = ckpt_layout_name(checkpoint);
    out->family = ckpt_family_name(checkpoint);
    out->tensor_count = ckpt_catalog_count(ckpt_source_catalog(ckpt_logical(checkpoint)));
    out->stored_count = ckpt_catalog_count(stored);
    for (size_t i = 0; i < out->stored_count; i++)
        out->stored_bytes += ckpt_tensor_bytes(ckpt_catalog_at(stored, i));
    while (ckpt_file_name(checkpoint, (uint32_t)out->file_count) != NULL)
        out->file_count++;
}

/* 1 when the checkpoint holds a root that its values must have. */
static int is_checked_by_itself(const ckpt_checkpoint *checkpoint, const check_options *options)
{
    return !options->structure_only && !options->files_are_right &&
           checkpoint_stored_root(checkpoint) != NULL;
}

/* The manifest to use: the one given, else the one in the checkpoint. */
static ckpt_code read_manifest(const ckpt_checkpoint *checkpoint, const check_options *options,
                               check_result *out, ckpt_error *err)
{
    static const char *const names[] = { MANIFEST_FILE, MANIFEST_FILE ".zst" };
    const ckpt_folder *folder = checkpoint_folder(checkpoint);
    const char *name = options->manifest;

    if (options->structure_only)
        return CKPT_OK;
    if (name != NULL)
        folder = NULL;
    for (size_t i = 0; i < 2 && folder != NULL && name == NULL; i++)
        if (folder_has(folder, names[i]))
            name = names[i];
    if (name == NULL && (options->main_only || options->weights_only))
        return ckpt_fail(err, CKPT_E_USAGE, "--%s leaves out a part of the comparison with a "
                         "manifest, but '%s' has none: leave it out, or use --manifest FILE",
                         options->main_only ? "main" : "weights-only", options->path);
    if (name == NULL && (options->files_are_right || options->values ||
                         is_checked_by_itself(checkpoint, options)))
        return CKPT_OK;
    if (name == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' has no manifest to check values against: use "
                         "--manifest FILE, --values or --structure-only", options->path);
    out->manifest_path = folder == NULL ? strdup(name) : folder_path_of(folder, name);
    if (out->manifest_path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    return manifest_read(folder, name, &out->manifest, err);
}

/* ---- values ---- */

static void add_difference(check_result *out, check_kind kind, const char *name)
{
    check_difference *d = &out->differing[out->differing_count++];

    d->kind = kind;
    d->name = name;
}

/* Unlisted files are differences: some loaders read every file of a folder, others only those of
 * the index. Both ignore sub-folders. */
static void find_unlisted(const file_list *unread, check_result *out)
{
    for (size_t i = 0; unread != NULL && i < unread->count; i++)
        if (strchr(unread->names[i], '/') == NULL) {
            add_difference(out, CHECK_UNLISTED, unread->names[i]);
            out->unlisted_count++;
        }
}

static int is_left_out(const ckpt_tensor *t, const check_options *options)
{
    return options->main_only && digest_is_mtp(t->name);
}

/* A digest_difference_fn. */
static void take_difference(void *context, digest_difference kind, const char *name,
                            const char *expected, const char *got)
{
    check_result *out = context;

    add_difference(out, (check_kind)kind, name);
    if (kind == DIGEST_VALUE) {
        memcpy(out->differing[out->differing_count - 1].expected, expected, CKPT_DIGEST_HEX);
        memcpy(out->differing[out->differing_count - 1].got, got, CKPT_DIGEST_HEX);
    }
}

static int compare_differences(const void *left, const void *right)
{
    const check_difference *a = left;
    const check_difference *b = right;

    return strcmp(a->name, b->name);
}

static ckpt_code check_values(const ckpt_digest *digest, const ckpt_catalog *catalog,
                              const check_options *options, check_result *out, ckpt_error *err)
{
    const digest_side expected = { out->manifest.catalog, out->manifest.digest };
    const digest_side got = { catalog, digest };

    if (digest_compare(&expected, &got, options->main_only, take_difference, out) == 0)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "nothing to check: '%s' does not list any tensor of '%s'",
                         out->manifest_path, options->path);
    return CKPT_OK;
}

/* Compute the roots, and compare the one that the checkpoint itself holds. */
static ckpt_code check_roots(const ckpt_checkpoint *checkpoint, const ckpt_digest *digest,
                             check_result *out, ckpt_error *err)
{
    ckpt_code code;

    if ((code = ckpt_digest_root(digest, 0, out->root, err)) != CKPT_OK ||
        (code = ckpt_digest_root(digest, 1, out->main_root, err)) != CKPT_OK)
        return code;
    out->stored_root = checkpoint_stored_root(checkpoint);
    out->root_key = checkpoint_root_key(checkpoint);
    out->root_is_other = out->stored_root != NULL && strcmp(out->stored_root, out->root) != 0;
    if (out->root_is_other)
        add_difference(out, CHECK_ROOT, out->root_key);
    return CKPT_OK;
}

/* Copies of a tensor that differ. */
static void find_copies(const ckpt_store *store, const ckpt_catalog *catalog,
                        const check_options *options, check_result *out)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        if (!store->copies[i].is_found || is_left_out(ckpt_catalog_at(catalog, i), options))
            continue;
        add_difference(out, CHECK_COPY, ckpt_catalog_at(catalog, i)->name);
        out->differing[out->differing_count - 1].file =
            store->files[store->copies[i].file].name;
        out->copy_count++;
    }
}

/* One pass: digests if there is a manifest, and value checks if requested. */
static ckpt_code read_values(const ckpt_checkpoint *checkpoint, const check_options *options,
                             ckpt_digest *digest, check_result *out, ckpt_error *err)
{
    value_check_options how = { .official = options->official,
                                .config = options->config,
                                .run = options->copy };
    ckpt_source *logical = ckpt_logical(checkpoint);
    ckpt_source *tapped = NULL;
    value_check check = { .catalog = NULL };
    ckpt_code code;

    if (out->manifest_path != NULL)
        how.run.fixed_bytes += catalog_bytes(out->manifest.catalog);
    if (digest != NULL &&
        (code = source_digest_tap(logical, digest, &tapped, err)) != CKPT_OK)
        return code;
    code = value_check_source(tapped != NULL ? tapped : logical, &how, &check, &out->values,
                              err);
    out->has_values = code == CKPT_OK;
    value_check_release(&check);
    ckpt_source_free(tapped);
    return code;
}

static ckpt_code digest_alone(const ckpt_checkpoint *checkpoint, const check_options *options,
                              check_result *out, ckpt_digest **digest, ckpt_error *err)
{
    ckpt_run_options copy = options->copy;

    if (out->manifest_path != NULL)
        copy.fixed_bytes += catalog_bytes(out->manifest.catalog);
    return ckpt_digest_source(ckpt_logical(checkpoint), &copy, digest, err);
}

/* Digest the checkpoint and compare it with the root that it holds, and with the manifest, if one
 * was found. */
static ckpt_code check_digests(const ckpt_checkpoint *checkpoint, const check_options *options,
                                check_result *out, ckpt_error *err)
{
    const ckpt_catalog *catalog = ckpt_source_catalog(ckpt_logical(checkpoint));
    ckpt_digest *digest = NULL;
    ckpt_code code;

    if ((code = store_keep_copies(options->store, out->tensor_count, err)) != CKPT_OK)
        return code;
    if (!options->values)
        code = digest_alone(checkpoint, options, out, &digest, err);
    else if ((digest = digest_create(catalog)) == NULL)
        code = ckpt_fail_memory(err, "digests", out->tensor_count);
    else
        code = read_values(checkpoint, options, digest, out, err);
    if (code == CKPT_OK && (code = check_roots(checkpoint, digest, out, err)) == CKPT_OK &&
        out->manifest_path != NULL)
        code = check_values(digest, catalog, options, out, err);
    if (code == CKPT_OK)
        find_copies(options->store, catalog, options, out);
    ckpt_digest_free(digest);
    return code;
}

/* The same weights with a different config are a different model. */
static ckpt_code check_config(const check_options *options, check_result *out, ckpt_error *err)
{
    if (out->manifest.config.count > 0 && options->config == NULL &&
        (options->has_place_for_config || options->manifest == NULL)) {
        add_difference(out, CHECK_CONFIG, "config.json");
        out->config_is_gone = 1;
        return CKPT_OK;
    }
    if (out->manifest.has_config)
        return config_verdict_make_recorded(&out->manifest.config, options->config,
                                            options->main_only, &out->config, err);
    out->config.note = "config.json was not compared: the manifest has no record of it";
    return CKPT_OK;
}

/* The same weights with a different tokenizer are a different model, too. */
static ckpt_code check_companions(const ckpt_checkpoint *checkpoint, const check_options *options,
                                  check_result *out, ckpt_error *err)
{
    ckpt_code code;

    if (!options->has_place_for_config) {
        if (checkpoint_tokenizer_of(checkpoint) == TOKENIZER_IN_WEIGHTS)
            out->companion_note = "the tokenizer was not compared: it is in the weight files, and "
                "a manifest records files beside them";
        return CKPT_OK;
    }
    code = certificate_read_companions(checkpoint_folder(checkpoint), &out->files, err);
    if (code != CKPT_OK)
        return code;
    if (out->manifest.has_companions)
        return companions_compare(&out->manifest.companions, &out->files, &out->companions, err);
    if (out->files.file_count > 0)
        out->companion_note = "tokenizer, chat template and prompt encoding were not compared: the "
            "manifest has no record of them";
    return CKPT_OK;
}

static void find_damaged(const ckpt_store *store, check_result *out)
{
    for (size_t i = 0; i < out->sums.wrong_count; i++) {
        const store_sum *sum = &store->sums[out->sums.wrong[i].sum];
        check_difference *d = &out->differing[out->differing_count];

        add_difference(out, CHECK_CHECKSUM, ckpt_catalog_at(store->catalog, sum->piece)->name);
        d->file = store->files[sum->file].name;
        snprintf(d->expected, sizeof d->expected, "%08x", sum->crc);
        snprintf(d->got, sizeof d->got, "%08x", out->sums.wrong[i].got);
    }
}

ckpt_code check_checkpoint(const ckpt_checkpoint *checkpoint, const check_options *options,
                           check_result *out, ckpt_error *err)
{
    size_t most;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    count_stored(checkpoint, out);
    out->files_are_right = options->files_are_right;
    if ((code = read_manifest(checkpoint, options, out, err)) != CKPT_OK ||
        (code = sums_check(options->store, &options->copy, &out->sums, err)) != CKPT_OK)
        goto out;
    most = 2 + 2 * out->tensor_count + out->sums.wrong_count +
           (options->unread == NULL ? 0 : options->unread->count);
    if (out->manifest_path != NULL)
        most += ckpt_catalog_count(out->manifest.catalog);
    if ((out->differing = calloc(most + 1, sizeof *out->differing)) == NULL) {
        code = ckpt_fail_memory(err, "a list of differences", most);
        goto out;
    }
    find_unlisted(options->unread, out);
    find_damaged(options->store, out);
    if (out->manifest_path != NULL || is_checked_by_itself(checkpoint, options))
        code = check_digests(checkpoint, options, out, err);
    else if (options->values)
        code = read_values(checkpoint, options, NULL, out, err);
    if (code == CKPT_OK && out->manifest_path != NULL && !options->weights_only &&
        (code = check_config(options, out, err)) == CKPT_OK)
        code = check_companions(checkpoint, options, out, err);
    if (code == CKPT_OK)
        code = checkpoint_check_unchanged(checkpoint, err);
    qsort(out->differing, out->differing_count, sizeof *out->differing, compare_differences);
out:
    if (code != CKPT_OK)
        check_release(out);
    return code;
}

void check_release(check_result *result)
{
    sums_release(&result->sums);
    config_verdict_release(&result->config);
    companions_release(&result->companions);
    certificate_checkpoint_release(&result->files);
    manifest_release(&result->manifest);
    value_findings_release(&result->values);
    free(result->manifest_path);
    free(result->differing);
    memset(result, 0, sizeof *result);
}

int check_is_same(const check_result *result)
{
    return result->differing_count == 0 && result->config.comparison.count == 0 &&
           companions_changed(&result->companions) == 0 && result->values.fault_count == 0;
}

/* ---- JSON ---- */

static void put_difference(json_writer *w, const check_difference *d)
{
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", d->name);
    json_member_string(&line, "kind", check_kind_name(d->kind));
    if (d->file != NULL)
        json_member_string(&line, "file", d->file);
    if (d->expected[0] != '\0') {
        json_member_string(&line, "expected", d->expected);
        json_member_string(&line, "got", d->got);
    }
    json_put_object_end(&line);
    json_line_end(&line, w);
}

void check_put(json_writer *w, const check_result *r, const file_list *notes)
{
    const int has_manifest = r->manifest_path != NULL;
    const int has_root = r->root[0] != '\0';

    json_put_object(w);
    json_member_string(w, "checked", has_manifest || r->stored_root != NULL ? "values"
                                     : r->files_are_right ? "files"
                                     : r->has_values      ? "values alone"
                                                          : "structure");
    json_put_key(w, "same");
    if (has_manifest || r->stored_root != NULL || r->files_are_right || !check_is_same(r))
        json_put_bool(w, check_is_same(r));
    else
        json_put_null(w);
    json_member_string(w, "manifest", r->manifest_path);
    json_member_string(w, "root", has_root ? r->root : NULL);
    json_member_string(w, "main", has_root ? r->main_root : NULL);
    json_member_string(w, "expected_root", has_manifest ? r->manifest.root : NULL);
    json_member_string(w, "expected_main", has_manifest ? r->manifest.main_root : NULL);
    json_member_string(w, "stored_root", r->stored_root);
    json_member_string(w, "family", r->family);
    json_member_string(w, "layout", r->layout);
    json_member_u64(w, "tensor_count", r->tensor_count);
    json_member_u64(w, "stored_tensor_count", r->stored_count);
    json_member_u64(w, "stored_bytes", r->stored_bytes);
    json_member_u64(w, "file_count", r->file_count);
    json_member_u64(w, "checksums", r->sums.checked_count);
    json_member_u64(w, "without_checksum", r->sums.absent_count);
    json_member_names(w, "notes", (const char *const *)notes->names, notes->count);
    config_verdict_put(w, &r->config, "expected", "got");
    json_put_key(w, "companions");
    companions_put(w, &r->companions);
    json_member_array(w, "differing");
    for (size_t i = 0; i < r->differing_count; i++)
        put_difference(w, &r->differing[i]);
    json_put_array_end(w);
    if (r->has_values)
        value_findings_put(w, &r->values);
    json_put_object_end(w);
}
