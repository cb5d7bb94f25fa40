/* ckpt-verify certify: checks a release against its reference and writes a certificate. */
#include "certify_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "certify_deltas.h"
#include "certify_places.h"
#include "certify_plan.h"
#include "formats/format.h"
#include "inspect_loader.h"
#include "libckpt/packed.h"
#include "libckpt/signature.h"
#include "libckpt/text.h"
#include "open_options.h"
#include "tools/download/listing.h"
#include "verify/certificate_judge.h"
#include "verify/certificate_put.h"
#include "verify/certificate_read.h"
#include "verify/certificate_values.h"
#include "verify/certificate_write.h"
#include "verify/html_report.h"
#include "verify/self_test.h"

static struct {
    cli_common common;
    ckpt_open_options open;
    const char *out;
    const char *key;
    const char *policy;
    const char *html;
    const char *junit;
    const char *summary;
    const char *sums;
    const char *integrity;
    const char *cyclonedx;
    cli_list deltas;
    cli_list required;
    cli_list logits;
    int structure_only;
    int self_test;
} opt = { .common = CLI_COMMON_DEFAULTS };

static const cli_option options[] = {
    { CLI_STRING, "out", "FILE", &opt.out, "the certificate to write" },
    { CLI_STRING, "sign", "KEY", &opt.key,
      "sign it with this private key: PEM, Ed25519 or EC on P-256" },
    { CLI_LIST, "delta", "DELTA", &opt.deltas,
      "also certify this delta on REF, or a folder of them: its files, and the values that it "
      "leads from and to; may be repeated, each follows the one before it" },
    { CLI_HEADING, NULL, NULL, NULL, "What must hold" },
    { CLI_STRING, "policy", "FILE", &opt.policy, "other gates than the default ones; see "
      "ckpt-certificate(5)" },
    { CLI_LIST, "require", "WHAT", &opt.required,
      "what must be there: config, generation_config, tokenizer, template, encoding, mtp, values, "
      "candidate, origin or logits; may be repeated" },
    { CLI_LIST, "logits", "FILE", &opt.logits,
      "outputs of ckpt-run: of REF, then of the candidates in their order; may be repeated" },
    { CLI_FLAG, "structure-only", NULL, &opt.structure_only,
      "headers, names, configs and small files, but no values and no hashes of weights" },
    { CLI_FLAG, "self-test", NULL, &opt.self_test,
      "make faults in REF, as its bytes are read, and see that the checks find each of them" },
    { CLI_HEADING, NULL, NULL, NULL, "Also write" },
    { CLI_STRING, "html", "FILE", &opt.html,
      "a page for people: verdict, checks, layers and kinds, codes and scales" },
    { CLI_STRING, "junit", "FILE", &opt.junit, "the checks as JUnit XML" },
    { CLI_STRING, "summary", "FILE", &opt.summary,
      "the checks as Markdown, for the page of a job" },
    { CLI_STRING, "sha256sums", "FILE", &opt.sums,
      "the files of the last checkpoint, for sha256sum -c" },
    { CLI_STRING, "integrity", "FILE", &opt.integrity,
      "integrity.json, as Megatron-LM verifies it, of the first torch_dist" },
    { CLI_STRING, "cyclonedx", "FILE", &opt.cyclonedx, "a CycloneDX document" },
    CLI_OPEN_OPTIONS(opt.open),
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END
};

static const cli_rule rules[] = {
    { "structure-only", NULL, "sha256sums|integrity|self-test|delta" },
    { NULL, NULL, NULL }
};

static const cli_words words[] = { { "require", policy_requirement_at }, { NULL, NULL } };

