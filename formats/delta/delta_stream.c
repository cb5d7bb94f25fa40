/* Deltas in tar archives. */
#include "delta_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "delta.h"
#include "libckpt/json.h"
#include "libckpt/memory.h"
#include "libckpt/sha256.h"
#include "libckpt/size.h"
#include "libckpt/table.h"
#include "libckpt/text.h"

enum { BLOCK_BYTES = 512, MOVE_BYTES = 1 << 18, SIDE_BYTES_MAX = 1 << 28,
       WAIT_MS = 200 };

/* The header of a member; all numbers but a large size are octal text. */
typedef struct {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char sum[8];
    char kind;
    char link[100];
    char magic[8];
    char user[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char unused[12];
} tar_header;

_Static_assert(sizeof(tar_header) == BLOCK_BYTES, "a header is one block");

static const char tar_magic[8] = { 'u', 's', 't', 'a', 'r', '\0', '0', '0' };
enum { OCTAL_SIZE_MAX_BITS = 33, BASE_256 = 0x80 };

/* Sum of the header's bytes, where its own field counts as blanks. */
static unsigned header_sum(const tar_header *h)
{
    const unsigned char *bytes = (const unsigned char *)h;
    const unsigned char *own = (const unsigned char *)h->sum;
    unsigned sum = 0;

    for (size_t i = 0; i < sizeof *h; i++)
        sum += bytes + i >= own && bytes + i < own + sizeof h->sum ? ' ' : bytes[i];
    return sum;
}

static uint64_t padding_of(uint64_t size)
{
    return (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
}

/* ---- sending ---- */

static ckpt_code send_bytes(int fd, const void *bytes, size_t size, ckpt_error *err)
{
    const char *at = bytes;

    while (size > 0) {
        const ssize_t got = write(fd, at, size);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot write the stream of the delta: %s",
                             strerror(errno));
        at += got;
        size -= (size_t)got;
    }
    return CKPT_OK;
}

/* Divide a name at a '/' where it is too long for one field. */
static int put_name(const char *name, tar_header *h)
{
    const size_t length = strlen(name);
    const char *cut = length <= sizeof h->name ? name : strchr(name + length - sizeof h->name - 1,
                                                               '/');

    if (cut == NULL || (cut != name && (size_t)(cut - name) > sizeof h->prefix))
        return 0;
    if (cut != name) {
        memcpy(h->prefix, name, (size_t)(cut - name));
        cut++;
    }
    memcpy(h->name, cut, strlen(cut));
    return 1;
}

static void put_size(uint64_t size, tar_header *h)
{
    char text[24];

    if (size >> OCTAL_SIZE_MAX_BITS == 0) {
        snprintf(text, sizeof text, "%011" PRIo64, size);
        memcpy(h->size, text, sizeof h->size);
        return;
    }
    h->size[0] = (char)BASE_256;
    for (size_t i = sizeof h->size; i-- > sizeof h->size - sizeof size; size >>= 8)
        h->size[i] = (char)(size & 0xff);
}

static ckpt_code send_header(int fd, const char *name, uint64_t size, ckpt_error *err)
{
    tar_header h = { .mode = "0000644", .uid = "0000000", .gid = "0000000",
                     .mtime = "00000000000", .kind = '0', .major = "0000000", .minor = "0000000" };
    char sum[8];

    memcpy(h.magic, tar_magic, sizeof h.magic);
    if (!put_name(name, &h))
        return ckpt_fail(err, CKPT_E_USAGE, "the name '%s' is too long for a stream: write the "
                         "delta to a folder", name);
    put_size(size, &h);
    snprintf(sum, sizeof sum, "%06o", header_sum(&h));
    memcpy(h.sum, sum, 7);
    h.sum[7] = ' ';
    return send_bytes(fd, &h, sizeof h, err);
}

static ckpt_code send_content(int fd, const ckpt_file *file, char *buffer, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; code == CKPT_OK && at < file_size(file);) {
        const size_t take = (size_t)size_min(file_size(file) - at, MOVE_BYTES);

        if ((code = file_read_at(file, at, buffer, take, err)) == CKPT_OK)
            code = send_bytes(fd, buffer, take, err);
        at += take;
    }
    return code;
}

