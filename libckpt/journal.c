/* The journal of a copy. */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "digest.h"
#include "file.h"

static const char journal_name[] = ".ckpt-journal";
static const char journal_magic[] = "ckpt-journal 1 ";
enum { JOURNAL_BYTES_MAX = 1 << 30, LINE_BYTES_MAX = 160 };

struct ckpt_journal {
    char *path;
    int fd;
    size_t tensor_count;
    journal_record *records;
};

static unsigned line_check(const char *text, size_t size)
{
    return (unsigned)kernels_get()->hash_bytes(text, size, 0).low64;
}

/* One line without its newline; 0 when it is torn or not ours. */
static int read_line(ckpt_journal *j, const char *line, size_t size)
{
    char copy[LINE_BYTES_MAX];
    char value[CKPT_DIGEST_HEX];
    char bytes[CKPT_DIGEST_HEX];
    uint64_t tensor;
    unsigned check;
    int body = 0;
    journal_record record = { .is_done = 1 };

    if (size >= sizeof copy)
        return 0;
    memcpy(copy, line, size);
    copy[size] = '\0';
    if (sscanf(copy, "done %" SCNu64 " %32[0-9a-f] %32[0-9a-f]%n %x", &tensor, value, bytes, &body,
               &check) != 4 ||
        tensor >= j->tensor_count || check != line_check(copy, (size_t)body) ||
        !hash128_from_hex(value, &record.value) || !hash128_from_hex(bytes, &record.bytes))
        return 0;
    j->records[tensor] = record;
    return 1;
}

static ckpt_code read_lines(ckpt_journal *j, const char *header, const char *text, size_t size,
                            ckpt_error *err)
{
    const char *end = text + size;
    const char *newline = memchr(text, '\n', size);

    if (newline == NULL)
        return CKPT_OK;        /* died before the first line was whole: nothing was written */
    if ((size_t)(newline + 1 - text) != strlen(header) ||
        memcmp(text, header, strlen(header)) != 0)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "'%s' was begun by another command, or its source has changed: finish "
                         "that one, or remove the folder",
                         j->path);
    for (const char *line = newline + 1; line < end; line = newline + 1) {
        newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL || !read_line(j, line, (size_t)(newline - line)))
            break;
    }
    return CKPT_OK;
}

static ckpt_code write_text(ckpt_journal *j, const char *text, size_t size, ckpt_error *err)
{
    while (size > 0) {
        const ssize_t put = write(j->fd, text, size);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", j->path, strerror(errno));
        text += put;
        size -= (size_t)put;
    }
    return CKPT_OK;
}

/* Read what is there; write back what was understood, so that appending starts on a whole line. */
static ckpt_code load(ckpt_journal *j, hash128 fingerprint, ckpt_error *err)
{
    char hex[CKPT_DIGEST_HEX];
    char header[LINE_BYTES_MAX];
    char *text = NULL;
    size_t size = 0;
    ckpt_code code;

    hash128_hex(fingerprint, hex);
    snprintf(header, sizeof header, "%s%s\n", journal_magic, hex);
    if ((code = file_read_all(j->path, JOURNAL_BYTES_MAX, &text, &size, err)) != CKPT_OK)
        return code;
    code = read_lines(j, header, text, size, err);
    free(text);
    if (code != CKPT_OK)
        return code;
    if (ftruncate(j->fd, 0) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", j->path, strerror(errno));
    code = write_text(j, header, strlen(header), err);
    for (size_t i = 0; i < j->tensor_count && code == CKPT_OK; i++)
        if (j->records[i].is_done)
            code = journal_append(j, i, j->records[i].value, j->records[i].bytes, err);
    return code;
}

ckpt_code journal_open(const char *directory, hash128 fingerprint, size_t tensor_count,
                       ckpt_journal **out, ckpt_error *err)
{
    ckpt_journal *j = calloc(1, sizeof *j);
    ckpt_code code;

    if (j == NULL)
        return ckpt_fail_memory(err, "a journal", sizeof *j);
    j->fd = -1;
    j->tensor_count = tensor_count;
    j->path = file_join(directory, journal_name);
    j->records = calloc(tensor_count + 1, sizeof *j->records);
    if (j->path == NULL || j->records == NULL) {
        code = ckpt_fail_memory(err, "a journal", tensor_count);
    } else if ((j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", j->path, strerror(errno));
    } else if (flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot lock '%s': %s", j->path,
                         errno == EWOULDBLOCK ? "another process is writing here"
                                              : strerror(errno));
    } else {
        code = load(j, fingerprint, err);
    }
    if (code != CKPT_OK)
        journal_close(j);
    else
        *out = j;
    return code;
}

void journal_close(ckpt_journal *journal)
{
    if (journal == NULL)
        return;
    if (journal->fd >= 0)
        close(journal->fd);        /* nothing depends on it: what it says is verified */
    free(journal->path);
    free(journal->records);
    free(journal);
}

journal_record *journal_records(ckpt_journal *journal)
{
    return journal->records;
}

ckpt_code journal_append(ckpt_journal *journal, size_t tensor, hash128 value, hash128 bytes,
                         ckpt_error *err)
{
    char line[LINE_BYTES_MAX];
    char value_hex[CKPT_DIGEST_HEX];
    char bytes_hex[CKPT_DIGEST_HEX];
    int used;

    hash128_hex(value, value_hex);
    hash128_hex(bytes, bytes_hex);
    used = snprintf(line, sizeof line, "done %zu %s %s", tensor, value_hex, bytes_hex);
    used += snprintf(line + used, sizeof line - (size_t)used, " %08x\n",
                     line_check(line, (size_t)used));
    return write_text(journal, line, (size_t)used, err);
}

const char *journal_path(const ckpt_journal *journal)
{
    return journal->path;
}