const cli_command certify_command = {
    .name = "certify",
    .summary = "check a release, and write a certificate of it",
    .usage = "[OPTIONS] --out FILE REF [CANDIDATE...]",
    .description =
        "Reads every file once: its SHA-256, and the value digest of the tensors in it. Every "
        "candidate, in any layout and encoding, must hold the values of REF, a config.json that "
        "means the same for the forward pass, and, where both have them, the same tokenizer, chat "
        "template and prompt encoding. A layout that carries no MTP may lack mtp.*. What is "
        "missing is noted; --require makes it fail. Files of a folder that ckpt-download made "
        "must be those that the hub listed. The values of every checkpoint are also judged by "
        "themselves, as `check --values` does: NaN, infinities, scales that nobody can use and "
        "ids of experts that do not exist fail, the rest is told, unless the policy says "
        "otherwise.\n"
        "\n"
        "A delta of --delta must lead from REF, or what the one before it makes, to the values "
        "that it says; REF is read once more for each. The certificate then has the SHA-256 of "
        "its files and both value digests; the delta, and what it makes, are checked against it "
        "as any copy is.\n"
        "\n"
        "The certificate is an in-toto Statement (ckpt-certificate(5)); with --sign in a DSSE "
        "envelope. Digests of tensors that take more than 1 MB are left beside it, in "
        "FILE.tensors.json.zst. SOURCE_DATE_EPOCH replaces the date. `ckpt-verify certificate` "
        "checks any copy of the weights against it.",
    .exit_notes = "0  all checks passed\n1  a check failed; the certificate says which\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-verify certify --out cert.json --sign key.pem DeepSeek-V4-Flash Flash-FP8\n"
                "ckpt-verify certify --out cert.json --require tokenizer --junit c.xml Flash",
    .options = options,
    .rules = rules,
    .words = words,
    .arg_min = 1,
    .arg_max = 64,
};

/* State of one run. */
typedef struct {
    char *const *paths;
    size_t count;
    char **inputs;                 /* the paths, then those of the deltas; borrowed ones */
    ckpt_checkpoint **checkpoints;
    certificate c;
    certificate_policy policy;
    signature_key *key;
    value_check *values;           /* by checkpoint */
    value_findings *findings;
    logits_comparison *logits;     /* by candidate, with --logits */
} certifying;

/* ---- requests ---- */

/* The time in SOURCE_DATE_EPOCH (reproducible-builds.org), else now. */
static ckpt_code find_date(int64_t *out, ckpt_error *err)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    uint64_t seconds;

    *out = (int64_t)time(NULL);
    if (text == NULL)
        return CKPT_OK;
    if (!cli_parse_u64(text, &seconds) || seconds > UINT32_MAX * (uint64_t)64)
        return ckpt_fail(err, CKPT_E_USAGE, "SOURCE_DATE_EPOCH '%s': expected seconds since 1970",
                         text);
    *out = (int64_t)seconds;
    return CKPT_OK;
}

static certify_places places_of(const certifying *job)
{
    return (certify_places){
        .outputs = { [PLACE_CERTIFICATE] = opt.out, [PLACE_HTML] = opt.html,
                     [PLACE_JUNIT] = opt.junit, [PLACE_SUMMARY] = opt.summary,
                     [PLACE_SUMS] = opt.sums, [PLACE_INTEGRITY] = opt.integrity,
                     [PLACE_CYCLONEDX] = opt.cyclonedx },
        .models = job->inputs, .model_count = job->count + opt.deltas.count,
        .policy = opt.policy, .key = opt.key, .map = opt.open.map_file,
        .logits = &opt.logits,
    };
}

static ckpt_code check_places(const certifying *job, ckpt_error *err)
{
    const certify_places places = places_of(job);

    if (opt.out == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "certify needs --out FILE");
    return certify_places_check(&places, err);
}

/* Options go into the certificate: a release that was read with --lenient proves less. */
static ckpt_code take_options(certificate_options *out, ckpt_error *err)
{
    *out = (certificate_options){ .structure_only = opt.structure_only,
                                  .lenient = opt.open.lenient,
                                  .u8_scales = opt.open.u8_scales,
                                  .keep_copies = opt.open.keep_copies,
                                  .required = opt.required.items,
                                  .required_count = opt.required.count };
    return opt.open.map_file == NULL ? CKPT_OK
                                     : sha256_file(opt.open.map_file, out->map_sha256, err);
}