static ckpt_code send_file(int fd, const char *directory, const char *name, char *buffer,
                           ckpt_error *err)
{
    static const char zeros[BLOCK_BYTES];
    char *path = file_join(directory, name);
    ckpt_file *file = NULL;
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if ((code = file_open(path, &file, err)) == CKPT_OK &&
        (code = send_header(fd, name, file_size(file), err)) == CKPT_OK)
        code = send_content(fd, file, buffer, err);
    if (code == CKPT_OK)
        code = send_bytes(fd, zeros, (size_t)padding_of(file_size(file)), err);
    file_close(file, NULL);
    free(path);
    return code;
}

ckpt_code delta_stream_send(const char *directory, int fd, ckpt_error *err)
{
    static const char end[2 * BLOCK_BYTES];
    file_list names = { NULL, 0 };
    char *buffer = malloc(MOVE_BYTES);
    ckpt_code code;

    if (buffer == NULL)
        code = ckpt_fail_memory(err, "a copy buffer", MOVE_BYTES);
    else if ((code = file_list_tree(directory, &names, err)) == CKPT_OK)
        code = send_file(fd, directory, DELTA_SIDE_FILE, buffer, err);
    for (size_t i = 0; i < names.count && code == CKPT_OK; i++)
        if (strcmp(names.names[i], DELTA_SIDE_FILE) != 0)
            code = send_file(fd, directory, names.names[i], buffer, err);
    if (code == CKPT_OK)
        code = send_bytes(fd, end, sizeof end, err);
    file_list_free(&names);
    free(buffer);
    return code;
}

ckpt_code delta_stream_send_packed(const char *path, int fd, ckpt_error *err)
{
    char *buffer = malloc(MOVE_BYTES);
    ckpt_file *file = NULL;
    ckpt_code code;

    if (buffer == NULL)
        return ckpt_fail_memory(err, "a copy buffer", MOVE_BYTES);
    if ((code = file_open(path, &file, err)) == CKPT_OK)
        code = send_content(fd, file, buffer, err);
    file_close(file, NULL);
    free(buffer);
    return code;
}

/* ---- receiving ---- */

typedef struct {
    const char *name;               /* both in the document of the side file */
    const char *sha256;
    int has_come;
} stream_file;

typedef struct {
    int fd;
    const char *directory;
    const ckpt_run_options *run;
    json_document *side;
    stream_file *files;
    table numbers;                  /* of files, by name */
    size_t file_count;
    size_t come_count;
    char *buffer;
    sha256 *hash;                   /* of the file that is arriving */
} receiver;

static ckpt_code fail_early(const char *subject, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta ends early, in %s: what sends it "
                     "has failed, or the connection has", subject);
}

/*
 * Read up to `size` bytes; *got is less only at the end of the stream. A signal that comes just
 * before the read would not interrupt it, so it begins when there are bytes.
 */
static ckpt_code receive_some(const receiver *r, void *out, size_t size, size_t *got,
                              ckpt_error *err)
{
    for (*got = 0; *got < size;) {
        struct pollfd ready = { .fd = r->fd, .events = POLLIN };
        ssize_t more;

        if (r->run->cancel != NULL && r->run->cancel(r->run->context))
            return ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted while receiving the delta");
        if (poll(&ready, 1, WAIT_MS) <= 0)
            continue;
        more = read(r->fd, (char *)out + *got, size - *got);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot read the stream of the delta: %s",
                             strerror(errno));
        if (more == 0)
            return CKPT_OK;
        *got += (size_t)more;
    }
    return CKPT_OK;
}

static ckpt_code receive_bytes(const receiver *r, void *out, size_t size, const char *subject,
                               ckpt_error *err)
{
    size_t got;
    const ckpt_code code = receive_some(r, out, size, &got, err);

    return code != CKPT_OK || got == size ? code : fail_early(subject, err);
}

