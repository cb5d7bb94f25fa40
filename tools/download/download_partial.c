/* download_partial.c: partials and their journals. */
#include "download_partial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "download_tree.h"
#include "libckpt/array.h"
#include "libckpt/clock.h"
#include "libckpt/size.h"

enum { LINE_BYTES = 256, STATE_BYTES_MAX = 64 << 20, NAME_BYTES = 100 };

/* Interval of owner checks in partial_note. There may be a thousand spans per second, and opening
 * the journal to check it takes longer than writing a span. */
static const double CHECK_SECONDS = 0.05;

struct partial {
    int fd;
    int state_fd;                /* -1: too small for a journal */
    int side_fd;
    uint64_t size;
    uint64_t nonce;
    double checked_time;         /* when the journal was last seen to be ours */
    const char *hash;
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
};

/* The contents of a journal. */
typedef struct {
    partial_span *spans;
    size_t count;
    uint64_t nonce;
    int is_good;                 /* it belongs to this file */
} partial_state;

typedef struct {
    const hub_file *file;
    uint64_t there_bytes;        /* size of the partial */
} partial_look;

static uint32_t line_check(const char *text, size_t size)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}

/* The system's ID of this boot; "-" if there is none: then only synced data counts. */
static ckpt_code boot_id(char out[40], ckpt_error *err)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const int error = errno;
    ssize_t got;

    snprintf(out, 40, "-");
    if (fd < 0)                  /* without /proc there is no ID; other failures are errors */
        return error == ENOENT || error == EACCES ? CKPT_OK
                                                  : hub_fail_disk(error, err, "cannot open '%s'",
                                                                  path);
    got = read(fd, out, 36);
    snprintf(got == 36 ? out + 36 : out, 4, "%s", got == 36 ? "" : "-");
    close(fd);
    return CKPT_OK;
}

static void names_of(const partial_place *place, const hub_file *file, char *partial_out,
                     char *state_out)
{
    snprintf(partial_out, NAME_BYTES, "%s.%s.part", place->key, file->hash);
    snprintf(state_out, NAME_BYTES, "%s.%s.state", place->key, file->hash);
}

/* ---- reading a journal ---- */

static ckpt_code add_span(partial_state *s, uint64_t begin, uint64_t end, ckpt_error *err)
{
    partial_span *spans = array_room(s->spans, s->count, sizeof *spans, "a journal", err);

    if (spans == NULL)
        return CKPT_E_MEMORY;
    s->spans = spans;
    spans[s->count].begin = begin;
    spans[s->count++].end = end;
    return CKPT_OK;
}

static int by_begin(const void *a, const void *b)
{
    const uint64_t x = ((const partial_span *)a)->begin;
    const uint64_t y = ((const partial_span *)b)->begin;

    return x < y ? -1 : x > y;
}

static void merge_spans(partial_state *s)
{
    size_t used = 0;

    if (s->count == 0)
        return;
    qsort(s->spans, s->count, sizeof *s->spans, by_begin);
    for (size_t i = 1; i < s->count; i++) {
        if (s->spans[i].begin <= s->spans[used].end)
            s->spans[used].end = size_max(s->spans[used].end, s->spans[i].end);
        else
            s->spans[++used] = s->spans[i];
    }
    s->count = used + 1;
}

/* Verify the check of a line. Returns its size without the check, or 0. */
static size_t checked_size(const char *line, size_t size)
{
    size_t body = size;
    unsigned check;
    char text[16];

    while (body > 0 && line[body - 1] != ' ')
        body--;
    if (body == 0 || size - body >= sizeof text)
        return 0;
    memcpy(text, line + body, size - body);
    text[size - body] = '\0';
    if (sscanf(text, "%x", &check) != 1 || check != line_check(line, body))
        return 0;
    return body;
}

/* 0: not the header of this file's journal. */
static int read_header(const char *line, const hub_file *file, const char *ours, int *same_boot,
                       partial_state *out)
{
    char hash[65];
    char boot[40];
    uint64_t size;

    if (sscanf(line, "ckpt-part 1 %64s %" SCNu64 " %39s %" SCNx64, hash, &size, boot,
               &out->nonce) != 4 ||
        strcmp(hash, file->hash) != 0 || size != file->size_bytes)
        return 0;
    *same_boot = strcmp(boot, ours) == 0 && strcmp(ours, "-") != 0;
    return 1;
}