static ckpt_code read_options(certifying *job, ckpt_error *err)
{
    ckpt_code code;

    policy_init(&job->policy);
    if ((code = check_places(job, err)) != CKPT_OK ||
        (code = find_date(&job->c.made_at, err)) != CKPT_OK ||
        (opt.policy != NULL &&
         (code = policy_read(opt.policy, &job->policy, err)) != CKPT_OK) ||
        (opt.key != NULL && (code = signature_read_private(opt.key, &job->key, err)) != CKPT_OK))
        return code;
    for (size_t i = 0; i < opt.required.count && code == CKPT_OK; i++)
        code = policy_require(&job->policy, opt.required.items[i], err);
    if (code == CKPT_OK && opt.logits.count != 0 && opt.logits.count != job->count)
        code = ckpt_fail(err, CKPT_E_USAGE, "--logits: expected one file for each of %zu "
                         "checkpoints, got %zu", job->count, opt.logits.count);
    if (code == CKPT_OK && opt.logits.count == 1)
        code = ckpt_fail(err, CKPT_E_USAGE, "--logits needs a candidate to compare with");
    if (code == CKPT_OK && opt.logits.count == 0 && policy_limits_logits(&job->policy))
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' limits logits: give --logits, without which its "
                         "limits cannot fail", opt.policy);
    if (code == CKPT_OK && job->policy.text != NULL &&
        (job->c.policy = strdup(job->policy.text)) == NULL)
        code = ckpt_fail_memory(err, "a policy", strlen(job->policy.text));
    return code == CKPT_OK ? take_options(&job->c.options, err) : code;
}

/* ---- facts ---- */

static ckpt_code take_origin(const kept_listing *listing, certificate_origin *out, ckpt_error *err)
{
    const struct { const char *text; char **out; } members[] = {
        { listing->hub, &out->hub }, { listing->repo, &out->repo },
        { listing->revision, &out->revision }, { listing->files.commit, &out->commit },
    };

    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const char *text = members[i].text;

        if (!text_copy(text == NULL || *text == '\0' ? NULL : text, members[i].out))
            return ckpt_fail_memory(err, "a hub's name", 64);
    }
    return CKPT_OK;
}

