/* download_say.c: plan, progress and result as text and JSON. */
#include "download_say.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libckpt/json.h"

static const double REDRAW_SECONDS = 0.25;
static const double LINE_SECONDS = 10;
enum { FILE_LINES_MAX = 8, NAME_COLUMNS = 40 };

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

    json_writer_begin(&w, json_write_stdio, stdout, 1);
    json_put_object(&w);
    json_member_string(&w, "commit", listing->commit[0] == '\0' ? NULL : listing->commit);
    put_plan(&w, plan);
    json_member_array(&w, "files");
    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];

        if (!file->is_selected)
            continue;
        json_put_object(&w);
        json_member_string(&w, "path", file->path);
        json_member_u64(&w, "size", file->size_bytes);
        json_member_string(&w, "hash", file->hash);
        json_member_string(&w, "xet_hash", file->xet_hash);
        json_member_string(&w, "action", look_name(look(about, file).state));
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_put_object_end(&w);
    json_writer_end(&w);
    putchar('\n');
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
    cli_size_text(plan->fetch_bytes, fetch);
    cli_size_text(plan->reuse_bytes, reuse);
    cli_size_text(plan->total_bytes, total);
    cli_size_text(plan->free_bytes, available);
    printf("%s to download of %s, %s present from an earlier run; %s free\n", fetch, total, reuse,
           plan->is_free_known ? available : "unknown space");
}

/* ---- progress ---- */

void say_meter_begin(say_meter *meter, const cli_common *common)
{
    const char *disabled = getenv("HF_HUB_DISABLE_PROGRESS_BARS");

    memset(meter, 0, sizeof *meter);
    meter->is_terminal = isatty(STDERR_FILENO);
    meter->is_enabled = !common->quiet && !(disabled != NULL && *disabled == '1');
    meter->begin = meter->drawn = hub_now();
}

void say_meter_end(say_meter *meter)
{
    for (; meter->line_count > 0; meter->line_count--)
        fputs(meter->line_count > 1 ? "\033[A\r\033[K" : "\r\033[K", stderr);
    fflush(stderr);
}

static void total_line(const say_meter *meter, const download *d, char *out, size_t out_bytes)
{
    const download_stats *s = download_get_stats(d);
    const double seconds = hub_now() - meter->begin;
    const double rate = seconds > 0 ? (double)s->fetched_bytes / seconds : 0;
    const uint64_t left_bytes = s->total_bytes > s->done_bytes ? s->total_bytes - s->done_bytes : 0;
    const double left = rate >= 1 ? (double)left_bytes / rate : 0;
    char done[CLI_SIZE_TEXT_BYTES];
    char total[CLI_SIZE_TEXT_BYTES];
    char speed[CLI_SIZE_TEXT_BYTES];

    cli_size_text(s->done_bytes, done);
    cli_size_text(s->total_bytes, total);
    cli_size_text((uint64_t)rate, speed);
    snprintf(out, out_bytes, "%zu of %zu files  %s of %s  %3.0f%%  %s/s  %u:%02u:%02u left",
             s->ended_count, s->file_count, done, total,
             s->total_bytes > 0 ? 100 * (double)s->done_bytes / (double)s->total_bytes : 100.0,
             speed, (unsigned)(left / 3600), (unsigned)(left / 60) % 60, (unsigned)left % 60);
}

static unsigned columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static unsigned file_lines(const download *d)
{
    unsigned count = 0;

    for (size_t i = 0; i < download_count(d) && count < FILE_LINES_MAX; i++) {
        const download_status s = download_at(d, i);
        const size_t size = strlen(s.file->path);
        const char *word = s.state == DOWNLOAD_CHECKING  ? "checking"
                           : s.state == DOWNLOAD_HASHING ? "hashing"
                           : s.state == DOWNLOAD_LOCKED  ? "locked"
                                                         : "";

        if (s.state <= DOWNLOAD_WAITING || s.state >= DOWNLOAD_DONE)
            continue;
        fprintf(stderr, "\r\033[K%s%-*s %5.1f%% %s\n", size > NAME_COLUMNS ? "..." : "",
                NAME_COLUMNS, size > NAME_COLUMNS ? s.file->path + size - NAME_COLUMNS + 3
                                                  : s.file->path,
                s.file->size_bytes > 0
                    ? 100 * (double)s.present_bytes / (double)s.file->size_bytes
                    : 100.0, word);
        count++;
    }
    return count;
}

void say_progress(void *context, const download *d)
{
    say_meter *meter = context;
    const double now = hub_now();
    char line[200];

    if (!meter->is_enabled ||
        now - meter->drawn < (meter->is_terminal ? REDRAW_SECONDS : LINE_SECONDS))
        return;
    meter->drawn = now;
    total_line(meter, d, line, sizeof line);
    if (!meter->is_terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    say_meter_end(meter);
    meter->line_count = file_lines(d) + 1;
    fprintf(stderr, "%.*s", (int)columns() - 1, line);
    fflush(stderr);
}

void say_report(say_meter *meter, const download *d, const char *remark)
{
    char line[200];

    total_line(meter, d, line, sizeof line);
    say_meter_end(meter);
    fprintf(stderr, "%s%s\n", line, remark);
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
        json_member_string(w, "path", s.file->path);
        json_member_u64(w, "size", s.file->size_bytes);
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

    json_writer_begin(&w, json_write_stdio, stdout, 1);
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
    put_files(&w, o->d);
    json_put_object_end(&w);
    json_writer_end(&w);
    putchar('\n');
}