/* Number of bytes of the text whose spans are on the disk: from the last complete `synced` line. */
static uint64_t durable_bytes(const char *text, size_t size)
{
    uint64_t durable = 0;

    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        uint64_t number;

        if (newline == NULL)
            break;
        if (checked_size(text + at, (size_t)(newline - text) - at) > 0 &&
            sscanf(text + at, "synced %" SCNu64, &number) == 1 && number <= at)
            durable = size_max(durable, number);
        at = (size_t)(newline - text) + 1;
    }
    return durable;
}

/*
 * *good: it is the journal of this file, as its first line proves. Torn lines are skipped. Spans
 * beyond `there_bytes`, the size of the partial, are ignored.
 */
static ckpt_code read_state(const char *text, size_t size, const partial_look *look,
                            partial_state *out, ckpt_error *err)
{
    const uint64_t durable = durable_bytes(text, size);
    char boot[40];
    int same_boot = 0;
    ckpt_code code;

    if ((code = boot_id(boot, err)) != CKPT_OK)
        return code;
    for (size_t at = 0; at < size && code == CKPT_OK;) {
        const char *newline = memchr(text + at, '\n', size - at);
        const int is_whole =
            newline != NULL && checked_size(text + at, (size_t)(newline - text) - at) > 0;
        partial_span span;

        if (at == 0 && (!is_whole || !read_header(text, look->file, boot, &same_boot, out)))
            return CKPT_OK;
        if (newline == NULL)
            break;
        if (is_whole && at > 0 && (same_boot || at < durable) &&
            sscanf(text + at, "span %" SCNu64 " %" SCNu64, &span.begin, &span.end) == 2 &&
            span.begin < span.end && span.end <= look->file->size_bytes &&
            span.begin < look->there_bytes)
            code = add_span(out, span.begin, size_min(span.end, look->there_bytes), err);
        at = (size_t)(newline - text) + 1;
    }
    merge_spans(out);
    out->is_good = out->nonce != 0;
    return code;
}

/* The journal's text, NUL-terminated, yours to free; NULL without an error: there is none. */
static ckpt_code load_text(int side_fd, const char *name, char **out, size_t *size,
                           ckpt_error *err)
{
    struct stat status;
    size_t room;
    int fd;
    ckpt_code code = tree_open_if_there(side_fd, name, O_RDONLY, &fd, err);

    *out = NULL;
    *size = 0;
    if (code != CKPT_OK || fd < 0)
        return code;
    if (fstat(fd, &status) != 0) {
        code = hub_fail_disk(errno, err, "cannot stat '%s'", name);
    } else if (status.st_size > STATE_BYTES_MAX) {
        code = hub_fail(HUB_OTHER, err, "the journal '%s' is too large: expected at most %d bytes, "
                        "got %" PRIu64 "; remove it to download its file again", name,
                        STATE_BYTES_MAX, (uint64_t)status.st_size);
    } else {
        room = (size_t)status.st_size;
        if ((*out = malloc(room + 1)) == NULL)
            code = ckpt_fail_memory(err, "a journal", room);
        else
            code = tree_read(fd, name, *out, room, size, err);
    }
    close(fd);
    if (code != CKPT_OK) {
        free(*out);
        *out = NULL;
    } else {
        (*out)[*size] = '\0';
    }
    return code;
}

/*
 * What a run can resume from. There are three outcomes, and the third is an error: partial and
 * journal both exist and belong together (is_good); they do not, or one is missing; or this cannot
 * be determined. Unreadable data may be hours of work and must not be treated as absent.
 */
static ckpt_code load_state(const partial_place *place, const hub_file *file, partial_state *out,
                            ckpt_error *err)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
    struct stat status;
    char *text = NULL;
    size_t size;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    names_of(place, file, name, state_name);
    if ((code = tree_stat(place->side_fd, name, &status, err)) != CKPT_OK || status.st_mode == 0)
        return code;
    if (!S_ISREG(status.st_mode))
        return hub_fail(HUB_OTHER, err, "'%s' is not a regular file: expected an unfinished "
                        "download or nothing", name);
    if (file->size_bytes < PARTIAL_JOURNAL_BYTES || (uint64_t)status.st_size > file->size_bytes)
        return CKPT_OK;
    if ((code = load_text(place->side_fd, state_name, &text, &size, err)) == CKPT_OK &&
        text != NULL)
        code = read_state(text, size, &(partial_look){ file, (uint64_t)status.st_size }, out, err);
    free(text);
    if (code != CKPT_OK || !out->is_good) {
        free(out->spans);
        memset(out, 0, sizeof *out);
    }
    return code;
}