/* Compare a file with the hub's hash: SHA-256 for LFS files, Git's blob SHA-1 for small ones. */
static ckpt_code is_listed(const char *folder, const hub_file *listed,
                           const certificate_file *file, int *is_right, ckpt_error *err)
{
    char hash[SHA256_HEX];
    char *path;
    ckpt_code code;

    *is_right = listed->size_bytes == file->size_bytes;
    if (!*is_right || file->sha256[0] == '\0')
        return CKPT_OK;
    if (strlen(listed->hash) == SHA256_HEX - 1) {
        *is_right = strcmp(listed->hash, file->sha256) == 0;
        return CKPT_OK;
    }
    if ((path = file_join(folder, file->name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(file->name));
    if ((code = git_blob_file(path, hash, err)) == CKPT_OK)
        *is_right = strcmp(listed->hash, hash) == 0;
    free(path);
    return code;
}

static ckpt_code judge_listing(certifying *job, size_t i, const kept_listing *listing,
                               ckpt_error *err)
{
    const certificate_checkpoint *m = &job->c.checkpoints[i];
    certificate_check check = { .name = "files", .checkpoint = i };
    size_t wrong = 0;
    size_t right = 0;
    ckpt_code code = CKPT_OK;

    for (size_t k = 0; k < listing->files.count && code == CKPT_OK; k++) {
        const hub_file *listed = &listing->files.files[k];
        const certificate_file *file = certificate_find_file(m, listed->path);
        certificate_finding f = { .check = "files", .checkpoint = i, .subject = listed->path,
                                  .kind = "missing", .fails = 1 };
        int is_right = 0;

        if (file == NULL && (!listed->is_selected || strstr(listed->path, "/.") != NULL ||
                             listed->path[0] == '.'))
            continue;
        if (file != NULL) {
            f.kind = "changed";
            code = is_listed(m->path, listed, file, &is_right, err);
        }
        right += (size_t)is_right;
        wrong += (size_t)!is_right;
        if (code == CKPT_OK && !is_right)
            code = certificate_add_finding(&job->c, &f, err);
    }
    if (code != CKPT_OK)
        return code;
    check.verdict = wrong > 0 ? CERTIFICATE_FAIL : right > 0 ? CERTIFICATE_PASS
                                                             : CERTIFICATE_SKIPPED;
    return certificate_add_check(&job->c, &check, err, "as %s listed: %s, otherwise: %zu",
                                 listing->hub, text_count(right, "file", "files").text, wrong);
}

/* Compare the files with the hub's listing, if ckpt-download stored one in the folder. */
static ckpt_code judge_origin(certifying *job, size_t i, ckpt_error *err)
{
    certificate_checkpoint *m = &job->c.checkpoints[i];
    kept_listing listing;
    char *path = NULL;
    ckpt_code code;

    if (m->folder == NULL)
        return CKPT_OK;
    if ((code = listing_find(m->path, &path, err)) != CKPT_OK || path == NULL)
        return code;
    if ((code = listing_read(path, &listing, err)) == CKPT_OK &&
        (code = take_origin(&listing, &m->origin, err)) == CKPT_OK)
        code = judge_listing(job, i, &listing, err);
    listing_release(&listing);
    free(path);
    return code;
}

/* Checkpoints with the same label get a number appended. */
static ckpt_code make_label_unique(certificate *c, size_t i, ckpt_error *err)
{
    size_t number = 1;

    for (size_t k = 0; k < i; k++)
        number += strncmp(c->checkpoints[k].label, c->checkpoints[i].label,
                          strlen(c->checkpoints[i].label)) == 0;
    if (number > 1) {
        char *label = NULL;

        if (asprintf(&label, "%s-%zu", c->checkpoints[i].label, number) < 0)
            return ckpt_fail_memory(err, "a label", 64);
        free(c->checkpoints[i].label);
        c->checkpoints[i].label = label;
    }
    return CKPT_OK;
}

/* Set up value checks, which share the pass over the data with the digest. */
static ckpt_code begin_values(certifying *job, size_t i, certificate_read_options *read,
                              ckpt_error *err)
{
    const ckpt_checkpoint *c = job->checkpoints[i];
    const value_check_options how = { .official = c->official, .config = checkpoint_config(c),
                                      .totals = opt.html != NULL };
    ckpt_code code;

    if (opt.structure_only)
        return CKPT_OK;
    if ((code = value_check_begin(c->logical->catalog, &how, &job->values[i], err)) != CKPT_OK)
        return code;
    for (size_t k = 0; k <= i; k++)
        read->run.fixed_bytes += job->values[k].bytes;
    read->watch = &job->values[i].base;
    return CKPT_OK;
}

/* The files that this run writes; they may lie beside what is certified. NULL: not written. */
typedef struct {
    char *tensors;
    const char *paths[9];
    size_t count;
} written_files;

static void list_written(written_files *out)
{
    const char *const all[] = { opt.out, out->tensors = certificate_tensor_path(opt.out), opt.html,
                                opt.junit, opt.summary, opt.sums, opt.integrity, opt.cyclonedx };

    out->count = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL)
            out->paths[out->count++] = all[i];
}

static ckpt_code read_checkpoint(certifying *job, size_t i, const written_files *written,
                                 cli_meter *meter, ckpt_error *err)
{
    certificate_read_options read = { .run = cli_run_options(&opt.common, meter),
                                      .structure_only = opt.structure_only,
                                      .left_out = written->paths,
                                      .left_out_count = written->count };
    const ckpt_checkpoint *opened = job->checkpoints[i];
    certificate_checkpoint *m = certificate_add_checkpoint(&job->c, err);
    ckpt_code code;

    if (m == NULL)
        return CKPT_E_MEMORY;
    for (size_t k = 0; k < job->count; k++)
        read.run.fixed_bytes += k == i ? 0 : ckpt_checkpoint_bytes(job->checkpoints[k]);
    if ((code = begin_values(job, i, &read, err)) == CKPT_OK &&
        (code = certificate_read(job->checkpoints[i], &read, m, err)) == CKPT_OK &&
        read.watch != NULL)
        code = value_check_end(&job->values[i], &job->findings[i], err);
    if (code != CKPT_OK)
        return code;
    m->has_place_for_config = layout_has_config(m->layout);
    m->unlisted = opt.open.lenient ? NULL : &opened->unread;
    return make_label_unique(&job->c, i, err);
}

static certify_deltas_options deltas_of(const certifying *job, const certificate_read_options *read)
{
    return (certify_deltas_options){ job->inputs + job->count, opt.deltas.count, job->paths[0],
                                     &opt.open, read };
}

/* Read all checkpoints, then the deltas, which are applied to the first without writing. */
static ckpt_code read_all(certifying *job, cli_meter *meter, ckpt_error *err)
{
    written_files written;
    certificate_read_options read = { .run = cli_run_options(&opt.common, meter) };
    const certify_deltas_options deltas = deltas_of(job, &read);
    ckpt_code code = CKPT_OK;

    list_written(&written);
    for (size_t i = 0; i < job->count && code == CKPT_OK; i++)
        code = read_checkpoint(job, i, &written, meter, err);
    for (size_t i = 0; i < job->count; i++)
        read.run.fixed_bytes += ckpt_checkpoint_bytes(job->checkpoints[i]) + job->values[i].bytes;
    read.left_out = written.paths;
    read.left_out_count = written.count;
    if (code == CKPT_OK)
        code = certify_deltas(&deltas, &job->c, err);
    free(written.tensors);
    return code;
}

/* ---- checks ---- */

/* Before hours of work: files that cannot be compared are an error. */
static ckpt_code compare_logits(certifying *job, ckpt_error *err)
{
    const logits_input a = { opt.logits.count == 0 ? NULL : opt.logits.items[0], NULL };
    ckpt_code code = CKPT_OK;

    for (size_t i = 1; i < opt.logits.count && code == CKPT_OK; i++)
        code = logits_compare(&a, &(logits_input){ opt.logits.items[i], NULL }, &job->logits[i],
                              err);
    return code;
}

/* Self-test: every mutation that applies to the reference must make a check fail. */
static ckpt_code judge_self_test(certifying *job, ckpt_error *err)
{
    const ckpt_checkpoint *c = job->checkpoints[0];
    self_test_options how = { .source = c->logical, .config = c->config_text,
                              .config_root = checkpoint_config(c), .official = c->official,
                              .policy = &job->policy, .run = cli_run_options(&opt.common, NULL) };
    certificate_check check = { .name = "self_test" };
    ckpt_code code;

    if (!opt.self_test)
        return CKPT_OK;
    for (size_t i = 0; i < job->count; i++)
        how.run.fixed_bytes += ckpt_checkpoint_bytes(job->checkpoints[i]) + job->values[i].bytes;
    if ((code = self_test(&job->c, &how, err)) != CKPT_OK)
        return code;
    check.verdict = self_test_missed(&job->c) > 0         ? CERTIFICATE_FAIL
                    : self_test_applicable(&job->c) == 0 ? CERTIFICATE_SKIPPED
                                                         : CERTIFICATE_PASS;
    return certificate_add_check(&job->c, &check, err, "%zu of %zu faults made on purpose were "
                                 "found, %zu have no place in it",
                                 self_test_applicable(&job->c) - self_test_missed(&job->c),
                                 self_test_applicable(&job->c),
                                 job->c.mutation_count - self_test_applicable(&job->c));
}

/* A candidate may be encoded differently from the reference, so the encodings in its config.json
 * are compared with its own tensors. */
static ckpt_code judge_encodings(certifying *job, size_t i, ckpt_error *err)
{
    const certificate_checkpoint *m = &job->c.checkpoints[i];
    certificate_check check = { .name = "encodings", .checkpoint = i };
    loader_verdict verdict;
    ckpt_code code;

    if (!m->has_config || !m->has_place_for_config)
        return CKPT_OK;
    if ((code = inspect_judge_config(job->checkpoints[i], &verdict, err)) != CKPT_OK)
        return code;
    for (size_t k = 0; k < verdict.count && code == CKPT_OK; k++) {
        const certificate_finding f = { .check = "encodings", .checkpoint = i,
                                        .kind = verdict.findings[k].rule,
                                        .subject = "config.json",
                                        .text = verdict.findings[k].text,
                                        .fails = !verdict.findings[k].is_note };

        code = certificate_add_finding(&job->c, &f, err);
    }
    check.verdict = verdict.loads ? CERTIFICATE_PASS : CERTIFICATE_FAIL;
    return code != CKPT_OK ? code
                           : certificate_add_check(&job->c, &check, err, "config.json %s",
                                                   verdict.loads ? "fits the tensors"
                                                                 : "says other encodings than the "
                                                                   "tensors have");
}

static ckpt_code judge(certifying *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < job->count && code == CKPT_OK; i++) {
        if ((code = certificate_judge(&job->c, i, &job->policy, err)) == CKPT_OK &&
            (code = judge_encodings(job, i, err)) == CKPT_OK)
            code = judge_origin(job, i, err);
        if (code == CKPT_OK && !opt.structure_only)
            code = certificate_judge_findings(&job->c, i, &job->findings[i], &job->policy, err);
        if (code == CKPT_OK && i > 0 && opt.logits.count > 0)
            code = certificate_judge_logits(&job->c, i, &job->logits[i], &job->policy, err);
    }
    if (code == CKPT_OK && (code = judge_self_test(job, err)) == CKPT_OK)
        code = certificate_judge_required(&job->c, &job->policy, err);
    return code;
}

