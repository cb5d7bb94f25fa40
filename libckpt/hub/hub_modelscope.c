/*
 * hub_modelscope.c: ModelScope.
 *
 *   GET M/api/v1/models/ID/repo/files?Revision=REV&Recursive=True                   -> all files
 *   GET M/api/v1/datasets/ID/repo/tree?Revision=REV&Recursive=True&PageNumber=K&PageSize=200
 *   M/api/v1/{models|datasets}/ID/repo?Revision=REV&FilePath=PATH                   -> the file
 *
 * Revisions are names, not commits: what pins a file is the SHA-256 that the listing gives.
 */
#include <stdio.h>
#include <strings.h>

#include "hub.h"
#include "libckpt/json.h"

enum { PAGE_FILES = 200 };

static ckpt_code configure(hub *h, ckpt_error *err)
{
    static const char *const sites[] = { "https://modelscope.cn", "https://www.modelscope.ai" };
    const char *endpoint = getenv("MODELSCOPE_ENDPOINT");
    const char *domain = getenv("MODELSCOPE_DOMAIN");
    const char *token = getenv("MODELSCOPE_API_TOKEN");
    const char *prefers = getenv("MODELSCOPE_PREFER_AI_SITE");
    const int prefers_ai = prefers != NULL && strcasecmp(prefers, "true") == 0;
    ckpt_code code = CKPT_OK;

    if (h->endpoint == NULL && endpoint != NULL && *endpoint != '\0') {
        code = hub_copy_text(&h->endpoint, endpoint, err);
    } else if (h->endpoint == NULL && domain != NULL && *domain != '\0') {
        if (asprintf(&h->endpoint, "https://%s", domain) < 0) {
            h->endpoint = NULL;
            code = ckpt_fail_memory(err, "an address", strlen(domain));
        }
    } else if (h->endpoint == NULL &&
               (code = hub_copy_text(&h->endpoint, sites[prefers_ai], err)) == CKPT_OK) {
        code = hub_copy_text(&h->other_endpoint, sites[!prefers_ai], err);
    }
    if (code == CKPT_OK && h->token == NULL && token != NULL)
        code = hub_copy_text(&h->token, token, err);
    if (code != CKPT_OK)
        return code;
    if (strcmp(h->options.type, "space") == 0)
        return hub_fail(HUB_USAGE, err, "ModelScope has only models and datasets, got type '%s'",
                        h->options.type);
    return CKPT_OK;
}

static ckpt_code take_entry(hub *h, const json_value *entry, hub_listing *out, ckpt_error *err)
{
    const char *type = json_string(json_member(entry, "Type"));
    hub_file file = { .algorithm = HUB_SHA256, .is_selected = 1 };

    if (type == NULL)
        return hub_fail_listing(h, "an entry has no Type", err);
    if (strcmp(type, "blob") != 0)
        return CKPT_OK;
    file.path = json_string(json_member(entry, "Path"));
    file.hash = json_string(json_member(entry, "Sha256"));
    if (file.path == NULL || file.hash == NULL ||
        !json_u64(json_member(entry, "Size"), &file.size_bytes))
        return hub_fail_listing(h, "an entry lacks Path, Size or Sha256", err);
    return hub_listing_add(out, &file, err);
}

/* The envelope contains the real status, whatever the HTTP status was. */
static ckpt_code check_envelope(hub *h, const json_value *root, ckpt_error *err)
{
    const char *message = json_string(json_member(root, "Message"));
    const char *id = json_string(json_member(root, "RequestId"));
    uint64_t number = 0;
    int success = 0;

    if (json_u64(json_member(root, "Code"), &number) && number == 200 &&
        (!json_bool(json_member(root, "Success"), &success) || success))
        return CKPT_OK;
    return hub_fail(HUB_NOT_FOUND, err,
                    "'%s' revision '%s' is missing or private: code %u, %s (request %s)%s",
                    h->options.repo, h->options.revision, (unsigned)number,
                    message == NULL ? "no message" : message, id == NULL ? "none" : id,
                    strcmp(h->options.revision, "main") == 0
                        ? "; ModelScope's default revision is 'master'"
                        : "");
}

