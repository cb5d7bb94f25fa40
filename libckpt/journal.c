/* Opening a journal and locking it; the other journals of its folder. */
#include "journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "file.h"
#include "journal_private.h"
#include "text.h"

const char journal_name[] = ".ckpt-journal";
enum { JOURNAL_BYTES_MAX = 1 << 30 };

/* ---- the journals of a folder ---- */

int journal_is_name(const char *name)
{
    return text_begins_with(name, journal_name);
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
    char text[JOURNAL_LINE_MAX];
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
    unsigned shared_count;     /* of other shares of the same job */
} surroundings;

static ckpt_code look_beside(const char *path, void *context, ckpt_error *err)
{
    surroundings *s = context;
    int is_other = 0;
    ckpt_code code;

    if (strcmp(path, s->own->path) == 0)
        return CKPT_OK;
    code = look_at(path, s->own->header, &s->shared_count, &is_other, err);
    return code == CKPT_OK && is_other ? journal_fail_foreign(s->own, path, err) : code;
}

/*
 * Refuse a folder that has files but no journal (somebody else made them), or another job's
 * journal. Files are looked for before journals: a process writes its journal's first line before
 * it makes any file, so the journal of the process that made them is there by then.
 */
static ckpt_code check_folder(const ckpt_journal *j, const char *directory, ckpt_error *err)
{
    DIR *folder = opendir(directory);
    const int found = folder == NULL ? -1 : has_files(folder);
    surroundings around = { j, 0 };
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
static ckpt_code begin(ckpt_journal *j, const char *directory, ckpt_error *err)
{
    ckpt_code code;

    if ((code = check_folder(j, directory, err)) != CKPT_OK ||
        (code = journal_append_header(j, err)) != CKPT_OK ||
        (code = check_folder(j, directory, err)) != CKPT_OK) {
        unlink(j->path);           /* else the next run would take the folder for its own */
        return code;
    }
    return CKPT_OK;
}

/* *size: bytes of the file; *good_bytes: see read_lines. */
static ckpt_code read_file(ckpt_journal *j, size_t *size, size_t *good_bytes, ckpt_error *err)
{
    char *text = NULL;
    ckpt_code code;

    if ((code = file_read_all(j->path, JOURNAL_BYTES_MAX, &text, size, err)) == CKPT_OK)
        code = journal_read_lines(j, text, *size, good_bytes, err);
    free(text);
    return code;
}

/* Read the journal and cut off an incomplete or damaged end: appending must begin a new line. */
static ckpt_code load(ckpt_journal *j, const journal_options *options, ckpt_error *err)
{
    size_t size = 0;
    size_t good_bytes = 0;
    ckpt_code code;

    if ((code = read_file(j, &size, &good_bytes, err)) != CKPT_OK)
        return code;
    if (good_bytes < size && ftruncate(j->fd, (off_t)good_bytes) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", j->path, strerror(errno));
    if (good_bytes == 0 && (code = begin(j, options->directory, err)) != CKPT_OK)
        return code;
    if (options->files != NULL && j->file_count < options->files->count &&
        (code = journal_append_files(j, options->files, err)) != CKPT_OK)
        return code;
    if ((code = journal_append_source(j, options->source_times, err)) != CKPT_OK)
        return code;
    if (good_bytes == 0)
        return file_sync_tree(options->directory, err);
    return j->is_finished || j->is_refused ? journal_append_word(j, journal_again, err) : CKPT_OK;
}

/* Whether a process has the journal open. One that was removed since the listing is not locked. */
static ckpt_code look_for_lock(const char *path, int *is_locked, ckpt_error *err)
{
    int fd;
    const ckpt_code code = file_open_fd(path, O_RDONLY | O_NOFOLLOW, &fd, err);

    if (code != CKPT_OK)
        return file_exists(path) ? code : CKPT_OK;
    *is_locked |= file_lock(fd, LOCK_SH | LOCK_NB) != FILE_LOCKED;
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
    char header[JOURNAL_LINE_MAX];
    looking l = { header, out };

    memset(out, 0, sizeof *out);
    journal_header(fingerprint, header);
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

static ckpt_code list_one(const char *path, void *context, ckpt_error *err)
{
    char *text = NULL;
    size_t size;
    ckpt_code code = file_read_all(path, JOURNAL_BYTES_MAX, &text, &size, err);

    if (code == CKPT_OK)
        code = journal_take_names(text, size, context, err);
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
    journal_header(options->fingerprint, j->header);
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
    if (file_lock(j->fd, LOCK_EX | LOCK_NB) != FILE_LOCKED) {
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
    size_t size = 0;
    size_t good_bytes = 0;
    int is_locked = 0;
    ckpt_code code = CKPT_OK;

    if (j == NULL)
        return ckpt_fail_memory(err, "a journal", options->tensor_count);
    if (file_exists(j->path) && (code = look_for_lock(j->path, &is_locked, err)) == CKPT_OK)
        code = is_locked ? fail_lock(j, EWOULDBLOCK, err)
                         : read_file(j, &size, &good_bytes, err);
    if (code == CKPT_OK && good_bytes == 0 && file_exists(options->directory))
        code = check_folder(j, options->directory, err);
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

uint64_t journal_side_bytes(const ckpt_journal *journal)
{
    return journal->side_bytes;
}

ckpt_code journal_finish(ckpt_journal *journal, ckpt_error *err)
{
    const ckpt_code code = journal_append_word(journal, journal_finished, err);

    if (code != CKPT_OK)
        return code;
    return fsync(journal->fd) == 0 ? CKPT_OK
                                   : ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s",
                                               journal->path, strerror(errno));
}

ckpt_code journal_refuse(ckpt_journal *journal, ckpt_error *err)
{
    return journal_append_word(journal, journal_refused, err);
}

/* Read the journal of one share; a share that has not begun has none. */
static ckpt_code collect_share(ckpt_journal *j, journal_record *records, ckpt_error *err)
{
    size_t size = 0;
    size_t good_bytes = 0;
    const ckpt_code code =
        file_exists(j->path) ? read_file(j, &size, &good_bytes, err) : CKPT_OK;

    for (size_t i = 0; i < j->tensor_count && code == CKPT_OK; i++)
        if (j->records[i].is_done)
            records[i] = j->records[i];
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
        code = collect_share(j, records, err);
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