/* ---- the run ---- */

static ckpt_code write_html(const certifying *job, ckpt_error *err)
{
    const value_check **values = calloc(job->count + 1, sizeof *values);
    const logits_comparison **logits = calloc(job->count + 1, sizeof *logits);
    const html_report report = { .certificate = &job->c, .values = values, .logits = logits,
                                 .certificate_path = opt.out, .is_signed = job->key != NULL };
    ckpt_code code;

    if (values == NULL || logits == NULL) {
        code = ckpt_fail_memory(err, "a page", job->count);
    } else {
        for (size_t i = 0; i < job->count; i++) {
            values[i] = opt.structure_only ? NULL : &job->values[i];
            logits[i] = i > 0 && opt.logits.count > 0 ? &job->logits[i] : NULL;
        }
        code = html_report_write(opt.html, &report, err);
    }
    free(values);
    free(logits);
    return code;
}

static ckpt_code write_results(certifying *job, ckpt_error *err)
{
    const struct {
        const char *path;
        ckpt_code (*write)(const char *path, const certificate *c, ckpt_error *err);
    } others[] = {
        { opt.junit, certificate_write_junit },
        { opt.summary, certificate_write_summary },
        { opt.integrity, certificate_write_integrity },
        { opt.cyclonedx, certificate_write_cyclonedx },
    };
    ckpt_code code = CKPT_OK;

    if (opt.sums != NULL)
        code = certificate_write_sums(opt.sums, &job->c, job->count - 1, err);
    for (size_t i = 0; i < sizeof others / sizeof *others && code == CKPT_OK; i++)
        if (others[i].path != NULL)
            code = others[i].write(others[i].path, &job->c, err);
    if (code == CKPT_OK && opt.html != NULL)
        code = write_html(job, err);
    return code == CKPT_OK ? certificate_write(opt.out, &job->c, job->key, err) : code;
}

