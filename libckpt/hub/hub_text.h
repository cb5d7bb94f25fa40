/*
 * hub_text.h: strict parsing of headers, URLs and names of hubs. Pure functions on untrusted text,
 * covered by fuzzers and unit tests.
 */
#ifndef CKPT_HUB_TEXT_H
#define CKPT_HUB_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* "bytes 0-99/1000", and with stars: an unknown total; no range at all (is_empty). */
typedef struct {
    uint64_t first;
    uint64_t last;
    uint64_t total;
    int has_total;
    int is_empty;
} hub_content_range;
int hub_parse_content_range(const char *text, hub_content_range *out);

/* URL of rel="next" in a Link header, malloc'd; NULL when there is none. */
char *hub_next_link(const char *link);

/* `"resolvers";r=2998;t=172`. 0 if malformed. */
typedef struct {
    char bucket[24];
    uint64_t left_count;
    uint64_t reset_seconds;
} hub_rate;
int hub_parse_rate(const char *text, hub_rate *out);
/* The number after `key=` in a header of that grammar. */
int hub_rate_number(const char *text, char key, uint64_t *out);

/* Seconds to wait: a number, or an HTTP date against `now`. */
int hub_retry_after(const char *text, int64_t now, uint64_t *seconds);
/* Seconds since 1970 of an HTTP date; 0 if malformed. */
int64_t hub_http_date(const char *text);

/* Without W/ and quotes. */
void hub_etag(const char *text, char *out, size_t out_bytes);
int hub_is_hex(const char *text, size_t digit_count);     /* lower case, exactly `count` digits */

/* ---- URLs ---- */

enum { HUB_HOST_BYTES = 256 };
typedef struct {
    int is_https;
    char host[HUB_HOST_BYTES];     /* lower case */
    unsigned port;
    const char *rest;              /* points into the URL: path and query */
} hub_url;

/* http and https only; user names in URLs are refused. */
int hub_parse_url(const char *url, hub_url *out);
int hub_same_origin(const char *a, const char *b);
int hub_is_loopback(const hub_url *url);
/* A Location against the URL it came from, query kept; malloc'd, NULL when it makes no URL. */
char *hub_resolve_url(const char *base, const char *location);
/* Percent-encoded, `/` kept where asked; malloc'd. */
char *hub_encode(const char *text, int keep_slash);
/* The same of a URL: what is ASCII in it is kept. */
char *hub_encode_rest(const char *url);
/* Percent-decode in place. NULL, or what is wrong with the text: a '%' without two hex digits, or a
 * control character. */
const char *hub_decode(char *text);
/* For messages: scheme, host and path; the query is omitted because it may contain a signature. */
void hub_show_url(const char *url, char *out, size_t out_bytes);
/* `map` is "A=B", each HOST[:PORT], B also with a scheme: a URL whose host is A, with B instead;
 * malloc'd. NULL when its host is another, or there is no memory. */
char *hub_map_host(const char *url, const char *map);
int hub_is_host_map(const char *map);
/* Expiry of a signed URL, in seconds since 1970; 0: unknown. */
int64_t hub_url_expiry(const char *url);

/* FNV-1a, to detect repeated texts. */
uint64_t hub_text_hash(const char *text, size_t size);

/* ---- names ---- */

/* Python's fnmatchcase on a whole path; a pattern that ends in `/` means everything below it. */
int hub_glob(const char *pattern, const char *path);
/* NULL, or what is wrong with a repository ID. */
const char *hub_repo_complaint(const char *id);
/* NULL, or why a file of that name is never written. */
const char *hub_path_complaint(const char *path);

#endif
