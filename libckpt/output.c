/* Manages PATH.partial and its rename to PATH. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options.h"
#include "output_private.h"
#include "replaceable.h"
#include "size.h"

struct ckpt_output {
    char *path;
    char *partial;
    char *replaced;          /* name of the old PATH between the two renames of --overwrite */
    int overwrite;
    const char *layout;      /* of the result; NULL: not given */
    journal_options shared;  /* its directory is `partial` */
    int lock;                /* file descriptor of the lock for the commit, or -1 */
    ckpt_code (*named)(void *context, ckpt_error *err);
    void *named_context;
    ckpt_journal *journal;
    ckpt_run_options run;    /* for the sync */
    uint64_t sync_bytes;
    uint64_t synced_bytes;
};

/* Lock the parent folder, so that of several processes that may discard PATH.partial, none discards
 * what another has created meanwhile. -1: the file system cannot lock a folder; then continue
 * without. */
static int lock_parent(const char *path)
{
    char *parent = file_parent(path);
    const int fd = parent == NULL ? -1 : open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    free(parent);
    if (fd >= 0)
        file_lock(fd, LOCK_EX);
    return fd;
}

static int discards_others(const output_options *options)
{
    return !options->keep_others && (options->restart || options->overwrite > 0);
}

/* Remove the PATH.partial of another job, if the options allow it. */
static ckpt_code discard_others(const ckpt_output *o, const output_options *options,
                                ckpt_error *err)
{
    journal_sight sight;
    ckpt_code code;
    int lock;

    if (!discards_others(options))
        return CKPT_OK;
    if ((code = journal_look(o->partial, options->fingerprint, &sight, err)) != CKPT_OK ||
        !sight.is_other)
        return code;
    lock = lock_parent(o->path);
    if ((code = journal_look(o->partial, options->fingerprint, &sight, err)) == CKPT_OK &&
        sight.is_other)
        code = replaceable_discard_partial(o->partial, err);
    if (lock >= 0)
        close(lock);
    return code;
}

/* A run of this job was killed after the rename and before it removed the journal. */
static int takes_back(const ckpt_output *o, const journal_sight *sight)
{
    return sight->same_count > 0 && !sight->is_other && !sight->is_locked &&
           !file_exists(o->partial);
}

/* Refuse a PATH that is in the way. *is_taken_back: it is there and can be resumed. */
static ckpt_code check_path(const ckpt_output *o, int *is_taken_back, ckpt_error *err)
{
    journal_sight sight;
    ckpt_code code;

    *is_taken_back = 0;
    if ((code = output_check(o->path, o->layout, o->overwrite, err)) != CKPT_OK ||
        !file_exists(o->path) ||
        (code = journal_look(o->path, o->shared.fingerprint, &sight, err)) != CKPT_OK)
        return code;
    *is_taken_back = takes_back(o, &sight);
    return *is_taken_back || o->overwrite > 0
               ? CKPT_OK : output_fail_exists(o->path, o->layout, o->overwrite, err);
}

/* Such a PATH is renamed back to PATH.partial and resumed there, which verifies what it has. */
static ckpt_code take_back(const ckpt_output *o, ckpt_error *err)
{
    const ckpt_code code = file_rename_durable(o->path, o->partial, err);

    return file_exists(o->partial) ? CKPT_OK : code;         /* or another share renamed it */
}

char *output_partial(const char *path)
{
    return output_with_suffix(path, output_partial_suffix);
}

ckpt_code output_look(const char *path, hash128 fingerprint, journal_sight *out, ckpt_error *err)
{
    char *partial = output_partial(path);
    const ckpt_code code = partial == NULL ? ckpt_fail_memory(err, "a path", strlen(path))
                                           : journal_look(partial, fingerprint, out, err);

    free(partial);
    return code;
}

/* Refuse a link: writing would go to its target, but the rename would move the link. */
static ckpt_code check_link(const ckpt_output *o, ckpt_error *err)
{
    struct stat status;

    if (lstat(o->partial, &status) == 0 && S_ISLNK(status.st_mode))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a link: move it away", o->partial);
    return CKPT_OK;
}

static ckpt_code make_partial(const ckpt_output *o, ckpt_error *err)
{
    const ckpt_code code = file_make_directory(o->partial, err);

    return code == CKPT_OK ? check_link(o, err) : code;
}

/* An output that is not begun: its names and what its journals need. */
static ckpt_code create(const output_options *options, ckpt_output **out, ckpt_error *err)
{
    const char *path = options->path;
    ckpt_output *o = calloc(1, sizeof *o);

    if (o == NULL)
        return ckpt_fail_memory(err, "an output", sizeof *o);
    o->overwrite = options->overwrite;
    o->layout = options->layout;
    o->lock = -1;
    o->named = options->named;
    o->named_context = options->named_context;
    o->sync_bytes = options->sync_bytes;
    if (options->run != NULL)
        o->run = *options->run;
    o->path = output_with_suffix(path, "");
    o->partial = output_with_suffix(path, output_partial_suffix);
    o->replaced = output_with_suffix(path, output_replaced_suffix);
    if (o->path == NULL || o->partial == NULL || o->replaced == NULL) {
        output_close(o);
        return ckpt_fail_memory(err, "a path", strlen(path));
    }
    o->shared =
        (journal_options){ o->partial,           options->fingerprint, options->tensor_count,
                           options->share,       options->share_count, options->files,
                           options->keep_others, options->source_times };
    *out = o;
    return CKPT_OK;
}

