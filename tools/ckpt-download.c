/* ckpt-download: downloads a repository from a model hub; files are verified before they appear. */
#include <signal.h>
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/download/download_check.h"
#include "tools/download/download_say.h"
#include "tools/download/download_stream.h"
#include "tools/download/download_then.h"
#include "tools/download/hub_select.h"
#include "tools/download/listing.h"
#include "libckpt/file.h"
#include "libckpt/machine.h"
#include "libckpt/text.h"

static struct {
    cli_common common;
    const char *hub;
    const char *revision;
    const char *type;
    const char *local_dir;
    const char *cache_dir;
    const char *endpoint;
    const char *token;
    cli_list include;
    cli_list exclude;
    uint64_t connection_count;
    uint64_t worker_count;
    const char *rate;
    uint64_t try_count;
    uint64_t wait_seconds;
    uint64_t stall_seconds;
    int insecure_http;
    int no_space_check;
    int clean;
    int no_check;
    int delete_source;
    int skip_unsafe;
    int prune_extra;
    int trust_metadata;
    int hf_refs;
    cli_list host_maps;
    const char *then_help;
    download_options download;
} opt = { .common = CLI_COMMON_DEFAULTS,
          .connection_count = 16,
          .worker_count = 8,
          .try_count = HUB_TRIES,
          .wait_seconds = 1800,
          .stall_seconds = 20 };

static volatile sig_atomic_t switch_wanted;

static const cli_option options[] = {
    { CLI_HEADING, NULL, NULL, NULL, "What" },
    { CLI_CHOICE, "hub", "hf|modelscope|ms", &opt.hub, "the hub that hosts REPO (default hf)" },
    { CLI_STRING, "revision", "REV", &opt.revision,
      "branch, tag or commit (default: main, on ModelScope master)" },
    { CLI_CHOICE, "repo-type", "model|dataset|space", &opt.type, "(default model)" },
    { CLI_CHOICE, "type", "model|dataset|space", &opt.type, "the same" },
    { CLI_LIST, "include", "GLOB", &opt.include,
      "only files that match GLOB; * also matches /; may be repeated; one that matches no file is "
      "mentioned" },
    { CLI_LIST, "exclude", "GLOB", &opt.exclude, "skip files that match GLOB; may be repeated" },
    { CLI_HEADING, NULL, NULL, NULL, "Where to" },
    { CLI_STRING, "local-dir", "DIR", &opt.local_dir, "write plain files into the folder DIR" },
    { CLI_STRING, "cache-dir", "DIR", &opt.cache_dir,
      "use the Hugging Face cache in DIR (default: from HF_HUB_CACHE or HF_HOME)" },
    { CLI_FLAG, "force-download", NULL, &opt.download.force, "fetch everything again" },
    { CLI_FLAG, "verify", NULL, &opt.download.verify,
      "hash existing files even if they are recorded as verified" },
    { CLI_FLAG, "trust-metadata", NULL, &opt.trust_metadata,
      "trust the records of `hf download` about existing files and do not hash them" },
    { CLI_FLAG, "adopt-partials", NULL, &opt.download.adopt,
      "resume downloads that an old `hf download` left unfinished" },
    { CLI_FLAG, "skip-unsafe", NULL, &opt.skip_unsafe,
      "skip files with unsafe names instead of refusing; the exit status reports it" },
    { CLI_FLAG, "prune-extra", NULL, &opt.prune_extra,
      "at the end, delete files from D that the hub does not list (never .cache or .git)" },
    { CLI_FLAG, "hf-refs", NULL, &opt.hf_refs,
      "with --local-dir: record the commit in the Hugging Face cache, as `hf download` does" },
    { CLI_FLAG, "no-check", NULL, &opt.no_check,
      "do not validate the headers of safetensors files at the end" },
    { CLI_FLAG, "clean", NULL, &opt.clean,
      "remove unfinished files that no longer belong to any revision" },
    { CLI_FLAG, "keep-corrupt", NULL, &opt.download.keep_corrupt,
      "keep the data of a file whose hash is wrong, as an unfinished file" },
    { CLI_FLAG, "no-space-check", NULL, &opt.no_space_check,
      "start even if the disk is too small, and do not reserve space" },
    { CLI_FLAG, "sequential-writes", NULL, &opt.download.sequential,
      "write every file sequentially, for disks that are slow at random writes" },
    { CLI_HEADING, NULL, NULL, NULL, "Network" },
    { CLI_STRING, "endpoint", "URL", &opt.endpoint,
      "URL of the hub (default: HF_ENDPOINT or MODELSCOPE_ENDPOINT, else the public one)" },
    { CLI_LIST, "data-host-map", "A=B", &opt.host_maps,
      "connect to host B instead of A, for mirrors of data hosts; may be repeated" },
    { CLI_STRING, "token", "TOKEN", &opt.token,
      "(default: HF_TOKEN, the stored token, or MODELSCOPE_API_TOKEN)" },
    { CLI_FLAG, "insecure-http", NULL, &opt.insecure_http,
      "allow sending the token over plain http" },
    { CLI_U64, "connections", "N", &opt.connection_count,
      "maximum number of connections in total, 1 to 64 (default 16)" },
    { CLI_FLAG, "fixed-connections", NULL, &opt.download.is_fixed,
      "use exactly N connections instead of adapting the number" },
    { CLI_U64, "max-workers", "N", &opt.worker_count, "number of files at a time (default 8)" },
    { CLI_STRING, "limit-rate", "SIZE", &opt.rate,
      "bytes per second, e.g. 50M (default: no limit)" },
    { CLI_U64, "tries", "N", &opt.try_count,
      "give up after N tries in a row without progress, 1 to 200 (default 8, about a minute); the "
      "waits between them grow from 1 to 60 seconds" },
    { CLI_U64, "max-wait", "SECONDS", &opt.wait_seconds,
      "maximum total time to wait when rate-limited by the hub (default 1800)" },
    { CLI_COUNT, "stall-timeout", "SECONDS", &opt.stall_seconds,
      "drop a connection that stays below 1 KiB/s for this long (default 20)" },
    { CLI_HEADING, NULL, NULL, NULL, "Afterwards" },
    { CLI_STRING, "then", "COMMAND...", &opt.then_help,
      "must be last: after verification, execute this command; the program, and the options and "
      "outputs if it is a ckpt tool, are checked at the start" },
    { CLI_FLAG, "delete-source", NULL, &opt.delete_source,
      "convert while downloading, and delete each tensor file once it is completely converted; "
      "--then must be ckpt-convert or ckpt-shard with source D" },
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END,
};

