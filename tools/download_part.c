/* download_part.c: parts and their journals. */
#include "download_part.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "download_tree.h"
#include "libckpt/array.h"
#include "libckpt/size.h"

enum { LINE_BYTES = 256, STATE_BYTES_MAX = 64 << 20, NAME_BYTES = 100 };

struct part {
    int fd;
    int state_fd;                /* -1: too small for a journal */
    int side_fd;
    uint64_t size;
    uint64_t nonce;
    const char *hash;
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
};

/* What a journal says. */
typedef struct {
    part_span *spans;
    size_t count;
    uint64_t nonce;
} part_state;

static uint32_t line_check(const char *text, size_t size)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}

/* The system's own name for this boot; "-" where it has none: then nothing unsynced counts. */
static void boot_id(char out[40])
{
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : read(fd, out, 36);

    if (fd >= 0)
        close(fd);
    snprintf(got == 36 ? out + 36 : out, 4, "%s", got == 36 ? "" : "-");
}

static void names_of(const part_place *place, const hub_file *file, char *part_out,
                     char *state_out)
{
    snprintf(part_out, NAME_BYTES, "%s.%s.part", place->key, file->hash);
    snprintf(state_out, NAME_BYTES, "%s.%s.state", place->key, file->hash);
}

/* ---- reading a journal ---- */

static int add_span(part_state *s, uint64_t begin, uint64_t end)
{
    part_span *spans = array_room(s->spans, s->count, sizeof *spans, "spans", NULL);

    if (spans == NULL)
        return 0;
    s->spans = spans;
    spans[s->count].begin = begin;
    spans[s->count++].end = end;
    return 1;
}

static int by_begin(const void *a, const void *b)
{
    const uint64_t x = ((const part_span *)a)->begin;
    const uint64_t y = ((const part_span *)b)->begin;

    return x < y ? -1 : x > y;
}

static void merge_spans(part_state *s)
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

/* The line up to its check, which must be right. Its size without the check, or 0. */
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

static int read_header(const char *line, const hub_file *file, int *same_boot, part_state *out)
{
    char hash[65];
    char boot[40];
    char ours[40];
    uint64_t size;

    boot_id(ours);
    if (sscanf(line, "ckpt-part 1 %64s %" SCNu64 " %39s %" SCNx64, hash, &size, boot,
               &out->nonce) != 4 ||
        strcmp(hash, file->hash) != 0 || size != file->size_bytes)
        return 0;
    *same_boot = strcmp(boot, ours) == 0 && strcmp(ours, "-") != 0;
    return 1;
}

/* Bytes of the text whose spans are on the disk: the number in the last whole `synced` line. */
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

/* 0: it is not the journal of this file, or there is no memory. Torn lines are passed over. */
static int read_state(const char *text, size_t size, const hub_file *file, part_state *out)
{
    const uint64_t durable = durable_bytes(text, size);
    int same_boot = 0;

    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        part_span span;

        if (newline == NULL)
            break;
        if (checked_size(text + at, (size_t)(newline - text) - at) == 0) {
            if (at == 0)
                return 0;
        } else if (at == 0) {
            if (!read_header(text, file, &same_boot, out))
                return 0;
        } else if (sscanf(text + at, "span %" SCNu64 " %" SCNu64, &span.begin, &span.end) == 2 &&
                   span.begin < span.end && span.end <= file->size_bytes &&
                   (same_boot || at < durable) && !add_span(out, span.begin, span.end)) {
            return 0;
        }
        at = (size_t)(newline - text) + 1;
    }
    merge_spans(out);
    return out->nonce != 0;
}

/* The journal's text, NUL-terminated, yours to free; NULL when it cannot be read. */
static char *load_text(int side_fd, const char *name, size_t *size)
{
    const int fd = openat(side_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    char *text = NULL;

    *size = 0;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) == 0 && status.st_size <= STATE_BYTES_MAX &&
        (text = malloc((size_t)status.st_size + 1)) != NULL) {
        const ssize_t got = read(fd, text, (size_t)status.st_size);

        *size = got > 0 ? (size_t)got : 0;
        text[*size] = '\0';
    }
    close(fd);
    return text;
}

/* What can be gone on with: part and journal are both there and belong together. */
static int load_state(int side_fd, const char *part_file, const char *state_file,
                      const hub_file *file, part_state *out)
{
    struct stat status;
    size_t size;
    char *text = load_text(side_fd, state_file, &size);
    int good = text != NULL && fstatat(side_fd, part_file, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
               S_ISREG(status.st_mode) && (uint64_t)status.st_size == file->size_bytes &&
               read_state(text, size, file, out);

    free(text);
    if (!good) {
        free(out->spans);
        memset(out, 0, sizeof *out);
    }
    return good;
}

uint64_t part_present_bytes(const part_place *place, const hub_file *file)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
    part_state state = { 0 };
    uint64_t bytes = 0;

    names_of(place, file, name, state_name);
    if (file->size_bytes >= PART_JOURNAL_BYTES &&
        load_state(place->side_fd, name, state_name, file, &state))
        for (size_t i = 0; i < state.count; i++)
            bytes += state.spans[i].end - state.spans[i].begin;
    free(state.spans);
    return bytes;
}

