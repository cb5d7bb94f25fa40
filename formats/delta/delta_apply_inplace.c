/* Applies deltas in place: the steps before and after the two passes over the base. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "delta_apply_private.h"
#include "delta_inplace.h"
#include "formats/notes.h"

/* Remove the manifests of the base: they do not describe the result. */
static ckpt_code remove_manifests(const char *directory, ckpt_error *err)
{
    static const char *const names[] = { "ckpt-manifest.json", "ckpt-manifest.json.zst" };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < 2 && code == CKPT_OK; i++) {
        char *path = file_join(directory, names[i]);

        code = path == NULL ? ckpt_fail_memory(err, "a path", strlen(directory))
                            : file_remove(path, err);
        free(path);
    }
    return code;
}

/* Replace a file by the carried one, of any size. It is on the disk before its name changes, and
 * so before the journal, which would bring an interrupted run here again, is removed. */
static ckpt_code replace_file(const ckpt_delta *d, const char *carried, const char *to,
                              ckpt_error *err)
{
    ckpt_file *from = NULL;
    ckpt_code code = folder_open_file(d->place.folder, carried, &from, err);

    if (code == CKPT_OK)
        code = file_replace_from(from, to, err);
    file_close(from, NULL);
    return code;
}

/* Replace one file beside the weights by a rename, or remove it. */
static ckpt_code put_file(const char *directory, const ckpt_delta *d, const delta_file *f,
                          ckpt_error *err)
{
    char *to = file_join(directory, f->name);
    ckpt_code code;

    if (to == NULL)
        return ckpt_fail_memory(err, "a path", strlen(f->name));
    if (f->carried == NULL) {
        code = file_remove(to, err);
    } else if ((code = delta_apply_check_carried(d, f, err)) == CKPT_OK &&
               (code = file_make_parents_below(directory, f->name, err)) == CKPT_OK &&
               (code = file_remove_temporaries_of(directory, f->name, err)) == CKPT_OK) {
        code = replace_file(d, f->carried, to, err);
    }
    free(to);
    return code;
}

static ckpt_code write_beside(const apply_job *job, ckpt_error *err)
{
    const char *directory = folder_path(job->views.checkpoint->place.folder);
    ckpt_code code = remove_manifests(directory, err);

    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++)
            code = put_file(directory, job->chain.deltas[d], &job->chain.deltas[d]->files[i], err);
    return code;
}

/* After a resumed run, check the root of the result by reading all of it. */
static ckpt_code check_result(apply_job *job, ckpt_error *err)
{
    const ckpt_delta *last = job->chain.deltas[job->chain.count - 1];
    ckpt_open_options open = job->options->open;
    ckpt_checkpoint *c = NULL;
    ckpt_digest *digest = NULL;
    ckpt_run_options run = job->options->run;
    ckpt_code code;

    open.interrupted = 1;
    if ((code = ckpt_open(job->chain.base, &open, &c, err)) != CKPT_OK)
        return code;
    run.fixed_bytes += ckpt_checkpoint_bytes(c) + job->views.model.in.fixed_bytes;
    if (delta_model_has_digest(&job->views.model) &&
        (code = ckpt_digest_source(c->logical, &run, &digest, err)) == CKPT_OK)
        code = delta_digest_roots(digest, &job->out->result, err);
    if (code == CKPT_OK && job->options->check != DELTA_CHECK_NONE &&
        delta_roots_judge(&last->result, &job->out->result) == DELTA_ROOT_WRONG)
        code = ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' is not what '%s' makes: expected root %s, "
                         "got %s", job->chain.base, last->path, last->result.all,
                         job->out->result.all);
    if (code == CKPT_OK && job->options->check != DELTA_CHECK_NONE)
        code = delta_roots_check(last->path, "result", &last->result, &job->out->result, err);
    ckpt_digest_free(digest);
    ckpt_close(c);
    return code;
}

/* Check the base and the result before the first byte is changed. */
static ckpt_code look(apply_job *job, delta_inplace *in, ckpt_error *err)
{
    const ckpt_run_options run =
        delta_views_run(&job->views, &job->options->run, DELTA_INPLACE_THREAD_BYTES);
    ckpt_code code;

    if ((code = delta_inplace_look(in, &job->views, &run, err)) == CKPT_OK &&
        (code = delta_apply_check_roots(job, err)) == CKPT_OK &&
        (code = delta_apply_check_inputs(job, err)) == CKPT_OK)
        return delta_sectors_complete(&in->sectors, err);
    delta_sectors_remove(&in->sectors, NULL);         /* an earlier error is reported */
    return code;
}

static ckpt_code run_in_place(apply_job *job, delta_inplace *in, ckpt_error *err)
{
    const int is_resumed = in->is_begun;
    uint64_t kept;
    ckpt_code code;

    if (!is_resumed && (code = look(job, in, err)) != CKPT_OK)
        return code;
    if ((code = delta_inplace_write(in, &job->options->run, &kept, err)) != CKPT_OK ||
        (code = write_beside(job, err)) != CKPT_OK)
        return code;
    if (is_resumed &&
        ((code = check_result(job, err)) != CKPT_OK ||
         (code = note_add(&job->out->notes, err, "an interrupted change was completed: %llu "
                          "sectors were changed already", (unsigned long long)kept)) != CKPT_OK))
        return code;
    return delta_sectors_remove(&in->sectors, err);
}

ckpt_code delta_apply_check_in_place(apply_job *job, ckpt_error *err)
{
    delta_inplace in;
    ckpt_code code = delta_inplace_begin(&job->chain, job->views.checkpoint, &in, err);

    if (code == CKPT_OK)
        code = delta_inplace_check_files(&in, err);
    delta_inplace_release(&in);
    return code;
}

/* Lock the base's folder. Two runs that change one base would remove each other's journal. A file
 * system without locks is no reason to refuse. */
static ckpt_code lock_base(const char *directory, int *fd, ckpt_error *err)
{
    *fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0 || file_lock(*fd, LOCK_EX | LOCK_NB) != FILE_LOCK_HELD)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' is being changed by another ckpt-delta: let it end",
                     directory);
}

ckpt_code delta_apply_in_place(apply_job *job, ckpt_error *err)
{
    delta_inplace in;
    int lock;
    ckpt_code code = lock_base(folder_path(job->views.checkpoint->place.folder), &lock, err);

    if (code == CKPT_OK) {
        code = delta_inplace_begin(&job->chain, job->views.checkpoint, &in, err);
        if (code == CKPT_OK)
            code = run_in_place(job, &in, err);
        delta_inplace_release(&in);
    }
    if (lock >= 0)
        close(lock);
    return code;
}
