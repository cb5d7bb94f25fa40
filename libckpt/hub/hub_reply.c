/* hub_reply.c: which replies to a request for bytes of a file can be used. */
#include "hub_reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *hub_contradiction(const hub_listing *listing, const hub_file *file,
                              const http_reply *reply)
{
    const char *commit = http_header(reply, "X-Repo-Commit");
    const char *linked = http_header(reply, "X-Linked-Etag");
    const char *size = http_header(reply, "X-Linked-Size");
    char etag[100];
    char expected[24];

    if (commit != NULL && listing->commit[0] != '\0' && strcmp(commit, listing->commit) != 0)
        return "the hub serves a different commit than it listed";
    if (linked != NULL) {
        hub_etag(linked, etag, sizeof etag);
        if (strcmp(etag, file->hash) != 0)
            return "listing and resolve disagree about the hash";
    }
    snprintf(expected, sizeof expected, "%" PRIu64, file->size_bytes);
    if (size != NULL && strcmp(size, expected) != 0)
        return "listing and resolve disagree about the size";
    return NULL;
}

/* The reply has no Content-Range: it has the whole file. */
static hub_body_verdict judge_whole(const http_reply *reply, const hub_ask *ask, hub_body *out,
                                    const char **complaint)
{
    const char *length = http_header(reply, "Content-Length");
    const uint64_t length_bytes = length == NULL ? 0 : strtoull(length, NULL, 10);
    const int is_known = ask->total_bytes != HUB_TOTAL_UNKNOWN;

    if (http_status(reply) == 206)
        *complaint = "status 206 without Content-Range";
    else if (!is_known && length == NULL)
        *complaint = "it does not say how long the file is";
    else if (length != NULL && length_bytes > ask->total_bytes)
        *complaint = "it is longer than the file";
    if (*complaint != NULL)
        return HUB_BODY_BAD;
    out->first = 0;
    out->total_bytes = out->size_bytes = is_known ? ask->total_bytes : length_bytes;
    return ask->end == 0 || (ask->first == 0 && ask->end == out->total_bytes) ? HUB_BODY_GOOD
                                                                              : HUB_BODY_IS_WHOLE;
}

hub_body_verdict hub_judge_body(const http_reply *reply, const hub_ask *ask, hub_body *out,
                                const char **complaint)
{
    const char *text = http_header(reply, "Content-Range");
    const char *encoding = http_header(reply, "Content-Encoding");
    const char *type = http_header(reply, "Content-Type");
    const char *length = http_header(reply, "Content-Length");
    const int is_known = ask->total_bytes != HUB_TOTAL_UNKNOWN;
    hub_content_range range = { 0 };

    *complaint = NULL;
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0)
        *complaint = "it is compressed, which was not requested";
    else if (type != NULL && strncasecmp(type, "multipart/byteranges", 20) == 0)
        *complaint = "it is multipart, expected a single range";
    if (*complaint != NULL)
        return HUB_BODY_BAD;
    if (text == NULL)
        return judge_whole(reply, ask, out, complaint);
    if (!hub_parse_content_range(text, &range) || range.is_empty)
        *complaint = "malformed Content-Range";
    else if (range.first != (ask->end != 0 ? ask->first : 0) ||
             (ask->end != 0 && range.last >= ask->end))
        *complaint = "its Content-Range is not the requested one";
    else if (!is_known && !range.has_total)
        *complaint = "its Content-Range does not say how long the file is";
    else if ((range.has_total && is_known && range.total != ask->total_bytes) ||
             range.last >= (is_known ? ask->total_bytes : range.total) ||
             (!range.has_total && range.last + 1 != ask->end))
        *complaint = "its Content-Range is of a file of a different size";
    else if (length != NULL && strtoull(length, NULL, 10) != range.last - range.first + 1)
        *complaint = "Content-Length and Content-Range disagree";
    out->first = range.first;
    out->size_bytes = range.last - range.first + 1;
    out->total_bytes = is_known ? ask->total_bytes : range.total;
    return *complaint == NULL ? HUB_BODY_GOOD : HUB_BODY_BAD;
}
