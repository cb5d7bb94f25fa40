/* Reads certificates and checks checkpoints against them. */
#include "certificate_check.h"

#include <stdlib.h>
#include <string.h>

#include "certificate_put.h"
#include "certificate_write.h"
#include "file_record.h"
#include "libckpt/text.h"

enum { CERTIFICATE_BYTES_MAX = 256 << 20 };

/* ---- reading ---- */

static ckpt_code bad(const char *path, const char *expected, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a certificate: expected %s", path, expected);
}

static ckpt_code read_document(const char *path, const signature_key *key,
                               certificate_document *out, ckpt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    json_document *document = NULL;
    ckpt_code code;

    if ((code = file_read_named(path, CERTIFICATE_BYTES_MAX, &text, &size, err)) == CKPT_OK)
        code = json_parse(text, size, path, &document, err);
    free(text);
    if (code != CKPT_OK)
        return code;
    out->is_signed = dsse_is_envelope(json_root(document));
    if (!out->is_signed) {
        out->document = document;
        return key == NULL ? CKPT_OK
                           : ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' is not signed: expected a "
                                       "signature by %s", path, signature_key_id(key));
    }
    out->envelope = document;
    if ((code = dsse_open(json_root(document), path, key, &out->content, err)) != CKPT_OK)
        return code;
    return json_parse(out->content.payload, out->content.payload_bytes, path, &out->document, err);
}

static int is_text(const json_value *value, const char *text)
{
    const char *string = json_string(value);

    return string != NULL && strcmp(string, text) == 0;
}

static ckpt_code read_predicate(const char *path, certificate_document *out, ckpt_error *err)
{
    const json_value *root = json_root(out->document);
    const json_value *predicate = json_member(root, "predicate");

    if (!is_text(json_member(root, "_type"), CERTIFICATE_STATEMENT_TYPE) ||
        !is_text(json_member(root, "predicateType"), CERTIFICATE_PREDICATE_TYPE))
        return bad(path, "an in-toto Statement of " CERTIFICATE_PREDICATE_TYPE, err);
    if (!is_text(json_member(predicate, "schema"), CERTIFICATE_SCHEMA))
        return bad(path, "schema " CERTIFICATE_SCHEMA, err);
    out->verdict = json_string(json_member(predicate, "verdict"));
    out->made_at = json_string(json_member(predicate, "made_at"));
    out->checkpoints = json_member(predicate, "checkpoints");
    out->count = json_count(out->checkpoints);
    if (out->verdict == NULL || out->made_at == NULL || !json_is_array(out->checkpoints) ||
        out->count == 0)
        return bad(path, "a verdict, a date and checkpoints", err);
    out->deltas = json_member(predicate, "deltas");
    out->delta_count = json_is_array(out->deltas) ? json_count(out->deltas) : 0;
    return CKPT_OK;
}

/* Read the manifest beside the certificate, if it exists and has the certified hash. */
static ckpt_code read_tensor_file(const char *path, const json_value *where,
                                  certificate_document *out, ckpt_error *err)
{
    const char *hash = json_string(json_member(where, "sha256"));
    char *beside = certificate_tensor_path(path);
    char got[SHA256_HEX];
    ckpt_code code = CKPT_OK;

    if (beside == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if (!file_exists(beside))
        out->note = "the file with the digests of tensors is not there: none can be named";
    else if (hash == NULL)
        code = bad(path, "the SHA-256 of its tensors", err);
    else if ((code = sha256_file(beside, got, err)) == CKPT_OK && strcmp(got, hash) != 0)
        code = ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' is not the file that was certified: expected "
                         "SHA-256 %.64s, got %s", beside, hash, got);
    else if (code == CKPT_OK)
        code = manifest_read(NULL, beside, &out->tensors, err);
    free(beside);
    return code;
}

static ckpt_code read_tensors(const char *path, certificate_document *out, ckpt_error *err)
{
    const json_value *tensors = json_member(json_member(json_root(out->document), "predicate"),
                                            "tensors");
    const json_value *reference = json_first(out->checkpoints);
    const char *root = json_string(json_member(reference, "root"));
    const char *main_root = json_string(json_member(reference, "main"));
    ckpt_code code;

    if (root == NULL || main_root == NULL) {
        out->note = "it was made with --structure-only: values are not recorded";
        return CKPT_OK;
    }
    if (json_is_object(tensors))
        code = read_tensor_file(path, tensors, out, err);
    else if (json_is_array(tensors))
        code = manifest_read_tensors(tensors, path, &out->tensors, err);
    else
        return bad(path, "the digests of tensors", err);
    if (code != CKPT_OK || out->tensors.digest == NULL)
        return code;
    if ((code = manifest_check_root(&out->tensors, 0, root, path, err)) != CKPT_OK)
        return code;
    return manifest_check_root(&out->tensors, 1, main_root, path, err);
}

