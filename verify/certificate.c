/* The lists of a certificate. */
#include "certificate.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/text.h"

/* ---- the end ---- */

void certificate_checkpoint_release(certificate_checkpoint *c)
{
    for (size_t i = 0; i < c->file_count; i++)
        free(c->files[i].name);
    for (size_t i = 0; i < c->encoding_count; i++)
        free(c->encodings[i].name);
    free(c->files);
    free(c->encodings);
    free(c->label);
    free(c->origin.hub);
    free(c->origin.repo);
    free(c->origin.revision);
    free(c->origin.commit);
    ckpt_digest_free(c->digest);
    config_meaning_release(&c->config);
    memset(c, 0, sizeof *c);
}

static void release_check(certificate_check *check)
{
    free(check->figures);
    free(check->text);
}

/* Findings in the certificate own their texts. */
static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

static void release_finding(certificate_finding *f)
{
    free_text(f->subject);
    free_text(f->place);
    free_text(f->text);
}

void certificate_release(certificate *c)
{
    for (size_t i = 0; i < c->checkpoint_count; i++)
        certificate_checkpoint_release(&c->checkpoints[i]);
    for (size_t i = 0; i < c->delta_count; i++) {
        certificate_checkpoint_release(&c->deltas[i].own);
        certificate_checkpoint_release(&c->deltas[i].result);
    }
    for (size_t i = 0; i < c->check_count; i++)
        release_check(&c->checks[i]);
    for (size_t i = 0; i < c->finding_count; i++)
        release_finding(&c->findings[i]);
    free(c->checkpoints);
    free(c->deltas);
    free(c->checks);
    free(c->findings);
    free(c->mutations);
    free(c->policy);
    free(c->tensor_file);
    memset(c, 0, sizeof *c);
}

/* ---- appending ---- */

certificate_checkpoint *certificate_add_checkpoint(certificate *c, ckpt_error *err)
{
    certificate_checkpoint *all = array_room(c->checkpoints, c->checkpoint_count, sizeof *all,
                                             "checkpoints", err);

    if (all == NULL)
        return NULL;
    c->checkpoints = all;
    memset(&all[c->checkpoint_count], 0, sizeof *all);
    return &all[c->checkpoint_count++];
}

certificate_delta *certificate_add_delta(certificate *c, ckpt_error *err)
{
    certificate_delta *all = array_room(c->deltas, c->delta_count, sizeof *all, "deltas", err);

    if (all == NULL)
        return NULL;
    c->deltas = all;
    memset(&all[c->delta_count], 0, sizeof *all);
    return &all[c->delta_count++];
}

ckpt_code certificate_add_check(certificate *c, const certificate_check *check, ckpt_error *err,
                                const char *format, ...)
{
    certificate_check *all = array_room(c->checks, c->check_count, sizeof *all, "checks", err);
    certificate_check *mine;
    va_list arguments;

    if (all == NULL)
        return CKPT_E_MEMORY;
    c->checks = all;
    mine = &all[c->check_count++];
    *mine = (certificate_check){ .name = check->name, .checkpoint = check->checkpoint,
                                 .verdict = check->verdict };
    va_start(arguments, format);
    if (vasprintf(&mine->text, format, arguments) < 0)
        mine->text = NULL;
    va_end(arguments);
    return mine->text == NULL ? ckpt_fail_memory(err, "a check", sizeof *mine) : CKPT_OK;
}

ckpt_code certificate_add_figure(certificate *c, const char *name, double number, ckpt_error *err)
{
    certificate_check *check = &c->checks[c->check_count - 1];
    certificate_figure *all = array_room(check->figures, check->figure_count, sizeof *all,
                                         "figures", err);

    if (all == NULL)
        return CKPT_E_MEMORY;
    check->figures = all;
    all[check->figure_count++] = (certificate_figure){ name, number };
    return CKPT_OK;
}

/* 1 when the limit for this check and checkpoint is reached. Its findings are consecutive. */
static int is_enough(const certificate *c, const certificate_finding *finding)
{
    const certificate_finding *earlier;

    if (c->finding_count < CERTIFICATE_FINDINGS_MAX)
        return 0;
    earlier = &c->findings[c->finding_count - CERTIFICATE_FINDINGS_MAX];
    return earlier->checkpoint == finding->checkpoint &&
           strcmp(earlier->check, finding->check) == 0;
}

ckpt_code certificate_add_finding(certificate *c, const certificate_finding *finding,
                                  ckpt_error *err)
{
    certificate_finding *all;
    char *subject;
    char *place = NULL;
    char *text = NULL;
    int is_copied;

    if (is_enough(c, finding))
        return CKPT_OK;
    all = array_room(c->findings, c->finding_count, sizeof *all, "findings", err);
    if (all == NULL)
        return CKPT_E_MEMORY;
    c->findings = all;
    is_copied = text_copy(finding->subject, &subject) && text_copy(finding->place, &place) &&
                text_copy(finding->text, &text);
    all[c->finding_count] = *finding;
    all[c->finding_count].subject = subject;
    all[c->finding_count].place = place;
    all[c->finding_count++].text = text;
    return is_copied ? CKPT_OK : ckpt_fail_memory(err, "a finding", sizeof *finding);
}

ckpt_code certificate_add_mutation(certificate *c, const certificate_mutation *mutation,
                                   ckpt_error *err)
{
    certificate_mutation *all = array_room(c->mutations, c->mutation_count, sizeof *all,
                                           "mutations", err);

    if (all == NULL)
        return CKPT_E_MEMORY;
    c->mutations = all;
    all[c->mutation_count++] = *mutation;
    return CKPT_OK;
}

/* ---- looking ---- */

const certificate_check *certificate_find_check(const certificate *c, const char *name,
                                                size_t checkpoint)
{
    for (size_t i = 0; i < c->check_count; i++)
        if (c->checks[i].checkpoint == checkpoint && strcmp(c->checks[i].name, name) == 0)
            return &c->checks[i];
    return NULL;
}

const certificate_file *certificate_find_file(const certificate_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->file_count; i++)
        if (strcmp(c->files[i].name, name) == 0)
            return &c->files[i];
    return NULL;
}

int certificate_passes(const certificate *c)
{
    size_t passed = 0;

    for (size_t i = 0; i < c->check_count; i++) {
        if (c->checks[i].verdict == CERTIFICATE_FAIL)
            return 0;
        passed += c->checks[i].verdict == CERTIFICATE_PASS;
    }
    return passed > 0;
}

const char *certificate_verdict_name(certificate_verdict verdict)
{
    static const char *const names[] = { "pass", "fail", "note", "skipped" };

    return names[verdict];
}

const char *certificate_role_name(certificate_role role)
{
    static const char *const names[] = { "weights", "config", "generation_config", "tokenizer",
                                         "template", "encoding", "other" };

    return names[role];
}