ckpt_code output_begin(const output_options *options, ckpt_output **out, ckpt_error *err)
{
    ckpt_output *o = NULL;
    int is_taken_back;
    ckpt_code code = create(options, &o, err);

    if (code != CKPT_OK)
        return code;
    if ((code = check_path(o, &is_taken_back, err)) == CKPT_OK && is_taken_back)
        code = take_back(o, err);
    if (code == CKPT_OK && (code = discard_others(o, options, err)) == CKPT_OK &&
        (code = make_partial(o, err)) == CKPT_OK)
        code = journal_open(&o->shared, &o->journal, err);
    if (code != CKPT_OK)
        output_close(o);
    else
        *out = o;
    return code;
}

/* PATH.partial as it is: what discard_others, make_partial and journal_open would refuse. */
static ckpt_code check_partial(const ckpt_output *o, const output_options *options, ckpt_error *err)
{
    journal_sight sight;
    ckpt_code code;

    if (!file_exists(o->partial))
        return CKPT_OK;
    if (!file_is_directory(o->partial))
        return ckpt_fail(err, CKPT_E_IO, "cannot make directory '%s': %s", o->partial,
                         strerror(EEXIST));
    if ((code = check_link(o, err)) != CKPT_OK ||
        (code = journal_look(o->partial, options->fingerprint, &sight, err)) != CKPT_OK)
        return code;
    return sight.is_other && discards_others(options) ? replaceable_check_partial(o->partial, err)
                                                      : journal_check_open(&o->shared, err);
}

ckpt_code output_check_begin(const output_options *options, ckpt_error *err)
{
    ckpt_output *o = NULL;
    int is_taken_back;
    ckpt_code code = create(options, &o, err);

    if (code != CKPT_OK)
        return code;
    if ((code = check_path(o, &is_taken_back, err)) == CKPT_OK && !is_taken_back)
        code = check_partial(o, options, err);
    output_close(o);
    return code;
}

const char *output_directory(const ckpt_output *output)
{
    return output->partial;
}

ckpt_journal *output_journal(ckpt_output *output)
{
    return output->journal;
}

/* Wait for the lock for the commit. The kernel releases it when a process dies. */
static ckpt_code take_lock(ckpt_output *o, ckpt_error *err)
{
    char name[64];
    ckpt_code code;

    snprintf(name, sizeof name, "%s.commit", journal_name);
    code = file_open_below(o->partial, name, O_RDWR | O_CREAT, &o->lock, err);
    if (o->lock < 0 && !file_exists(o->partial))
        return CKPT_OK;                  /* another process has committed and renamed it */
    if (code != CKPT_OK)
        return code;
    if (o->lock >= 0 && file_lock(o->lock, LOCK_EX) != FILE_LOCKED)
        return ckpt_fail(err, CKPT_E_IO, "cannot lock '%s': %s", o->partial, strerror(errno));
    return CKPT_OK;
}

ckpt_code output_join(ckpt_output *output, journal_record *records, uint64_t *side_bytes,
                      int *committer, ckpt_error *err)
{
    unsigned unfinished = 0;
    ckpt_code code;

    *committer = 0;
    if ((code = journal_finish(output->journal, err)) != CKPT_OK ||
        (code = take_lock(output, err)) != CKPT_OK || output->lock < 0 ||
        !file_exists(output->partial))
        return code;
    code = journal_collect(&output->shared, records, side_bytes, &unfinished, err);
    *committer = code == CKPT_OK && unfinished == 0;
    return code;
}

/* Rename PATH.partial to PATH. If that fails after the old PATH was moved away, move it back. */
static ckpt_code swap_names(const ckpt_output *o, int replace, ckpt_error *err)
{
    ckpt_code code;

    if (!replace)
        return file_rename_durable(o->partial, o->path, err);
    /* Other files may have been added to either since the run began. */
    if ((code = replaceable_check(o->path, o->layout, err)) != CKPT_OK ||
        (file_exists(o->replaced) &&
         (code = replaceable_check(o->replaced, NULL, err)) != CKPT_OK) ||
        (code = file_remove_tree(o->replaced, err)) != CKPT_OK)
        return code;
    if ((code = file_rename_durable(o->path, o->replaced, err)) == CKPT_OK)
        code = file_rename_durable(o->partial, o->path, err);
    if (code != CKPT_OK && !file_exists(o->path))
        file_rename_durable(o->replaced, o->path, NULL);       /* err keeps the first failure */
    return code;
}

