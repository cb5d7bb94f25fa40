/* The lines of a journal: reading and appending them. */
#include "journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "journal_private.h"

const char journal_magic[] = "ckpt-journal 1 ";
const char journal_finished[] = "finished";
const char journal_again[] = "again";
const char journal_refused[] = "refused";

enum { NAME_BYTES_MAX = 4096 };

static unsigned line_check(const char *text, size_t size)
{
    return (unsigned)kernels_get()->hash_bytes(text, size, 0).low64;
}

/* 1 when what follows the first `body` bytes of the line is exactly their check. */
static int is_checked(const char *line, int body)
{
    char check[16];

    snprintf(check, sizeof check, " %08x", line_check(line, (size_t)body));
    return strcmp(line + body, check) == 0;
}

static int read_done(ckpt_journal *j, const char *line)
{
    char value[CKPT_DIGEST_HEX];
    char bytes[CKPT_DIGEST_HEX];
    uint64_t tensor;
    int body = 0;
    journal_record record = { .is_done = 1 };

    if (sscanf(line, "done %" SCNu64 " %32[0-9a-f] %32[0-9a-f]%n", &tensor, value, bytes,
               &body) != 3 ||
        !is_checked(line, body) || tensor >= j->tensor_count ||
        !hash128_from_hex(value, &record.value) || !hash128_from_hex(bytes, &record.bytes))
        return 0;
    j->records[tensor] = record;
    return 1;
}

static int read_side(ckpt_journal *j, const char *line)
{
    uint64_t side_bytes;
    int body = 0;

    if (sscanf(line, "side %" SCNu64 "%n", &side_bytes, &body) != 1 || !is_checked(line, body))
        return 0;
    if (side_bytes > j->side_bytes)
        j->side_bytes = side_bytes;
    return 1;
}

/* The last of these lines counts: "again" takes back an earlier "finished" or "refused". */
static int read_state(ckpt_journal *j, const char *line)
{
    static const char *const words[] = { journal_finished, journal_again, journal_refused };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp(line, words[i], strlen(words[i])) != 0 ||
            !is_checked(line, (int)strlen(words[i])))
            continue;
        j->is_finished = words[i] == journal_finished;
        j->is_refused = words[i] == journal_refused;
        return 1;
    }
    return 0;
}

static int read_source(ckpt_journal *j, const char *line)
{
    uint64_t times;
    int body = 0;

    if (sscanf(line, "source %" SCNx64 "%n", &times, &body) != 1 || !is_checked(line, body))
        return 0;
    j->source_changed |= j->source_times != 0 && j->source_times != times;
    j->source_times = times;
    return 1;
}

/* A "file" line; *name points into it and is *length bytes long. */
static int read_file_name(const char *line, const char **name, int *length)
{
    static const char word[] = "file ";
    const char *check = strrchr(line, ' ');

    if (strncmp(line, word, sizeof word - 1) != 0 || check < line + sizeof word ||
        !is_checked(line, (int)(check - line)))
        return 0;
    *name = line + sizeof word - 1;
    *length = (int)(check - *name);
    return 1;
}

/* One line without its newline; 0 when it was written in part, or its check is wrong. */
static int read_line(ckpt_journal *j, const char *line, size_t size)
{
    char copy[NAME_BYTES_MAX];
    const char *name;
    int length;

    if (size >= sizeof copy)
        return 0;
    memcpy(copy, line, size);
    copy[size] = '\0';
    if (read_done(j, copy) || read_side(j, copy) || read_state(j, copy) || read_source(j, copy))
        return 1;
    if (!read_file_name(copy, &name, &length))
        return 0;
    j->file_count++;
    return 1;
}

ckpt_code journal_fail_foreign(const ckpt_journal *j, const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%.*s' is an unfinished run with different options, or its source has "
                     "changed: repeat that command, or %s (%s)",
                     (int)(strrchr(path, '/') - path), path,
                     j->keep_others ? "remove the folder" : "add --restart to discard it",
                     strrchr(path, '/') + 1);
}

ckpt_code journal_read_lines(ckpt_journal *j, const char *text, size_t size, size_t *good_bytes,
                             ckpt_error *err)
{
    const char *end = text + size;
    const char *newline = memchr(text, '\n', size);

    *good_bytes = 0;
    if (newline == NULL)
        return CKPT_OK;
    if ((size_t)(newline + 1 - text) != strlen(j->header) ||
        memcmp(text, j->header, strlen(j->header)) != 0)
        return journal_fail_foreign(j, j->path, err);
    for (const char *line = newline + 1; line < end; line = newline + 1) {
        *good_bytes = (size_t)(line - text);
        newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL || !read_line(j, line, (size_t)(newline - line)))
            return CKPT_OK;
    }
    *good_bytes = size;
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

