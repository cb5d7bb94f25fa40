/* Makes faults and runs the checks on them. */
#include "self_test.h"

#include <stdlib.h>
#include <string.h>

#include "certificate_judge.h"
#include "certificate_values.h"
#include "compare.h"
#include "libckpt/pick.h"

enum { REFERENCE, CANDIDATE, SIDES };

static const char refused[] = "values";

/* State of testing one mutation. */
typedef struct {
    const self_test_options *options;
    const certificate_checkpoint *reference;
    const mutation *made;
    certificate trial;             /* its checkpoints are `sides`, partly borrowed */
    certificate_checkpoint sides[SIDES];
    ckpt_digest *digest;           /* of the candidate, if its tensors are changed */
    config_meaning config;
    certificate_file *files;
    value_findings findings;
    int is_refused;                /* its values could not be read: also found */
} trial;

/* ---- the candidate's record ---- */

/* Copy the digests of untouched tensors. */
static void keep_digests(trial *t)
{
    const ckpt_catalog *catalog = ckpt_source_catalog(t->made->source);

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const int64_t was = ckpt_catalog_find(t->reference->tensors,
                                              ckpt_catalog_at(catalog, i)->name);

        if (!t->made->touched[i] && was != CKPT_NOT_FOUND)
            digest_set(t->digest, i, digest_get(t->reference->digest, (size_t)was));
    }
}

/* Compute digests and findings of touched tensors in one pass. */
static ckpt_code read_touched(trial *t, ckpt_error *err)
{
    const value_check_options how = { .official = t->options->official, .run = t->options->run,
                                      .config = t->options->config_root,
                                      .wanted = t->made->touched };
    ckpt_source *tapped = NULL;
    value_check check = { .catalog = NULL };
    ckpt_code code = source_digest_tap(t->made->source, t->digest, &tapped, err);

    if (code == CKPT_OK)
        code = value_check_source(tapped, &how, &check, &t->findings, err);
    value_check_release(&check);
    ckpt_source_free(tapped);
    return code;
}

static ckpt_code take_tensors(trial *t, ckpt_error *err)
{
    certificate_checkpoint *c = &t->sides[CANDIDATE];
    ckpt_code code;

    c->tensors = ckpt_source_catalog(t->made->source);
    if ((t->digest = digest_create(c->tensors)) == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(c->tensors));
    c->digest = t->digest;
    keep_digests(t);
    code = read_touched(t, err);
    if (code == CKPT_E_FORMAT) {
        t->is_refused = 1;
        return CKPT_OK;
    }
    if (code != CKPT_OK || (code = ckpt_digest_root(t->digest, 0, c->root, err)) != CKPT_OK)
        return code;
    return ckpt_digest_root(t->digest, 1, c->main_root, err);
}

static ckpt_code take_config(trial *t, ckpt_error *err)
{
    json_document *config = NULL;
    ckpt_code code = json_parse(t->made->config, strlen(t->made->config), "config.json", &config,
                                err);

    if (code == CKPT_OK)
        code = config_meaning_read(json_root(config), &t->config, err);
    json_free(config);
    t->sides[CANDIDATE].config = t->config;
    return code;
}

static ckpt_code hash_bytes(const mutation_file *file, char out[SHA256_HEX], ckpt_error *err)
{
    sha256 *hash = NULL;
    ckpt_code code = sha256_begin(&hash, err);

    if (code != CKPT_OK)
        return code;
    if ((code = sha256_add(hash, file->bytes, file->size, err)) == CKPT_OK)
        return sha256_end(hash, out, err);
    sha256_abort(hash);
    return code;
}

/* Give the candidate its own list of files, with one file changed or removed. */
static ckpt_code take_file(trial *t, const mutation_file *file, ckpt_error *err)
{
    certificate_checkpoint *c = &t->sides[CANDIDATE];
    size_t i = 0;

    while (i < c->file_count && strcmp(t->files[i].name, file->name) != 0)
        i++;
    if (i == c->file_count)
        return CKPT_OK;
    if (file->bytes != NULL) {
        t->files[i].size_bytes = file->size;
        return hash_bytes(file, t->files[i].sha256, err);
    }
    if (t->files[i].role == CERTIFICATE_CONFIG) {
        c->has_config = 0;
        c->config = (config_meaning){ NULL, 0 };
    }
    memmove(&t->files[i], &t->files[i + 1], (c->file_count - i - 1) * sizeof *t->files);
    c->file_count--;
    return CKPT_OK;
}