ckpt_code certificate_open(const char *path, const signature_key *key, certificate_document *out,
                           ckpt_error *err)
{
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((code = read_document(path, key, out, err)) != CKPT_OK ||
        (code = read_predicate(path, out, err)) != CKPT_OK)
        return code;
    return read_tensors(path, out, err);
}

void certificate_close(certificate_document *document)
{
    manifest_release(&document->tensors);
    dsse_release(&document->content);
    json_free(document->document);
    json_free(document->envelope);
    memset(document, 0, sizeof *document);
}

/* ---- records ---- */

static const json_value *element(const json_value *list, size_t i)
{
    const json_value *v = json_first(list);

    for (size_t k = 0; k < i; k++)
        v = json_next(v);
    return v;
}

ckpt_code certificate_recorded(const certificate_document *document, size_t i,
                               certificate_checkpoint *out, ckpt_error *err)
{
    const json_value *v = i < document->count
                              ? element(document->checkpoints, i)
                              : json_member(element(document->deltas, i - document->count),
                                            "result");
    const json_value *config;
    const char *root;
    const char *main_root;
    const char *label;

    root = json_string(json_member(v, "root"));
    main_root = json_string(json_member(v, "main"));
    label = json_string(json_member(v, "label"));
    out->layout = json_string(json_member(v, "layout"));
    out->family = json_string(json_member(v, "family"));
    if (label == NULL || out->layout == NULL || out->family == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "a certificate's checkpoint needs label, layout and family");
    if ((out->label = strdup(label)) == NULL)
        return ckpt_fail_memory(err, "a label", strlen(label));
    out->path = out->label;
    snprintf(out->root, sizeof out->root, "%s", root == NULL ? "" : root);
    snprintf(out->main_root, sizeof out->main_root, "%s", main_root == NULL ? "" : main_root);
    out->tensors = i == 0 ? document->tensors.catalog : NULL;
    out->recorded_digest = i == 0 ? document->tensors.digest : NULL;
    config = json_member(v, "config");
    out->has_config = json_is_object(config);
    if (out->has_config) {
        const ckpt_code code = config_meaning_read_record(config, &out->config, err);

        if (code != CKPT_OK)
            return code;
    }
    return file_record_read(json_member(v, "files"), out->label, out, err);
}

/* ---- which record ---- */

static size_t count_same_files(const certificate_checkpoint *a, const certificate_checkpoint *b)
{
    size_t same = 0;

    for (size_t i = 0; i < a->file_count; i++) {
        const certificate_file *other = certificate_find_file(b, a->files[i].name);

        same += other != NULL && strcmp(other->sha256, a->files[i].sha256) == 0;
    }
    return same;
}

/* A score of how well a record fits the checkpoint. */
static size_t fitness(const certificate_checkpoint *record, const certificate_checkpoint *got,
                      int files)
{
    if (files)
        return count_same_files(record, got);
    if (record->root[0] != '\0' && strcmp(record->root, got->root) == 0)
        return 2;
    return record->main_root[0] != '\0' && strcmp(record->main_root, got->main_root) == 0;
}

static ckpt_code choose_record(const certificate_document *document,
                               const certificate_checkpoint *got, int files, size_t *out,
                               ckpt_error *err)
{
    const size_t count = document->count + (files ? 0 : document->delta_count);
    size_t best = 0;

    *out = 0;
    for (size_t i = 0; i < count; i++) {
        certificate_checkpoint record;
        size_t fits;
        ckpt_code code;

        memset(&record, 0, sizeof record);
        code = certificate_recorded(document, i, &record, err);
        fits = code == CKPT_OK ? fitness(&record, got, files) : 0;
        certificate_checkpoint_release(&record);
        if (code != CKPT_OK)
            return code;
        if (fits > best) {
            best = fits;
            *out = i;
        }
    }
    return CKPT_OK;
}

/* ---- identical files ---- */

static ckpt_code add_file_finding(certificate *c, const char *kind, const certificate_file *f,
                                  int fails, ckpt_error *err)
{
    const certificate_finding finding = { .check = "files", .checkpoint = 1, .kind = kind,
                                          .subject = f->name, .fails = fails };

    return certificate_add_finding(c, &finding, err);
}

/* Compare the files of the record with those on the disk. */
static ckpt_code check_recorded_files(certificate *c, size_t *same, size_t *wrong, ckpt_error *err)
{
    const certificate_checkpoint *a = &c->checkpoints[0];
    const certificate_checkpoint *b = &c->checkpoints[1];
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < a->file_count && code == CKPT_OK; i++) {
        const certificate_file *f = &a->files[i];
        const certificate_file *other = certificate_find_file(b, f->name);

        if (other != NULL && f->sha256[0] != '\0' && f->size_bytes == other->size_bytes &&
            strcmp(f->sha256, other->sha256) == 0) {
            (*same)++;
            continue;
        }
        (*wrong)++;
        code = add_file_finding(c, other == NULL ? "missing" : "changed", f, 1, err);
    }
    return code;
}

