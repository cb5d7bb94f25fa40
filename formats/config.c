/* Editing config.json. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plan.h"

static const char quantization[] =
    "{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", \"quant_method\": \"fp8\", "
    "\"scale_fmt\": \"ue8m0\", \"weight_block_size\": [128, 128]}";

typedef struct {
    int is_quantised;
    const char *expert_dtype;      /* JSON text, or NULL: no quantised experts */
} encoding;

static encoding find_encoding(const ckpt_catalog *targets)
{
    encoding found = { 0, NULL };

    for (size_t i = 0; i < ckpt_catalog_count(targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(targets, i);

        if (t->scale_dtype == CKPT_NONE)
            continue;
        found.is_quantised = 1;
        if (plan_is_expert(t->name))
            found.expert_dtype = t->dtype == CKPT_F4 ? "\"fp4\"" : "\"fp8\"";
    }
    return found;
}

/* One edit of *text, which is replaced. */
static ckpt_code edit(char **text, const char *key, const char *value, ckpt_error *err)
{
    char *edited;
    const ckpt_code code = json_edit(*text, key, value, &edited, err);

    if (code != CKPT_OK)
        return code;
    free(*text);
    *text = edited;
    return CKPT_OK;
}

/* Edit only where the member says something else. */
static ckpt_code edit_if_other(char **text, const char *key, const char *value, ckpt_error *err)
{
    char *now = NULL;
    ckpt_code code = json_member_text(*text, key, &now, err);

    if (code == CKPT_OK && ((now == NULL) != (value == NULL) ||
                            (now != NULL && strcmp(now, value) != 0)))
        code = edit(text, key, value, err);
    free(now);
    return code;
}

ckpt_code config_rewrite(const char *text, const ckpt_catalog *targets, int has_expert_dtype,
                         char **out, ckpt_error *err)
{
    const encoding wanted = find_encoding(targets);
    char *now = NULL;
    char *edited = strdup(text);
    ckpt_code code;

    if (edited == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    code = json_member_text(edited, "quantization_config", &now, err);
    if (code == CKPT_OK && wanted.is_quantised && now == NULL)
        code = edit(&edited, "quantization_config", quantization, err);
    else if (code == CKPT_OK && !wanted.is_quantised)
        code = edit_if_other(&edited, "quantization_config", NULL, err);
    if (code == CKPT_OK && (has_expert_dtype || wanted.expert_dtype == NULL))
        code = edit_if_other(&edited, "expert_dtype", wanted.expert_dtype, err);
    free(now);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}

/* A copy of the text without what tells the encoding, parsed. */
static ckpt_code parse_bare(const char *text, json_document **out, ckpt_error *err)
{
    char *bare = strdup(text);
    ckpt_code code;

    if (bare == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    if ((code = edit_if_other(&bare, "quantization_config", NULL, err)) == CKPT_OK &&
        (code = edit_if_other(&bare, "expert_dtype", NULL, err)) == CKPT_OK)
        code = json_parse(bare, strlen(bare), "config.json", out, err);
    free(bare);
    return code;
}

static ckpt_code take_member(char **text, const char *from, const char *key, ckpt_error *err)
{
    char *value = NULL;
    ckpt_code code = json_member_text(from, key, &value, err);

    if (code == CKPT_OK)
        code = edit_if_other(text, key, value, err);
    free(value);
    return code;
}

ckpt_code config_rewrite_like(const char *text, const char *like, char **out, ckpt_error *err)
{
    json_document *bare_source = NULL;
    json_document *bare_like = NULL;
    char *edited = NULL;
    ckpt_code code;

    if ((code = parse_bare(text, &bare_source, err)) != CKPT_OK ||
        (code = parse_bare(like, &bare_like, err)) != CKPT_OK)
        goto out;
    if (json_equal(json_root(bare_source), json_root(bare_like))) {
        edited = strdup(like);
    } else if ((edited = strdup(text)) != NULL) {
        if ((code = take_member(&edited, like, "quantization_config", err)) != CKPT_OK ||
            (code = take_member(&edited, like, "expert_dtype", err)) != CKPT_OK)
            goto out;
    }
    if (edited == NULL)
        code = ckpt_fail_memory(err, "config.json", strlen(text));
out:
    json_free(bare_source);
    json_free(bare_like);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}

ckpt_code config_rewrite_inference(const char *text, const ckpt_catalog *targets, char **out,
                                   ckpt_error *err)
{
    const encoding wanted = find_encoding(targets);
    const int has_fp4 = wanted.expert_dtype != NULL && strcmp(wanted.expert_dtype, "\"fp4\"") == 0;
    json_document *document = NULL;
    char *edited = strdup(text);
    ckpt_code code;

    if (edited == NULL)
        return ckpt_fail_memory(err, "inference/config.json", strlen(text));
    code = json_parse(text, strlen(text), "inference/config.json", &document, err);
    json_free(document);
    /* The reference code takes a missing expert_dtype for "fp4" in some releases: say null. */
    if (code == CKPT_OK &&
        (code = edit_if_other(&edited, "dtype", wanted.is_quantised ? "\"fp8\"" : "\"bf16\"",
                              err)) == CKPT_OK &&
        (code = edit_if_other(&edited, "scale_fmt", wanted.is_quantised ? "\"ue8m0\"" : "null",
                              err)) == CKPT_OK)
        code = edit_if_other(&edited, "expert_dtype", has_fp4 ? "\"fp4\"" : "null", err);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}