static ckpt_code take_files(trial *t, ckpt_error *err)
{
    certificate_checkpoint *c = &t->sides[CANDIDATE];
    ckpt_code code = CKPT_OK;

    if ((t->files = calloc(c->file_count + 1, sizeof *t->files)) == NULL)
        return ckpt_fail_memory(err, "files", c->file_count);
    if (c->file_count > 0)
        memcpy(t->files, c->files, c->file_count * sizeof *t->files);
    c->files = t->files;
    for (size_t i = 0; i < t->made->file_count && code == CKPT_OK; i++)
        code = take_file(t, &t->made->files[i], err);
    return code;
}

static ckpt_code make_candidate(trial *t, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    t->sides[REFERENCE] = *t->reference;
    t->sides[CANDIDATE] = *t->reference;
    t->sides[CANDIDATE].folder = NULL;     /* its files differ from those on the disk */
    t->trial.checkpoints = t->sides;
    t->trial.checkpoint_count = SIDES;
    if (t->made->source != NULL)
        code = take_tensors(t, err);
    if (code == CKPT_OK && t->made->config != NULL)
        code = take_config(t, err);
    if (code == CKPT_OK && t->made->file_count > 0)
        code = take_files(t, err);
    return code;
}

/* ---- the verdict ---- */

/* The check that failed, or NULL. */
static const char *failed_check(const certificate *c)
{
    for (size_t i = 0; i < c->check_count; i++)
        if (c->checks[i].checkpoint == CANDIDATE && c->checks[i].verdict == CERTIFICATE_FAIL)
            return c->checks[i].name;
    return NULL;
}

static int is_named(const certificate *c, const char *tensor)
{
    for (size_t i = 0; i < c->finding_count; i++)
        if (c->findings[i].fails && strcmp(c->findings[i].subject, tensor) == 0)
            return 1;
    return 0;
}

/* A fault in a tensor is found if a finding names the tensor; with is_each, every one of them. */
static int is_told(const trial *t)
{
    const ckpt_catalog *catalog = t->sides[CANDIDATE].tensors;
    size_t touched = 0;
    size_t named = 0;

    if (t->made->source == NULL)
        return 1;
    if (t->made->dropped != NULL)
        return is_named(&t->trial, t->made->dropped);
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        touched += t->made->touched[i];
        named += t->made->touched[i] && is_named(&t->trial, ckpt_catalog_at(catalog, i)->name);
    }
    return t->made->is_each ? touched == named : named > 0;
}

static ckpt_code judge(trial *t, certificate_mutation *out, ckpt_error *err)
{
    const char *by = refused;
    ckpt_code code;

    if (!t->is_refused) {
        if ((code = certificate_judge(&t->trial, CANDIDATE, t->options->policy, err)) != CKPT_OK ||
            (t->made->source != NULL &&
             (code = certificate_judge_findings(&t->trial, CANDIDATE, &t->findings,
                                                t->options->policy, err)) != CKPT_OK))
            return code;
        by = failed_check(&t->trial);
    }
    out->is_caught = by != NULL && (t->is_refused || is_told(t));
    out->by = out->is_caught ? by : NULL;      /* names of checks are literals */
    return CKPT_OK;
}

/* A mutation may change nothing, e.g. if it exchanges equal values. This compares the values,
 * because digests that missed a fault cannot prove that there is none. */