/* Files that are not in the record: extra weights, configs and tokenizers may be read by
 * loaders. */
static ckpt_code check_extra_files(certificate *c, size_t *wrong, ckpt_error *err)
{
    const certificate_checkpoint *b = &c->checkpoints[1];
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < b->file_count && code == CKPT_OK; i++) {
        const int fails = b->files[i].role != CERTIFICATE_OTHER;

        if (certificate_find_file(&c->checkpoints[0], b->files[i].name) != NULL)
            continue;
        *wrong += (size_t)fails;
        code = add_file_finding(c, "extra", &b->files[i], fails, err);
    }
    return code;
}

static ckpt_code check_files(certificate *c, ckpt_error *err)
{
    size_t same = 0;
    size_t wrong = 0;
    certificate_check check = { .name = "files", .checkpoint = 1 };
    ckpt_code code;

    if ((code = check_recorded_files(c, &same, &wrong, err)) != CKPT_OK ||
        (code = check_extra_files(c, &wrong, err)) != CKPT_OK)
        return code;
    check.verdict = wrong == 0 && same > 0 ? CERTIFICATE_PASS : CERTIFICATE_FAIL;
    return certificate_add_check(
        c, &check, err, "%s certified, %zu are not",
        text_count(same, "file is as it was", "files are as they were").text, wrong);
}

ckpt_code certificate_check_record(const certificate_document *document, certificate *c,
                                   int files, ckpt_error *err)
{
    certificate_policy policy;
    size_t record;
    ckpt_code code;

    if ((code = choose_record(document, &c->checkpoints[1], files, &record, err)) != CKPT_OK ||
        (code = certificate_recorded(document, record, &c->checkpoints[0], err)) != CKPT_OK)
        return code;
    if (c->checkpoints[0].root[0] == '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "nothing to check values against: the certificate was "
                         "made with --structure-only");
    policy_init(&policy);
    code = certificate_judge(c, 1, &policy, err);
    if (code == CKPT_OK && files)
        code = check_files(c, err);
    policy_release(&policy);
    return code;
}

/* ---- deltas ---- */

/* Read label and files of recorded delta `i`. */
static ckpt_code recorded_delta(const certificate_document *document, size_t i,
                                certificate_checkpoint *out, ckpt_error *err)
{
    const json_value *v = element(document->deltas, i);
    const char *label = json_string(json_member(v, "label"));

    if (label == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "a certificate's delta needs a label");
    if ((out->label = strdup(label)) == NULL)
        return ckpt_fail_memory(err, "a label", strlen(label));
    out->path = out->label;
    return file_record_read(json_member(v, "files"), out->label, out, err);
}

/* Which recorded delta has most of the files. */
static ckpt_code choose_delta(const certificate_document *document,
                              const certificate_checkpoint *got, size_t *out, ckpt_error *err)
{
    size_t best = 0;

    *out = 0;
    for (size_t i = 0; i < document->delta_count; i++) {
        certificate_checkpoint record;
        size_t same;
        ckpt_code code;

        memset(&record, 0, sizeof record);
        code = recorded_delta(document, i, &record, err);
        same = code == CKPT_OK ? count_same_files(&record, got) : 0;
        certificate_checkpoint_release(&record);
        if (code != CKPT_OK)
            return code;
        if (same > best) {
            best = same;
            *out = i;
        }
    }
    return CKPT_OK;
}

static ckpt_code check_delta_root(certificate *c, const char *what, const json_value *recorded,
                                  const char *got, ckpt_error *err)
{
    const char *expected = json_string(json_member(recorded, "root"));
    certificate_check check = { .name = "delta", .checkpoint = 1, .verdict = CERTIFICATE_PASS };

    if (expected == NULL || got[0] == '\0')
        return CKPT_OK;
    if (strcmp(expected, got) == 0)
        return certificate_add_check(c, &check, err, "%s has root %s", what, got);
    check.verdict = CERTIFICATE_FAIL;
    return certificate_add_check(c, &check, err, "%s: expected root %s, got %s", what, expected,
                                 got);
}

ckpt_code certificate_check_delta(const certificate_document *document, certificate *c,
                                  const certificate_delta_roots *roots, ckpt_error *err)
{
    const json_value *v;
    size_t i;
    ckpt_code code;

    if (document->delta_count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a delta, and the certificate covers none "
                         "(ckpt-verify certify --delta)", c->checkpoints[1].path);
    if ((code = choose_delta(document, &c->checkpoints[1], &i, err)) != CKPT_OK ||
        (code = recorded_delta(document, i, &c->checkpoints[0], err)) != CKPT_OK)
        return code;
    v = element(document->deltas, i);
    if ((code = check_files(c, err)) != CKPT_OK ||
        (code = check_delta_root(c, "its base", json_member(v, "base"), roots->base, err)) !=
            CKPT_OK)
        return code;
    return check_delta_root(c, "its result", json_member(v, "result"), roots->result, err);
}
