/* Deltas in a certificate: read, and proven to lead from the reference to what they say. */
#include "certify_deltas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/delta/delta_apply.h"

int certify_is_delta(const char *path)
{
    folder_place place;
    const int found = folder_open_place(path, &place, NULL) == CKPT_OK && delta_detect(&place);

    folder_place_release(&place);
    return found;
}

ckpt_code certify_read_delta(const char *path, const certificate_read_options *read,
                             certificate_checkpoint *out, certificate_delta_roots *roots,
                             ckpt_error *err)
{
    ckpt_delta *d = NULL;
    ckpt_code code = delta_open(path, &d, err);

    if (code == CKPT_OK)
        code = certificate_read_folder(path, d->place.folder, read, out, err);
    if (code == CKPT_OK) {
        memcpy(roots->base, d->base.all, sizeof roots->base);
        memcpy(roots->result, d->result.all, sizeof roots->result);
    }
    delta_close(d);
    return code;
}

/* ---- what a delta makes ---- */

/* The file of that name in a list, else its end. */
static size_t find_file(const certificate_checkpoint *m, const char *name)
{
    size_t i = 0;

    while (i < m->file_count && strcmp(m->files[i].name, name) != 0)
        i++;
    return i;
}

static ckpt_code put_file(certificate_checkpoint *m, const char *name, const certificate_file *from,
                          ckpt_error *err)
{
    const size_t i = find_file(m, name);

    if (i == m->file_count) {
        if ((m->files[i].name = strdup(name)) == NULL)
            return ckpt_fail_memory(err, "a file's name", strlen(name));
        m->file_count++;
    }
    m->files[i].role = certificate_role_of(name);
    m->files[i].size_bytes = from->size_bytes;
    memcpy(m->files[i].sha256, from->sha256, sizeof m->files[i].sha256);
    return CKPT_OK;
}

static void remove_file(certificate_checkpoint *m, const char *name)
{
    const size_t i = find_file(m, name);

    if (i == m->file_count)
        return;
    free(m->files[i].name);
    m->file_count--;
    memmove(&m->files[i], &m->files[i + 1], (m->file_count - i) * sizeof *m->files);
}

static int compare_files(const void *left, const void *right)
{
    return strcmp(((const certificate_file *)left)->name, ((const certificate_file *)right)->name);
}

/* The files beside the weights: those of `base`, as the delta replaces or removes them. */
static ckpt_code take_files(const ckpt_delta *d, const certificate_checkpoint *base,
                            certificate_delta *out, ckpt_error *err)
{
    certificate_checkpoint *m = &out->result;
    ckpt_code code = CKPT_OK;

    m->files = calloc(base->file_count + d->file_count + 1, sizeof *m->files);
    if (m->files == NULL)
        return ckpt_fail_memory(err, "a list of files", base->file_count);
    for (size_t i = 0; i < base->file_count && code == CKPT_OK; i++)
        if (base->files[i].role != CERTIFICATE_WEIGHTS)
            code = put_file(m, base->files[i].name, &base->files[i], err);
    for (size_t i = 0; i < d->file_count && code == CKPT_OK; i++) {
        const delta_file *f = &d->files[i];
        const certificate_file *own =
            f->carried == NULL ? NULL : certificate_find_file(&out->own, f->carried);

        if (f->carried == NULL)
            remove_file(m, f->name);
        else if (own == NULL)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no file '%s', which %s names", d->path,
                             f->carried, DELTA_SIDE_FILE);
        else
            code = put_file(m, f->name, own, err);
    }
    qsort(m->files, m->file_count, sizeof *m->files, compare_files);
    return code;
}

static ckpt_code read_config(const ckpt_delta *d, const delta_file *f, certificate_checkpoint *m,
                             ckpt_error *err)
{
    folder_text text = { .bytes = NULL };
    json_document *document = NULL;
    ckpt_code code =
        folder_read_all(d->place.folder, f->carried, CONFIG_BYTES_MAX, &text, err);

    if (code == CKPT_OK &&
        (code = json_parse(text.bytes, text.size, text.path, &document, err)) == CKPT_OK) {
        m->has_config = 1;
        code = config_meaning_read(json_root(document), &m->config, err);
    }
    json_free(document);
    folder_text_release(&text);
    return code;
}