static ckpt_code is_without_effect(const trial *t, int *out, ckpt_error *err)
{
    const ckpt_catalog *now = ckpt_source_catalog(t->made->source);
    const ckpt_catalog *was = ckpt_source_catalog(t->options->source);
    const compare_options how = { .asked = { .run = t->options->run } };
    pick_entry *entries = calloc(2 * ckpt_catalog_count(now) + 1, sizeof *entries);
    ckpt_source *sides[SIDES] = { NULL, NULL };
    ckpt_comparison *result = calloc(1, sizeof *result);
    ckpt_code code = CKPT_OK;
    size_t count = 0;

    *out = ckpt_catalog_count(now) == ckpt_catalog_count(was);
    if (entries == NULL || result == NULL)
        code = ckpt_fail_memory(err, "a comparison", ckpt_catalog_count(now));
    for (size_t i = 0; *out && code == CKPT_OK && i < ckpt_catalog_count(now); i++) {
        const int64_t k = ckpt_catalog_find(was, ckpt_catalog_at(now, i)->name);

        *out = k != CKPT_NOT_FOUND;
        if (!*out || !t->made->touched[i])
            continue;
        entries[count] = (pick_entry){ t->options->source, (size_t)k };
        entries[ckpt_catalog_count(now) + count++] = (pick_entry){ t->made->source, i };
    }
    if (code == CKPT_OK && *out &&
        (code = source_pick(entries, count, &sides[REFERENCE], err)) == CKPT_OK &&
        (code = source_pick(entries + ckpt_catalog_count(now), count, &sides[CANDIDATE], err)) ==
            CKPT_OK &&
        (code = compare_sources(sides[REFERENCE], sides[CANDIDATE], &how, result, err)) == CKPT_OK)
        *out = result->differing_count == 0;
    ckpt_comparison_free(result);
    ckpt_source_free(sides[REFERENCE]);
    ckpt_source_free(sides[CANDIDATE]);
    free(entries);
    return code;
}

static void release(trial *t)
{
    t->trial.checkpoints = NULL;           /* borrowed */
    t->trial.checkpoint_count = 0;
    certificate_release(&t->trial);
    value_findings_release(&t->findings);
    config_meaning_release(&t->config);
    ckpt_digest_free(t->digest);
    free(t->files);
}

static ckpt_code try_mutation(const certificate *c, const self_test_options *options,
                              const mutation *made, certificate_mutation *out, ckpt_error *err)
{
    trial t = { .options = options, .reference = &c->checkpoints[0], .made = made };
    ckpt_code code = make_candidate(&t, err);
    int is_nothing = 0;

    if (code == CKPT_OK)
        code = judge(&t, out, err);
    if (code == CKPT_OK && !out->is_caught && made->source != NULL)
        code = is_without_effect(&t, &is_nothing, err);
    out->is_applicable = !is_nothing;
    release(&t);
    return code;
}

ckpt_code self_test(certificate *c, const self_test_options *options, ckpt_error *err)
{
    const mutation_input input = { .source = options->source, .config = options->config,
                                   .digest = c->checkpoints[0].digest,
                                   .folder = c->checkpoints[0].folder,
                                   .has_place_for_config =
                                       c->checkpoints[0].has_place_for_config };
    ckpt_code code = CKPT_OK;

    if (input.digest == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' cannot be tested: its values were not read",
                         c->checkpoints[0].path);
    for (size_t i = 0; i < mutation_count() && code == CKPT_OK; i++) {
        certificate_mutation result = { .name = mutation_name(i) };
        mutation made = { .name = NULL };

        if (options->wanted != NULL && !options->wanted[i])
            continue;
        if ((code = mutation_make(i, &input, &made, err)) == CKPT_OK && made.reason == NULL)
            code = try_mutation(c, options, &made, &result, err);
        if (code == CKPT_OK && (code = certificate_add_mutation(c, &result, err)) == CKPT_OK &&
            options->report != NULL)
            options->report(options->context, &made, &result);
        mutation_release(&made);
    }
    return code;
}

size_t self_test_applicable(const certificate *c)
{
    size_t count = 0;

    for (size_t i = 0; i < c->mutation_count; i++)
        count += (size_t)c->mutations[i].is_applicable;
    return count;
}

size_t self_test_missed(const certificate *c)
{
    size_t count = 0;

    for (size_t i = 0; i < c->mutation_count; i++)
        count += c->mutations[i].is_applicable && !c->mutations[i].is_caught;
    return count;
}
