/* hub_http.c: the only file that uses libcurl. */
#include "hub_http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <strings.h>
#include <unistd.h>

#include "libckpt/clock.h"
#include "libckpt/memory.h"

enum {
    HEADER_BYTES_MAX = 64 << 10,
    TEXT_BYTES_MAX = 64 << 10,
    BUFFER_BYTES = 512 << 10
};

struct http_reply {
    unsigned status;
    size_t header_bytes;
    char headers[HEADER_BYTES_MAX];    /* "name: value\0" ... of the last reply */
};

struct http_transfer {
    CURL *easy;
    struct curl_slist *headers;
    http_client *client;
    http_transfer *next;
    http_transfer **link;              /* what points to this one */
    http_request request;              /* its strings are freed; only numbers and callbacks are
                                        * valid */
    http_verdict verdict;
    int judged;
    int paused;
    char *text;                        /* counted by memory.h */
    size_t text_bytes;
    http_outcome refusal;              /* of the text; HTTP_DONE: none */
    http_reply reply;
    char problem[CURL_ERROR_SIZE];
};

struct http_client {
    CURLM *multi;
    http_options options;
    http_transfer *busy;
    http_transfer *idle;
    int paused_count;
    double budget_bytes;               /* of the rate limit */
    double budget_time;
    const char *ca_file;
    const char *ca_folder;
};

static const char *first_set(const char *const *names)
{
    for (; *names != NULL; names++) {
        const char *value = getenv(*names);

        if (value != NULL && *value != '\0')
            return value;
    }
    return NULL;
}

/*
 * The certificates of this system, if they are not where libcurl was built to look for them; NULL
 * lets libcurl look there. A program that runs on every distribution finds them on each.
 */
static const char *certificates_elsewhere(void)
{
    static const char *const files[] = {
        "/etc/ssl/certs/ca-certificates.crt",                   /* Debian, Arch, Gentoo */
        "/etc/pki/tls/certs/ca-bundle.crt",                     /* Fedora, Red Hat */
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",    /* the same, newer */
        "/etc/ssl/ca-bundle.pem",                               /* SUSE */
        "/etc/ssl/cert.pem"                                     /* Alpine */
    };
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

    if (info->age < CURLVERSION_SEVENTH || info->cainfo == NULL || info->capath != NULL ||
        access(info->cainfo, R_OK) == 0)
        return NULL;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (access(files[i], R_OK) == 0)
            return files[i];
    return NULL;
}

const char *http_library(void)
{
    static char text[64];

    snprintf(text, sizeof text, "libcurl/%s", curl_version_info(CURLVERSION_NOW)->version);
    return text;
}

ckpt_code http_open(const http_options *options, http_client **out, ckpt_error *err)
{
    static const char *const ca_files[] = { "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
                                            "CURL_CA_BUNDLE", NULL };
    static const char *const ca_folders[] = { "SSL_CERT_DIR", NULL };
    const char *proxy = getenv("HTTP_PROXY");
    http_client *client = calloc(1, sizeof *client);

    *out = NULL;
    if (client == NULL)
        return ckpt_fail_memory(err, "an HTTP client", sizeof *client);
    client->options = *options;
    client->ca_file = first_set(ca_files);
    client->ca_folder = first_set(ca_folders);
    if (client->ca_file == NULL && client->ca_folder == NULL)
        client->ca_file = certificates_elsewhere();
    /* libcurl reads all proxy variables except this one in capitals. */
    if (proxy != NULL)
        setenv("http_proxy", proxy, 0);
    client->budget_time = clock_seconds();
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        (client->multi = curl_multi_init()) == NULL) {
        free(client);
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot start libcurl");
    }
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS,
                      (long)options->connection_count * 2 + 8);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *out = client;
    return CKPT_OK;
}

static void link_transfer(http_transfer **list, http_transfer *t)
{
    t->next = *list;
    t->link = list;
    if (t->next != NULL)
        t->next->link = &t->next;
    *list = t;
}

static void unlink_transfer(http_transfer *t)
{
    *t->link = t->next;
    if (t->next != NULL)
        t->next->link = t->link;
}

static void free_all(http_client *client, http_transfer *list)
{
    while (list != NULL) {
        http_transfer *next = list->next;

        curl_multi_remove_handle(client->multi, list->easy);
        curl_easy_cleanup(list->easy);
        curl_slist_free_all(list->headers);
        memory_give(list->text_bytes);
        free(list->text);
        free(list);
        list = next;
    }
}

void http_close(http_client *client)
{
    if (client == NULL)
        return;
    free_all(client, client->busy);
    free_all(client, client->idle);
    curl_multi_cleanup(client->multi);
    curl_global_cleanup();
    free(client);
}

/* ---- replies ---- */

unsigned http_status(const http_reply *reply)
{
    return reply->status;
}

const char *http_header(const http_reply *reply, const char *name)
{
    return http_header_after(reply, name, NULL);
}