static void print_json(const certifying *job)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-certify/1");
    json_put_object(&w);
    json_member_bool(&w, "same", certificate_passes(&job->c));
    json_member_string(&w, "verdict", certificate_passes(&job->c) ? "pass" : "fail");
    json_member_string(&w, "root", job->c.checkpoints[0].root[0] == '\0'
                                       ? NULL : job->c.checkpoints[0].root);
    certificate_put_results(&w, &job->c);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_result(const certifying *job)
{
    if (opt.common.json) {
        print_json(job);
        return;
    }
    certificate_print(&job->c);
    printf("%s: %s%s%s\n", opt.out, certificate_passes(&job->c) ? "pass" : "FAIL",
           job->c.checkpoints[0].root[0] == '\0' ? ", values were not read" : ", root ",
           job->c.checkpoints[0].root);
}

static void say_written(const certifying *job)
{
    cli_written what = { .path = opt.out,
                         .root = job->c.checkpoints[0].root[0] == '\0'
                                     ? NULL : job->c.checkpoints[0].root };
    char detail[TEXT_COUNT_BYTES + 8];

    snprintf(detail, sizeof detail, "of %s,",
             text_count(job->count, "checkpoint", "checkpoints").text);
    what.detail = detail;
    for (size_t i = 0; i < job->count; i++) {
        what.tensor_count += job->c.checkpoints[i].stored_count;
        what.bytes += job->c.checkpoints[i].stored_bytes;
        what.note_count += job->c.checkpoints[i].notes->count;
    }
    fflush(stdout);                          /* the closing line is the last one */
    cli_say_written(&opt.common, &what);
}

