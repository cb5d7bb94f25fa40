/* hub_url.c: URLs of hubs, and comparison of their origins. */
#include <ctype.h>
#include <strings.h>
#include <time.h>

#include "hub_text.h"

int hub_parse_url(const char *url, hub_url *out)
{
    const char *at;
    size_t size;
    unsigned port = 0;

    memset(out, 0, sizeof *out);
    out->is_https = strncasecmp(url, "https://", 8) == 0;
    if (!out->is_https && strncasecmp(url, "http://", 7) != 0)
        return 0;
    at = url + (out->is_https ? 8 : 7);
    size = *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, ":/?#@");
    if (size == 0 || size >= sizeof out->host || memchr(at, '\0', size) != NULL)
        return 0;
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)at[i] <= 0x20 || (unsigned char)at[i] >= 0x7f || at[i] == '\\')
            return 0;
        out->host[i] = (char)tolower((unsigned char)at[i]);
    }
    at += size;
    if (*at == ':') {
        for (at++; *at >= '0' && *at <= '9' && port < 100000; at++)
            port = port * 10 + (unsigned)(*at - '0');
        if (port == 0 || port > 65535)
            return 0;
    }
    if (*at != '\0' && *at != '/' && *at != '?' && *at != '#')
        return 0;
    for (const char *c = at; *c != '\0'; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f)
            return 0;
    out->port = port != 0 ? port : out->is_https ? 443 : 80;
    out->rest = at;
    return 1;
}

int hub_same_origin(const char *a, const char *b)
{
    hub_url x;
    hub_url y;

    return hub_parse_url(a, &x) && hub_parse_url(b, &y) && x.is_https == y.is_https &&
           x.port == y.port && strcmp(x.host, y.host) == 0;
}

int hub_is_loopback(const hub_url *url)
{
    /* "127.example.org" is an ordinary host name. */
    return (strncmp(url->host, "127.", 4) == 0 &&
            url->host[strspn(url->host, "0123456789.")] == '\0') ||
           strcmp(url->host, "localhost") == 0 || strcmp(url->host, "[::1]") == 0;
}

/* The length of the leading bytes of `url` that are kept when a relative Location is resolved. */
static size_t base_size(const char *url, const hub_url *parsed, const char *location)
{
    const size_t origin = (size_t)(parsed->rest - url);
    const size_t path = strcspn(parsed->rest, "?#");
    size_t size = path;

    if (location[0] == '/')
        return origin;
    if (location[0] == '?')
        return origin + path;
    while (size > 0 && parsed->rest[size - 1] != '/')
        size--;
    return origin + size;
}

char *hub_resolve_url(const char *base, const char *location)
{
    hub_url parsed;
    const size_t location_size = strcspn(location, "#");
    size_t size;
    char *out;

    if (!hub_parse_url(base, &parsed) || location_size == 0)
        return NULL;
    if (strcspn(location, ":") < strcspn(location, "/?")) {
        out = strndup(location, location_size);
    } else if (location[0] == '/' && location[1] == '/') {
        if ((out = malloc(location_size + 7)) != NULL)
            snprintf(out, location_size + 7, "%s%.*s", parsed.is_https ? "https:" : "http:",
                     (int)location_size, location);
    } else {
        const int needs_slash = *parsed.rest == '\0' && location[0] != '/' && location[0] != '?';

        size = base_size(base, &parsed, location);
        if ((out = malloc(size + location_size + 2)) != NULL)
            snprintf(out, size + location_size + 2, "%.*s%s%.*s", (int)size, base,
                     needs_slash ? "/" : "", (int)location_size, location);
    }
    if (out != NULL && !hub_parse_url(out, &parsed)) {
        free(out);
        out = NULL;
    }
    return out;
}

/* Both sides of a mapping as URLs, with the scheme of `url` if they have none. */
static int split_map(const char *url, const char *map, char from[HUB_HOST_BYTES * 2],
                     char to[HUB_HOST_BYTES * 2])
{
    const char *scheme = strncasecmp(url, "https:", 6) == 0 ? "https" : "http";
    const char *sign = strchr(map, '=');
    hub_url parsed;

    if (sign == NULL || sign - map >= HUB_HOST_BYTES || strlen(sign) >= HUB_HOST_BYTES)
        return 0;
    snprintf(from, HUB_HOST_BYTES * 2, "%s://%.*s", scheme, (int)(sign - map), map);
    if (strstr(sign, "://") != NULL)
        snprintf(to, HUB_HOST_BYTES * 2, "%s", sign + 1);
    else
        snprintf(to, HUB_HOST_BYTES * 2, "%s://%s", scheme, sign + 1);
    return hub_parse_url(from, &parsed) && *parsed.rest == '\0' && hub_parse_url(to, &parsed) &&
           *parsed.rest == '\0';
}

