/* The document. */
#include "certificate_put.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file_record.h"
#include "json_line.h"
#include "ledger.h"
#include "manifest.h"

void certificate_time_text(int64_t seconds, char out[CERTIFICATE_TIME_BYTES])
{
    const time_t when = (time_t)seconds;
    struct tm utc;

    if (gmtime_r(&when, &utc) == NULL ||
        strftime(out, CERTIFICATE_TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(out, CERTIFICATE_TIME_BYTES, "unknown");
}

static const char *label_of(const certificate *c, size_t i)
{
    return c->checkpoints[i].label;
}

/* ---- subjects ---- */

static void put_root_subject(json_writer *w, const certificate_checkpoint *m)
{
    json_writer line;

    if (m->digest == NULL)
        return;
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", m->label);
    json_member_object(&line, "digest");
    json_member_string(&line, "ckptRoot", m->root);
    json_member_string(&line, "ckptMain", m->main_root);
    json_put_object_end(&line);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

/* A delta by what it leads from and to. */
static void put_delta_subject(json_writer *w, const certificate_delta *d)
{
    json_writer line;

    if (d->base_root[0] == '\0' || d->result.root[0] == '\0')
        return;
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", d->own.label);
    json_member_object(&line, "digest");
    json_member_string(&line, "ckptBaseRoot", d->base_root);
    json_member_string(&line, "ckptRoot", d->result.root);
    json_put_object_end(&line);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

/* "LABEL/FILE", because checkpoints may have files of the same name. */
static void put_file_subject(json_writer *w, const certificate_checkpoint *m,
                             const certificate_file *f)
{
    char *name = NULL;
    json_writer line;

    if (f->sha256[0] == '\0')
        return;
    if (asprintf(&name, "%s/%s", m->label, f->name) < 0) {
        w->failed = 1;
        return;
    }
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", name);
    json_member_object(&line, "digest");
    json_member_string(&line, "sha256", f->sha256);
    json_put_object_end(&line);
    json_member_object(&line, "annotations");
    json_member_u64(&line, "size", f->size_bytes);
    json_put_object_end(&line);
    json_put_object_end(&line);
    json_line_end(&line, w);
    free(name);
}

static void put_subjects(json_writer *w, const certificate *c)
{
    json_member_array(w, "subject");
    for (size_t i = 0; i < c->checkpoint_count; i++) {
        put_root_subject(w, &c->checkpoints[i]);
        for (size_t f = 0; f < c->checkpoints[i].file_count; f++)
            put_file_subject(w, &c->checkpoints[i], &c->checkpoints[i].files[f]);
    }
    for (size_t i = 0; i < c->delta_count; i++) {
        put_delta_subject(w, &c->deltas[i]);
        for (size_t f = 0; f < c->deltas[i].own.file_count; f++)
            put_file_subject(w, &c->deltas[i].own, &c->deltas[i].own.files[f]);
    }
    json_put_array_end(w);
}

/* ---- checkpoints ---- */

static void put_origin(json_writer *w, const certificate_origin *origin)
{
    json_put_key(w, "origin");
    if (origin->repo == NULL) {
        json_put_null(w);
        return;
    }
    json_put_object(w);
    json_member_string(w, "hub", origin->hub);
    json_member_string(w, "repo", origin->repo);
    json_member_string(w, "revision", origin->revision);
    json_member_string(w, "commit", origin->commit);
    json_put_object_end(w);
}

static void put_encodings(json_writer *w, const certificate_checkpoint *m)
{
    json_member_array(w, "encodings");
    for (size_t i = 0; i < m->encoding_count; i++) {
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", m->encodings[i].name);
        json_member_u64(&line, "tensors", m->encodings[i].tensor_count);
        json_member_u64(&line, "bytes", m->encodings[i].bytes);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
}

static void put_config_and_files(json_writer *w, const certificate_checkpoint *m)
{
    json_put_key(w, "config");
    if (m->has_config)
        config_meaning_put(w, &m->config);
    else
        json_put_null(w);
    json_put_key(w, "files");
    file_record_put(w, m);
}

static void put_checkpoint(json_writer *w, const certificate *c, size_t i)
{
    const certificate_checkpoint *m = &c->checkpoints[i];

    json_put_object(w);
    json_member_string(w, "label", m->label);
    json_member_string(w, "as", i == 0 ? "reference" : "candidate");
    json_member_string(w, "layout", m->layout);
    json_member_string(w, "family", m->family);
    json_member_string(w, "names", m->names);
    put_origin(w, &m->origin);
    json_member_string(w, "root", m->digest == NULL ? NULL : m->root);
    json_member_string(w, "main", m->digest == NULL ? NULL : m->main_root);
    json_member_u64(w, "tensors", ckpt_catalog_count(m->tensors));
    json_member_u64(w, "stored_tensors", m->stored_count);
    json_member_u64(w, "stored_bytes", m->stored_bytes);
    json_member_object(w, "ledger");
    ledger_put(w, &m->ledger);
    json_put_object_end(w);
    put_encodings(w, m);
    put_config_and_files(w, m);
    json_member_names(w, "notes", (const char *const *)m->notes->names, m->notes->count);
    json_put_object_end(w);
}

/* ---- deltas ---- */

static const char *known(const char *root)
{
    return root[0] == '\0' ? NULL : root;
}

/* What a delta makes, with the members of a checkpoint that a copy of it is compared with. */
static void put_result(json_writer *w, const certificate_checkpoint *m)
{
    json_member_object(w, "result");
    json_member_string(w, "label", m->label);
    json_member_string(w, "layout", m->layout);
    json_member_string(w, "family", m->family);
    json_member_string(w, "root", known(m->root));
    json_member_string(w, "main", known(m->main_root));
    put_config_and_files(w, m);
    json_put_object_end(w);
}

static void put_delta(json_writer *w, const certificate_delta *d)
{
    json_put_object(w);
    json_member_string(w, "label", d->own.label);
    json_member_string(w, "version", d->version);
    json_member_string(w, "base_version", d->base_version);
    json_member_string(w, "encoding", d->encoding);
    json_member_string(w, "checksum", d->checksum);
    json_member_u64(w, "changed_tensors", d->changed_count);
    json_member_object(w, "base");
    json_member_string(w, "root", known(d->base_root));
    json_member_string(w, "main", known(d->base_main));
    json_put_object_end(w);
    put_result(w, &d->result);
    json_put_key(w, "files");
    file_record_put(w, &d->own);
    json_put_object_end(w);
}

static void put_deltas(json_writer *w, const certificate *c)
{
    if (c->delta_count == 0)
        return;
    json_member_array(w, "deltas");
    for (size_t i = 0; i < c->delta_count; i++)
        put_delta(w, &c->deltas[i]);
    json_put_array_end(w);
}

/* ---- checks ---- */

static void put_check(json_writer *w, const certificate *c, const certificate_check *check)
{
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", check->name);
    json_member_string(&line, "checkpoint", label_of(c, check->checkpoint));
    json_member_string(&line, "verdict", certificate_verdict_name(check->verdict));
    json_member_string(&line, "text", check->text);
    json_member_object(&line, "figures");
    for (size_t i = 0; i < check->figure_count; i++)
        json_member_double(&line, check->figures[i].name, check->figures[i].number);
    json_put_object_end(&line);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static void put_finding(json_writer *w, const certificate *c, const certificate_finding *f)
{
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "check", f->check);
    json_member_string(&line, "checkpoint", label_of(c, f->checkpoint));
    json_member_string(&line, "kind", f->kind);
    json_member_string(&line, "subject", f->subject);
    json_member_string(&line, "place", f->place);
    json_member_string(&line, "text", f->text);
    json_member_bool(&line, "fails", f->fails);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

void certificate_put_results(json_writer *w, const certificate *c)
{
    json_member_array(w, "checks");
    for (size_t i = 0; i < c->check_count; i++)
        put_check(w, c, &c->checks[i]);
    json_put_array_end(w);
    json_member_array(w, "findings");
    for (size_t i = 0; i < c->finding_count; i++)
        put_finding(w, c, &c->findings[i]);
    json_put_array_end(w);
}

static void put_self_test(json_writer *w, const certificate *c)
{
    size_t applicable = 0;
    size_t caught = 0;

    json_put_key(w, "self_test");
    if (c->mutation_count == 0) {
        json_put_null(w);
        return;
    }
    for (size_t i = 0; i < c->mutation_count; i++) {
        applicable += (size_t)c->mutations[i].is_applicable;
        caught += (size_t)(c->mutations[i].is_applicable && c->mutations[i].is_caught);
    }
    json_put_object(w);
    json_member_u64(w, "applicable", applicable);
    json_member_u64(w, "caught", caught);
    json_member_array(w, "mutations");
    for (size_t i = 0; i < c->mutation_count; i++) {
        const certificate_mutation *m = &c->mutations[i];
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", m->name);
        json_member_string(&line, "result", !m->is_applicable ? "not applicable"
                                            : m->is_caught    ? "caught"
                                                              : "not caught");
        json_member_string(&line, "by", m->by);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}

/* ---- tensors ---- */

/* A json_write_fn that counts. */
static int count_bytes(void *context, const char *bytes, size_t size)
{
    (void)bytes;
    *(uint64_t *)context += size;
    return 0;
}

ckpt_code certificate_tensor_bytes(const certificate *c, uint64_t *out, ckpt_error *err)
{
    const certificate_checkpoint *m = &c->checkpoints[0];
    json_writer w;

    *out = 0;
    json_writer_begin(&w, count_bytes, out, 1);
    return m->digest == NULL ? CKPT_OK : manifest_put_tensors(&w, m->tensors, m->digest, err);
}

static ckpt_code put_tensors(json_writer *w, const certificate *c, ckpt_error *err)
{
    const certificate_checkpoint *m = &c->checkpoints[0];

    json_put_key(w, "tensors");
    if (m->digest != NULL && c->tensor_file == NULL)
        return manifest_put_tensors(w, m->tensors, m->digest, err);
    if (m->digest == NULL) {
        json_put_null(w);
        return CKPT_OK;
    }
    json_put_object(w);
    json_member_u64(w, "count", ckpt_catalog_count(m->tensors));
    json_member_string(w, "file", c->tensor_file);
    json_member_string(w, "sha256", c->tensor_sha256);
    json_put_object_end(w);
    return CKPT_OK;
}

/* ---- the statement ---- */

static void put_options(json_writer *w, const certificate_options *o)
{
    json_member_object(w, "options");
    json_member_bool(w, "lenient", o->lenient);
    json_member_bool(w, "u8_scales", o->u8_scales);
    json_member_bool(w, "keep_copies", o->keep_copies);
    json_member_string(w, "map_sha256", o->map_sha256[0] == '\0' ? NULL : o->map_sha256);
    json_member_names(w, "require", o->required, o->required_count);
    json_put_object_end(w);
}

static ckpt_code put_predicate(json_writer *w, const certificate *c, ckpt_error *err)
{
    ckpt_code code;
    char when[CERTIFICATE_TIME_BYTES];

    certificate_time_text(c->made_at, when);
    json_member_object(w, "predicate");
    json_member_string(w, "schema", CERTIFICATE_SCHEMA);
    json_member_string(w, "verdict", certificate_passes(c) ? "pass" : "fail");
    json_member_string(w, "made_at", when);
    json_member_object(w, "tool");
    json_member_string(w, "name", "ckpt-verify certify");
    json_member_string(w, "version", ckpt_version());
    json_member_string(w, "compiler", __VERSION__);
    json_put_object_end(w);
    json_member_bool(w, "structure_only", c->options.structure_only);
    put_options(w, &c->options);
    json_put_key(w, "policy");
    json_put_raw(w, c->policy == NULL ? "null" : c->policy);
    json_member_array(w, "checkpoints");
    for (size_t i = 0; i < c->checkpoint_count; i++)
        put_checkpoint(w, c, i);
    json_put_array_end(w);
    put_deltas(w, c);
    certificate_put_results(w, c);
    put_self_test(w, c);
    code = put_tensors(w, c, err);
    json_put_object_end(w);
    return code;
}

ckpt_code certificate_put(json_writer *w, const void *what, ckpt_error *err)
{
    const certificate *c = what;
    ckpt_code code;

    json_put_object(w);
    json_member_string(w, "_type", CERTIFICATE_STATEMENT_TYPE);
    put_subjects(w, c);
    json_member_string(w, "predicateType", CERTIFICATE_PREDICATE_TYPE);
    code = put_predicate(w, c, err);
    json_put_object_end(w);
    return code;
}