static int is_zero(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const char *)bytes)[i] != 0)
            return 0;
    return 1;
}

/* The number in a field: octal digits, then NUL or blank. */
static int take_octal(const char *field, size_t size, uint64_t *out)
{
    size_t i = 0;

    for (*out = 0; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        *out = *out << 3 | (uint64_t)(field[i] - '0');
    return i > 0 && (i == size || field[i] == '\0' || field[i] == ' ');
}

static int take_size(const tar_header *h, uint64_t *out)
{
    const size_t high = sizeof h->size - sizeof *out;

    if ((h->size[0] & BASE_256) == 0)
        return take_octal(h->size, sizeof h->size, out);
    if ((unsigned char)h->size[0] != BASE_256 || !is_zero(h->size + 1, high - 1))
        return 0;
    *out = 0;
    for (size_t i = high; i < sizeof h->size; i++)
        *out = *out << 8 | (unsigned char)h->size[i];
    return *out >> 63 == 0;
}

enum { NAME_BYTES = sizeof(((tar_header *)0)->name) + sizeof(((tar_header *)0)->prefix) + 2 };

static ckpt_code take_header(const tar_header *h, char name[NAME_BYTES], uint64_t *size,
                             ckpt_error *err)
{
    const int has_prefix = h->prefix[0] != '\0';
    uint64_t sum;

    if (memcmp(h->magic, tar_magic, sizeof "ustar") != 0 ||
        !take_octal(h->sum, sizeof h->sum, &sum) || sum != header_sum(h))
        return ckpt_fail(err, CKPT_E_FORMAT, "the stream is not a delta: expected the tar archive "
                         "that ckpt-delta diff OLD NEW - writes, got another header");
    snprintf(name, NAME_BYTES, "%.*s%s%.*s", (int)sizeof h->prefix, h->prefix,
             has_prefix ? "/" : "", (int)sizeof h->name, h->name);
    if (h->kind != '0' || !text_is_below(name) || !take_size(h, size))
        return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta has '%s': expected regular "
                         "files with names below the folder of the delta", name);
    return CKPT_OK;
}

/* List what a member array of the side file says of other files. */
static ckpt_code take_list(receiver *r, const json_value *list, const char *key, ckpt_error *err)
{
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        const char *name = json_string(json_member(v, key));
        const char *sum = json_string(json_member(v, "sha256"));

        if (name == NULL && json_is_null(json_member(v, key)))
            continue;                                   /* a file that the delta removes */
        if (name == NULL || sum == NULL || table_find(&r->numbers, name, &(uint64_t){ 0 }))
            return ckpt_fail(err, CKPT_E_FORMAT, "the stream's %s: expected each file once, with "
                             "its SHA-256, got '%s'", DELTA_SIDE_FILE, name == NULL ? "" : name);
        if (table_add(&r->numbers, name, r->file_count) != TABLE_ADDED)
            return ckpt_fail_memory(err, DELTA_SIDE_FILE, r->file_count);
        r->files[r->file_count++] = (stream_file){ name, sum, 0 };
    }
    return CKPT_OK;
}

static ckpt_code take_side(receiver *r, const char *text, size_t size, ckpt_error *err)
{
    const json_value *root;
    const json_value *files;
    const json_value *carried;
    ckpt_code code = json_parse(text, size, DELTA_SIDE_FILE, &r->side, err);

    if (code != CKPT_OK)
        return code;
    root = json_root(r->side);
    files = json_member(root, "files");
    carried = json_member(root, "carried");
    r->files = calloc(json_count(files) + json_count(carried) + 1, sizeof *r->files);
    if (r->files == NULL)
        return ckpt_fail_memory(err, DELTA_SIDE_FILE, json_count(files));
    if ((code = take_list(r, files, "name", err)) != CKPT_OK)
        return code;
    return take_list(r, carried, "as", err);
}