ckpt_code partial_present_bytes(const partial_place *place, const hub_file *file, uint64_t *out,
                                ckpt_error *err)
{
    partial_state state;
    const ckpt_code code = load_state(place, file, &state, err);

    *out = 0;
    for (size_t i = 0; i < state.count; i++)
        *out += state.spans[i].end - state.spans[i].begin;
    free(state.spans);
    return code;
}

ckpt_code partial_open_prefix(const partial_place *place, const hub_file *file, partial_prefix *out,
                              ckpt_error *err)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
    partial_state state;
    ckpt_code code = load_state(place, file, &state, err);

    out->fd = -1;
    out->bytes = state.count > 0 && state.spans[0].begin == 0 ? state.spans[0].end : 0;
    free(state.spans);
    if (code != CKPT_OK || out->bytes == 0)
        return code;
    names_of(place, file, name, state_name);
    return tree_open_file(place->side_fd, name, O_RDONLY, &out->fd, err);
}

uint64_t partial_allocated_bytes(const partial_place *place, const hub_file *file)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
    struct stat status;

    names_of(place, file, name, state_name);
    if (place->side_fd < 0 ||
        fstatat(place->side_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    return (uint64_t)status.st_blocks * 512;
}

void partial_discard(const partial_place *place, const hub_file *file)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];

    names_of(place, file, name, state_name);
    unlinkat(place->side_fd, name, 0);
    unlinkat(place->side_fd, state_name, 0);
}

/* ---- writing a journal ---- */

/* One call with O_APPEND, so that lines of two threads do not mix. On a full disk half a line may
 * be written, and only the next write fails. */
static ckpt_code write_line(partial *p, const char *line, size_t size, ckpt_error *err)
{
    const ssize_t put = write(p->state_fd, line, size);

    if (put == (ssize_t)size)
        return CKPT_OK;
    return hub_fail_disk(put < 0 ? errno : ENOSPC, err, "cannot write '%s'", p->state_name);
}

static ckpt_code append(partial *p, const char *format, uint64_t a, uint64_t b, ckpt_error *err)
{
    char line[LINE_BYTES];
    size_t size = (size_t)snprintf(line, sizeof line, format, a, b);

    size += (size_t)snprintf(line + size, sizeof line - size, "%08x\n", line_check(line, size));
    return write_line(p, line, size, err);
}

static ckpt_code append_span(partial *p, uint64_t begin, uint64_t end, ckpt_error *err)
{
    return append(p, "span %" PRIu64 " %" PRIu64 " ", begin, end, err);
}

/*
 * Every run writes a new journal with its own nonce, so that a process still working on the
 * partial notices that it was taken over. It starts with the contents of the previous journal.
 * Those may be from another boot but will be trusted under this one, so the data is synced before
 * the new journal replaces the old one. If we are killed in between, the old one is still valid.
 */
