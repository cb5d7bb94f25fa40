/* Derives checks from facts. */
#include "certificate_judge.h"

#include <stdio.h>
#include <string.h>

#include "companions.h"
#include "digest_compare.h"
#include "libckpt/checkpoint.h"
#include "libckpt/config_compare.h"
#include "libckpt/text.h"

/* State of judging one checkpoint. */
typedef struct {
    certificate *c;
    size_t i;                      /* the checkpoint */
    const certificate_policy *policy;
    ckpt_code code;                /* error of adding a finding */
    ckpt_error error;
    size_t counts[DIGEST_EXTRA + 1];
    size_t mtp_missing;            /* missing tensors mtp.* */
    int lacks_mtp;                 /* its layout stores no MTP blocks, and it has none */
} judging;

static ckpt_code add_check(judging *j, const char *name, certificate_verdict verdict,
                           const char *text, ckpt_error *err)
{
    const certificate_check check = { .name = name, .checkpoint = j->i, .verdict = verdict };

    return certificate_add_check(j->c, &check, err, "%s", text);
}

/* ---- structure ---- */

static ckpt_code judge_structure(judging *j, ckpt_error *err)
{
    const certificate_checkpoint *m = &j->c->checkpoints[j->i];
    const size_t unlisted = m->unlisted == NULL ? 0 : m->unlisted->count;
    const char *stored_root = m->opened == NULL ? NULL : checkpoint_stored_root(m->opened);
    const int root_is_other = stored_root != NULL && m->root[0] != '\0' &&
                              strcmp(stored_root, m->root) != 0;
    char text[256];
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < unlisted && code == CKPT_OK; i++) {
        const certificate_finding f = { .check = "structure", .checkpoint = j->i,
                                        .kind = "unlisted", .subject = m->unlisted->names[i],
                                        .fails = 1 };

        code = certificate_add_finding(j->c, &f, err);
    }
    if (root_is_other && code == CKPT_OK)
        code = certificate_add_finding(j->c, &(certificate_finding){
            .check = "structure", .checkpoint = j->i, .kind = "root",
            .subject = checkpoint_root_key(m->opened),
            .text = "the values changed after it was written",
            .fails = 1 }, err);
    snprintf(text, sizeof text, "%s, stored as %zu in %s, family %s%s",
             text_count(ckpt_catalog_count(m->tensors), "tensor", "tensors").text, m->stored_count,
             m->layout, m->family,
             unlisted > 0    ? "; files of weights that its index does not name"
             : root_is_other ? "; it holds another root than that of its values"
                             : "");
    if (code == CKPT_OK)
        code = add_check(j, "structure",
                         unlisted == 0 && !root_is_other ? CERTIFICATE_PASS : CERTIFICATE_FAIL,
                         text, err);
    return code;
}

/* ---- values ---- */

static const char *difference_name(digest_difference kind)
{
    static const char *const names[] = { "value", "shape", "missing", "extra" };

    return names[kind];
}

/* Layouts for training store no MTP blocks. In other layouts missing ones are a difference. */
static int lacks_mtp(const certificate_checkpoint *m)
{
    for (size_t i = 0; i < ckpt_catalog_count(m->tensors); i++)
        if (digest_is_mtp(ckpt_catalog_at(m->tensors, i)->name))
            return 0;
    return !m->has_place_for_config;
}

/* A digest_difference_fn. */
static void take_difference(void *context, digest_difference kind, const char *name,
                            const char *expected, const char *got)
{
    judging *j = context;
    const int is_gone = kind == DIGEST_MISSING && digest_is_mtp(name);
    certificate_finding f = { .check = "values", .checkpoint = j->i, .fails = 1,
                              .kind = difference_name(kind), .subject = name };
    char text[128];

    j->counts[kind]++;
    j->mtp_missing += (size_t)is_gone;
    if (is_gone && j->lacks_mtp && j->policy->roots != POLICY_ROOTS_EQUAL)
        return;
    f.fails = j->policy->roots != POLICY_ROOTS_ANY;
    if (expected != NULL) {
        snprintf(text, sizeof text, "expected %s, got %s", expected, got);
        f.text = text;
    }
    if (j->code == CKPT_OK)
        j->code = certificate_add_finding(j->c, &f, &j->error);
}

static certificate_verdict values_verdict(const judging *j, int is_main, int is_all)
{
    const policy_roots roots = j->policy->roots;

    if (roots == POLICY_ROOTS_ANY)
        return CERTIFICATE_NOTE;
    if (is_all)
        return CERTIFICATE_PASS;
    if (roots == POLICY_ROOTS_EQUAL || !is_main)
        return CERTIFICATE_FAIL;
    return roots == POLICY_ROOTS_MAIN || j->lacks_mtp ? CERTIFICATE_PASS : CERTIFICATE_FAIL;
}

