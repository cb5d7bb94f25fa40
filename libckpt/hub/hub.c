/* hub.c: a session with a hub: identity, who may receive the token, rate limits. */
#include "hub.h"

#include <stdio.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "libckpt/clock.h"
#include "libckpt/error.h"
#include "libckpt/size.h"

static void make_trace_id(char out[40])
{
    unsigned char b[16];

    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        memset(b, 7, sizeof b);
    b[6] = (unsigned char)((b[6] & 15) | 0x40);
    b[8] = (unsigned char)((b[8] & 63) | 0x80);
    snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

static ckpt_code check_endpoint(hub *h, ckpt_error *err)
{
    size_t size = strlen(h->endpoint);
    hub_url url;

    while (size > 0 && h->endpoint[size - 1] == '/')
        h->endpoint[--size] = '\0';
    if (!hub_parse_url(h->endpoint, &url))
        return hub_fail(HUB_USAGE, err, "'%s' is not a hub URL: expected http(s)://HOST",
                        h->endpoint);
    if (h->token != NULL && strlen(h->token) > HUB_HEADER_BYTES / 2)
        return hub_fail(HUB_USAGE, err, "the token is too long");
    if (h->token != NULL && !url.is_https && !hub_is_loopback(&url) && !h->options.insecure_http)
        return hub_fail(HUB_USAGE, err,
                        "'%s' is plain http: the token would be sent unencrypted (see "
                        "--insecure-http)",
                        h->endpoint);
    return CKPT_OK;
}

/* Tokens are pasted: strip surrounding line ends and blanks. */
static void strip(char *text)
{
    char *put = text;

    if (text == NULL)
        return;
    for (const char *c = text; *c != '\0'; c++)
        if (strchr("\r\n\t ", *c) == NULL)
            *put++ = *c;
    *put = '\0';
}

ckpt_code hub_copy_text(char **out, const char *text, ckpt_error *err)
{
    *out = strdup(text);
    return *out == NULL ? ckpt_fail_memory(err, "an option", strlen(text)) : CKPT_OK;
}

ckpt_code hub_open(const hub_kind *kind, const hub_options *options, hub **out, ckpt_error *err)
{
    hub *h = calloc(1, sizeof *h);
    const char *origin = getenv("HF_HUB_USER_AGENT_ORIGIN");
    ckpt_code code;

    *out = h;
    if (h == NULL)
        return ckpt_fail_memory(err, "a hub", sizeof *h);
    h->kind = kind;
    h->options = *options;
    if (h->options.revision == NULL)
        h->options.revision = kind->default_revision;
    snprintf(h->user_agent, sizeof h->user_agent, "User-Agent: ckpt-download/%s; %s%s%s",
             CKPT_VERSION, http_library(), origin != NULL ? "; origin/" : "",
             origin != NULL ? origin : "");
    make_trace_id(h->trace_id);
    if ((options->endpoint != NULL &&
         (code = hub_copy_text(&h->endpoint, options->endpoint, err)) != CKPT_OK) ||
        (options->token != NULL &&
         (code = hub_copy_text(&h->token, options->token, err)) != CKPT_OK))
        return code;
    if ((code = kind->configure(h, err)) != CKPT_OK)
        return code;
    strip(h->token);
    if (h->token != NULL && *h->token == '\0') {
        free(h->token);
        h->token = NULL;
    }
    if ((code = check_endpoint(h, err)) != CKPT_OK)
        return code;
    return http_open(&h->options.http, &h->http, err);
}

void hub_close(hub *h)
{
    if (h == NULL)
        return;
    http_close(h->http);
    free(h->endpoint);
    free(h->other_endpoint);
    free(h->token);
    free(h);
}

static void add_header(hub_headers *out, const char *begin, const char *value)
{
    snprintf(out->text[out->count], HUB_HEADER_BYTES, "%s%s", begin, value);
    out->lines[out->count] = out->text[out->count];
    out->count++;
    out->lines[out->count] = NULL;
}

void hub_make_headers(const hub *h, const char *url, hub_headers *out)
{
    out->count = 0;
    out->lines[0] = h->user_agent;
    out->count = 1;
    if (!hub_same_origin(url, h->endpoint)) {
        out->lines[1] = NULL;
        return;
    }
    add_header(out, "X-Amzn-Trace-Id: ", h->trace_id);
    if (h->token == NULL)
        return;
    add_header(out, "Authorization: Bearer ", h->token);
    if (h->kind->has_session) {
        add_header(out, "Cookie: m_session_id=", h->token);
        add_header(out, "snapshot-identifier: ", h->trace_id);
    }
}

/* ---- limits ---- */

int hub_is_transient(unsigned status)
{
    return status == 408 || status == 429 || status == 500 ||
           (status >= 502 && status <= 504) || (status >= 520 && status <= 529);
}

/*
 * No wait after the first failure, which is mostly a connection that was closed while idle. Then
 * 1, 2, 4 ... 60 seconds, to reduce the load on a hub in trouble. Each is shortened by a random
 * share of up to half, so that clients that failed together do not retry together.
 */
double hub_backoff(unsigned failures)
{
    double delay = 1;
    unsigned short chance = 0;

    if (failures <= 1)
        return 0;
    for (unsigned i = 2; i < failures && delay < 60; i++)
        delay *= 2;
    if (getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
        chance = 0;
    return (delay > 60 ? 60 : delay) * (0.5 + (double)chance / 131072);
}

/* "topic; text": each topic is printed once. The text is untrusted: control characters are
 * removed. */
static void tell_warning(hub *h, const char *warning)
{
    const char *end = strchr(warning, ';');
    const uint64_t topic = hub_text_hash(warning, end == NULL ? strlen(warning)
                                                              : (size_t)(end - warning));
    char text[300];
    size_t used = 0;

    for (size_t i = 0; i < h->told_count; i++)
        if (h->told_topics[i] == topic)
            return;
    if (h->told_count == HUB_TOPICS_MAX || h->options.is_quiet)
        return;
    h->told_topics[h->told_count++] = topic;
    for (const char *c = warning; *c != '\0' && used + 1 < sizeof text; c++)
        text[used++] = (unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f ? '?' : *c;
    text[used] = '\0';
    fprintf(stderr, "the hub warns: %s\n", text);
}

/* Seconds between requests when few are left. A reset time far in the future is ignored: the worst
 * result of asking earlier is a 429. */
static double interval_of(const hub_rate *rate)
{
    static const double INTERVAL_SECONDS_MAX = 10;
    const double seconds = (double)rate->reset_seconds / (double)rate->left_count;

    return seconds < INTERVAL_SECONDS_MAX ? seconds : INTERVAL_SECONDS_MAX;
}

/* The server's time: dates in its reply refer to its clock, not ours. */
static int64_t clock_of(const http_reply *reply)
{
    const char *date = http_header(reply, "Date");
    const int64_t seconds = date == NULL ? 0 : hub_http_date(date);

    return seconds != 0 ? seconds : (int64_t)time(NULL);
}

/*
 * Tell of the first wait, and of every one that may look like a hang; the many requests that are
 * refused at the same time wait together. More than a minute is told even to those who want to hear
 * nothing.
 */
static void tell_wait(hub *h, double seconds)
{
    static const double LONG_SECONDS = 10;
    static const double HANG_SECONDS = 60;
    const double until = clock_seconds() + seconds;
    const int is_told = h->told_until > 0 &&
                        (seconds < LONG_SECONDS || until <= h->told_until + LONG_SECONDS);

    if (is_told || h->waited_seconds > (double)h->options.wait_seconds_max ||  /* it is refused */
        (h->options.is_quiet && seconds <= HANG_SECONDS))
        return;
    fprintf(stderr, "'%s' is rate limited, waiting %.0f s%s\n", h->options.repo, seconds,
            h->token == NULL && h->kind->site_variable[0] != '\0' ? " (a token raises the limit)"
                                                                  : "");
    h->told_until = until;
}

int hub_note_limits(hub *h, hub_bucket bucket, const http_reply *reply)
{
    const char *text = http_header(reply, "RateLimit");
    const char *policy = http_header(reply, "RateLimit-Policy");
    const char *warning = http_header(reply, "X-HF-Warning");
    hub_pace *pace = &h->paces[bucket];
    hub_rate rate = { .left_count = 1 };
    uint64_t quota = 0;
    uint64_t seconds = 0;
    double until;
    double now;

    if (warning != NULL && bucket != HUB_DATA)
        tell_warning(h, warning);
    if (text != NULL && hub_parse_rate(text, &rate)) {
        pace->interval = 0;
        if (policy != NULL && hub_rate_number(policy, 'q', &quota) &&
            rate.left_count < quota / 20 && rate.left_count > 0)
            pace->interval = interval_of(&rate);
    } else {
        text = NULL;
    }
    if (http_status(reply) != 429)
        return 0;
    if (text != NULL && rate.left_count == 0)
        seconds = rate.reset_seconds;
    else if ((text = http_header(reply, "Retry-After")) == NULL ||
             !hub_retry_after(text, clock_of(reply), &seconds))
        seconds = 4;
    /* One second more than requested, because both clocks count full seconds; it is not counted
     * as a wait. Many requests may be answered with 429 at once; their common wait is counted once,
     * as only the time beyond the known wait is added. */
    now = clock_seconds();
    until = now + (double)size_min(seconds, UINT32_MAX) + 1;
    if (until > pace->not_before) {
        h->waited_seconds += until - (pace->not_before > now ? pace->not_before : now + 1);
        pace->not_before = until;
    }
    tell_wait(h, until - now);
    return 1;
}

double hub_delay(hub *h, hub_bucket bucket)
{
    hub_pace *pace = &h->paces[bucket];
    const double now = clock_seconds();

    if (now < pace->not_before)
        return pace->not_before - now;
    if (pace->interval > 0)
        pace->not_before = now + pace->interval;
    return 0;
}

ckpt_code hub_check_waiting(hub *h, ckpt_error *err)
{
    if (h->waited_seconds <= (double)h->options.wait_seconds_max)
        return CKPT_OK;
    return hub_fail(HUB_NETWORK, err,
                    "'%s' requests a longer wait than %s: expected at most %u s, got %.0f s",
                    h->options.repo, h->options.wait_option, (unsigned)h->options.wait_seconds_max,
                    h->waited_seconds);
}

ckpt_code hub_redirect(const hub *h, const char *url, const http_reply *reply, char **out,
                       ckpt_error *err)
{
    const char *location = http_header(reply, "Location");
    char shown[300];
    hub_url from;
    hub_url to;
    hub_url base;

    hub_show_url(url, shown, sizeof shown);
    *out = location == NULL ? NULL : hub_resolve_url(url, location);
    if (*out == NULL || !hub_parse_url(*out, &to) || !hub_parse_url(url, &from))
        return hub_fail(HUB_NETWORK, err, "'%s' sent an invalid redirect: expected a URL, got "
                        "'%.80s'", shown, location == NULL ? "" : location);
    for (size_t i = 0; i < h->options.host_map_count; i++) {
        char *mapped = hub_map_host(*out, h->options.host_maps[i]);

        if (mapped == NULL)
            continue;
        free(*out);
        *out = mapped;
        hub_parse_url(*out, &to);
        break;
    }
    /* A mirror's redirect to the original hub is sent through the mirror. */
    if (h->kind->own_host != NULL && strcmp(to.host, h->kind->own_host) == 0 &&
        hub_parse_url(h->endpoint, &base) && strcmp(base.host, to.host) != 0) {
        const size_t size = strlen(h->endpoint) + strlen(to.rest) + 1;
        char *mapped = malloc(size);

        if (mapped != NULL)
            snprintf(mapped, size, "%s%s", h->endpoint, to.rest);
        free(*out);
        *out = mapped;
        return mapped == NULL ? ckpt_fail_memory(err, "an address", size) : CKPT_OK;
    }
    if (from.is_https && !to.is_https) {
        free(*out);
        *out = NULL;
        return hub_fail(HUB_NETWORK, err, "'%s' redirects from https to http: refused", shown);
    }
    return CKPT_OK;
}
