/*
 * hub_hf.c: Hugging Face.
 *
 *   GET E/api/{models|datasets|spaces}/ID/revision/REV          -> "sha": the commit
 *   GET E/api/.../ID/tree/COMMIT?recursive=true&expand=false     -> files, paged by Link: rel=next
 *   E/[datasets/|spaces/]ID/resolve/COMMIT/PATH                  -> the file, or where it is
 */
#include <stdio.h>

#include "hub.h"
#include "libckpt/array.h"
#include "libckpt/file.h"
#include "libckpt/json.h"

static char *format_text(const char *format, const char *a, const char *b, const char *c,
                         const char *d)
{
    char *out = NULL;

    if (a == NULL || b == NULL || c == NULL || d == NULL ||
        asprintf(&out, format, a, b, c, d) < 0)
        return NULL;
    return out;
}

/* $HF_HOME, else ${XDG_CACHE_HOME:-~/.cache}/huggingface; malloc'd. */
static char *hf_home(void)
{
    const char *home = getenv("HF_HOME");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *user = getenv("HOME");
    char *out = NULL;

    user = user == NULL ? "" : user;
    if (home != NULL && *home == '~')
        return format_text("%s%s%s%s", user, home + 1, "", "");
    if (home != NULL && *home != '\0')
        return strdup(home);
    if (cache != NULL && *cache != '\0')
        return file_join(cache, "huggingface");
    out = format_text("%s%s%s%s", user, "/.cache/huggingface", "", "");
    return out;
}

static int is_true(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && (strcmp(value, "1") == 0 || strcasecmp(value, "on") == 0 ||
                             strcasecmp(value, "yes") == 0 || strcasecmp(value, "true") == 0);
}

char *hub_cache_folder(void)
{
    static const char *const names[] = { "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE" };
    char *home;
    char *out;

    for (size_t i = 0; i < 2; i++)
        if (getenv(names[i]) != NULL && *getenv(names[i]) != '\0')
            return strdup(getenv(names[i]));
    home = hf_home();
    out = home == NULL ? NULL : file_join(home, "hub");
    free(home);
    return out;
}

int hub_is_offline(void)
{
    return is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
}

/* The token stored by `hf auth login`; *out stays NULL if there is none. */
static ckpt_code stored_token(char **out, ckpt_error *err)
{
    enum { TOKEN_BYTES_MAX = 1 << 16 };
    const char *path = getenv("HF_TOKEN_PATH");
    char *home = hf_home();
    char *own = home == NULL ? NULL : file_join(home, "token");
    size_t size;
    ckpt_error why;
    ckpt_code code = CKPT_OK;

    if (path == NULL)
        path = own;
    if (path == NULL)
        code = ckpt_fail_memory(err, "a path", 0);
    else if (file_exists(path))
        code = file_read_all(path, TOKEN_BYTES_MAX, out, &size, &why);
    if (path != NULL && code != CKPT_OK)
        hub_fail(HUB_AUTH, err, "the stored token: %s (see HF_HUB_DISABLE_IMPLICIT_TOKEN)",
                 why.text);
    free(own);
    free(home);
    return code;
}