/* The first member: kept whole, since it describes the others. */
static ckpt_code receive_side(receiver *r, const char *name, uint64_t size, ckpt_error *err)
{
    char padding[BLOCK_BYTES];
    char *path = NULL;
    char *text;
    ckpt_code code;

    if (strcmp(name, DELTA_SIDE_FILE) != 0 || size > SIDE_BYTES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta begins with '%s' of %" PRIu64
                         " bytes: expected %s", name, size, DELTA_SIDE_FILE);
    text = memory_has(size) ? malloc((size_t)size + 1) : NULL;
    if (text == NULL || (path = file_join(r->directory, name)) == NULL)
        code = ckpt_fail_memory(err, DELTA_SIDE_FILE, size);
    else if ((code = receive_bytes(r, text, (size_t)size, name, err)) == CKPT_OK &&
             (code = receive_bytes(r, padding, (size_t)padding_of(size), name, err)) == CKPT_OK &&
             (code = file_write_all(path, text, (size_t)size, err)) == CKPT_OK)
        code = take_side(r, text, (size_t)size, err);
    free(path);
    free(text);
    return code;
}

static ckpt_code receive_content(const receiver *r, const char *name, uint64_t size,
                                 ckpt_file *to, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; at < size && code == CKPT_OK;) {
        const size_t take = (size_t)size_min(size - at, MOVE_BYTES);

        if ((code = receive_bytes(r, r->buffer, take, name, err)) == CKPT_OK &&
            (code = sha256_add(r->hash, r->buffer, take, err)) == CKPT_OK)
            code = file_write_at(to, at, r->buffer, take, err);
        at += take;
    }
    return code != CKPT_OK ? code
                           : receive_bytes(r, r->buffer, (size_t)padding_of(size), name, err);
}

/* Its time of modification becomes 0, as in the stream: then a run that was killed can be resumed
 * from a second stream of the same delta, since its files have the same identity. */
static ckpt_code age_file(const char *path, ckpt_error *err)
{
    const struct timespec times[2] = { { 0, 0 }, { 0, 0 } };

    if (utimensat(AT_FDCWD, path, times, 0) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot set the times of '%s': %s", path,
                         strerror(errno));
    return CKPT_OK;
}

static ckpt_code receive_file(receiver *r, const char *name, uint64_t size, ckpt_error *err)
{
    char hex[SHA256_HEX];
    ckpt_file *to = NULL;
    uint64_t number;
    char *path;
    ckpt_code code;

    if (!table_find(&r->numbers, name, &number))
        return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta has '%s', which its %s does "
                         "not list", name, DELTA_SIDE_FILE);
    if (r->files[number].has_come)
        return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta has '%s' twice", name);
    if ((path = file_join(r->directory, name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if ((code = file_make_parents_below(r->directory, name, err)) == CKPT_OK &&
        (code = file_open_new(path, &to, err)) == CKPT_OK &&
        (code = sha256_begin(&r->hash, err)) == CKPT_OK) {
        if ((code = receive_content(r, name, size, to, err)) == CKPT_OK)
            code = sha256_end(r->hash, hex, err);
        else
            sha256_abort(r->hash);
    }
    if (code == CKPT_OK && strcmp(hex, r->files[number].sha256) != 0)
        code = ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta is damaged in '%s': expected "
                         "SHA-256 %s, got %s", name, r->files[number].sha256, hex);
    if (code == CKPT_OK)
        code = file_close(to, err);
    else
        file_close(to, NULL);
    if (code == CKPT_OK)
        code = age_file(path, err);
    r->files[number].has_come = 1;
    r->come_count++;
    free(path);
    return code;
}

/* After the first block of zeros: another one, then zeros, and all files have come. */
static ckpt_code receive_end(const receiver *r, ckpt_error *err)
{
    size_t got;
    ckpt_code code;

    if ((code = receive_bytes(r, r->buffer, BLOCK_BYTES, "its end", err)) != CKPT_OK)
        return code;
    for (got = BLOCK_BYTES; code == CKPT_OK && got > 0;
         code = receive_some(r, r->buffer, MOVE_BYTES, &got, err))
        if (!is_zero(r->buffer, got))
            return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta has bytes behind its "
                             "end");
    for (size_t i = 0; code == CKPT_OK && r->come_count < r->file_count; i++)
        if (!r->files[i].has_come)
            return ckpt_fail(err, CKPT_E_FORMAT, "the stream of the delta lacks '%s', which its %s "
                             "lists", r->files[i].name, DELTA_SIDE_FILE);
    return code;
}

