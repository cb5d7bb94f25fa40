/* download_say.c: plan, progress and result as text and JSON. */
#include "download_say.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/clock.h"
#include "libckpt/json.h"
#include "libckpt/text.h"

/* ---- the plan ---- */

typedef struct {
    place_state state;
    uint64_t reusable_bytes;     /* if absent */
} outlook;

static outlook look(const say_subject *about, const hub_file *file)
{
    outlook out = { place_look(about->where, file, NULL), 0 };
    partial_place at;

    if (about->force && out.state != PLACE_BLOCKED && out.state != PLACE_UNREADABLE)
        out.state = PLACE_ABSENT;
    if (out.state != PLACE_ABSENT || about->force)
        return out;
    at = place_partial(about->where, file);
    if (at.side_fd >= 0 &&
        partial_present_bytes(&at, file, &out.reusable_bytes, NULL) != CKPT_OK)
        out.state = PLACE_UNREADABLE;
    return out;
}

download_plan say_make_plan(const say_subject *about)
{
    const hub_listing *listing = about->listing;
    const place *where = about->where;
    download_plan plan = { 0 };

    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];
        outlook found;

        if (!file->is_selected)
            continue;
        plan.total_bytes += file->size_bytes;
        found = look(about, file);
        if (found.state != PLACE_ABSENT)     /* present, or will fail without using space */
            continue;
        plan.fetch_bytes += file->size_bytes - found.reusable_bytes;
        plan.reuse_bytes += found.reusable_bytes;
        plan.space_bytes += place_need_bytes(where, file);
    }
    plan.orphan_bytes = place_orphans(where, 0);
    plan.is_free_known = place_free_bytes(where, &plan.free_bytes);
    return plan;
}

static void put_plan(json_writer *w, const download_plan *plan)
{
    json_member_u64(w, "total_bytes", plan->total_bytes);
    json_member_u64(w, "fetch_bytes", plan->fetch_bytes);
    json_member_u64(w, "reuse_bytes", plan->reuse_bytes);
    json_member_u64(w, "space_bytes", plan->space_bytes);
    json_put_key(w, "free_bytes");
    if (plan->is_free_known)
        json_put_u64(w, plan->free_bytes);
    else
        json_put_null(w);
    json_member_u64(w, "orphan_bytes", plan->orphan_bytes);
    json_put_key(w, "limit_seconds");
    if (plan->rate_bytes > 0)
        json_put_u64(w, plan->fetch_bytes / plan->rate_bytes);
    else
        json_put_null(w);
}

static const char *look_name(place_state state)
{
    static const char *const names[] = { "fetch", "check", "keep", "blocked", "keep",
                                         "unreadable" };

    return names[state];
}

static void plan_json(const say_subject *about, const download_plan *plan)
{
    const hub_listing *listing = about->listing;
    json_writer w;

    cli_json_begin(&w, "ckpt-download-plan/1");
    json_put_object(&w);
    json_member_string(&w, "commit", listing->commit[0] == '\0' ? NULL : listing->commit);
    put_plan(&w, plan);
    json_member_names(&w, "unmatched", about->unmatched->items, about->unmatched->count);
    json_member_names(&w, "delete", (const char *const *)about->pruned->names.names,
                      about->pruned->names.count);
    json_member_array(&w, "files");
    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];

        if (!file->is_selected)
            continue;
        json_put_object(&w);
        json_member_string(&w, "name", file->path);
        json_member_u64(&w, "bytes", file->size_bytes);
        json_member_string(&w, "hash", file->hash);
        json_member_string(&w, "xet_hash", file->xet_hash);
        json_member_string(&w, "action", look_name(look(about, file).state));
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_put_object_end(&w);
    cli_json_end(&w);
}

/* The rate of the network shows only when it is used. */
static void print_time(const download_plan *plan)
{
    const uint64_t gigabit_bytes = 125000000;
    const uint64_t rate_bytes = plan->rate_bytes > 0 ? plan->rate_bytes : gigabit_bytes;
    char time[CLI_TIME_TEXT_BYTES];

    if (plan->fetch_bytes == 0)
        return;
    cli_time_text(plan->fetch_bytes / rate_bytes + (plan->rate_bytes == 0), time);
    if (plan->rate_bytes > 0)
        printf("time: at least %s, by --limit-rate\n", time);
    else
        printf("time: %s if the network has 1 Gbit/s, which is not measured\n", time);
}

void say_plan(const say_subject *about, const download_plan *plan, int as_json)
{
    const hub_listing *listing = about->listing;
    char fetch[CLI_SIZE_TEXT_BYTES];
    char reuse[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];
    char available[CLI_SIZE_TEXT_BYTES];

    if (as_json) {
        plan_json(about, plan);
        return;
    }
    for (size_t i = 0; i < listing->count; i++)
        if (listing->files[i].is_selected)
            printf("%16" PRIu64 "  %-10s  %s\n", listing->files[i].size_bytes,
                   look_name(look(about, &listing->files[i]).state), listing->files[i].path);
    for (size_t i = 0; i < about->pruned->names.count; i++)
        printf("%16s  %-10s  %s\n", "", "delete", cli_name(about->pruned->names.names[i]));
    cli_size_text(plan->fetch_bytes, fetch);
    cli_size_text(plan->reuse_bytes, reuse);
    cli_size_text(plan->total_bytes, total);
    cli_size_text(plan->free_bytes, available);
    printf("%s to download of %s, %s present from an earlier run; %s free\n", fetch, total, reuse,
           plan->is_free_known ? available : "unknown space");
    print_time(plan);
}