/* The config of the delta's result: the last one that the chain up to delta `n` carries, else that
 * of the reference. */
static ckpt_code take_config(const delta_chain *chain, size_t n, const json_value *reference,
                             certificate_checkpoint *m, ckpt_error *err)
{
    for (size_t d = n + 1; d > 0; d--)
        for (size_t i = 0; i < chain->deltas[d - 1]->file_count; i++) {
            const delta_file *f = &chain->deltas[d - 1]->files[i];

            if (strcmp(f->name, "config.json") == 0)
                return f->carried == NULL ? CKPT_OK : read_config(chain->deltas[d - 1], f, m, err);
        }
    m->has_config = reference != NULL;
    return reference == NULL ? CKPT_OK : config_meaning_read(reference, &m->config, err);
}

/* ---- one delta ---- */

static int is_label(const certificate *c, const char *label)
{
    int found = 0;

    for (size_t i = 0; i < c->checkpoint_count; i++)
        found |= strcmp(c->checkpoints[i].label, label) == 0;
    for (size_t i = 0; i + 1 < c->delta_count; i++)
        found |= strcmp(c->deltas[i].own.label, label) == 0;
    return found;
}

/* The last delta has a label of its own: its folder's name, with a number where that is taken. */
static ckpt_code choose_label(certificate *c, ckpt_error *err)
{
    certificate_checkpoint *m = &c->deltas[c->delta_count - 1].own;
    certificate_checkpoint *result = &c->deltas[c->delta_count - 1].result;
    char *label = strdup(m->label);

    for (unsigned n = 2; label != NULL && is_label(c, label); n++) {
        free(label);
        if (asprintf(&label, "%s-%u", m->label, n) < 0)
            label = NULL;
    }
    if (label == NULL || (result->label = strdup(label)) == NULL) {
        free(label);
        return ckpt_fail_memory(err, "a label", strlen(m->label));
    }
    free(m->label);
    m->label = label;
    return CKPT_OK;
}

static ckpt_code take_delta(const certify_deltas_options *o, const delta_chain *chain, size_t n,
                            certificate *c, ckpt_error *err)
{
    const ckpt_delta *d = chain->deltas[n];
    const certificate_checkpoint *reference = &c->checkpoints[0];
    certificate_delta *out = certificate_add_delta(c, err);
    ckpt_code code;

    if (out == NULL)
        return CKPT_E_MEMORY;
    memcpy(out->version, d->version, sizeof out->version);
    memcpy(out->base_version, d->base_version, sizeof out->base_version);
    out->encoding = delta_encoding_name(d->encoding);
    out->checksum = checksum_name(d->checksum);
    out->changed_count = d->count;
    memcpy(out->base_root, d->base.all, sizeof out->base_root);
    memcpy(out->base_main, d->base.main, sizeof out->base_main);
    memcpy(out->result.root, d->result.all, sizeof out->result.root);
    memcpy(out->result.main_root, d->result.main, sizeof out->result.main_root);
    out->result.layout = reference->layout;
    out->result.family = reference->family;
    if ((code = certificate_read_folder(d->path, d->place.folder, o->read, &out->own, err)) !=
            CKPT_OK ||
        (code = choose_label(c, err)) != CKPT_OK ||
        (code = take_files(d, n == 0 ? reference : &c->deltas[n - 1].result, out, err)) != CKPT_OK)
        return code;
    return take_config(chain, n, reference->config_json, &out->result, err);
}

/* ---- the proof ---- */

/* What delta `n` leads from and to was computed: it is recorded also where it does not say it. */
static void take_roots(certificate *c, size_t n, const delta_outcome *outcome)
{
    certificate_delta *d = &c->deltas[n];

    if (n == 0) {
        memcpy(d->base_root, outcome->base.all, sizeof d->base_root);
        memcpy(d->base_main, outcome->base.main, sizeof d->base_main);
    } else {
        memcpy(d->base_root, c->deltas[n - 1].result.root, sizeof d->base_root);
        memcpy(d->base_main, c->deltas[n - 1].result.main_root, sizeof d->base_main);
    }
    memcpy(d->result.root, outcome->result.all, sizeof d->result.root);
    memcpy(d->result.main_root, outcome->result.main, sizeof d->result.main_root);
}

/* Every delta is proven by the chain that ends with it: a whole chain has the right end even where
 * one delta names a false root and the next repeats it, and that root would be certified. */