/* Describe the result of comparing a candidate's values. */
static void say_values(const judging *j, int is_main, int is_all, char *out, size_t out_bytes)
{
    const certificate_checkpoint *m = &j->c->checkpoints[j->i];

    if (is_all)
        snprintf(out, out_bytes, "equal: root %s", m->root);
    else if (is_main)
        snprintf(out, out_bytes, "equal but for mtp.*: main %s%s", m->main_root,
                 j->lacks_mtp ? "; it carries no MTP" : "");
    else if (j->c->checkpoints[0].tensors == NULL)
        snprintf(out, out_bytes, "different: expected root %s, got %s", j->c->checkpoints[0].root,
                 m->root);
    else
        snprintf(out, out_bytes, "different: of %s %s other values, %zu other shapes, %zu are "
                 "missing, %zu more are there",
                 text_count(ckpt_catalog_count(j->c->checkpoints[0].tensors), "tensor",
                            "tensors").text,
                 text_count(j->counts[DIGEST_VALUE], "has", "have").text,
                 j->counts[DIGEST_SHAPE], j->counts[DIGEST_MISSING], j->counts[DIGEST_EXTRA]);
}

/* Compare tensors with the reference by digest; without digests by name and shape. */
static ckpt_code judge_values(judging *j, ckpt_error *err)
{
    const certificate_checkpoint *a = &j->c->checkpoints[0];
    const certificate_checkpoint *b = &j->c->checkpoints[j->i];
    const digest_side expected = { a->tensors,
                                   a->digest != NULL ? a->digest : a->recorded_digest };
    const digest_side got = { b->tensors, b->digest };
    const int has_values = a->root[0] != '\0' && b->root[0] != '\0';
    const size_t compared = a->tensors == NULL
                                ? 0 : digest_compare(&expected, &got, 0, take_difference, j);
    const int is_all = has_values && strcmp(a->root, b->root) == 0;
    const int is_main = has_values && strcmp(a->main_root, b->main_root) == 0;
    char text[256];
    ckpt_code code;

    if (j->code != CKPT_OK) {
        *err = j->error;
        return j->code;
    }
    if (compared == 0 && a->tensors != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "nothing to compare: no tensor of '%s' is in '%s'",
                         a->path, b->path);
    if (!has_values) {
        const size_t missing = j->counts[DIGEST_MISSING] - j->mtp_missing;
        const int differs = j->counts[DIGEST_SHAPE] + missing + j->counts[DIGEST_EXTRA] > 0;

        return add_check(j, "values", differs ? CERTIFICATE_FAIL : CERTIFICATE_SKIPPED,
                         differs ? "not read, but tensors are missing or have other shapes"
                                 : "not read: names and shapes are equal", err);
    }
    say_values(j, is_main, is_all, text, sizeof text);
    if ((code = add_check(j, "values", values_verdict(j, is_main, is_all), text, err)) != CKPT_OK ||
        (code = certificate_add_figure(j->c, "compared", (double)compared, err)) != CKPT_OK)
        return code;
    return certificate_add_figure(j->c, "differing", (double)(j->counts[DIGEST_VALUE] +
                                                              j->counts[DIGEST_SHAPE]), err);
}

/* ---- config.json ---- */

static ckpt_code add_config_difference(judging *j, const config_difference *d, int fails,
                                       ckpt_error *err)
{
    char text[256];
    const certificate_finding f = { .check = "config", .checkpoint = j->i, .kind = "changed",
                                    .subject = d->name, .text = text, .fails = fails };

    snprintf(text, sizeof text, "expected %.100s, got %.100s", d->a == NULL ? "nothing" : d->a,
             d->b == NULL ? "nothing" : d->b);
    return certificate_add_finding(j->c, &f, err);
}

static ckpt_code judge_config_members(judging *j, const config_comparison *r, ckpt_error *err)
{
    const int decides = j->policy->config != POLICY_ANY;
    size_t failing = 0;
    char text[256];
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < r->count && code == CKPT_OK; i++) {
        const int fails = decides && !file_list_has(&j->policy->config_except,
                                                    r->differing[i].name);

        failing += (size_t)fails;
        code = add_config_difference(j, &r->differing[i], fails, err);
    }
    if (code != CKPT_OK)
        return code;
    if (r->compared == 0)
        return add_check(j, "config", CERTIFICATE_NOTE, "no member could be compared", err);
    snprintf(text, sizeof text, "%s of the forward pass compared, %s%s",
             text_count(r->compared, "member", "members").text,
             text_count(r->count, "differs", "differ").text,
             r->count > failing && decides ? ", as the policy allows" : "");
    code = add_check(j, "config", failing > 0    ? CERTIFICATE_FAIL
                                  : r->count > 0 ? CERTIFICATE_NOTE
                                                 : CERTIFICATE_PASS, text, err);
    return code;
}