/* ---- progress ---- */

void say_meter_begin(say_meter *meter, const cli_common *common)
{
    const char *disabled = getenv("HF_HUB_DISABLE_PROGRESS_BARS");
    cli_common with = *common;

    if (disabled != NULL && *disabled == '1' && strcmp(with.progress, "auto") == 0)
        with.progress = "never";
    meter->begin = clock_seconds();
    cli_meter_begin(&meter->meter, &with, "downloading");
}

/* The file that is worked on, as the last field; "": none. */
static const char *find_current(const download *d, const char **word)
{
    for (size_t i = 0; i < download_count(d); i++) {
        const download_status s = download_at(d, i);

        *word = s.state == DOWNLOAD_CHECKING  ? "checking "
                : s.state == DOWNLOAD_HASHING ? "hashing "
                : s.state == DOWNLOAD_LOCKED  ? "waiting for "
                                              : "";
        if (s.state > DOWNLOAD_WAITING && s.state < DOWNLOAD_DONE)
            return s.file->path;
    }
    return "";
}

void say_progress(void *context, const download *d)
{
    const say_meter *meter = context;
    const download_stats *s = download_get_stats(d);
    const double seconds = clock_seconds() - meter->begin;
    const double rate = seconds > 0 ? (double)s->fetched_bytes / seconds : 0;
    const uint64_t left_bytes = s->total_bytes > s->done_bytes ? s->total_bytes - s->done_bytes : 0;
    const char *word = "";
    const char *current = find_current(d, &word);
    char done[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];
    char speed[CLI_SIZE_TEXT_BYTES];
    char left[CLI_TIME_TEXT_BYTES] = "?";
    char line[512];

    cli_size_text(s->done_bytes, done);
    cli_size_text(s->total_bytes, total);
    cli_size_text((uint64_t)rate, speed);
    if (rate >= 1)
        cli_time_text((uint64_t)((double)left_bytes / rate), left);
    snprintf(line, sizeof line,
             "downloading  %3.0f%%  %s left  %s of %s  %s/s  %zu of %s  %s%.300s",
             s->total_bytes > 0 ? 100 * (double)s->done_bytes / (double)s->total_bytes : 100.0,
             left, done, total, speed, s->ended_count,
             text_count(s->file_count, "file", "files").text, word, current);
    cli_progress_text(line);
}

void say_written(const cli_common *common, const char *path, const download *d)
{
    static const download_stats none = { 0 };
    const download_stats *s = d == NULL ? &none : download_get_stats(d);
    char total[CLI_SIZE_TEXT_BYTES];
    char detail[64];

    cli_size_text(s->total_bytes, total);
    snprintf(detail, sizeof detail, "%zu file%s of %s, fetched", s->file_count,
             s->file_count == 1 ? "" : "s", total);
    fflush(stdout);                          /* the closing line is the last one */
    cli_say_written(common, &(cli_written){ .path = path, .detail = detail,
                                            .bytes = s->fetched_bytes });
}

/* ---- the result ---- */

static void put_files(json_writer *w, const download *d)
{
    static const char *const states[] = { "waiting", "checking", "waiting", "partial", "partial",
                                          "partial", "downloaded", "kept", "failed" };

    json_member_array(w, "files");
    for (size_t i = 0; d != NULL && i < download_count(d); i++) {
        const download_status s = download_at(d, i);

        json_put_object(w);
        json_member_string(w, "name", s.file->path);
        json_member_u64(w, "bytes", s.file->size_bytes);
        json_member_string(w, "algorithm", hub_algorithm_name(s.file->algorithm));
        json_member_string(w, "hash", s.file->hash);
        json_member_string(w, "status", states[s.state]);
        if (s.state == DOWNLOAD_FAILED) {
            json_member_string(w, "reason", hub_reason_name(s.reason));
            json_member_string(w, "error", s.error);
        }
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

static void put_stats(json_writer *w, const download_stats *s)
{
    json_member_u64(w, "total_bytes", s->total_bytes);
    json_member_u64(w, "fetched_bytes", s->fetched_bytes);
    json_member_u64(w, "reused_bytes", s->reused_bytes);
    json_member_u64(w, "kept_bytes", s->kept_bytes);
    json_member_u64(w, "connections", s->connections_most);
    json_member_double(w, "seconds", s->seconds);
}

void say_json(const say_outcome *o)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-download/1");
    json_put_object(&w);
    json_member_string(&w, "reason", hub_reason_name(o->reason));
    json_member_string(&w, "error", o->error);
    if (o->h != NULL && o->h->kind != NULL) {
        json_member_string(&w, "hub", o->h->kind->name);
        json_member_string(&w, "endpoint", o->h->endpoint);
        json_member_string(&w, "repo", o->h->options.repo);
        json_member_string(&w, "type", o->h->options.type);
        json_member_string(&w, "revision", o->h->options.revision);
        json_member_u64(&w, "requests", o->h->request_count);
    }
    json_member_string(&w, "commit", o->listing->commit[0] == '\0' ? NULL : o->listing->commit);
    json_member_string(&w, "path", o->where == NULL ? NULL : place_path(o->where));
    if (o->d != NULL)
        put_stats(&w, download_get_stats(o->d));
    json_member_names(&w, "unmatched", o->unmatched->items, o->unmatched->count);
    put_files(&w, o->d);
    json_put_object_end(&w);
    cli_json_end(&w);
}
