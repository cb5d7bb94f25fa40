/* Reading and appending the lines of a journal; the other journals of its folder. */
#include "journal.h"

#include <dirent.h>
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

const char journal_name[] = ".ckpt-journal";
static const char journal_magic[] = "ckpt-journal 1 ";
static const char finished[] = "finished";
static const char again[] = "again";
static const char refused[] = "refused";
enum { JOURNAL_BYTES_MAX = 1 << 30, LINE_BYTES_MAX = 160, NAME_BYTES_MAX = 4096 };

struct ckpt_journal {
    char *path;
    int fd;
    size_t tensor_count;
    journal_record *records;
    uint64_t side_bytes;
    size_t file_count;         /* "file" lines */
    uint64_t source_times;     /* of the last "source" line; 0: none yet */
    int source_changed;
    int is_finished;
    int is_refused;
    int keep_others;
};

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
    static const char *const words[] = { finished, again, refused };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp(line, words[i], strlen(words[i])) != 0 ||
            !is_checked(line, (int)strlen(words[i])))
            continue;
        j->is_finished = words[i] == finished;
        j->is_refused = words[i] == refused;
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

/* `path`: the journal of the other job. */
static ckpt_code fail_foreign(const ckpt_journal *j, const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%.*s' is an unfinished run with different options, or its source has "
                     "changed: repeat that command, or %s (%s)",
                     (int)(strrchr(path, '/') - path), path,
                     j->keep_others ? "remove the folder" : "add --restart to discard it",
                     strrchr(path, '/') + 1);
}

/* *good_bytes: up to the end of the last valid line; 0 when the first line is not complete. */
static ckpt_code read_lines(ckpt_journal *j, const char *header, const char *text, size_t size,
                            size_t *good_bytes, ckpt_error *err)
{
    const char *end = text + size;
    const char *newline = memchr(text, '\n', size);

    *good_bytes = 0;
    if (newline == NULL)
        return CKPT_OK;
    if ((size_t)(newline + 1 - text) != strlen(header) ||
        memcmp(text, header, strlen(header)) != 0)
        return fail_foreign(j, j->path, err);
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
static ckpt_code append_line(ckpt_journal *j, char line[LINE_BYTES_MAX], int used, ckpt_error *err)
{
    used += snprintf(line + used, LINE_BYTES_MAX - (size_t)used, " %08x\n",
                     line_check(line, (size_t)used));
    return write_text(j, line, (size_t)used, err);
}

static ckpt_code append_word(ckpt_journal *j, const char *word, ckpt_error *err)
{
    char line[LINE_BYTES_MAX];

    return append_line(j, line, snprintf(line, sizeof line, "%s", word), err);
}

/* ---- the journals of a folder ---- */

int journal_is_name(const char *name)
{
    return strncmp(name, journal_name, strlen(journal_name)) == 0;
}

/* 1 when the folder holds other files than journals; -1 with errno set when reading it failed. */
static int has_files(DIR *folder)
{
    const struct dirent *entry;
    int found = 0;

    errno = 0;
    while ((entry = readdir(folder)) != NULL)
        found |= !journal_is_name(entry->d_name) && strcmp(entry->d_name, ".") != 0 &&
                 strcmp(entry->d_name, "..") != 0;
    return errno != 0 ? -1 : found;
}

typedef ckpt_code (*journal_visitor)(const char *path, void *context, ckpt_error *err);

/* Call `visit` for every file of the open folder whose name begins as a journal's. */
static ckpt_code visit_open(DIR *folder, const char *directory, journal_visitor visit,
                            void *context, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (code == CKPT_OK) {
        const struct dirent *entry;
        char *path;

        errno = 0;
        if ((entry = readdir(folder)) == NULL)
            return errno == 0 ? CKPT_OK
                              : ckpt_fail(err, CKPT_E_IO, "cannot list '%s': %s", directory,
                                          strerror(errno));
        if (!journal_is_name(entry->d_name))
            continue;
        if ((path = file_join(directory, entry->d_name)) == NULL)
            return ckpt_fail_memory(err, "a path", strlen(directory));
        code = visit(path, context, err);
        free(path);
    }
    return code;
}

/* The same by path. may_lack: a folder that does not exist has no journals. */
static ckpt_code visit_journals(const char *directory, int may_lack, journal_visitor visit,
                                void *context, ckpt_error *err)
{
    DIR *folder = opendir(directory);
    ckpt_code code;

    if (folder == NULL)
        return may_lack && (errno == ENOENT || errno == ENOTDIR)
                   ? CKPT_OK
                   : ckpt_fail(err, CKPT_E_IO, "cannot list '%s': %s", directory, strerror(errno));
    code = visit_open(folder, directory, visit, context, err);
    closedir(folder);
    return code;
}

/* Which job a journal belongs to. A file without a complete first line counts for none: its process
 * is about to write the line, or it is the lock for the commit. So does a file that was removed
 * since the folder was listed. */
static ckpt_code look_at(const char *path, const char *header, unsigned *same_count,
                         int *is_other, ckpt_error *err)
{
    const size_t length = strlen(header);
    char text[LINE_BYTES_MAX];
    ckpt_file *file = NULL;
    ckpt_code code = file_open(path, &file, err);

    if (code != CKPT_OK)
        return file_exists(path) ? code : CKPT_OK;
    if (file_size(file) >= length &&
        (code = file_read_at(file, 0, text, length, err)) == CKPT_OK &&
        strncmp(text, journal_magic, sizeof "ckpt-journal" - 1) == 0) {
        *same_count += memcmp(text, header, length) == 0;
        *is_other |= memcmp(text, header, length) != 0;
    }
    file_close(file, NULL);
    return code;
}

/* The other journals in the folder of one that is being opened. */
typedef struct {
    const ckpt_journal *own;
    const char *header;
    unsigned shared_count;     /* of other shares of the same job */
} surroundings;

static ckpt_code look_beside(const char *path, void *context, ckpt_error *err)
{
    surroundings *s = context;
    int is_other = 0;
    ckpt_code code;

    if (strcmp(path, s->own->path) == 0)
        return CKPT_OK;
    code = look_at(path, s->header, &s->shared_count, &is_other, err);
    return code == CKPT_OK && is_other ? fail_foreign(s->own, path, err) : code;
}

/*
 * Refuse a folder that has files but no journal (somebody else made them), or another job's
 * journal. Files are looked for before journals: a process writes its journal's first line before
 * it makes any file, so the journal of the process that made them is there by then.
 */
static ckpt_code check_folder(const ckpt_journal *j, const char *directory, const char *header,
                              ckpt_error *err)
{
    DIR *folder = opendir(directory);
    const int found = folder == NULL ? -1 : has_files(folder);
    surroundings around = { j, header, 0 };
    ckpt_code code = CKPT_OK;

    if (found < 0) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot list '%s': %s", directory, strerror(errno));
    } else {
        rewinddir(folder);
        code = visit_open(folder, directory, look_beside, &around, err);
    }
    if (code == CKPT_OK && found && around.shared_count == 0)
        code = ckpt_fail(err, CKPT_E_USAGE,
                         "'%s' has files but no journal of an earlier run: move or remove it",
                         directory);
    if (folder != NULL)
        closedir(folder);
    return code;
}