/* 1 when a config has this member. *has_any: there is a config at all. */
static ckpt_code find_member(const certifying *job, const char *name, int *is_there, int *has_any,
                             ckpt_error *err)
{
    *is_there = 0;
    *has_any = 0;
    for (size_t i = 0; i < job->count; i++) {
        const json_value *config = checkpoint_config(job->checkpoints[i]);
        config_meaning meaning;
        ckpt_code code;

        if (config == NULL)
            continue;
        *has_any = 1;
        if ((code = config_meaning_read(config, &meaning, err)) != CKPT_OK) {
            config_meaning_release(&meaning);
            return code;
        }
        for (size_t m = 0; m < meaning.count; m++)
            *is_there |= strcmp(meaning.members[m].name, name) == 0;
        config_meaning_release(&meaning);
    }
    return CKPT_OK;
}

/* Before hours of work: an exception for a member that no config has is a misspelt one. */
static ckpt_code check_exceptions(const certifying *job, ckpt_error *err)
{
    const file_list *names = &job->policy.config_except;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < names->count && code == CKPT_OK; i++) {
        int is_there;
        int has_any;

        code = find_member(job, names->names[i], &is_there, &has_any, err);
        if (code == CKPT_OK && has_any && !is_there)
            code = ckpt_fail(err, CKPT_E_USAGE, "policy '%s': 'config_except' has '%s', a member "
                             "that no config.json has", opt.policy, names->names[i]);
    }
    return code;
}

/* The files in a packed one are no files to sha256sum. */
static ckpt_code check_sums(const certifying *job, ckpt_error *err)
{
    const char *path = job->paths[job->count - 1];

    return opt.sums != NULL && packed_detect(path)
               ? ckpt_fail(err, CKPT_E_USAGE, "--sha256sums: '%s' is a packed checkpoint, in which "
                           "sha256sum finds no files: unpack it first, or run sha256sum on it",
                           path)
               : CKPT_OK;
}