static ckpt_code prove_chain(const certify_deltas_options *o, const delta_chain *chain,
                             certificate *c, delta_outcome *outcome, ckpt_error *err)
{
    char **paths = calloc(chain->count + 1, sizeof *paths);
    delta_apply_options apply = { .base = o->base, .deltas = paths, .open = *o->open,
                                  .run = o->read->run };
    ckpt_code code = CKPT_OK;

    if (chain->count > 0 && chain->deltas[0]->base.all[0] != '\0')
        apply.check = DELTA_CHECK_FULL;     /* the root that the certificate will have of it */
    if (paths == NULL)
        return ckpt_fail_memory(err, "a list of deltas", chain->count);
    for (size_t n = 0; n < chain->count && code == CKPT_OK; n++) {
        paths[n] = chain->deltas[n]->path;
        delta_outcome_release(outcome);
        apply.delta_count = n + 1;
        if ((code = delta_apply(&apply, outcome, err)) == CKPT_OK)
            take_roots(c, n, outcome);
    }
    free(paths);
    return code;
}

static ckpt_code prove(const certify_deltas_options *o, const delta_chain *chain, certificate *c,
                       ckpt_error *err)
{
    certificate_check check = { .name = "delta", .verdict = CERTIFICATE_FAIL };
    delta_outcome outcome = { .tensor_count = 0 };
    ckpt_code code = prove_chain(o, chain, c, &outcome, err);

    if (code == CKPT_OK) {
        check.verdict = CERTIFICATE_PASS;
        code = certificate_add_check(c, &check, err, "deltas: %zu, which change %zu of %zu "
                                     "tensors; the result has %s%s", c->delta_count,
                                     outcome.changed_count,
                                     outcome.tensor_count,
                                     outcome.result.all[0] == '\0' ? "no root" : "root ",
                                     outcome.result.all);
    } else if (code == CKPT_E_DIFFERENT) {
        const ckpt_error why = *err;

        code = certificate_add_check(c, &check, err, "%s", why.text);
    }
    delta_outcome_release(&outcome);
    return code;
}

/* The SHA-256 of their files is proven where they are applied. */
static ckpt_code open_chain(const certify_deltas_options *o, delta_chain *out, ckpt_error *err)
{
    ckpt_code code;

    *out = (delta_chain){ .count = 0 };
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->paths[i], "-") == 0)
            return ckpt_fail(err, CKPT_E_USAGE, "--delta is '-': expected a delta on disk, whose "
                             "files the certificate lists (tar -x -C FOLDER unpacks the stream)");
    code = delta_chain_open_unproven(o->base, o->paths, o->count, out, err);
    if (code == CKPT_OK && out->base != o->base)
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' is a whole checkpoint, not a delta: name it as "
                         "REF, and then the deltas behind it", out->base);
    return code;
}

/* Compare the deltas with the headers of the base. That they are of another base is not an error
 * here: it becomes a check that fails. */
static ckpt_code check_fit(const certify_deltas_options *o, ckpt_error *err)
{
    const delta_apply_options apply = { .base = o->base, .deltas = o->paths,
                                        .delta_count = o->count, .dry_run = 1, .open = *o->open,
                                        .run = o->read->run };
    delta_outcome outcome;
    const ckpt_code code = delta_apply(&apply, &outcome, err);

    delta_outcome_release(&outcome);
    return code == CKPT_E_DIFFERENT ? CKPT_OK : code;
}

ckpt_code certify_deltas_check(const certify_deltas_options *o, ckpt_error *err)
{
    delta_chain chain;
    ckpt_code code;

    if (o->count == 0)
        return CKPT_OK;
    code = open_chain(o, &chain, err);
    delta_chain_release(&chain);
    return code == CKPT_OK ? check_fit(o, err) : code;
}

ckpt_code certify_deltas(const certify_deltas_options *o, certificate *c, ckpt_error *err)
{
    delta_chain chain;
    ckpt_code code;

    if (o->count == 0)
        return CKPT_OK;
    code = open_chain(o, &chain, err);
    for (size_t i = 0; i < chain.count && code == CKPT_OK; i++)
        code = take_delta(o, &chain, i, c, err);
    if (code == CKPT_OK)
        code = prove(o, &chain, c, err);
    delta_chain_release(&chain);
    return code;
}