static ckpt_code take_page(hub *h, const char *url, hub_listing *out, size_t *entry_count,
                           ckpt_error *err)
{
    json_document *document = NULL;
    const json_value *data;
    hub_page page = { 0 };
    ckpt_code code;

    *entry_count = 0;
    if ((code = hub_get_page(h, url, &page, err)) != CKPT_OK)
        goto out;
    if ((code = hub_page_parse(&page, "the listing", &document, err)) != CKPT_OK)
        goto out;
    if ((code = check_envelope(h, json_root(document), err)) != CKPT_OK)
        goto out;
    data = json_member(json_root(document), "Data");
    if (json_is_object(data))
        data = json_member(data, "Files");
    if (!json_is_array(data))
        code = hub_fail_listing(h, "it lacks Files", err);
    else
        code = hub_listing_count_page(out, json_count(data), page.text_bytes, err);
    for (const json_value *v = json_first(data); v != NULL && code == CKPT_OK; v = json_next(v)) {
        code = take_entry(h, v, out, err);
        ++*entry_count;
    }
out:
    json_free(document);
    hub_page_release(&page);
    return code;
}

static ckpt_code list_here(hub *h, hub_listing *out, ckpt_error *err)
{
    const int is_model = strcmp(h->options.type, "model") == 0;
    char *revision = hub_encode(h->options.revision, 0);
    size_t entry_count = PAGE_FILES;
    ckpt_code code = CKPT_OK;

    if (revision == NULL)
        return ckpt_fail_memory(err, "an address", 0);
    for (unsigned page = 1; entry_count == PAGE_FILES && code == CKPT_OK; page++) {
        char *url = NULL;
        const int size =
            is_model ? asprintf(&url, "%s/api/v1/models/%s/repo/files?Revision=%s&Recursive=True",
                                h->endpoint, h->options.repo, revision)
                     : asprintf(&url, "%s/api/v1/datasets/%s/repo/tree?Revision=%s&Recursive=True"
                                      "&PageNumber=%u&PageSize=%d",
                                h->endpoint, h->options.repo, revision, page, PAGE_FILES);

        if (size < 0)
            code = ckpt_fail_memory(err, "an address", 0);
        else
            code = take_page(h, url, out, &entry_count, err);
        if (size >= 0)
            free(url);
        if (is_model)
            break;
    }
    free(revision);
    return code;
}

/* There are two sites, and a model may be on either. Only the first gets the token, because it may
 * not be valid for the other one. */
static ckpt_code list(hub *h, hub_listing *out, ckpt_error *err)
{
    ckpt_code code = list_here(h, out, err);
    char *first = h->endpoint;
    char *token = h->token;
    hub_reason reason;
    ckpt_error other;

    if (code == CKPT_OK || h->other_endpoint == NULL)
        return code;
    reason = hub_reason_of(err);
    if (reason != HUB_NOT_FOUND && reason != HUB_NETWORK && reason != HUB_AUTH)
        return code;
    h->endpoint = h->other_endpoint;
    h->token = NULL;
    hub_listing_release(out);
    arena_init(&out->memory);
    if (list_here(h, out, &other) == CKPT_OK) {
        h->other_endpoint = first;
        free(token);
        return CKPT_OK;
    }
    h->endpoint = first;
    h->token = token;
    return code;
}

static char *file_url(const hub *h, const hub_listing *listing, const hub_file *file)
{
    char *revision = hub_encode(h->options.revision, 0);
    char *path = hub_encode(file->path, 0);
    char *url = NULL;

    (void)listing;
    if (revision == NULL || path == NULL ||
        asprintf(&url, "%s/api/v1/%ss/%s/repo?Revision=%s&FilePath=%s", h->endpoint,
                 h->options.type, h->options.repo, revision, path) < 0)
        url = NULL;
    free(revision);
    free(path);
    return url;
}

const hub_kind hub_modelscope = {
    .name = "modelscope",
    .default_revision = "master",
    .site_variable = "MODELSCOPE_API_TOKEN",
    .has_session = 1,
    .configure = configure,
    .list = list,
    .file_url = file_url,
};