/* Write the first line. The folder is checked before and after: of two different jobs that begin at
 * the same time, at least one sees the other's line in its second check, and gives way. */
static ckpt_code begin(ckpt_journal *j, const char *directory, const char *header,
                       ckpt_error *err)
{
    ckpt_code code;

    if ((code = check_folder(j, directory, header, err)) != CKPT_OK ||
        (code = write_text(j, header, strlen(header), err)) != CKPT_OK ||
        (code = check_folder(j, directory, header, err)) != CKPT_OK) {
        unlink(j->path);           /* else the next run would take the folder for its own */
        return code;
    }
    return CKPT_OK;
}

/* Record the files that the run will make: --overwrite and --restart remove only these. */
static ckpt_code append_files(ckpt_journal *j, const file_list *files, ckpt_error *err)
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

/* Record the times of the inputs. Once they have changed, source_changed stays set for all later
 * runs: tensors that were copied before the change are still in the output. */
static ckpt_code append_source(ckpt_journal *j, uint64_t times, ckpt_error *err)
{
    char line[LINE_BYTES_MAX];

    if (times == 0 || times == j->source_times)
        return CKPT_OK;
    j->source_changed |= j->source_times != 0;
    j->source_times = times;
    return append_line(j, line, snprintf(line, sizeof line, "source %" PRIx64, times), err);
}

static void make_header(hash128 fingerprint, char header[LINE_BYTES_MAX])
{
    char hex[CKPT_DIGEST_HEX];

    hash128_hex(fingerprint, hex);
    snprintf(header, LINE_BYTES_MAX, "%s%s\n", journal_magic, hex);
}

