/* Reads policies. */
#include "policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/error.h"
#include "value_check.h"

#define POLICY_SCHEMA "ckpt-policy/1"

enum { POLICY_BYTES_MAX = 1 << 20 };

void policy_init(certificate_policy *policy)
{
    memset(policy, 0, sizeof *policy);
    policy->files[CERTIFICATE_GENERATION] = POLICY_ANY;
    for (size_t i = 0; i < LOGITS_MEASURE_COUNT; i++)
        policy->limits[i] = (double)NAN;
}

void policy_release(certificate_policy *policy)
{
    free(policy->text);
    file_list_free(&policy->allowed);
    file_list_free(&policy->config_except);
    file_list_free(&policy->required);
    policy_init(policy);
}

/* ---- requirements ---- */

static const char *const requirements[] = { "config", "generation_config", "tokenizer", "template",
                                            "encoding", "mtp", "values", "candidate", "origin",
                                            "logits", NULL };

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++)
        if (word != NULL && strcmp(words[i], word) == 0)
            return i;
    return -1;
}

const char *policy_requirement_at(size_t i)
{
    return i < sizeof requirements / sizeof *requirements ? requirements[i] : NULL;
}

ckpt_code policy_require(certificate_policy *policy, const char *what, ckpt_error *err)
{
    if (find_word(requirements, what) < 0)
        return ckpt_fail(err, CKPT_E_USAGE, "cannot require '%s': expected config, "
                         "generation_config, tokenizer, template, encoding, mtp, values, "
                         "candidate, origin or logits", what);
    return policy_is_required(policy, what) ? CKPT_OK
                                            : file_list_add(&policy->required, what, err);
}

int policy_is_required(const certificate_policy *policy, const char *what)
{
    return file_list_has(&policy->required, what);
}

int policy_finding_fails(const certificate_policy *policy, const char *kind, int is_default)
{
    if (policy->findings == POLICY_FINDINGS_ANY || file_list_has(&policy->allowed, kind))
        return 0;
    return is_default || policy->findings == POLICY_FINDINGS_NONE;
}

/* ---- reading ---- */

static ckpt_code bad(const char *path, const char *key, const char *expected, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "policy '%s': '%s' is wrong: expected %s", path, key,
                     expected);
}