static void tell_synced(void *context, uint64_t bytes)
{
    ckpt_output *o = context;

    o->synced_bytes += bytes;
    if (o->run.progress != NULL)
        o->run.progress(o->run.context, o->synced_bytes,
                        size_max(o->synced_bytes, o->sync_bytes));
}

/* All of PATH.partial. What the disk takes now may be more than all that went before. */
static ckpt_code sync_partial(ckpt_output *o, ckpt_error *err)
{
    run_begin_phase(&o->run, "syncing", 0);
    return file_sync_tree_told(o->partial, tell_synced, o, err);
}

/*
 * The journal is renamed with the folder and removed last. It is locked, so no other process can
 * begin to write here, and if a rename fails a later run can resume.
 */
ckpt_code output_commit(ckpt_output *output, ckpt_error *err)
{
    const int replace = output->overwrite > 0 && file_exists(output->path);
    ckpt_code code;
    ckpt_code removed;

    if ((code = file_remove_temporaries(output->partial, err)) != CKPT_OK ||
        (code = sync_partial(output, err)) != CKPT_OK)
        goto out;
    code = swap_names(output, replace, err);
    if (code != CKPT_OK && file_exists(output->partial))
        goto out;
    if (code == CKPT_OK && output->named != NULL &&
        (code = output->named(output->named_context, err)) != CKPT_OK)
        goto out;
    removed = journal_remove_all(output->path, code == CKPT_OK ? err : NULL);
    if (code == CKPT_OK)
        code = removed;
    /* This includes one left by an earlier run that was killed between the two renames. */
    if (code == CKPT_OK && output->overwrite > 0 && file_exists(output->replaced) &&
        (code = replaceable_check(output->replaced, NULL, err)) == CKPT_OK)
        code = file_remove_tree(output->replaced, err);
out:
    output_close(output);
    return code;
}

ckpt_code output_discard(ckpt_output *output, ckpt_error *err)
{
    const int is_shared = output->shared.share_count > 1;
    journal_sight sight = { 0, 0, 0 };
    ckpt_code code = CKPT_OK;
    int lock;

    if (is_shared)
        code = journal_refuse(output->journal, err);
    journal_close(output->journal);
    output->journal = NULL;
    if (output->lock >= 0)
        close(output->lock);
    output->lock = -1;
    lock = lock_parent(output->path);
    if (code == CKPT_OK && is_shared)
        code = journal_look(output->partial, output->shared.fingerprint, &sight, err);
    if (code == CKPT_OK && !sight.is_locked)       /* else a running share removes it */
        code = replaceable_discard_partial(output->partial, err);
    if (lock >= 0)
        close(lock);
    output_close(output);
    return code;
}

/* *found: 1 when some share of the job has recorded a finished tensor. */
static ckpt_code find_work(const ckpt_output *o, int *found, ckpt_error *err)
{
    const size_t count = o->shared.tensor_count;
    journal_record *records = calloc(count + 1, sizeof *records);
    uint64_t *side_bytes = calloc(o->shared.share_count + 1, sizeof *side_bytes);
    unsigned unfinished;
    ckpt_code code = CKPT_OK;

    *found = 0;
    if (records == NULL || side_bytes == NULL)
        code = ckpt_fail_memory(err, "a journal", count);
    else if (o->shared.share_count > 1)
        code = journal_collect(&o->shared, records, side_bytes, &unfinished, err);
    else
        memcpy(records, journal_records(o->journal), count * sizeof *records);
    for (size_t i = 0; code == CKPT_OK && i < count && !*found; i++)
        *found = records[i].is_done;
    free(records);
    free(side_bytes);
    return code;
}

ckpt_code output_withdraw(ckpt_output *output, ckpt_error *err)
{
    const int lock = lock_parent(output->path);
    journal_sight sight = { 0, 0, 0 };
    int has_work;
    ckpt_code code = find_work(output, &has_work, err);

    journal_close(output->journal);
    output->journal = NULL;
    if (code == CKPT_OK && !has_work &&
        (code = journal_look(output->partial, output->shared.fingerprint, &sight, err)) ==
            CKPT_OK && !sight.is_locked)
        code = replaceable_discard_partial(output->partial, err);
    if (lock >= 0)
        close(lock);
    output_close(output);
    return code;
}

void output_close(ckpt_output *output)
{
    if (output == NULL)
        return;
    journal_close(output->journal);
    if (output->lock >= 0)
        close(output->lock);
    free(output->path);
    free(output->partial);
    free(output->replaced);
    free(output);
}

ckpt_code output_make_files(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++) {
        store_file *f = &store->files[i];

        if ((code = file_make_parents_below(store->directory, f->name, err)) != CKPT_OK ||
            (code = store_open_file(store, i, 1, err)) != CKPT_OK ||
            (code = file_set_size(f->file, f->size_bytes, err)) != CKPT_OK)
            break;
        code = file_write_at(f->file, 0, f->header, f->header_bytes, err);
    }
    return code;
}