static const cli_hint hints[] = {
    { "--resume-download", "downloads always resume" },
    { "--resume", "downloads always resume" },
    { "--continue", "downloads always resume" },
    { "--local-dir-use-symlinks", "plain files are written into --local-dir, never links" },
    { "--output-dir", "use --local-dir" },
    { "--out", "use --local-dir" },
    { "-o", "use --local-dir" },
    { "-d", "use --local-dir" },
    { "--branch", "use --revision" },
    { "--tag", "use --revision" },
    { "--retries", "use --tries" },
    { "--retry", "use --tries" },
    { "--jobs", "use --max-workers or --connections" },
    { NULL, NULL }
};

static const cli_topic environment[] = {
    { "HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH", "The token of Hugging Face, or the file "
      "that has it. HF_HUB_DISABLE_IMPLICIT_TOKEN=1: the stored token is not used." },
    { "HF_HOME, HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, XDG_CACHE_HOME", "Where the cache is." },
    { "HF_ENDPOINT", "The hub, instead of https://huggingface.co." },
    { "HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE", "1: the network is not used." },
    { "HF_HUB_DISABLE_SYMLINKS, HF_HUB_DISABLE_PROGRESS_BARS", "As for `hf download`." },
    { "MODELSCOPE_API_TOKEN, MODELSCOPE_ENDPOINT, MODELSCOPE_DOMAIN, MODELSCOPE_PREFER_AI_SITE",
      "The same of ModelScope." },
    { "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "Proxies, also in lower case." },
    { "SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE",
      "Certificates of authorities to trust." },
    { NULL, NULL }
};

static const cli_topic known_files[] = {
    { "DIR/.cache/huggingface/download, DIR/.cache/huggingface/trees", "What is known of each "
      "file, and the hub's listing, as `hf download` also reads them." },
    { "DIR/.cache/huggingface/ckpt", "Partials and their journals: removed when the files are "
      "there, or by --clean." },
    { "~/.cache/huggingface/hub", "The cache, where no --local-dir is given." },
    { "~/.cache/huggingface/token", "The stored token, of `hf auth login`." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-download",
    .summary = "download a model from a hub and verify it",
    .usage = "[OPTIONS] REPO [FILE...] [--then COMMAND...]",
    .description =
        "REPO is OWNER/NAME[@REV], hf://OWNER/NAME[@REV][/PATH] or the address of its page. "
        "FILEs are names or patterns; one that ends in / is a folder. Every file is hashed while "
        "it arrives and is renamed into place only when its hash matches the hub's. A killed run "
        "resumes. ckpt-download and `hf download` can continue each other's work.\n"
        "\n"
        "--delete-source is for disks that cannot hold both source and result: all headers are "
        "fetched first, the conversion is planned from them, and then a few files at a time are "
        "downloaded, verified, converted and deleted. It can be killed at any time: data that the "
        "result's journal records as written is not downloaded again. Other files (config, "
        "tokenizer) stay in D.\n"
        "\n"
        "With HF_HUB_OFFLINE=1 the network is not used: the command succeeds if every file that an "
        "earlier run listed is present. `ckpt-verify check D` hashes all files against that "
        "listing.\n"
        "\n"
        "SIGUSR1 prints the progress; SIGUSR2 switches --limit-rate off or on again.\n"
        "\n"
        "With --json the member \"reason\" is one of: fine, usage, auth, not-found, "
        "integrity, disk, network, partial (several reasons), interrupted, other.",
    .exit_notes = "0  every file is present and verified\n"
                  "1  the data differs from what the hub lists, or is not a valid checkpoint\n"
                  "2  error; received data is kept, run the same command again\n",
    .examples = "ckpt-download deepseek-ai/DeepSeek-V4-Flash --local-dir Flash\n"
                "ckpt-download --hub modelscope deepseek-ai/DeepSeek-V4-Flash --local-dir Flash\n"
                "ckpt-download REPO --local-dir D --then ckpt-convert --dtype bf16 D D-BF16\n"
                "ckpt-download REPO --local-dir D --delete-source --then ckpt-convert --dtype "
                "bf16 D D-BF16",
    .options = options,
    .arg_min = 1,
    .arg_max = CLI_ANY_ARGS,
    .hints = hints,
    .environment = environment,
    .files = known_files,
    .see_also = "ckpt-convert(1) ckpt-verify(1) ckpt-json(5)",
};

/* State of one run. */
typedef struct {
    hub_name name;
    char *cache;
    hub_options hub_options;
    hub *h;
    hub_listing listing;
    place *where;
    download *d;
    say_unmatched unmatched;
    char **then;                 /* the command after --then; or NULL */
    int then_status;             /* exit status of a converter that ran beside the download */
    int is_planned;              /* a dry run has printed its plan */
} session;

static ckpt_code fail_usage(ckpt_error *err, const char *what)
{
    return hub_fail(HUB_USAGE, err, "%s; see --help", what);
}

static int is_converter(const char *command_path)
{
    const char *slash = strrchr(command_path, '/');
    const char *name = slash == NULL ? command_path : slash + 1;

    return strcmp(name, "ckpt-convert") == 0 || strcmp(name, "ckpt-shard") == 0;
}

/* Refuse options that need another one, or that make another one useless. */
static ckpt_code check_combinations(int is_modelscope, ckpt_error *err)
{
    const char *folder = opt.local_dir != NULL ? opt.local_dir : opt.cache_dir;

    if (folder != NULL && strcmp(folder, "-") == 0)
        return fail_usage(err, "'--local-dir' and '--cache-dir' take a folder (./- for one of the "
                          "name -)");
    if (folder != NULL && folder[0] == '~' && (folder[1] == '/' || folder[1] == '\0'))
        return fail_usage(err, "'--local-dir' or '--cache-dir' begins with a ~ that no shell has "
                          "replaced, as after '=': leave a blank there, or write $HOME");
    if (folder != NULL && file_exists(folder) && !file_is_directory(folder))
        return hub_fail(HUB_USAGE, err, "'%s' is a file: '--local-dir' and '--cache-dir' take a "
                        "folder", folder);
    if (hub_is_offline() && (opt.download.force || opt.hf_refs || opt.download.adopt))
        return fail_usage(err, "'--force-download', '--hf-refs' and '--adopt-partials' need the "
                          "hub, but HF_HUB_OFFLINE is set");
    if (opt.local_dir != NULL && opt.cache_dir != NULL)
        return fail_usage(err, "'--local-dir' and '--cache-dir' exclude each other");
    if (is_modelscope && opt.local_dir == NULL)
        return fail_usage(err, "'--hub modelscope' needs '--local-dir'");
    if (is_modelscope && (opt.hf_refs || opt.download.adopt))
        return fail_usage(err, "'--hf-refs' and '--adopt-partials' are about Hugging Face's "
                          "client, and do nothing with '--hub modelscope'");
    if ((opt.prune_extra || opt.hf_refs) && opt.local_dir == NULL)
        return fail_usage(err, "'--prune-extra' and '--hf-refs' need '--local-dir'");
    if (opt.download.force && (opt.download.verify || opt.trust_metadata || opt.download.adopt))
        return fail_usage(err, "'--force-download' fetches everything, and leaves nothing to do "
                          "for '--verify', '--trust-metadata' and '--adopt-partials'");
    return CKPT_OK;
}

static ckpt_code take_options(session *s, const cli_args *args, ckpt_error *err)
{
    const char *complaint = hub_parse_name(args->items[0], &s->name);
    const int is_modelscope = opt.hub != NULL && strcmp(opt.hub, "hf") != 0;
    hub_options *o = &s->hub_options;
    uint64_t rate_bytes = 0;
    ckpt_code code;

    if (complaint != NULL)
        return hub_fail(HUB_USAGE, err, "'%s' is not a repository: %s", args->items[0],
                        complaint);
    if ((s->name.type != NULL && opt.type != NULL) ||
        (s->name.revision[0] != '\0' && opt.revision != NULL))
        return fail_usage(err, "type or revision given twice: in REPO and as an option");
    if ((code = check_combinations(is_modelscope, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < opt.host_maps.count; i++)
        if (!hub_is_host_map(opt.host_maps.items[i]))
            return fail_usage(err, "'--data-host-map': expected HOST[:PORT]=HOST[:PORT]");
    if (opt.delete_source && hub_is_offline())
        return fail_usage(err, "'--delete-source' cannot be used with HF_HUB_OFFLINE");
    if (opt.delete_source && (s->then == NULL || !is_converter(s->then[0]) ||
                              opt.local_dir == NULL))
        return fail_usage(err, "'--delete-source' needs '--local-dir' and '--then "
                          "ckpt-convert' or '--then ckpt-shard'");
    if (opt.delete_source && !then_names(s->then, opt.local_dir))
        return hub_fail(HUB_USAGE, err, "'--delete-source' converts what is downloaded: the source "
                        "after '--then' must be '%s', the folder of '--local-dir'", opt.local_dir);
    if (s->name.path[0] != '\0' &&
        (args->count > 1 || opt.include.count > 0 || opt.exclude.count > 0))
        return fail_usage(err, "a path in REPO chooses the files, and excludes FILEs, "
                          "'--include' and '--exclude'");
    if (args->count > 1 && (opt.include.count > 0 || opt.exclude.count > 0))
        return fail_usage(err, "FILEs and '--include'/'--exclude' exclude each other");
    if (opt.connection_count < 1 || opt.connection_count > 64 || opt.worker_count < 1 ||
        opt.worker_count > 64)
        return fail_usage(err, "'--connections' and '--max-workers': expected 1 to 64");
    if (opt.try_count < 1 || opt.try_count > 200)
        return fail_usage(err, "'--tries': expected 1 to 200");
    if (opt.rate != NULL && (!cli_parse_size(opt.rate, &rate_bytes) || rate_bytes == 0))
        return hub_fail(HUB_USAGE, err, "'--limit-rate': expected bytes per second like 500k, 50M "
                        "or 1.5GiB, got '%s'", opt.rate);
    o->repo = s->name.repo;
    o->type = s->name.type != NULL ? s->name.type : opt.type != NULL ? opt.type : "model";
    o->revision = s->name.revision[0] != '\0' ? s->name.revision : opt.revision;
    o->endpoint = opt.endpoint;
    o->token = opt.token;
    o->insecure_http = opt.insecure_http;
    o->host_maps = opt.host_maps.items;
    o->host_map_count = opt.host_maps.count;
    o->is_quiet = opt.common.quiet;
    o->tries_max = (unsigned)opt.try_count;
    o->wait_seconds_max = opt.wait_seconds;
    o->wait_option = "--max-wait";
    o->stop = cli_stop_flag();
    o->http = (http_options){ 10, opt.stall_seconds, rate_bytes,
                              (unsigned)opt.connection_count };
    opt.download.is_offline = hub_is_offline();
    opt.download.watch_disk = !opt.no_space_check;
    opt.download.connection_count = (unsigned)opt.connection_count;
    opt.download.worker_count = (unsigned)opt.worker_count;
    opt.download.thread_count = opt.common.thread_count != 0
                                    ? (unsigned)opt.common.thread_count
                                    : machine_cores();
    return CKPT_OK;
}

/* Offline: the listing of an earlier run, if it was of the same repository. */
static ckpt_code list_offline(session *s, ckpt_error *err)
{
    const hub_options *o = &s->h->options;
    const place_options where = { .h = s->h, .local_dir = opt.local_dir, .cache_dir = s->cache };
    char *path = NULL;
    kept_listing kept = { 0 };
    ckpt_code code = place_kept_listing(&where, &path, err);

    if (code == CKPT_OK && path != NULL)
        code = listing_read(path, &kept, err);
    if (code == CKPT_OK && (kept.repo == NULL || strcmp(kept.repo, o->repo) != 0 ||
                            strcmp(kept.type, o->type) != 0 ||
                            strcmp(kept.hub, s->h->kind->name) != 0 ||
                            (strcmp(kept.revision, o->revision) != 0 &&
                             strcmp(kept.files.commit, o->revision) != 0)))
        code = hub_fail(HUB_NETWORK, err,
                        "HF_HUB_OFFLINE is set, and no earlier run has listed '%s' at "
                        "'%s'", o->repo, o->revision);
    free(path);
    if (code == CKPT_OK) {
        s->listing = kept.files;
        memset(&kept.files, 0, sizeof kept.files);
        for (size_t i = 0; i < s->listing.count; i++)
            s->listing.files[i].is_selected = 1;
    }
    listing_release(&kept);
    return code;
}

static ckpt_code list_online(session *s, ckpt_error *err)
{
    const ckpt_code code = s->h->kind->list(s->h, &s->listing, err);

    if (code != CKPT_OK)
        return code;
    return hub_listing_check(s->h->options.repo, &s->listing, opt.skip_unsafe, err);
}

/* A pattern may be meant for many repositories, but also be misspelled: it is mentioned. */
static void find_unmatched(session *s)
{
    say_unmatched *u = &s->unmatched;

    u->count = hub_unmatched(&s->listing, &opt.include, u->items);
    u->count += hub_unmatched(&s->listing, &opt.exclude, u->items + u->count);
    for (size_t i = 0; i < u->count && !opt.common.quiet; i++)
        fprintf(stderr, "note: no file of '%s' matches '%s'\n", s->name.repo,
                cli_name(u->items[i]));
}

static ckpt_code list_files(session *s, const cli_args *args, ckpt_error *err)
{
    const int is_modelscope = opt.hub != NULL && strcmp(opt.hub, "hf") != 0;
    char *path[] = { s->name.path };
    hub_selection selection = { args->items + 1, args->count - 1, &opt.include, &opt.exclude };
    ckpt_code code;

    if (s->name.path[0] != '\0')
        selection = (hub_selection){ path, 1, &opt.include, &opt.exclude };
    if ((code = hub_open(is_modelscope ? &hub_modelscope : &hub_huggingface, &s->hub_options,
                         &s->h, err)) != CKPT_OK ||
        (code = opt.download.is_offline ? list_offline(s, err) : list_online(s, err)) != CKPT_OK)
        return code;
    if ((code = hub_select(s->h, &s->listing, &selection, err)) == CKPT_OK)
        find_unmatched(s);
    return code;
}

static ckpt_code check_space(session *s, const download_plan *plan, ckpt_error *err)
{
    enum { SLACK_BYTES = 64 << 20 };
    char need[CLI_SIZE_TEXT_BYTES];
    char available[CLI_SIZE_TEXT_BYTES];

    if (opt.no_space_check || opt.delete_source || !plan->is_free_known ||
        plan->space_bytes == 0 || plan->space_bytes + SLACK_BYTES <= plan->free_bytes)
        return CKPT_OK;
    cli_size_text(plan->space_bytes + SLACK_BYTES, need);
    cli_size_text(plan->free_bytes, available);
    return hub_fail(HUB_DISK_FULL, err, "not enough disk space for '%s': expected %s free, got %s",
                    place_path(s->where), need, available);
}

/* Deleted files are reported. */
static ckpt_code prune(session *s, ckpt_error *err)
{
    char size[CLI_SIZE_TEXT_BYTES];
    place_pruned pruned;
    const ckpt_code code = place_prune(s->where, &pruned, err);

    cli_size_text(pruned.bytes, size);
    if (pruned.count > 0 && !opt.common.quiet)
        fprintf(stderr, "deleted %s that the hub does not list, %s\n",
                text_count(pruned.count, "file", "files").text, size);
    return code;
}

static void mention_partials(const session *s)
{
    const uint64_t bytes = opt.common.quiet || opt.download.adopt ? 0
                                                                  : place_foreign_bytes(s->where);
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(bytes, size);
    if (bytes > 0)
        fprintf(stderr, "another client left %s of unfinished downloads; --adopt-partials resumes "
                "those of an old `hf download`\n", size);
}

/* One line for all failures; --json has the list. */
static ckpt_code sum_up(session *s, ckpt_error *err)
{
    static const download_stats none = { 0 };        /* finished by an earlier run */
    const download_stats *stats = s->d == NULL ? &none : download_get_stats(s->d);
    hub_reason reason = HUB_FINE;
    const char *first = NULL;

    for (size_t i = 0; s->d != NULL && i < download_count(s->d); i++) {
        const download_status status = download_at(s->d, i);

        if (status.state != DOWNLOAD_FAILED)
            continue;
        if (first == NULL)
            first = status.error;
        reason = reason == HUB_FINE || reason == status.reason ? status.reason : HUB_PARTIAL;
    }
    if (stats->failed_count == 0 && s->listing.unsafe_count > 0)
        return hub_fail(HUB_PARTIAL, err, "skipped %s, the first is '%s'",
                        text_count(s->listing.unsafe_count, "file with an unsafe name",
                                   "files with unsafe names")
                            .text,
                        s->listing.unsafe_path);
    if (stats->failed_count == 0)
        return CKPT_OK;
    return hub_fail(reason, err, "%zu of %s failed: %s", stats->failed_count,
                    text_count(stats->file_count, "file", "files").text,
                    first == NULL ? "out of memory" : first);
}

static void ask_for_switch(int number)
{
    (void)number;
    switch_wanted = 1;
}

typedef struct {
    say_meter meter;
    session *s;
    int is_unlimited;
} watcher;

/* SIGUSR2: switch the rate limit off or on again. */
static void switch_limit(watcher *w)
{
    const uint64_t rate_bytes = w->s->hub_options.http.rate_bytes;

    switch_wanted = 0;
    w->is_unlimited = rate_bytes > 0 && !w->is_unlimited;
    http_limit(w->s->h->http, w->is_unlimited ? 0 : rate_bytes);
    cli_say(rate_bytes == 0   ? "there is no limit: no --limit-rate"
            : w->is_unlimited ? "limit off"
                              : "limit on");
}

static void watch(void *context, const download *d)
{
    watcher *w = context;

    if (switch_wanted)
        switch_limit(w);
    say_progress(&w->meter, d);
}

/* A signal received after the last byte, for example while the disk is synced, prevents the next
 * command from starting. A conversion beside the download is already complete and cannot be
 * repeated. */
static ckpt_code check_stop(const session *s, ckpt_error *err)
{
    return *s->h->options.stop && !opt.delete_source ? hub_fail_interrupted(err) : CKPT_OK;
}

static ckpt_code fetch(session *s, ckpt_error *err)
{
    watcher w = { .s = s };
    ckpt_code code;

    opt.download.h = s->h;
    opt.download.listing = &s->listing;
    opt.download.where = s->where;
    if (!opt.download.is_offline && (code = place_begin(s->where, err)) != CKPT_OK)
        return code;
    say_meter_begin(&w.meter, &opt.common);
    if (opt.delete_source)
        code = download_stream(&(stream_options){ s->h, &s->listing, s->where, &opt.download,
                                                  s->then, watch, &w },
                               &s->d, &s->then_status, err);
    else if ((code = download_open(&opt.download, &s->d, err)) == CKPT_OK)
        code = download_run(s->d, watch, &w, err);
    cli_meter_end(&w.meter.meter);
    if (code == CKPT_OK)
        code = sum_up(s, err);
    if (code == CKPT_OK)
        code = opt.download.is_offline ? CKPT_OK : place_end(s->where, err);
    if (code == CKPT_OK)
        code = check_stop(s, err);
    if (code == CKPT_OK && opt.prune_extra)
        code = prune(s, err);
    if (code == CKPT_OK && !opt.no_check && !opt.delete_source &&
        strcmp(s->hub_options.type, "model") == 0)
        code = download_check(place_path(s->where), &s->listing, err);
    return code == CKPT_OK ? check_stop(s, err) : code;
}

static ckpt_code run(session *s, const cli_args *args, ckpt_error *err)
{
    place_options where = { .local_dir = opt.local_dir, .listing = &s->listing,
                            .dry_run = opt.common.dry_run, .hf_refs = opt.hf_refs,
                            .trust_metadata = opt.trust_metadata,
                            .allocate = !opt.no_space_check && !opt.delete_source };
    place_pruned pruned = { .count = 0 };
    say_subject about;
    download_plan plan;
    ckpt_code code;

    arena_init(&s->listing.memory);
    s->cache = opt.cache_dir != NULL ? strdup(opt.cache_dir) : hub_cache_folder();
    if ((code = take_options(s, args, err)) != CKPT_OK ||
        /* With --delete-source the converter checks its output: an earlier run may have made it. */
        (s->then != NULL && (code = then_check(s->then, !opt.delete_source, err)) != CKPT_OK) ||
        (code = list_files(s, args, err)) != CKPT_OK)
        return code;
    where.h = s->h;
    where.cache_dir = s->cache;
    if ((opt.prune_extra && (code = place_check_prune(opt.local_dir, err)) != CKPT_OK) ||
        (code = place_open(&where, &s->where, err)) != CKPT_OK)
        return code;
    if (opt.clean && !opt.common.dry_run)
        place_orphans(s->where, 1);
    about = (say_subject){ &s->listing, s->where, opt.download.force, &s->unmatched, &pruned };
    plan = say_make_plan(&about);
    plan.rate_bytes = s->hub_options.http.rate_bytes;
    if (opt.common.dry_run) {
        if (!opt.prune_extra || (code = place_prune(s->where, &pruned, err)) == CKPT_OK)
            say_plan(&about, &plan, opt.common.json);
        s->is_planned = code == CKPT_OK;
        file_list_free(&pruned.names);
        return code == CKPT_OK ? check_space(s, &plan, err) : code;
    }
    if ((code = check_space(s, &plan, err)) != CKPT_OK)
        return code;
    mention_partials(s);
    return fetch(s, err);
}

/* The position of --then in argv, or argc. */
static int find_then(int argc, char **argv)
{
    int i = 1;

    while (i < argc && strcmp(argv[i], "--then") != 0)
        i++;
    return i;
}

static int become(char **words)
{
    ckpt_error err;

    fflush(stdout);
    cli_restore_signals();
    execvp(words[0], words);
    ckpt_fail(&err, CKPT_E_USAGE, "cannot run '%s' after the download", words[0]);
    return cli_fail(&err);
}

int main(int argc, char **argv)
{
    const int then = find_then(argc, argv);
    session s = { .then = then < argc ? argv + then + 1 : NULL };
    cli_args args;
    ckpt_error err = { 0 };
    hub_reason reason = HUB_FINE;
    ckpt_code code;
    int status;

    if ((status = cli_parse(&command, then, argv, &args)) != CLI_GO)
        return cli_finish(status);
    cli_catch(SIGUSR2, ask_for_switch, SA_RESTART);
    if (then + 1 == argc)
        code = fail_usage(&err, "option '--then' needs a command");
    else
        code = run(&s, &args, &err);
    if (code != CKPT_OK)
        reason = hub_reason_of(&err);
    else if (s.then_status != 0)
        reason = HUB_OTHER;
    if (opt.common.json && !s.is_planned)
        say_json(&(say_outcome){ s.h, &s.listing, s.where, s.d, reason,
                                 code == CKPT_OK ? NULL : err.text, &s.unmatched });
    else if (code == CKPT_OK && !opt.common.dry_run && then == argc)
        printf("%s\n", place_path(s.where));
    if (code == CKPT_OK && !opt.common.dry_run)
        say_written(&opt.common, place_path(s.where), s.d);
    download_close(s.d);
    place_close(s.where);
    hub_close(s.h);
    hub_listing_release(&s.listing);
    free(s.cache);
    status = cli_finish(code == CKPT_OK ? s.then_status : cli_fail(&err));
    return status == CLI_DONE && s.then != NULL && !opt.delete_source && !opt.common.dry_run
               ? become(s.then)
               : status;
}
