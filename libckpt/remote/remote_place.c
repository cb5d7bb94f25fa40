/* remote_place.c: what a URL names, and the session that reads it. */
#include "remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/hub/hub_name.h"
#include "remote_folder.h"
#include "remote_network.h"
#include "remote_plain.h"

enum { CONNECT_SECONDS = 10, STALL_SECONDS = 30, WAIT_SECONDS_MAX = 1800 };

/* A parsed URL. */
typedef struct {
    const hub_kind *kind;
    hub_name name;               /* at a web server: its path alone, the name of the file */
    char *endpoint;              /* malloc'd; NULL: from the environment */
} remote_name;

int remote_is_url(const char *path)
{
    static const char *const schemes[] = { "hf://", "ms://", "https://", "http://" };

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(path, schemes[i], strlen(schemes[i])) == 0)
            return 1;
    return 0;
}

/* ---- what a URL names ---- */

/* What follows the host in the address of a page of ModelScope; NULL: it is not one. */
static const char *modelscope_page(const char *url, const char **endpoint)
{
    static const char *const sites[][2] = {
        { "https://modelscope.cn/models/", NULL },
        { "https://www.modelscope.cn/models/", NULL },
        { "https://modelscope.ai/models/", "https://www.modelscope.ai" },
        { "https://www.modelscope.ai/models/", "https://www.modelscope.ai" },
    };

    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
        if (strncmp(url, sites[i][0], strlen(sites[i][0])) == 0) {
            *endpoint = sites[i][1];
            return url + strlen(sites[i][0]);
        }
    return NULL;
}

/* The last part of a web address as the name of a file. */
static const char *take_file_name(const char *text, hub_name *out)
{
    const char *complaint;

    out->path_bytes = strlen(text);
    if (out->path_bytes >= sizeof out->path)
        return "its last part is too long";
    memcpy(out->path, text, out->path_bytes + 1);
    complaint = hub_decode(out->path);
    return complaint == NULL && strchr(out->path, '/') != NULL
               ? "its last part contains '%2F': expected the name of a file" : complaint;
}

/* A folder of a web server, or a file in one. NULL, or what is wrong with it. */
static const char *parse_plain(const char *text, remote_name *out)
{
    const char *slash = strrchr(text, '/');
    const char *complaint = NULL;
    size_t size = strlen(text);
    char *folder;
    hub_url url;

    if (!hub_parse_url(text, &url))
        return "expected https://HOST/PATH, without a user name";
    if (strpbrk(text, "?#") != NULL)
        return "expected an address without '?' and '#'";
    if (!url.is_https && !hub_is_loopback(&url))
        return "plain http is only used on this machine: expected https";
    if (url.rest[0] != '\0' && remote_plain_is_weights(slash + 1)) {
        complaint = take_file_name(slash + 1, &out->name);
        size = (size_t)(slash - text);
    }
    out->kind = &hub_plain;
    folder = strndup(text, size);
    out->endpoint = folder == NULL ? NULL : hub_encode_rest(folder);
    if (complaint == NULL && folder != NULL)
        complaint = hub_decode(folder);
    free(folder);
    return complaint;
}

static const char *parse_url(const char *text, remote_name *out)
{
    const char *endpoint = NULL;
    const char *page = modelscope_page(text, &endpoint);
    const char *complaint;

    memset(out, 0, sizeof *out);
    out->kind = &hub_modelscope;
    if (endpoint != NULL)
        out->endpoint = strdup(endpoint);
    if (page != NULL)
        return hub_parse_page(page, &out->name);
    if (strncmp(text, "ms://", 5) == 0) {
        complaint = hub_parse_parts(text + 5, &out->name);
        return complaint == NULL && strchr(out->name.repo, '/') == NULL
                   ? "expected ms://OWNER/NAME" : complaint;
    }
    out->kind = &hub_huggingface;
    complaint = hub_parse_name(text, &out->name);
    if (complaint == NULL || strncmp(text, "http", 4) != 0 || out->name.repo[0] != '\0')
        return complaint;
    return parse_plain(text, out);
}

/* ---- the session ---- */