static ckpt_code read_names(const json_value *list, const char *path, file_list *out,
                            ckpt_error *err)
{
    if (!json_is_array(list))
        return bad(path, json_key(list), "a list of names", err);
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        ckpt_code code;

        if (json_string(v) == NULL)
            return bad(path, json_key(list), "a list of names", err);
        if ((code = file_list_add(out, json_string(v), err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code read_limits(const json_value *limits, const char *path, certificate_policy *p,
                             ckpt_error *err)
{
    if (!json_is_object(limits))
        return bad(path, "logits", "an object of limits, as {\"max-kl\": 1e-9}", err);
    for (const json_value *v = json_first(limits); v != NULL; v = json_next(v)) {
        size_t i = 0;

        while (i < LOGITS_MEASURE_COUNT &&
               strcmp(logits_limit_name((logits_measure)i), json_key(v)) != 0)
            i++;
        if (i == LOGITS_MEASURE_COUNT || !json_number(v, &p->limits[i]) || p->limits[i] < 0)
            return bad(path, json_key(v), "a limit of ckpt-verify logits, and a number", err);
    }
    return CKPT_OK;
}

int policy_limits_logits(const certificate_policy *policy)
{
    for (size_t i = 0; i < LOGITS_MEASURE_COUNT; i++)
        if (!isnan(policy->limits[i]))
            return 1;
    return 0;
}

static ckpt_code read_required(const json_value *list, const char *path, certificate_policy *p,
                               ckpt_error *err)
{
    file_list names = { NULL, 0 };
    ckpt_code code = read_names(list, path, &names, err);

    for (size_t i = 0; i < names.count && code == CKPT_OK; i++)
        code = policy_require(p, names.names[i], err);
    file_list_free(&names);
    return code;
}

/* Only the findings of values can be allowed; a misspelt kind would allow nothing. */
static ckpt_code read_allowed(const json_value *list, const char *path, certificate_policy *p,
                              ckpt_error *err)
{
    ckpt_code code = read_names(list, path, &p->allowed, err);

    for (size_t i = 0; i < p->allowed.count && code == CKPT_OK; i++) {
        int kind = 0;

        while (kind < VALUE_KIND_COUNT &&
               strcmp(value_kind_name((value_kind)kind), p->allowed.names[i]) != 0)
            kind++;
        if (kind == VALUE_KIND_COUNT)
            code = ckpt_fail(err, CKPT_E_FORMAT, "policy '%s': 'findings_allowed' has '%s', which "
                             "is no kind of finding: nan, infinity, scale_nan ...", path,
                             p->allowed.names[i]);
    }
    return code;
}

/* Members with a fixed set of words; the enums of their targets are in the order of the words. */
static int read_word(const json_value *v, certificate_policy *p, const char **expected)
{
    static const char *const roots[] = { "default", "equal", "main", "any", NULL };
    static const char *const findings[] = { "default", "none", "any", NULL };
    static const char *const rules[] = { "equal", "required", "any", NULL };
    const char *key = json_key(v);
    int word;

    if (strcmp(key, "roots") == 0) {
        *expected = "default, equal, main or any";
        if ((word = find_word(roots, json_string(v))) >= 0)
            p->roots = (policy_roots)word;
        return word;
    }
    if (strcmp(key, "findings") == 0) {
        *expected = "default, none or any";
        if ((word = find_word(findings, json_string(v))) >= 0)
            p->findings = (policy_findings)word;
        return word;
    }
    *expected = "equal, required or any";
    word = find_word(rules, json_string(v));
    if (word >= 0 && strcmp(key, "config") == 0) {
        p->config = (policy_rule)word;
        return word;
    }
    for (int role = CERTIFICATE_GENERATION; role <= CERTIFICATE_ENCODING; role++)
        if (strcmp(key, certificate_role_name((certificate_role)role)) == 0) {
            if (word >= 0)
                p->files[role] = (policy_rule)word;
            return word;
        }
    if (strcmp(key, "config") != 0)
        *expected = "a member of a policy: schema, roots, config, config_except, "
                    "generation_config, tokenizer, template, encoding, findings, "
                    "findings_allowed, logits or require";
    return -1;
}

static ckpt_code read_member(const json_value *v, const char *path, certificate_policy *p,
                             ckpt_error *err)
{
    const char *expected = NULL;

    if (strcmp(json_key(v), "schema") == 0)
        return CKPT_OK;
    if (strcmp(json_key(v), "config_except") == 0)
        return read_names(v, path, &p->config_except, err);
    if (strcmp(json_key(v), "findings_allowed") == 0)
        return read_allowed(v, path, p, err);
    if (strcmp(json_key(v), "logits") == 0)
        return read_limits(v, path, p, err);
    if (strcmp(json_key(v), "require") == 0)
        return read_required(v, path, p, err);
    return read_word(v, p, &expected) >= 0 ? CKPT_OK : bad(path, json_key(v), expected, err);
}

ckpt_code policy_read(const char *path, certificate_policy *policy, ckpt_error *err)
{
    json_document *document = NULL;
    const char *schema;
    size_t size;
    ckpt_code code;

    if ((code = file_read_named(path, POLICY_BYTES_MAX, &policy->text, &size, err)) != CKPT_OK ||
        (code = json_parse(policy->text, size, path, &document, err)) != CKPT_OK)
        return code;
    schema = json_string(json_member(json_root(document), "schema"));
    if (!json_is_object(json_root(document)) ||
        json_member(json_root(document), "schema") == NULL)
        code = ckpt_fail(err, CKPT_E_FORMAT, "policy '%s' has no member \"schema\": "
                         "\"" POLICY_SCHEMA "\"", path);
    else if (schema == NULL || strcmp(schema, POLICY_SCHEMA) != 0)
        code = bad(path, "schema", "\"" POLICY_SCHEMA "\"", err);
    for (const json_value *v = json_first(json_root(document)); v != NULL && code == CKPT_OK;
         v = json_next(v))
        code = read_member(v, path, policy, err);
    json_free(document);
    return code;
}