int hub_is_host_map(const char *map)
{
    char from[HUB_HOST_BYTES * 2];
    char to[HUB_HOST_BYTES * 2];

    return split_map("https:", map, from, to);
}

char *hub_map_host(const char *url, const char *map)
{
    char from[HUB_HOST_BYTES * 2];
    char to[HUB_HOST_BYTES * 2];
    char *out = NULL;
    hub_url parsed;

    if (!split_map(url, map, from, to) || !hub_same_origin(url, from) ||
        !hub_parse_url(url, &parsed))
        return NULL;
    return asprintf(&out, "%s%s", to, parsed.rest) < 0 ? NULL : out;
}

/* Whether a byte stands for itself. */
typedef int keep_fn(unsigned char c);

static int is_unreserved(unsigned char c)
{
    return c < 0x80 && (isalnum(c) || strchr("_.~-", c) != NULL);
}

static int is_unreserved_or_slash(unsigned char c)
{
    return is_unreserved(c) || c == '/';
}

static int is_ascii(unsigned char c)
{
    return c < 0x80;
}

static char *encode(const char *text, keep_fn *keep)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = malloc(3 * strlen(text) + 1);
    char *put = out;

    if (out == NULL)
        return NULL;
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;

        if (keep(c)) {
            *put++ = (char)c;
        } else {
            *put++ = '%';
            *put++ = hex[c >> 4];
            *put++ = hex[c & 15];
        }
    }
    *put = '\0';
    return out;
}

char *hub_encode(const char *text, int keep_slash)
{
    return encode(text, keep_slash ? is_unreserved_or_slash : is_unreserved);
}

char *hub_encode_rest(const char *url)
{
    return encode(url, is_ascii);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

const char *hub_decode(char *text)
{
    char *put = text;

    for (const char *at = text; *at != '\0'; at++) {
        int byte = (unsigned char)*at;

        if (byte == '%') {
            const int high = hex_digit(at[1]);
            const int low = high < 0 ? -1 : hex_digit(at[2]);

            if (low < 0)
                return "expected two hex digits behind each '%' (a '%' itself is written '%25')";
            byte = high << 4 | low;
            at += 2;
        }
        if (byte < 0x20 || byte == 0x7f)
            return "it contains a control character";
        *put++ = (char)byte;
    }
    *put = '\0';
    return NULL;
}

void hub_show_url(const char *url, char *out, size_t out_bytes)
{
    const size_t size = strcspn(url, "?#");

    snprintf(out, out_bytes, "%.*s%s", (int)size, url, url[size] == '?' ? "?..." : "");
}

/* Value of `name=` in the query, ended by & or the end; NULL when there is none. */
static const char *query_value(const char *url, const char *name)
{
    const size_t size = strlen(name);
    const char *at = strchr(url, '?');

    for (; at != NULL; at = strchr(at, '&')) {
        at++;
        if (strncasecmp(at, name, size) == 0 && at[size] == '=')
            return at + size + 1;
    }
    return NULL;
}

int64_t hub_url_expiry(const char *url)
{
    enum { LIFE_SECONDS_MAX = 1 << 30 };
    const char *text = query_value(url, "Expires");
    const char *date = query_value(url, "X-Amz-Date");
    const char *amz = query_value(url, "X-Amz-Expires");
    int64_t expiry = 0;
    struct tm when;

    if (text != NULL)
        expiry = strtoll(text, NULL, 10);
    memset(&when, 0, sizeof when);
    if (date != NULL && amz != NULL && strptime(date, "%Y%m%dT%H%M%SZ", &when) != NULL) {
        const int64_t seconds = strtoll(amz, NULL, 10);
        const int64_t ends = (int64_t)timegm(&when) +
                             (seconds < 0 ? 0 : seconds > LIFE_SECONDS_MAX ? LIFE_SECONDS_MAX
                                                                           : seconds);

        if (expiry == 0 || ends < expiry)
            expiry = ends;
    }
    return expiry > 0 ? expiry : 0;
}
