/* fuzz_hub.c: headers, URLs, names and patterns of a hostile hub. */
#include "libckpt/hub/hub_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_url(const char *text)
{
    char *joined = hub_resolve_url("https://hub.example:444/a/b?c", text);
    hub_url url;

    /* Whatever it resolves to is a URL, and it never shares an origin by looks alone. */
    if (joined != NULL && !hub_parse_url(joined, &url))
        abort();
    if (joined != NULL && hub_same_origin(joined, "https://hub.example:444/") !=
                              (url.is_https && url.port == 444 &&
                               strcmp(url.host, "hub.example") == 0))
        abort();
    free(joined);
    (void)hub_url_expiry(text);
}

/* A host that is replaced makes a URL of the other host, or nothing. */
static void check_map(const char *url, const char *map)
{
    char *mapped = hub_map_host(url, map);
    hub_url parsed;

    if (mapped != NULL && (!hub_is_host_map(map) || !hub_parse_url(mapped, &parsed)))
        abort();
    free(mapped);
}

static void check_path(const char *text)
{
    if (hub_path_complaint(text) != NULL)
        return;
    if (*text == '/' || strstr(text, "//") != NULL || strstr(text, "/../") != NULL ||
        strncmp(text, "../", 3) == 0 || strcmp(text, "..") == 0 || strchr(text, '\n') != NULL)
        abort();
    if (!hub_glob("*", text))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char shown[40];
    hub_content_range range;
    hub_rate rate;
    uint64_t seconds;
    char *half;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (hub_parse_content_range(text, &range) && !range.is_empty &&
        (range.last < range.first || (range.has_total && range.last >= range.total)))
        abort();
    free(hub_next_link(text));
    hub_parse_rate(text, &rate);
    hub_retry_after(text, 1000, &seconds);
    hub_etag(text, shown, sizeof shown);
    hub_show_url(text, shown, sizeof shown);
    check_url(text);
    check_path(text);
    (void)hub_repo_complaint(text);
    /* A pattern and a path, cut at the first line end. */
    if ((half = strchr(text, '\n')) != NULL) {
        *half = '\0';
        (void)hub_glob(text, half + 1);
        check_map(text, half + 1);
    }
    free(text);
    return 0;
}