const char *http_header_after(const http_reply *reply, const char *name, const char *value)
{
    const size_t size = strlen(name);
    const char *at = value == NULL ? reply->headers : value + strlen(value) + 1;
    const char *end = reply->headers + reply->header_bytes;

    for (; at < end; at += strlen(at) + 1)
        if (strncasecmp(at, name, size) == 0 && at[size] == ':') {
            at += size + 1;
            return at + strspn(at, " \t");
        }
    return NULL;
}

/* One header line. A status line begins a new reply: an earlier 1xx is forgotten. */
static size_t on_header(char *line, size_t one, size_t size, void *context)
{
    http_transfer *t = context;
    http_reply *reply = &t->reply;
    const size_t line_bytes = size;

    (void)one;
    if (size > 5 && memcmp(line, "HTTP/", 5) == 0) {
        const char *space = memchr(line, ' ', size);

        reply->header_bytes = 0;
        reply->status = 0;
        t->judged = 0;
        for (size_t i = 1; space != NULL && i <= 3 && space + i < line + size; i++)
            reply->status = reply->status * 10 + (unsigned)(space[i] - '0');
        return size;
    }
    while (size > 0 && isspace((unsigned char)line[size - 1]))
        size--;
    if (size > 0 && reply->header_bytes + size + 1 <= HEADER_BYTES_MAX) {
        char *to = reply->headers + reply->header_bytes;

        for (size_t i = 0; i < size; i++)
            to[i] = line[i] == '\0' ? ' ' : line[i];
        to[size] = '\0';
        reply->header_bytes += size + 1;
    } else if (size == 0 && reply->status >= 200) {
        t->judged = 1;
        t->verdict = t->request.head(t->request.context, reply);
        if (t->verdict == HTTP_REFUSE)
            return 0;
    }
    return line_bytes;
}

static int refuse_text(http_transfer *t, http_outcome why)
{
    t->refusal = why;
    return 0;
}

static void drop_text(http_transfer *t)
{
    memory_give(t->text_bytes);
    free(t->text);
    t->text = NULL;
    t->text_bytes = 0;
}

static int keep_text(http_transfer *t, const char *bytes, size_t size)
{
    const size_t max = t->request.text_bytes_max != 0 ? t->request.text_bytes_max
                                                      : TEXT_BYTES_MAX;
    char *text;

    if (size > max - t->text_bytes) {
        /* The first part of an error text is enough, but half a document is useless. */
        if (t->request.text_bytes_max != 0)
            return refuse_text(t, HTTP_TOO_LARGE);
        size = max - t->text_bytes;
    }
    if (!memory_take(size))
        return refuse_text(t, HTTP_NO_MEMORY);
    if ((text = realloc(t->text, t->text_bytes + size + 1)) == NULL) {
        memory_give(size);
        return refuse_text(t, HTTP_NO_MEMORY);
    }
    memcpy(text + t->text_bytes, bytes, size);
    t->text = text;
    t->text_bytes += size;
    text[t->text_bytes] = '\0';
    return 1;
}

void http_limit(http_client *client, uint64_t rate_bytes)
{
    client->options.rate_bytes = rate_bytes;
}

/* 1 if the rate limit allows `size` more bytes now. */
static int within_rate(http_client *client, size_t size)
{
    const double rate = (double)client->options.rate_bytes;
    const double now = clock_seconds();

    if (client->options.rate_bytes == 0)
        return 1;
    client->budget_bytes += (now - client->budget_time) * rate;
    client->budget_time = now;
    if (client->budget_bytes > rate / 4)
        client->budget_bytes = rate / 4;
    if (client->budget_bytes <= 0)
        return 0;
    client->budget_bytes -= (double)size;
    return 1;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *context)
{
    http_transfer *t = context;

    (void)one;
    if (!t->judged || t->verdict == HTTP_REFUSE)
        return 0;
    if (t->verdict == HTTP_KEEP)
        return keep_text(t, bytes, size) ? size : 0;
    if (!within_rate(t->client, size)) {
        t->paused = 1;
        t->client->paused_count++;
        return CURL_WRITEFUNC_PAUSE;
    }
    return t->request.data(t->request.context, bytes, size) ? size : 0;
}

/* ---- requests ---- */

static http_transfer *take_transfer(http_client *client)
{
    http_transfer *t = client->idle;

    if (t != NULL) {
        unlink_transfer(t);
        curl_easy_reset(t->easy);
        return t;
    }
    if ((t = calloc(1, sizeof *t)) == NULL)
        return NULL;
    t->client = client;
    if ((t->easy = curl_easy_init()) == NULL) {
        free(t);
        return NULL;
    }
    return t;
}

static void give_transfer(http_transfer *t)
{
    http_client *client = t->client;

    curl_multi_remove_handle(client->multi, t->easy);
    unlink_transfer(t);
    curl_slist_free_all(t->headers);
    t->headers = NULL;
    drop_text(t);
    if (t->paused)
        client->paused_count--;
    t->paused = 0;
    link_transfer(&client->idle, t);
}

