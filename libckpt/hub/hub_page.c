/* hub_page.c: fetches pages of a hub's API one by one and interprets error replies. */
#include <stdio.h>
#include <strings.h>

#include "hub.h"
#include "libckpt/clock.h"
#include "libckpt/json.h"

enum { HOPS_MAX = 10, PAGE_BYTES_MAX = 256 << 20 };

void hub_page_release(hub_page *page)
{
    free(page->text);
    free(page->next);
    memset(page, 0, sizeof *page);
}

ckpt_code hub_page_parse(hub_page *page, const char *subject, json_document **out,
                         ckpt_error *err)
{
    const ckpt_code code = json_parse(page->text == NULL ? "" : page->text, page->text_bytes,
                                      subject, out, err);

    free(page->text);            /* json_parse charged it; from here on it is not charged */
    page->text = NULL;
    return code;
}

/* The message in an error's body; "" if there is no readable one. */
static void error_text(const http_result *result, char *out, size_t out_bytes)
{
    static const char *const keys[] = { "error", "Message", "error_description", "message" };
    const char *header = http_header(result->reply, "X-Error-Message");
    json_document *document = NULL;
    const char *text = header;
    ckpt_error ignored;

    if (text == NULL && json_parse(result->text, result->text_bytes, "reply", &document,
                                   &ignored) == CKPT_OK) {
        for (size_t i = 0; text == NULL && i < sizeof keys / sizeof *keys; i++) {
            const json_value *value = json_member(json_root(document), keys[i]);

            text = json_string(json_is_array(value) ? json_first(value) : value);
        }
    } else if (text == NULL && strstr(result->text, "<html") == NULL &&
               strncasecmp(result->text, "<!doctype", 9) != 0) {
        text = result->text;
    }
    snprintf(out, out_bytes, "%.300s", text == NULL ? "" : text);
    json_free(document);
}