static ckpt_code receive_all(receiver *r, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (code == CKPT_OK) {
        char name[NAME_BYTES];
        tar_header h;
        uint64_t size = 0;

        if ((code = receive_bytes(r, &h, sizeof h, "a header", err)) != CKPT_OK)
            return code;
        if (r->side != NULL && is_zero(&h, sizeof h))
            return receive_end(r, err);
        if ((code = take_header(&h, name, &size, err)) == CKPT_OK)
            code = r->side == NULL ? receive_side(r, name, size, err)
                                   : receive_file(r, name, size, err);
    }
    return code;
}

ckpt_code delta_stream_receive(int fd, const char *directory, const ckpt_run_options *run,
                               ckpt_error *err)
{
    receiver r = { .fd = fd, .directory = directory, .run = run };
    ckpt_code code;

    table_init(&r.numbers);
    if ((r.buffer = malloc(MOVE_BYTES)) == NULL)
        code = ckpt_fail_memory(err, "a copy buffer", MOVE_BYTES);
    else if ((code = file_make_directory(directory, err)) == CKPT_OK)
        code = receive_all(&r, err);
    table_release(&r.numbers);
    json_free(r.side);
    free(r.files);
    free(r.buffer);
    return code;
}

ckpt_code delta_stream_receive_packed(int fd, const char *path, const ckpt_run_options *run,
                                      ckpt_error *err)
{
    receiver r = { .fd = fd, .run = run, .buffer = malloc(MOVE_BYTES) };
    ckpt_file *to = NULL;
    size_t got = MOVE_BYTES;
    ckpt_code code;

    if (r.buffer == NULL)
        return ckpt_fail_memory(err, "a copy buffer", MOVE_BYTES);
    code = file_open_new(path, &to, err);
    for (uint64_t at = 0; code == CKPT_OK && got == MOVE_BYTES; at += got)
        if ((code = receive_some(&r, r.buffer, MOVE_BYTES, &got, err)) == CKPT_OK)
            code = file_write_at(to, at, r.buffer, got, err);
    if (code == CKPT_OK)
        code = file_close(to, err);
    else
        file_close(to, NULL);
    free(r.buffer);
    return code;
}

/* ---- the folder ---- */

ckpt_code delta_spool_make(const char *where, delta_spool *out, ckpt_error *err)
{
    const char *set = getenv("TMPDIR");
    const char *parent = where != NULL ? where : set != NULL && set[0] != '\0' ? set : "/tmp";
    char *folder = file_join(parent, ".ckpt-delta-XXXXXX");

    *out = (delta_spool){ NULL, NULL };
    if (folder == NULL)
        return ckpt_fail_memory(err, "a path", strlen(parent));
    if (mkdtemp(folder) == NULL) {
        free(folder);
        return ckpt_fail(err, CKPT_E_IO, "cannot make a folder for the delta in '%s': %s", parent,
                         strerror(errno));
    }
    out->folder = folder;
    if ((out->path = file_join(folder, "delta")) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(folder));
    return CKPT_OK;
}

void delta_spool_hide(const delta_spool *spool, char *text)
{
    const size_t length = spool->path == NULL ? 0 : strlen(spool->path);

    if (length == 0)
        return;
    while ((text = strstr(text, spool->path)) != NULL) {
        *text++ = '-';
        memmove(text, text + length - 1, strlen(text + length - 1) + 1);
    }
}

void delta_spool_release(delta_spool *spool)
{
    if (spool->folder != NULL)
        file_remove_tree(spool->folder, NULL);      /* an earlier error is reported */
    free(spool->folder);
    free(spool->path);
}