static ckpt_code begin_journal(partial *p, const partial_state *state, ckpt_error *err)
{
    char temporary[NAME_BYTES + 8];
    char line[LINE_BYTES];
    char boot[40];
    size_t size;
    ckpt_code code;

    if ((code = boot_id(boot, err)) != CKPT_OK)
        return code;
    if (getrandom(&p->nonce, sizeof p->nonce, 0) != (ssize_t)sizeof p->nonce || p->nonce == 0)
        p->nonce = (uint64_t)getpid();
    snprintf(temporary, sizeof temporary, "%s" TREE_SCRATCH_END, p->state_name);
    if ((code = tree_open_file(p->side_fd, temporary, O_RDWR | O_CREAT | O_TRUNC | O_APPEND,
                               &p->state_fd, err)) != CKPT_OK)
        return code;
    size = (size_t)snprintf(line, sizeof line, "ckpt-part 1 %s %" PRIu64 " %s %" PRIx64 " ",
                            p->hash, p->size, boot, p->nonce);
    size += (size_t)snprintf(line + size, sizeof line - size, "%08x\n", line_check(line, size));
    if ((code = write_line(p, line, size, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < state->count; i++)
        if ((code = append_span(p, state->spans[i].begin, state->spans[i].end, err)) != CKPT_OK)
            return code;
    if (state->count > 0 && (code = partial_sync(p, err)) != CKPT_OK)
        return code;
    if (renameat(p->side_fd, temporary, p->side_fd, p->state_name) != 0)
        return hub_fail_disk(errno, err, "cannot rename '%s'", temporary);
    return CKPT_OK;
}

/* Reserve the space now, so that a full disk fails before hours of work. Not with posix_fallocate,
 * which writes to every block if the file system lacks support. */
static ckpt_code set_size(partial *p, int allocate, ckpt_error *err)
{
    int error = 0;

    if (p->size == 0)
        return CKPT_OK;
    if (allocate && p->size >= PARTIAL_JOURNAL_BYTES &&
        fallocate(p->fd, 0, 0, (off_t)p->size) != 0)
        error = errno;
    if (error == 0 || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS ||
        error == EINTR)
        error = ftruncate(p->fd, (off_t)p->size) != 0 ? errno : 0;
    if (error != 0)
        return hub_fail_disk(error, err, "not enough disk space for %" PRIu64 " bytes of '%s'",
                             p->size, p->name);
    return CKPT_OK;
}

/* Remove what is known to be useless before starting a new one. */
static ckpt_code remove_old(const partial *p, ckpt_error *err)
{
    if (unlinkat(p->side_fd, p->name, 0) != 0 && errno != ENOENT)
        return hub_fail_disk(errno, err, "cannot remove '%s'", p->name);
    return CKPT_OK;
}

static ckpt_code make_partial(const partial_place *place, const hub_file *file, partial **out,
                              ckpt_error *err)
{
    partial *p = *out = calloc(1, sizeof *p);

    if (p == NULL)
        return ckpt_fail_memory(err, "a partial", sizeof *p);
    p->side_fd = place->side_fd;
    p->size = file->size_bytes;
    p->hash = file->hash;
    p->fd = p->state_fd = -1;
    names_of(place, file, p->name, p->state_name);
    return CKPT_OK;
}

ckpt_code partial_open(const partial_place *place, const hub_file *file, partial **out,
                       partial_spans *there, ckpt_error *err)
{
    partial_state state = { 0 };
    partial *p;
    ckpt_code code;

    *out = NULL;
    memset(there, 0, sizeof *there);
    if ((code = make_partial(place, file, &p, err)) != CKPT_OK)
        return code;
    if ((code = load_state(place, file, &state, err)) == CKPT_OK && !state.is_good)
        code = remove_old(p, err);
    if (code == CKPT_OK)
        code = tree_open_file(p->side_fd, p->name, O_RDWR | O_CREAT, &p->fd, err);
    if (code == CKPT_OK)
        code = set_size(p, place->allocate, err);
    if (code == CKPT_OK && file->size_bytes >= PARTIAL_JOURNAL_BYTES)
        code = begin_journal(p, &state, err);
    if (code != CKPT_OK) {
        free(state.spans);
        partial_close(p);
        return code;
    }
    *out = p;
    there->items = state.spans;
    there->count = state.count;
    return CKPT_OK;
}

/* Create the journal before the partial, so that no received data is lost in between: a journal
 * without a partial claims nothing. Beside an older partial of unknown contents it would be
 * wrong. */
ckpt_code partial_adopt(const partial_place *place, const hub_file *file, int folder,
                        const char *name, ckpt_error *err)
{
    partial_span span = { 0, 0 };
    const partial_state state = { &span, 1, 0, 0 };
    struct stat status;
    uint64_t there_bytes;
    partial *p;
    ckpt_code code;

    if (file->size_bytes < PARTIAL_JOURNAL_BYTES)
        return CKPT_OK;
    if ((code = partial_present_bytes(place, file, &there_bytes, err)) != CKPT_OK ||
        there_bytes > 0 || (code = tree_stat(folder, name, &status, err)) != CKPT_OK)
        return code;
    if (!S_ISREG(status.st_mode) || status.st_size == 0 ||
        (uint64_t)status.st_size > file->size_bytes)
        return CKPT_OK;
    if ((code = make_partial(place, file, &p, err)) != CKPT_OK)
        return code;
    span.end = (uint64_t)status.st_size;
    if ((code = tree_open_file(folder, name, O_RDWR, &p->fd, err)) == CKPT_OK &&
        (code = remove_old(p, err)) == CKPT_OK &&
        (code = begin_journal(p, &state, err)) == CKPT_OK &&
        renameat(folder, name, p->side_fd, p->name) != 0)
        code = hub_fail_disk(errno, err, "cannot rename '%s'", name);
    if (code == CKPT_OK)
        code = set_size(p, place->allocate, err);
    partial_close(p);
    return code;
}

void partial_close(partial *p)
{
    if (p == NULL)
        return;
    if (p->fd >= 0)
        close(p->fd);
    if (p->state_fd >= 0)
        close(p->state_fd);
    free(p);
}

int partial_fd(const partial *p)
{
    return p->fd;
}

const char *partial_name(const partial *p)
{
    return p->name;
}

ckpt_code partial_check_owner(partial *p, ckpt_error *err)
{
    char text[LINE_BYTES] = "";
    uint64_t nonce = 0;
    size_t size;
    int fd;
    ckpt_code code;

    if (p->state_fd < 0)
        return CKPT_OK;
    if ((code = tree_open_if_there(p->side_fd, p->state_name, O_RDONLY, &fd, err)) != CKPT_OK)
        return code;
    if (fd < 0)
        return hub_fail(HUB_OTHER, err, "the journal '%s' has disappeared: another process is "
                        "using or has removed it", p->state_name);
    code = tree_read(fd, p->state_name, text, sizeof text - 1, &size, err);
    close(fd);
    if (code == CKPT_OK && (sscanf(text, "ckpt-part 1 %*s %*s %*s %" SCNx64, &nonce) != 1 ||
                            nonce != p->nonce))
        code = hub_fail(HUB_OTHER, err, "another process is downloading '%s'", p->name);
    return code;
}

ckpt_code partial_write(partial *p, uint64_t offset, const void *bytes, size_t size,
                        ckpt_error *err)
{
    const unsigned char *at = bytes;

    while (size > 0) {
        const ssize_t put = pwrite(p->fd, at, size, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return hub_fail_disk(put < 0 ? errno : ENOSPC, err, "cannot write '%s'", p->name);
        at += put;
        offset += (uint64_t)put;
        size -= (size_t)put;
    }
    return CKPT_OK;
}

ckpt_code partial_note(partial *p, uint64_t begin, uint64_t end, ckpt_error *err)
{
    ckpt_code code;

    if (p->state_fd < 0 || begin == end)
        return CKPT_OK;
    if (clock_seconds() - p->checked_time >= CHECK_SECONDS) {
        if ((code = partial_check_owner(p, err)) != CKPT_OK)
            return code;
        p->checked_time = clock_seconds();
    }
    return append_span(p, begin, end, err);
}

/*
 * The order matters: first take the size of the journal, then sync the data that its lines
 * describe, then write the `synced` line. Spans that other threads add meanwhile are beyond
 * `noted` and not covered.
 */
ckpt_code partial_sync(partial *p, ckpt_error *err)
{
    const off_t noted = p->state_fd < 0 ? 0 : lseek(p->state_fd, 0, SEEK_END);
    ckpt_code code;

    if (p->state_fd < 0)
        return CKPT_OK;
    if (fdatasync(p->fd) != 0)
        return hub_fail_disk(errno, err, "cannot sync '%s'", p->name);
    if ((code = append(p, "synced %" PRIu64 " ", (uint64_t)noted, 0, err)) != CKPT_OK)
        return code;
    if (fdatasync(p->state_fd) != 0)
        return hub_fail_disk(errno, err, "cannot sync '%s'", p->state_name);
    return CKPT_OK;
}

ckpt_code partial_restart(partial *p, ckpt_error *err)
{
    const partial_state nothing = { 0 };

    if (p->state_fd < 0)
        return CKPT_OK;
    close(p->state_fd);
    p->state_fd = -1;
    return begin_journal(p, &nothing, err);
}

void partial_remove_journal(partial *p)
{
    if (p->state_fd >= 0)
        unlinkat(p->side_fd, p->state_name, 0);
}

void partial_remove(partial *p)
{
    partial_remove_journal(p);
    unlinkat(p->side_fd, p->name, 0);
}