/* Equal weights with a different config are a different model. */
static ckpt_code judge_config(judging *j, ckpt_error *err)
{
    const certificate_checkpoint *a = &j->c->checkpoints[0];
    const certificate_checkpoint *b = &j->c->checkpoints[j->i];
    const int main_only = j->lacks_mtp || j->policy->roots == POLICY_ROOTS_MAIN;
    config_comparison comparison;
    ckpt_code code;

    if (!a->has_config || !b->has_config) {
        const int is_gone = a->has_config && b->has_place_for_config;
        const int fails = j->policy->config == POLICY_REQUIRED ||
                          (is_gone && j->policy->config == POLICY_EQUAL);

        return add_check(j, "config", fails ? CERTIFICATE_FAIL : CERTIFICATE_NOTE,
                         !a->has_config && !b->has_config ? "neither has a config.json"
                         : a->has_config ? "not compared: the candidate carries no config.json"
                                         : "not compared: the reference carries no config.json",
                         err);
    }
    if ((code = config_meaning_compare(&a->config, &b->config, main_only, &comparison, err)) ==
        CKPT_OK)
        code = judge_config_members(j, &comparison, err);
    config_comparison_release(&comparison);
    return code;
}

/* ---- files beside the weights ---- */

static size_t count_role(const certificate_checkpoint *c, certificate_role role)
{
    size_t count = 0;

    for (size_t i = 0; i < c->file_count; i++)
        count += c->files[i].role == role;
    return count;
}

static ckpt_code add_companion(judging *j, const companion_difference *d, int fails,
                               ckpt_error *err)
{
    char place[128];
    certificate_finding f = { .check = certificate_role_name(d->role), .checkpoint = j->i,
                              .kind = companion_kind_name(d->kind), .subject = d->file,
                              .fails = fails };

    if (d->member != NULL) {
        snprintf(place, sizeof place, "member %.100s", d->member);
        f.place = place;
    }
    return certificate_add_finding(j->c, &f, err);
}

static ckpt_code judge_role(judging *j, certificate_role role, const companion_comparison *r,
                            ckpt_error *err)
{
    const policy_rule rule = j->policy->files[role];
    size_t changed = 0;
    size_t alone = 0;
    char text[160];
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < r->count && code == CKPT_OK; i++) {
        const companion_difference *d = &r->differing[i];
        const int is_alone = d->kind == COMPANION_MISSING || d->kind == COMPANION_EXTRA;

        if (d->role != role)
            continue;
        changed += d->kind == COMPANION_CHANGED;
        alone += (size_t)is_alone;
        code = add_companion(j, d, (d->kind == COMPANION_CHANGED && rule != POLICY_ANY) ||
                                       (is_alone && rule == POLICY_REQUIRED), err);
    }
    if (code != CKPT_OK)
        return code;
    if (r->compared[role] + alone == 0)
        return add_check(j, certificate_role_name(role),
                         rule == POLICY_REQUIRED ? CERTIFICATE_FAIL : CERTIFICATE_SKIPPED,
                         "neither has such files", err);
    snprintf(text, sizeof text, "%s compared, %s%s",
             text_count(r->compared[role], "file", "files").text,
             text_count(changed, "difference", "differences").text,
             alone > 0 ? "; some files are on one side only" : "");
    if (rule != POLICY_ANY && (changed > 0 || (rule == POLICY_REQUIRED && alone > 0)))
        return add_check(j, certificate_role_name(role), CERTIFICATE_FAIL, text, err);
    return add_check(j, certificate_role_name(role),
                     changed + alone > 0 ? CERTIFICATE_NOTE : CERTIFICATE_PASS, text, err);
}

static ckpt_code judge_companions(judging *j, ckpt_error *err)
{
    companion_comparison comparison;
    ckpt_code code = companions_compare(&j->c->checkpoints[0], &j->c->checkpoints[j->i],
                                        &comparison, err);

    for (int role = CERTIFICATE_GENERATION; role <= CERTIFICATE_ENCODING && code == CKPT_OK; role++)
        code = judge_role(j, (certificate_role)role, &comparison, err);
    companions_release(&comparison);
    return code;
}