/* Of the files in a packed one there are no hashes. */
static ckpt_code check_integrity(const certifying *job, ckpt_error *err)
{
    if (opt.integrity == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < job->count; i++)
        if (!packed_detect(job->paths[i]) &&
            strcmp(ckpt_layout_name(job->checkpoints[i]), "torch_dist") == 0)
            return CKPT_OK;
    return certificate_fail_integrity(opt.integrity, err);
}

/* Open everything, and refuse what must fail later. */
static ckpt_code open_all(certifying *job, ckpt_error *err)
{
    const certificate_read_options read = { .run = cli_run_options(&opt.common, NULL) };
    const certify_deltas_options deltas = deltas_of(job, &read);
    ckpt_code code;

    if ((code = read_options(job, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < job->count && code == CKPT_OK; i++)
        code = ckpt_open(job->paths[i], &opt.open, &job->checkpoints[i], err);
    if (code != CKPT_OK || (code = check_sums(job, err)) != CKPT_OK ||
        (code = check_integrity(job, err)) != CKPT_OK ||
        (code = check_exceptions(job, err)) != CKPT_OK ||
        (code = certify_deltas_check(&deltas, err)) != CKPT_OK)
        return code;
    return compare_logits(job, err);
}

static void print_plan(const certifying *job)
{
    const certify_places places = places_of(job);
    const certify_plan plan = { job->checkpoints, job->count, &opt.deltas, opt.structure_only,
                                &places };

    certify_plan_print(&plan, &opt.common);
}

static ckpt_code run(certifying *job, cli_meter *meter, int *status, ckpt_error *err)
{
    ckpt_code code;

    if ((code = open_all(job, err)) != CKPT_OK)
        return code;
    if (opt.common.dry_run) {
        print_plan(job);
        *status = CLI_DONE;
        return CKPT_OK;
    }
    if ((code = read_all(job, meter, err)) != CKPT_OK)
        return code;
    cli_meter_end(meter);
    if ((code = judge(job, err)) != CKPT_OK || (code = write_results(job, err)) != CKPT_OK)
        return code;
    print_result(job);
    say_written(job);
    *status = certificate_passes(&job->c) ? CLI_DONE : CLI_DIFFERENT;
    return CKPT_OK;
}

static ckpt_code make_room(certifying *job, ckpt_error *err)
{
    job->checkpoints = calloc(job->count + 1, sizeof(ckpt_checkpoint *));
    job->inputs = calloc(job->count + opt.deltas.count + 1, sizeof *job->inputs);
    job->values = calloc(job->count + 1, sizeof *job->values);
    job->findings = calloc(job->count + 1, sizeof *job->findings);
    job->logits = calloc(job->count + 1, sizeof *job->logits);
    if (job->inputs == NULL || job->checkpoints == NULL || job->values == NULL ||
        job->findings == NULL || job->logits == NULL)
        return ckpt_fail_memory(err, "checkpoints", job->count);
    memcpy(job->inputs, job->paths, job->count * sizeof *job->inputs);
    memcpy(job->inputs + job->count, opt.deltas.items, opt.deltas.count * sizeof *job->inputs);
    return CKPT_OK;
}

static void release(certifying *job)
{
    certificate_release(&job->c);
    for (size_t i = 0; job->logits != NULL && i < job->count; i++) {
        value_findings_release(&job->findings[i]);
        value_check_release(&job->values[i]);
        logits_release(&job->logits[i]);
        ckpt_close(job->checkpoints[i]);
    }
    free(job->inputs);
    free(job->checkpoints);
    free(job->values);
    free(job->findings);
    free(job->logits);
    policy_release(&job->policy);
    signature_key_free(job->key);
}

ckpt_code certify_run(const cli_args *args, int *status, ckpt_error *err)
{
    certifying job = { .paths = args->items, .count = args->count };
    static cli_meter meter;      /* outlives this function: cli_fail erases its line */
    ckpt_code code = make_room(&job, err);

    if (code == CKPT_OK)
        code = run(&job, &meter, status, err);
    release(&job);
    return code;
}