/* The options of the hub, whose texts the session keeps. */
static ckpt_code take_options(remote_session *s, const char *url, remote_name *name,
                              hub_options *out, ckpt_error *err)
{
    const hub_name *n = &name->name;

    s->texts[0] = strdup(n->repo[0] != '\0' ? n->repo : url);
    s->texts[1] = n->revision[0] == '\0' ? NULL : strdup(n->revision);
    s->texts[2] = name->endpoint;
    name->endpoint = NULL;
    if (s->texts[0] == NULL || (n->revision[0] != '\0' && s->texts[1] == NULL) ||
        (name->kind == &hub_plain && s->texts[2] == NULL))
        return ckpt_fail_memory(err, "a remote folder", strlen(url));
    *out = (hub_options){ .repo = s->texts[0],
                          .type = n->type != NULL ? n->type : "model",
                          .revision = s->texts[1],
                          .endpoint = s->texts[2],
                          .is_quiet = s->options.is_quiet,
                          .tries_max = HUB_TRIES,
                          .wait_seconds_max = WAIT_SECONDS_MAX,
                          .wait_option = "this command allows",
                          .stop = s->options.stop,
                          .http = { CONNECT_SECONDS, STALL_SECONDS, 0, REMOTE_CONNECTIONS } };
    return CKPT_OK;
}

/* The URL without the path in the repository, and without slashes at its end. */
static ckpt_code name_root(remote_session *s, const char *url, const remote_name *name,
                           ckpt_error *err)
{
    size_t size = strlen(url) - name->name.path_bytes;

    while (size > 0 && url[size - 1] == '/')
        size--;
    s->root = strndup(url, size);
    return s->root != NULL ? CKPT_OK : ckpt_fail_memory(err, "a remote folder", size);
}

static ckpt_code make_session(const remote_options *options, const char *url, remote_name *name,
                              remote_session **out, ckpt_error *err)
{
    remote_session *s = calloc(1, sizeof *s);
    hub_options with;
    ckpt_code code;

    if (s == NULL)
        return ckpt_fail_memory(err, "a remote folder", sizeof *s);
    *out = s;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    arena_init(&s->listing.memory);
    s->options = *options;
    s->is_plain = name->kind == &hub_plain;
    s->reference_count = 1;
    if ((code = name_root(s, url, name, err)) != CKPT_OK ||
        (code = take_options(s, url, name, &with, err)) != CKPT_OK ||
        (code = hub_open(name->kind, &with, &s->h, err)) != CKPT_OK ||
        (code = s->h->kind->list(s->h, &s->listing, err)) != CKPT_OK ||
        (code = hub_listing_check(s->texts[0], &s->listing, 0, err)) != CKPT_OK ||
        (code = remote_cache_open(&s->cache, options->memory_bytes, err)) != CKPT_OK)
        return code;
    return remote_network_open(s, err);
}

/* ---- the place ---- */

/* Split the path in the session: the folder, and the file if it names one. */
static ckpt_code open_path(remote_session *s, char *path, folder_place *out, ckpt_error *err)
{
    size_t size = strlen(path);
    remote_entry *entry = NULL;
    char *slash;
    ckpt_code code;

    while (size > 0 && path[size - 1] == '/')
        path[--size] = '\0';
    if (size == 0)
        return remote_folder_open(s, "", &out->folder, err);
    if ((code = remote_session_find(s, path, &entry, err)) != CKPT_OK)
        return code;
    if (entry == NULL && !s->is_plain) {
        if ((code = remote_folder_open(s, path, &out->folder, err)) != CKPT_OK ||
            remote_folder_exists(out->folder))
            return code;
        return ckpt_fail(err, CKPT_E_IO, "'%s' does not exist: '%s' has no file or folder '%s'",
                         out->path, s->texts[0], path);
    }
    slash = strrchr(path, '/');
    if ((out->name = strdup(slash == NULL ? path : slash + 1)) == NULL)
        return ckpt_fail_memory(err, "a path", size);
    if (slash != NULL)
        *slash = '\0';
    return remote_folder_open(s, slash == NULL ? "" : path, &out->folder, err);
}

ckpt_code remote_open(const remote_options *options, const char *url, folder_place *out,
                      ckpt_error *err)
{
    remote_session *s = NULL;
    remote_name name;
    const char *complaint = parse_url(url, &name);
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (complaint != NULL)
        code = hub_fail(HUB_USAGE, err, "cannot read '%s': %s", url, complaint);
    else if (hub_is_offline())
        code = hub_fail(HUB_USAGE, err, "cannot read '%s': HF_HUB_OFFLINE is set", url);
    else if ((out->path = strdup(url)) == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(url));
    else if ((code = make_session(options, url, &name, &s, err)) == CKPT_OK &&
             (!s->is_plain || (code = remote_plain_look(s, name.name.path, err)) == CKPT_OK))
        code = open_path(s, name.name.path, out, err);
    free(name.endpoint);
    if (s != NULL)
        remote_session_drop(s);
    return code;
}