static const char *request_id(const http_reply *reply)
{
    static const char *const names[] = { "X-Request-Id", "X-Amzn-Trace-Id", "X-Amz-Cf-Id" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (http_header(reply, names[i]) != NULL)
            return http_header(reply, names[i]);
    return "none";
}

ckpt_code hub_refusal(hub *h, const http_result *result, const char *subject, ckpt_error *err)
{
    const unsigned status = http_status(result->reply);
    const char *word = http_header(result->reply, "X-Error-Code");
    const char *id = request_id(result->reply);
    char text[320];

    error_text(result, text, sizeof text);
    word = word == NULL ? "" : word;
    if (status == 401 && strstr(text, "Invalid credentials") != NULL)
        return hub_fail(HUB_AUTH, err, "token rejected for '%s' (request %s)", subject, id);
    if (strcmp(word, "GatedRepo") == 0)
        return hub_fail(HUB_AUTH, err,
                        "'%s' is gated: accept its terms at %s/%s%s and use a token with access to "
                        "gated repositories: %s (request %s)", subject, h->endpoint,
                        strcmp(h->options.type, "model") == 0 ? "" : "datasets/",
                        h->options.repo, text, id);
    if (status == 403 && strstr(text, "is disabled") != NULL)
        return hub_fail(HUB_NOT_FOUND, err, "'%s' is disabled by the hub: %s (request %s)",
                        subject, text, id);
    if (status == 401)
        return hub_fail(HUB_AUTH, err,
                        "'%s' is missing, private or gated (the hub does not say which): check the "
                        "name, or set a token with %s or --token (%s, request %s)", subject,
                        h->kind->site_variable, text, id);
    if (status == 403)
        return hub_fail(HUB_AUTH, err, "no permission for '%s': %s (request %s)", subject, text,
                        id);
    if (status == 404 && strcmp(word, "RevisionNotFound") == 0)
        return hub_fail(HUB_NOT_FOUND, err, "'%s' has no revision '%s': expected a branch, a tag "
                        "or a commit (%s, request %s)", subject, h->options.revision, word, id);
    if (status == 404)
        return hub_fail(HUB_NOT_FOUND, err, "'%s' not found: %s %s (request %s)", subject,
                        word, text, id);
    return hub_fail(hub_is_transient(status) ? HUB_NETWORK : HUB_OTHER, err,
                    "'%s': the hub answered %u: %s (request %s)", subject, status, text, id);
}

/* ---- one synchronous request ---- */

typedef struct {
    hub *h;
    int is_done;
    int wants_hop;
    int wants_retry;
    char *next_url;
    hub_page *page;
    const char *url;
    ckpt_code code;
    ckpt_error *err;
} page_request;

static http_verdict page_head(void *context, const http_reply *reply)
{
    (void)context;
    (void)reply;
    return HTTP_KEEP;
}

static int page_data(void *context, const void *bytes, size_t size)
{
    (void)context;
    (void)bytes;
    (void)size;
    return 0;
}

static void take_next(page_request *p, const http_reply *reply)
{
    const char *link = http_header(reply, "Link");
    char *next = NULL;

    for (; link != NULL && next == NULL; link = http_header_after(reply, "Link", link))
        next = hub_next_link(link);
    if (next == NULL)
        return;
    p->page->next = hub_resolve_url(p->url, next);
    if (p->page->next == NULL || !hub_same_origin(p->page->next, p->h->endpoint)) {
        char shown[300];

        hub_show_url(next, shown, sizeof shown);
        p->code = hub_fail(HUB_OTHER, p->err,
                           "the next page of the listing of '%s' is on another host: expected %s, "
                           "got '%s'",
                           p->h->options.repo, p->h->endpoint, shown);
    }
    free(next);
}

static void page_done(void *context, const http_result *result)
{
    page_request *p = context;
    const unsigned status = http_status(result->reply);

    p->is_done = 1;
    if (result->outcome == HTTP_TOO_LARGE || result->outcome == HTTP_NO_MEMORY) {
        p->code = result->outcome == HTTP_NO_MEMORY
                      ? ckpt_fail_memory(p->err, "a page of the listing", result->text_bytes)
                      : ckpt_fail(p->err, CKPT_E_FORMAT, "a page of the listing of '%s' is longer "
                                  "than %d bytes", p->h->options.repo, PAGE_BYTES_MAX);
        return;
    }
    if (result->outcome != HTTP_DONE) {
        p->wants_retry = result->outcome == HTTP_BROKEN;
        p->code = hub_fail(HUB_NETWORK, p->err, "cannot reach '%s': %s", p->h->endpoint,
                           result->problem);
        return;
    }
    if (hub_note_limits(p->h, HUB_API, result->reply) || hub_is_transient(status)) {
        p->wants_retry = 1;
        p->code = hub_refusal(p->h, result, p->h->options.repo, p->err);
    } else if (status >= 300 && status < 400) {
        p->code = hub_redirect(p->h, p->url, result->reply, &p->next_url, p->err);
        p->wants_hop = p->code == CKPT_OK;
    } else if (status != 200) {
        p->code = hub_refusal(p->h, result, p->h->options.repo, p->err);
    } else {
        p->page->text = http_take_text(result);
        p->page->text_bytes = p->page->text == NULL ? 0 : result->text_bytes;
        take_next(p, result->reply);
    }
}

/* Wait `seconds`, or until the run is stopped. */
static ckpt_code pause_for(hub *h, double seconds, ckpt_error *err)
{
    const double until = clock_seconds() + seconds;
    ckpt_code code = hub_check_waiting(h, err);

    while (code == CKPT_OK && clock_seconds() < until) {
        if (*h->options.stop)
            return hub_fail_interrupted(err);
        code = http_poll(h->http, 50, err);
    }
    return code;
}

static ckpt_code ask_once(page_request *p)
{
    hub_headers headers;
    http_transfer *transfer;
    http_request request = { .url = p->url,
                             .compressed = 1,
                             .text_bytes_max = PAGE_BYTES_MAX,
                             .context = p,
                             .head = page_head,
                             .data = page_data,
                             .done = page_done };
    ckpt_code code;

    hub_make_headers(p->h, p->url, &headers);
    request.headers = headers.lines;
    if ((code = pause_for(p->h, hub_delay(p->h, HUB_API), p->err)) != CKPT_OK ||
        (code = http_start(p->h->http, &request, &transfer, p->err)) != CKPT_OK)
        return code;
    p->h->request_count++;
    while (!p->is_done && code == CKPT_OK) {
        code = http_poll(p->h->http, 200, p->err);
        if (code == CKPT_OK && *p->h->options.stop && !p->is_done)
            code = hub_fail_interrupted(p->err);
    }
    if (p->is_done)
        return p->code;
    http_cancel(p->h->http, transfer);       /* `p` is on the caller's stack */
    return code;
}

ckpt_code hub_get_page(hub *h, const char *url, hub_page *out, ckpt_error *err)
{
    char *current = strdup(url);
    unsigned failures = 0;
    unsigned hops = 0;
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    if (current == NULL)
        return ckpt_fail_memory(err, "an address", strlen(url));
    for (;;) {
        page_request p = { .h = h, .page = out, .url = current, .err = err };

        code = ask_once(&p);
        if (p.wants_hop) {
            free(current);
            current = p.next_url;
            if (!hub_same_origin(current, h->endpoint) || ++hops > HOPS_MAX) {
                char shown[300];

                hub_show_url(current, shown, sizeof shown);
                code = hub_fail(HUB_OTHER, err,
                                "the hub redirects '%s' %s: '%s'",
                                h->options.repo,
                                hops > HOPS_MAX ? "too many times" : "to another host", shown);
                break;
            }
            continue;
        }
        if (!p.wants_retry)
            break;
        if (h->paces[HUB_API].not_before <= clock_seconds())       /* waiting does not count as a
                                                              * failure */
            failures++;
        if (failures >= h->options.tries_max)
            break;
        hub_page_release(out);
        if ((code = pause_for(h, hub_backoff(failures), err)) != CKPT_OK)
            break;
    }
    free(current);
    return code;
}