uint64_t part_open_prefix(const part_place *place, const hub_file *file, int *fd)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];
    part_state state = { 0 };
    uint64_t bytes = 0;

    *fd = -1;
    names_of(place, file, name, state_name);
    if (load_state(place->side_fd, name, state_name, file, &state)) {
        bytes = state.count > 0 && state.spans[0].begin == 0 ? state.spans[0].end : 0;
        *fd = openat(place->side_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    free(state.spans);
    return *fd < 0 ? 0 : bytes;
}

uint64_t part_allocated_bytes(const part_place *place, const hub_file *file)
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

void part_discard(const part_place *place, const hub_file *file)
{
    char name[NAME_BYTES];
    char state_name[NAME_BYTES];

    names_of(place, file, name, state_name);
    unlinkat(place->side_fd, name, 0);
    unlinkat(place->side_fd, state_name, 0);
}

/* ---- writing one ---- */

static ckpt_code append(part *p, const char *format, uint64_t a, uint64_t b, ckpt_error *err)
{
    char line[LINE_BYTES];
    size_t size = (size_t)snprintf(line, sizeof line, format, a, b);

    size += (size_t)snprintf(line + size, sizeof line - size, "%08x\n", line_check(line, size));
    /* One call with O_APPEND: lines of two threads do not mix. */
    if (write(p->state_fd, line, size) != (ssize_t)size)
        return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", p->state_name, strerror(errno));
    return CKPT_OK;
}

static ckpt_code append_span(part *p, uint64_t begin, uint64_t end, ckpt_error *err)
{
    return append(p, "span %" PRIu64 " %" PRIu64 " ", begin, end, err);
}

static ckpt_code begin_journal(part *p, const part_state *state, ckpt_error *err)
{
    char temporary[NAME_BYTES + 8];
    char line[LINE_BYTES];
    char boot[40];
    size_t size;
    ckpt_code code;

    boot_id(boot);
    if (getrandom(&p->nonce, sizeof p->nonce, 0) != (ssize_t)sizeof p->nonce || p->nonce == 0)
        p->nonce = (uint64_t)getpid();
    snprintf(temporary, sizeof temporary, "%s" TREE_SCRATCH_END, p->state_name);
    p->state_fd = openat(p->side_fd, temporary,
                         O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->state_fd < 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot make '%s': %s", temporary, strerror(errno));
    size = (size_t)snprintf(line, sizeof line, "ckpt-part 1 %s %" PRIu64 " %s %" PRIx64 " ",
                            p->hash, p->size, boot, p->nonce);
    size += (size_t)snprintf(line + size, sizeof line - size, "%08x\n", line_check(line, size));
    if (write(p->state_fd, line, size) != (ssize_t)size)
        return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", temporary, strerror(errno));
    for (size_t i = 0; i < state->count; i++)
        if ((code = append_span(p, state->spans[i].begin, state->spans[i].end, err)) != CKPT_OK)
            return code;
    if (state->count > 0 && (code = part_sync(p, err)) != CKPT_OK)
        return code;
    if (renameat(p->side_fd, temporary, p->side_fd, p->state_name) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot rename '%s': %s", temporary, strerror(errno));
    return CKPT_OK;
}

/* The space is taken now, so that a full disk says so before hours of work. Not with
 * posix_fallocate: where the file system cannot do it, that writes to every block. */
static ckpt_code set_size(part *p, int allocate, ckpt_error *err)
{
    int error = 0;

    if (p->size == 0)
        return CKPT_OK;
    if (allocate && p->size >= PART_JOURNAL_BYTES &&
        fallocate(p->fd, 0, 0, (off_t)p->size) != 0)
        error = errno;
    if (error == 0 || error == EOPNOTSUPP || error == EINVAL || error == ENOSYS ||
        error == EINTR)
        error = ftruncate(p->fd, (off_t)p->size) != 0 ? errno : 0;
    if (error != 0)
        return ckpt_fail(err, CKPT_E_IO, "no room for %" PRIu64 " bytes of '%s': %s", p->size,
                         p->name, strerror(error));
    return CKPT_OK;
}

ckpt_code part_open(const part_place *place, const hub_file *file, part **out, part_spans *there,
                    ckpt_error *err)
{
    const int journaled = file->size_bytes >= PART_JOURNAL_BYTES;
    part_state state = { 0 };
    part *p = calloc(1, sizeof *p);
    ckpt_code code = CKPT_OK;

    *out = NULL;
    memset(there, 0, sizeof *there);
    if (p == NULL)
        return ckpt_fail_memory(err, "a part", sizeof *p);
    p->side_fd = place->side_fd;
    p->size = file->size_bytes;
    p->hash = file->hash;
    p->state_fd = -1;
    names_of(place, file, p->name, p->state_name);
    if (!journaled || !load_state(p->side_fd, p->name, p->state_name, file, &state))
        unlinkat(p->side_fd, p->name, 0);
    p->fd = openat(p->side_fd, p->name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->fd < 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot make '%s': %s", p->name, strerror(errno));
    if (code == CKPT_OK)
        code = set_size(p, place->allocate, err);
    if (code == CKPT_OK && journaled)
        code = begin_journal(p, &state, err);
    if (code != CKPT_OK) {
        free(state.spans);
        part_close(p);
        return code;
    }
    *out = p;
    there->items = state.spans;
    there->count = state.count;
    return CKPT_OK;
}

ckpt_code part_adopt(const part_place *place, const hub_file *file, int folder, const char *name,
                     ckpt_error *err)
{
    part_span span = { 0, 0 };
    part_state state = { 0 };
    struct stat status;
    part *p;
    ckpt_code code = CKPT_OK;

    if (file->size_bytes < PART_JOURNAL_BYTES || part_present_bytes(place, file) > 0 ||
        fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(status.st_mode) ||
        status.st_size == 0 || (uint64_t)status.st_size > file->size_bytes)
        return CKPT_OK;
    if ((p = calloc(1, sizeof *p)) == NULL)
        return ckpt_fail_memory(err, "a part", sizeof *p);
    span.end = (uint64_t)status.st_size;
    state.spans = &span;
    state.count = 1;
    p->side_fd = place->side_fd;
    p->size = file->size_bytes;
    p->hash = file->hash;
    p->fd = p->state_fd = -1;
    names_of(place, file, p->name, p->state_name);
    if (renameat(folder, name, p->side_fd, p->name) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot rename '%s': %s", name, strerror(errno));
    else if ((p->fd = openat(p->side_fd, p->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW)) < 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", p->name, strerror(errno));
    if (code == CKPT_OK && (code = set_size(p, place->allocate, err)) == CKPT_OK)
        code = begin_journal(p, &state, err);
    part_close(p);
    return code;
}

void part_close(part *p)
{
    if (p == NULL)
        return;
    if (p->fd >= 0)
        close(p->fd);
    if (p->state_fd >= 0)
        close(p->state_fd);
    free(p);
}

int part_fd(const part *p)
{
    return p->fd;
}

const char *part_name(const part *p)
{
    return p->name;
}

ckpt_code part_check_owner(part *p, ckpt_error *err)
{
    char text[LINE_BYTES] = "";
    uint64_t nonce = 0;
    int fd;

    if (p->state_fd < 0)
        return CKPT_OK;
    fd = openat(p->side_fd, p->state_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) < 0)
            text[0] = '\0';
        close(fd);
    }
    if (sscanf(text, "ckpt-part 1 %*s %*s %*s %" SCNx64, &nonce) != 1 || nonce != p->nonce)
        return ckpt_fail(err, CKPT_E_IO, "another process works on '%s'", p->name);
    return CKPT_OK;
}

ckpt_code part_write(part *p, uint64_t offset, const void *bytes, size_t size, ckpt_error *err)
{
    const unsigned char *at = bytes;

    while (size > 0) {
        const ssize_t put = pwrite(p->fd, at, size, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", p->name, strerror(errno));
        at += put;
        offset += (uint64_t)put;
        size -= (size_t)put;
    }
    return CKPT_OK;
}

ckpt_code part_note(part *p, uint64_t begin, uint64_t end, ckpt_error *err)
{
    ckpt_code code;

    if (p->state_fd < 0 || begin == end)
        return CKPT_OK;
    if ((code = part_check_owner(p, err)) != CKPT_OK)
        return code;
    return append_span(p, begin, end, err);
}

ckpt_code part_sync(part *p, ckpt_error *err)
{
    const off_t noted = p->state_fd < 0 ? 0 : lseek(p->state_fd, 0, SEEK_END);
    ckpt_code code;

    if (p->state_fd < 0)
        return CKPT_OK;
    if (fdatasync(p->fd) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s", p->name, strerror(errno));
    if ((code = append(p, "synced %" PRIu64 " ", (uint64_t)noted, 0, err)) != CKPT_OK)
        return code;
    if (fdatasync(p->state_fd) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s", p->state_name, strerror(errno));
    return CKPT_OK;
}

ckpt_code part_restart(part *p, ckpt_error *err)
{
    const part_state nothing = { 0 };

    if (p->state_fd < 0)
        return CKPT_OK;
    close(p->state_fd);
    p->state_fd = -1;
    return begin_journal(p, &nothing, err);
}

void part_remove_journal(part *p)
{
    if (p->state_fd >= 0)
        unlinkat(p->side_fd, p->state_name, 0);
}

void part_remove(part *p)
{
    part_remove_journal(p);
    unlinkat(p->side_fd, p->name, 0);
}
