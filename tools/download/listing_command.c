/* listing_command.c: compares files with a hub's listing and prints the result as text or JSON. */
#include "listing_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/safetensors.h"
#include "libckpt/json.h"
#include "libckpt/machine.h"
#include "libckpt/text.h"
#include "listing.h"

typedef struct {
    const char *path;
    const kept_listing *listing;
    const listing_result *results;
    size_t wrong_count;
} listing_report;

static void expected_text(const hub_file *file, listing_verdict verdict, char out[65])
{
    if (verdict == LISTING_SIZE)
        snprintf(out, 65, "%" PRIu64, file->size_bytes);
    else
        snprintf(out, 65, "%.64s", file->hash);
}

static void put_json(const listing_report *r)
{
    const kept_listing *listing = r->listing;
    json_writer w;

    cli_json_begin(&w, "ckpt-check-files/1");
    json_put_object(&w);
    json_member_string(&w, "checked", "files");
    json_member_bool(&w, "same", r->wrong_count == 0);
    json_member_string(&w, "hub", listing->hub);
    json_member_string(&w, "repo", listing->repo);
    json_member_string(&w, "revision", listing->revision);
    json_member_string(&w, "commit",
                       listing->files.commit[0] == '\0' ? NULL : listing->files.commit);
    json_member_array(&w, "differing");
    for (size_t i = 0; i < listing->files.count; i++) {
        const listing_verdict verdict = r->results[i].verdict;
        char expected[65];

        if (verdict == LISTING_RIGHT)
            continue;
        expected_text(&listing->files.files[i], verdict, expected);
        json_put_object(&w);
        json_member_string(&w, "kind", listing_verdict_name(verdict));
        json_member_string(&w, "name", listing->files.files[i].path);
        json_member_string(&w, "expected", expected);
        json_member_string(&w, "got", verdict == LISTING_MISSING ? NULL : r->results[i].got);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_text(const listing_report *r)
{
    const kept_listing *listing = r->listing;

    printf("%s: files are %s '%s' listed them (%s, %s)\n", r->path,
           r->wrong_count == 0 ? "as" : "NOT as", listing->hub, listing->repo,
           listing->files.commit[0] == '\0' ? listing->revision : listing->files.commit);
    for (size_t i = 0; i < listing->files.count; i++) {
        const listing_verdict verdict = r->results[i].verdict;
        char expected[65];

        if (verdict == LISTING_RIGHT)
            continue;
        expected_text(&listing->files.files[i], verdict, expected);
        printf("%-7s  %s", listing_verdict_name(verdict), listing->files.files[i].path);
        if (verdict != LISTING_MISSING)
            printf("  expected %s, got %s", expected, r->results[i].got);
        putchar('\n');
    }
}

static int has_tensors(const hub_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        if (listing->files[i].is_selected &&
            text_ends_with(listing->files[i].path, SAFETENSORS_SUFFIX))
            return 1;
    return 0;
}

/* At least one file was hashed, so the verdict means something. */
static ckpt_code check_selected(const kept_listing *kept, const char *path, ckpt_error *err)
{
    for (size_t i = 0; i < kept->files.count; i++)
        if (kept->files.files[i].is_selected)
            return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "nothing to check: '%s' lists no files for '%s'",
                     kept->path, path);
}

ckpt_code listing_command(const char *path, const char *manifest, const cli_common *common,
                          listing_outcome *out, ckpt_error *err)
{
    char *kept = NULL;
    const unsigned thread_count = common->thread_count != 0
                                      ? (unsigned)common->thread_count
                                      : machine_cores();
    kept_listing listing = { 0 };
    listing_result *results = NULL;
    listing_report report = { path, &listing, NULL, 0 };
    ckpt_code code;

    out->is_right = out->is_final = 0;
    if ((code = listing_find(path, &kept, err)) != CKPT_OK || kept == NULL)
        return code;
    if ((code = listing_read(kept, &listing, err)) == CKPT_OK &&
        (code = check_selected(&listing, path, err)) == CKPT_OK &&
        (code = listing_check(&listing, path, thread_count, &results, err)) == CKPT_OK) {
        report.results = results;
        for (size_t i = 0; i < listing.files.count; i++)
            report.wrong_count += results[i].verdict != LISTING_RIGHT;
        out->is_right = report.wrong_count == 0;
        out->is_final = !out->is_right ||
                        (manifest == NULL && !has_tensors(&listing.files));
        if (common->json && out->is_final)
            put_json(&report);
        else if (!common->json)
            print_text(&report);
    }
    free(results);
    listing_release(&listing);
    free(kept);
    return code;
}