ckpt_code certificate_judge(certificate *c, size_t i, const certificate_policy *policy,
                            ckpt_error *err)
{
    judging j = { .c = c, .i = i, .policy = policy,
                  .lacks_mtp = lacks_mtp(&c->checkpoints[i]) };
    ckpt_code code;

    if ((code = judge_structure(&j, err)) != CKPT_OK || i == 0)
        return code;
    if ((code = judge_values(&j, err)) != CKPT_OK || (code = judge_config(&j, err)) != CKPT_OK)
        return code;
    return judge_companions(&j, err);
}

/* ---- requirements ---- */

static int has_mtp(const certificate_checkpoint *c)
{
    for (size_t i = 0; i < ckpt_catalog_count(c->tensors); i++)
        if (digest_is_mtp(ckpt_catalog_at(c->tensors, i)->name))
            return 1;
    return 0;
}

/* 1 when checkpoint `i` has the required thing; some belong to the certificate as a whole. */
static int is_there(const certificate *c, size_t i, const char *what)
{
    const certificate_checkpoint *m = &c->checkpoints[i];

    if (strcmp(what, "candidate") == 0)
        return c->checkpoint_count > 1;
    if (strcmp(what, "values") == 0)
        return m->digest != NULL;
    if (strcmp(what, "mtp") == 0)
        return has_mtp(m);
    if (strcmp(what, "origin") == 0)
        return i > 0 || m->origin.repo != NULL;
    if (strcmp(what, "logits") == 0)
        return i == 0 || certificate_find_check(c, "logits", i) != NULL;
    if (strcmp(what, "config") == 0)
        return m->has_config;
    for (int role = CERTIFICATE_GENERATION; role <= CERTIFICATE_ENCODING; role++)
        if (strcmp(what, certificate_role_name((certificate_role)role)) == 0)
            return count_role(m, (certificate_role)role) > 0 ||
                   (role == CERTIFICATE_TOKENIZER && m->opened != NULL &&
                    checkpoint_tokenizer_of(m->opened) == TOKENIZER_IN_WEIGHTS);
    return 0;
}

ckpt_code certificate_judge_required(certificate *c, const certificate_policy *policy,
                                     ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < c->checkpoint_count && policy->required.count > 0; i++) {
        judging j = { .c = c, .i = i, .policy = policy };
        size_t missing = 0;
        char text[128];

        for (size_t w = 0; w < policy->required.count && code == CKPT_OK; w++) {
            const certificate_finding f = { .check = "required", .checkpoint = i, .fails = 1,
                                            .kind = "missing",
                                            .subject = policy->required.names[w] };

            if (is_there(c, i, policy->required.names[w]))
                continue;
            missing++;
            code = certificate_add_finding(c, &f, err);
        }
        snprintf(text, sizeof text, "%zu of %zu are there", policy->required.count - missing,
                 policy->required.count);
        if (code == CKPT_OK)
            code = add_check(&j, "required", missing == 0 ? CERTIFICATE_PASS : CERTIFICATE_FAIL,
                             text, err);
        if (code != CKPT_OK)
            return code;
    }
    return code;
}

/* ---- logits ---- */

ckpt_code certificate_judge_logits(certificate *c, size_t i, const logits_comparison *logits,
                                   const certificate_policy *policy, ckpt_error *err)
{
    static const struct { const char *name; logits_measure measure; } figures[] = {
        { "kl_mean", LOGITS_KL_MEAN }, { "kl_max", LOGITS_KL_MAX }, { "abs_max", LOGITS_ABS_MAX },
        { "top1", LOGITS_TOP1 },
    };
    judging j = { .c = c, .i = i, .policy = policy };
    const int is_same = logits_is_same(logits, policy->limits);
    char text[160];
    ckpt_code code;

    snprintf(text, sizeof text, "%s: %s%s",
             text_count(logits->position_count, "position", "positions").text,
             logits->bit_identical ? "bit-identical"
             : is_same             ? "within the limits"
                                   : "different",
             logits->is_lower_bound ? " (only the best tokens are known)" : "");
    code = add_check(&j, "logits", is_same ? CERTIFICATE_PASS : CERTIFICATE_FAIL, text, err);
    if (code == CKPT_OK)
        code = certificate_add_figure(c, "positions", (double)logits->position_count, err);
    for (size_t f = 0; f < sizeof figures / sizeof *figures && code == CKPT_OK; f++)
        code = certificate_add_figure(c, figures[f].name, logits->measures[figures[f].measure],
                                      err);
    return code;
}