/* Add the check and a newline to the `used` bytes of the line, and append it. */
static ckpt_code append_line(ckpt_journal *j, char line[JOURNAL_LINE_MAX], int used,
                             ckpt_error *err)
{
    used += snprintf(line + used, JOURNAL_LINE_MAX - (size_t)used, " %08x\n",
                     line_check(line, (size_t)used));
    return write_text(j, line, (size_t)used, err);
}

ckpt_code journal_append_word(ckpt_journal *j, const char *word, ckpt_error *err)
{
    char line[JOURNAL_LINE_MAX];

    return append_line(j, line, snprintf(line, sizeof line, "%s", word), err);
}

void journal_header(hash128 fingerprint, char header[JOURNAL_LINE_MAX])
{
    char hex[CKPT_DIGEST_HEX];

    hash128_hex(fingerprint, hex);
    snprintf(header, JOURNAL_LINE_MAX, "%s%s\n", journal_magic, hex);
}

ckpt_code journal_append_header(ckpt_journal *j, ckpt_error *err)
{
    return write_text(j, j->header, strlen(j->header), err);
}

ckpt_code journal_append_files(ckpt_journal *j, const file_list *files, ckpt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    ckpt_code code;

    for (size_t i = 0; stream != NULL && files != NULL && i < files->count; i++) {
        char line[NAME_BYTES_MAX];
        const int used = snprintf(line, sizeof line, "file %s", files->names[i]);

        if (used > 0 && (size_t)used + 16 < sizeof line)      /* longer paths cannot be opened */
            fprintf(stream, "%s %08x\n", line, line_check(line, (size_t)used));
    }
    if (stream == NULL || fclose(stream) != 0)
        code = ckpt_fail_memory(err, "a journal", size);
    else
        code = write_text(j, text, size, err);
    free(text);
    return code;
}

ckpt_code journal_append_source(ckpt_journal *j, uint64_t times, ckpt_error *err)
{
    char line[JOURNAL_LINE_MAX];

    if (times == 0 || times == j->source_times)
        return CKPT_OK;
    j->source_changed |= j->source_times != 0;
    j->source_times = times;
    return append_line(j, line, snprintf(line, sizeof line, "source %" PRIx64, times), err);
}

ckpt_code journal_append(ckpt_journal *journal, size_t tensor, hash128 value, hash128 bytes,
                         ckpt_error *err)
{
    char line[JOURNAL_LINE_MAX];
    char value_hex[CKPT_DIGEST_HEX];
    char bytes_hex[CKPT_DIGEST_HEX];
    int used;

    hash128_hex(value, value_hex);
    hash128_hex(bytes, bytes_hex);
    used = snprintf(line, sizeof line, "done %zu %s %s", tensor, value_hex, bytes_hex);
    return append_line(journal, line, used, err);
}

ckpt_code journal_append_side(ckpt_journal *journal, uint64_t side_bytes, ckpt_error *err)
{
    char line[JOURNAL_LINE_MAX];
    const int used = snprintf(line, sizeof line, "side %" PRIu64, side_bytes);

    if (side_bytes <= journal->side_bytes)
        return CKPT_OK;
    journal->side_bytes = side_bytes;
    return append_line(journal, line, used, err);
}

ckpt_code journal_take_names(const char *text, size_t size, file_list *out, ckpt_error *err)
{
    const char *const end = text + size;
    const char *newline = memchr(text, '\n', size);
    ckpt_code code = CKPT_OK;

    if (newline == NULL || strncmp(text, journal_magic, sizeof journal_magic - 1) != 0)
        return CKPT_OK;
    for (const char *line = newline + 1; line < end && code == CKPT_OK; line = newline + 1) {
        char copy[NAME_BYTES_MAX];
        const char *name;
        int length;

        newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL || (size_t)(newline - line) >= sizeof copy)
            break;
        snprintf(copy, sizeof copy, "%.*s", (int)(newline - line), line);
        if (!read_file_name(copy, &name, &length))
            continue;
        copy[name - copy + length] = '\0';
        code = file_list_add(out, name, err);
    }
    return code;
}