/* 0: out of memory. Setting strings can fail; setting numbers cannot. */
static int set_network(const http_client *client, CURL *easy)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");

    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    /* A proxy's reply to CONNECT is not the server's reply. */
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)client->options.connect_seconds);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1024L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)client->options.stall_seconds);
    if (code == CURLE_OK && client->ca_file != NULL)
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_file);
    if (code == CURLE_OK && client->ca_folder != NULL)
        code = curl_easy_setopt(easy, CURLOPT_CAPATH, client->ca_folder);
    return code == CURLE_OK;
}

/* All headers or none: a request without its token would be treated as anonymous. */
static int set_headers(http_transfer *t, const char *const *headers)
{
    for (size_t i = 0; headers != NULL && headers[i] != NULL; i++) {
        struct curl_slist *more = curl_slist_append(t->headers, headers[i]);

        if (more == NULL)
            return 0;
        t->headers = more;
    }
    return curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK;
}

ckpt_code http_start(http_client *client, const http_request *request, http_transfer **out,
                     ckpt_error *err)
{
    http_transfer *t = take_transfer(client);
    CURL *easy;

    *out = NULL;
    if (t == NULL)
        return ckpt_fail_memory(err, "a transfer", sizeof *t);
    link_transfer(&client->busy, t);
    easy = t->easy;
    t->request = *request;
    t->judged = 0;
    t->verdict = HTTP_KEEP;
    t->problem[0] = '\0';
    t->refusal = HTTP_DONE;
    t->reply.status = 0;
    t->reply.header_bytes = 0;
    if (!set_network(client, easy) || !set_headers(t, request->headers) ||
        curl_easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK) {
        give_transfer(t);
        return ckpt_fail_memory(err, "a request", strlen(request->url));
    }
    if (request->is_head)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    if (request->compressed)
        curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    if (request->range != NULL)
        curl_easy_setopt(easy, CURLOPT_RANGE, request->range);
    if (request->fresh)
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->problem);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    if (curl_multi_add_handle(client->multi, easy) != CURLM_OK) {
        give_transfer(t);
        return ckpt_fail(err, CKPT_E_MEMORY, "cannot start a transfer");
    }
    *out = t;
    return CKPT_OK;
}

void http_cancel(http_client *client, http_transfer *transfer)
{
    (void)client;
    give_transfer(transfer);
}

static http_outcome outcome_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return HTTP_DONE;
    case CURLE_WRITE_ERROR:
        return HTTP_REFUSED;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
        return HTTP_IMPOSSIBLE;
    default:
        return HTTP_BROKEN;
    }
}

/* A proxy that refuses the connection will refuse it again: no retry. */
static int is_forbidden(CURL *easy)
{
    long status = 0;

    curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &status);
    return status >= 400 && status < 500 && status != 408 && status != 429;
}

static void finish(http_transfer *t, CURLcode code)
{
    char problem[CURL_ERROR_SIZE];
    http_result result = { .outcome = outcome_of(code), .reply = &t->reply, .transfer = t };

    snprintf(problem, sizeof problem, "%s",
             t->problem[0] != '\0' ? t->problem : curl_easy_strerror(code));
    result.problem = problem;
    result.text = t->text != NULL ? t->text : "";
    result.text_bytes = t->text_bytes;
    if (t->refusal != HTTP_DONE)
        result.outcome = t->refusal;
    if (result.outcome == HTTP_BROKEN && is_forbidden(t->easy))
        result.outcome = HTTP_IMPOSSIBLE;
    /* A reply without headers is a lost connection, whatever code libcurl returns. */
    if (result.outcome == HTTP_DONE && !t->judged)
        result.outcome = HTTP_BROKEN;
    curl_multi_remove_handle(t->client->multi, t->easy);
    t->request.done(t->request.context, &result);
    give_transfer(t);
}

char *http_take_text(const http_result *result)
{
    char *text = result->transfer->text;

    memory_give(result->transfer->text_bytes);
    result->transfer->text = NULL;
    result->transfer->text_bytes = 0;
    return text;
}

static void resume_paused(http_client *client)
{
    http_transfer *next;

    if (client->paused_count == 0 || !within_rate(client, 0))
        return;
    for (http_transfer *t = client->busy; t != NULL; t = next) {
        next = t->next;
        if (t->paused) {
            t->paused = 0;
            client->paused_count--;
            curl_easy_pause(t->easy, CURLPAUSE_CONT);
        }
    }
}

ckpt_code http_poll(http_client *client, unsigned wait_ms, ckpt_error *err)
{
    CURLMsg *message;
    int running;
    int left;

    resume_paused(client);
    if (client->paused_count > 0 && wait_ms > 20)
        wait_ms = 20;
    if (curl_multi_perform(client->multi, &running) != CURLM_OK)
        return hub_fail(HUB_OTHER, err, "libcurl cannot continue the transfers");
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        http_transfer *t = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        finish(t, message->data.result);
        wait_ms = 0;
    }
    if (wait_ms > 0 &&
        curl_multi_poll(client->multi, NULL, 0, (int)wait_ms, NULL) != CURLM_OK)
        return hub_fail(HUB_OTHER, err, "libcurl cannot wait for the transfers");
    return CKPT_OK;
}

void http_wake(http_client *client)
{
    curl_multi_wakeup(client->multi);
}