/* *size: bytes of the file; *good_bytes: see read_lines. */
static ckpt_code read_file(ckpt_journal *j, const char *header, size_t *size, size_t *good_bytes,
                           ckpt_error *err)
{
    char *text = NULL;
    ckpt_code code;

    if ((code = file_read_all(j->path, JOURNAL_BYTES_MAX, &text, size, err)) == CKPT_OK)
        code = read_lines(j, header, text, *size, good_bytes, err);
    free(text);
    return code;
}

/* Read the journal and cut off an incomplete or damaged end: appending must begin a new line. */
static ckpt_code load(ckpt_journal *j, const journal_options *options, ckpt_error *err)
{
    char header[LINE_BYTES_MAX];
    size_t size = 0;
    size_t good_bytes = 0;
    ckpt_code code;

    make_header(options->fingerprint, header);
    if ((code = read_file(j, header, &size, &good_bytes, err)) != CKPT_OK)
        return code;
    if (good_bytes < size && ftruncate(j->fd, (off_t)good_bytes) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", j->path, strerror(errno));
    if (good_bytes == 0 && (code = begin(j, options->directory, header, err)) != CKPT_OK)
        return code;
    if (options->files != NULL && j->file_count < options->files->count &&
        (code = append_files(j, options->files, err)) != CKPT_OK)
        return code;
    if ((code = append_source(j, options->source_times, err)) != CKPT_OK)
        return code;
    if (good_bytes == 0)
        return file_sync_tree(options->directory, err);
    return j->is_finished || j->is_refused ? append_word(j, again, err) : CKPT_OK;
}

/* Whether a process has the journal open. One that was removed since the listing is not locked. */
static ckpt_code look_for_lock(const char *path, int *is_locked, ckpt_error *err)
{
    int fd;
    const ckpt_code code = file_open_fd(path, O_RDONLY | O_NOFOLLOW, &fd, err);

    if (code != CKPT_OK)
        return file_exists(path) ? code : CKPT_OK;
    *is_locked |= flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return CKPT_OK;
}

typedef struct {
    const char *header;
    journal_sight *seen;
} looking;

static ckpt_code look_and_lock(const char *path, void *context, ckpt_error *err)
{
    const looking *l = context;
    const ckpt_code code = look_for_lock(path, &l->seen->is_locked, err);

    return code != CKPT_OK ? code : look_at(path, l->header, &l->seen->same_count,
                                            &l->seen->is_other, err);
}

ckpt_code journal_look(const char *directory, hash128 fingerprint, journal_sight *out,
                       ckpt_error *err)
{
    char header[LINE_BYTES_MAX];
    looking l = { header, out };

    memset(out, 0, sizeof *out);
    make_header(fingerprint, header);
    return visit_journals(directory, 1, look_and_lock, &l, err);
}

static ckpt_code remove_one(const char *path, void *context, ckpt_error *err)
{
    (void)context;
    return file_remove(path, err);
}

ckpt_code journal_remove_all(const char *directory, ckpt_error *err)
{
    return visit_journals(directory, 0, remove_one, NULL, err);
}

/* ---- the files of a run ---- */

/* The names in the valid "file" lines of one journal. */
static ckpt_code take_names(const char *text, size_t size, file_list *out, ckpt_error *err)
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

static ckpt_code list_one(const char *path, void *context, ckpt_error *err)
{
    char *text = NULL;
    size_t size;
    ckpt_code code = file_read_all(path, JOURNAL_BYTES_MAX, &text, &size, err);

    if (code == CKPT_OK)
        code = take_names(text, size, context, err);
    free(text);
    return code;
}

ckpt_code journal_list_files(const char *directory, file_list *out, ckpt_error *err)
{
    return visit_journals(directory, 0, list_one, out, err);
}

/* A journal that is not opened yet; NULL when memory is exhausted. */
static ckpt_journal *journal_create(const journal_options *options, unsigned share)
{
    ckpt_journal *j = calloc(1, sizeof *j);
    char name[64];

    if (j == NULL)
        return NULL;
    if (options->share_count > 1)
        snprintf(name, sizeof name, "%s.%u-of-%u", journal_name, share, options->share_count);
    else
        snprintf(name, sizeof name, "%s", journal_name);
    j->fd = -1;
    j->tensor_count = options->tensor_count;
    j->keep_others = options->keep_others;
    j->path = file_join(options->directory, name);
    j->records = calloc(options->tensor_count + 1, sizeof *j->records);
    if (j->path != NULL && j->records != NULL)
        return j;
    journal_close(j);
    return NULL;
}

static ckpt_code fail_lock(const ckpt_journal *j, int why, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot lock '%s': %s", j->path,
                     why == EWOULDBLOCK ? "another process is writing here" : strerror(why));
}