static ckpt_code configure(hub *h, ckpt_error *err)
{
    static const char *const names[] = { "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN" };
    const char *endpoint = getenv("HF_ENDPOINT");
    ckpt_code code = CKPT_OK;

    if (h->endpoint == NULL)
        code = hub_copy_text(&h->endpoint, endpoint != NULL && *endpoint != '\0'
                                               ? endpoint : "https://huggingface.co", err);
    for (size_t i = 0; i < 2 && h->token == NULL && code == CKPT_OK; i++)
        if (getenv(names[i]) != NULL && *getenv(names[i]) != '\0')
            code = hub_copy_text(&h->token, getenv(names[i]), err);
    if (h->token == NULL && code == CKPT_OK && !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        code = stored_token(&h->token, err);
    return code;
}

static const char *plural(const hub *h)
{
    return strcmp(h->options.type, "model") == 0     ? "models"
           : strcmp(h->options.type, "dataset") == 0 ? "datasets"
                                                     : "spaces";
}

static ckpt_code resolve_revision(hub *h, char commit[41], ckpt_error *err)
{
    char *revision = hub_encode(h->options.revision, 0);
    char *url = format_text("%s/api/%s/%s/revision/%s", h->endpoint, plural(h), h->options.repo,
                            revision);
    json_document *document = NULL;
    const char *sha;
    hub_page page = { 0 };
    ckpt_code code;

    if (url == NULL) {
        code = ckpt_fail_memory(err, "an address", 0);
        goto out;
    }
    if ((code = hub_get_page(h, url, &page, err)) != CKPT_OK)
        goto out;
    if ((code = hub_page_parse(&page, "the repository's description", &document, err)) != CKPT_OK)
        goto out;
    sha = json_string(json_member(json_root(document), "sha"));
    if (sha == NULL || !hub_is_hex(sha, 40))
        code = hub_fail_listing(h, "it has no commit", err);
    else
        snprintf(commit, 41, "%s", sha);
out:
    json_free(document);
    hub_page_release(&page);
    free(url);
    free(revision);
    return code;
}

/* One entry of a tree; folders are skipped. */
static ckpt_code take_entry(hub *h, const json_value *entry, hub_listing *out, ckpt_error *err)
{
    const char *type = json_string(json_member(entry, "type"));
    const json_value *lfs = json_member(entry, "lfs");
    hub_file file = { .algorithm = HUB_GIT_SHA1, .is_selected = 1 };
    uint64_t lfs_bytes;

    if (type == NULL)
        return hub_fail_listing(h, "an entry has no type", err);
    if (strcmp(type, "file") != 0)
        return CKPT_OK;
    file.path = json_string(json_member(entry, "path"));
    file.oid = json_string(json_member(entry, "oid"));
    file.xet_hash = json_string(json_member(entry, "xetHash"));
    if (file.xet_hash != NULL && !hub_is_hex(file.xet_hash, 64)) {
        out->is_redacted = 1;
        file.xet_hash = NULL;
    }
    file.hash = file.oid;
    if (file.path == NULL || file.oid == NULL ||
        !json_u64(json_member(entry, "size"), &file.size_bytes))
        return hub_fail_listing(h, "an entry lacks path, size or oid", err);
    if (json_is_object(lfs)) {
        file.algorithm = HUB_SHA256;
        file.hash = json_string(json_member(lfs, "oid"));
        if (file.hash == NULL || !json_u64(json_member(lfs, "size"), &lfs_bytes) ||
            lfs_bytes != file.size_bytes)
            return hub_fail_listing(h, "an entry has contradictory sizes or hashes", err);
    }
    return hub_listing_add(out, &file, err);
}

static ckpt_code take_page(hub *h, hub_page *page, hub_listing *out, ckpt_error *err)
{
    json_document *document = NULL;
    const json_value *root;
    ckpt_code code;

    if ((code = hub_page_parse(page, "the listing", &document, err)) != CKPT_OK)
        return code;
    root = json_root(document);
    if (!json_is_array(root))
        code = hub_fail_listing(h, "expected an array", err);
    else if (json_first(root) == NULL && page->next != NULL)
        code = hub_fail_listing(h, "an empty page announces another one", err);
    else
        code = hub_listing_count_page(out, json_count(root), page->text_bytes, err);
    for (const json_value *v = json_first(root); v != NULL && code == CKPT_OK; v = json_next(v))
        code = take_entry(h, v, out, err);
    json_free(document);
    return code;
}

static ckpt_code read_pages(hub *h, char *url, hub_listing *out, ckpt_error *err)
{
    uint64_t *seen = NULL;
    size_t seen_count = 0;
    ckpt_code code = CKPT_OK;

    while (url != NULL && code == CKPT_OK) {
        const uint64_t hash = hub_text_hash(url, strlen(url));
        uint64_t *more = array_room(seen, seen_count, sizeof *seen, "a listing", err);
        hub_page page = { 0 };

        if (more == NULL) {
            code = CKPT_E_MEMORY;
            break;
        }
        seen = more;
        for (size_t i = 0; i < seen_count && code == CKPT_OK; i++)
            if (seen[i] == hash)
                code = hub_fail_listing(h, "a page is repeated", err);
        seen[seen_count++] = hash;
        if (code == CKPT_OK && (code = hub_get_page(h, url, &page, err)) == CKPT_OK)
            code = take_page(h, &page, out, err);
        free(url);
        url = page.next;
        page.next = NULL;
        hub_page_release(&page);
    }
    free(url);
    free(seen);
    return code;
}

static ckpt_code list(hub *h, hub_listing *out, ckpt_error *err)
{
    char *url;
    ckpt_code code = CKPT_OK;

    if (hub_is_hex(h->options.revision, 40))
        snprintf(out->commit, sizeof out->commit, "%s", h->options.revision);
    else
        code = resolve_revision(h, out->commit, err);
    if (code != CKPT_OK)
        return code;
    url = format_text("%s/api/%s/%s/tree/%s?recursive=true&expand=false", h->endpoint, plural(h),
                      h->options.repo, out->commit);
    if (url == NULL)
        return ckpt_fail_memory(err, "an address", 0);
    return read_pages(h, url, out, err);
}

static char *file_url(const hub *h, const hub_listing *listing, const hub_file *file)
{
    const char *prefix = strcmp(h->options.type, "model") == 0     ? ""
                         : strcmp(h->options.type, "dataset") == 0 ? "datasets/"
                                                                   : "spaces/";
    char *path = hub_encode(file->path, 1);
    char *tail = format_text("%s%s/resolve/%s/%s", prefix, h->options.repo, listing->commit,
                             path == NULL ? "" : path);
    char *url = path == NULL ? NULL : format_text("%s/%s%s%s", h->endpoint, tail, "", "");

    free(path);
    free(tail);
    return url;
}

const hub_kind hub_huggingface = {
    .name = "hf",
    .default_revision = "main",
    .site_variable = "HF_TOKEN",
    .own_host = "huggingface.co",
    .head_first = 1,
    .configure = configure,
    .list = list,
    .file_url = file_url,
};