ckpt_code journal_open(const journal_options *options, ckpt_journal **out, ckpt_error *err)
{
    ckpt_journal *j = journal_create(options, options->share);
    ckpt_code code;

    if (j == NULL)
        return ckpt_fail_memory(err, "a journal", options->tensor_count);
    if ((code = file_open_below(options->directory, strrchr(j->path, '/') + 1,
                                O_RDWR | O_CREAT | O_APPEND, &j->fd, err)) != CKPT_OK) {
        journal_close(j);
        return code;
    }
    if (flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
        code = fail_lock(j, errno, err);
    } else {
        code = load(j, options, err);
    }
    if (code != CKPT_OK)
        journal_close(j);
    else
        *out = j;
    return code;
}

ckpt_code journal_check_open(const journal_options *options, ckpt_error *err)
{
    ckpt_journal *j = journal_create(options, options->share);
    char header[LINE_BYTES_MAX];
    size_t size = 0;
    size_t good_bytes = 0;
    int is_locked = 0;
    ckpt_code code = CKPT_OK;

    if (j == NULL)
        return ckpt_fail_memory(err, "a journal", options->tensor_count);
    make_header(options->fingerprint, header);
    if (file_exists(j->path) && (code = look_for_lock(j->path, &is_locked, err)) == CKPT_OK)
        code = is_locked ? fail_lock(j, EWOULDBLOCK, err)
                         : read_file(j, header, &size, &good_bytes, err);
    if (code == CKPT_OK && good_bytes == 0 && file_exists(options->directory))
        code = check_folder(j, options->directory, header, err);
    journal_close(j);
    return code;
}

void journal_close(ckpt_journal *journal)
{
    if (journal == NULL)
        return;
    if (journal->fd >= 0)
        close(journal->fd);        /* a lost line costs a repeated copy, nothing else */
    free(journal->path);
    free(journal->records);
    free(journal);
}

int journal_source_changed(const ckpt_journal *journal)
{
    return journal->source_changed;
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
    return append_line(journal, line, used, err);
}

ckpt_code journal_append_side(ckpt_journal *journal, uint64_t side_bytes, ckpt_error *err)
{
    char line[LINE_BYTES_MAX];
    const int used = snprintf(line, sizeof line, "side %" PRIu64, side_bytes);

    if (side_bytes <= journal->side_bytes)
        return CKPT_OK;
    journal->side_bytes = side_bytes;
    return append_line(journal, line, used, err);
}

uint64_t journal_side_bytes(const ckpt_journal *journal)
{
    return journal->side_bytes;
}

ckpt_code journal_finish(ckpt_journal *journal, ckpt_error *err)
{
    const ckpt_code code = append_word(journal, finished, err);

    if (code != CKPT_OK)
        return code;
    return fsync(journal->fd) == 0 ? CKPT_OK
                                   : ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s",
                                               journal->path, strerror(errno));
}

ckpt_code journal_refuse(ckpt_journal *journal, ckpt_error *err)
{
    return append_word(journal, refused, err);
}

/* Read the journal of one share; a share that has not begun has none. */
static ckpt_code collect_share(const journal_options *options, ckpt_journal *j,
                              journal_record *records, ckpt_error *err)
{
    char header[LINE_BYTES_MAX];
    size_t size = 0;
    size_t good_bytes = 0;
    ckpt_code code;

    make_header(options->fingerprint, header);
    if (!file_exists(j->path) ||
        (code = read_file(j, header, &size, &good_bytes, err)) == CKPT_OK) {
        for (size_t i = 0; i < j->tensor_count; i++)
            if (j->records[i].is_done)
                records[i] = j->records[i];
        return CKPT_OK;
    }
    return code;
}

ckpt_code journal_collect(const journal_options *options, journal_record *records,
                          uint64_t *side_bytes, unsigned *unfinished, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    *unfinished = 0;
    for (unsigned share = 1; share <= options->share_count && code == CKPT_OK; share++) {
        ckpt_journal *j = journal_create(options, share);

        if (j == NULL)
            return ckpt_fail_memory(err, "a journal", options->tensor_count);
        code = collect_share(options, j, records, err);
        if (code == CKPT_OK && j->is_refused)
            code = ckpt_fail(err, CKPT_E_USAGE, "share %u of %u was refused (see its error): '%s' "
                             "cannot be completed", share, options->share_count,
                             options->directory);
        side_bytes[share - 1] = j->side_bytes;
        *unfinished += !j->is_finished;
        journal_close(j);
    }
    return code;
}
