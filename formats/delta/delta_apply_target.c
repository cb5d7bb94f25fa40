/* The target of apply: its files, its space, and what it shares with the base. */
#include <stdlib.h>
#include <string.h>

#include "delta_apply_private.h"
#include "formats/convert/convert_plan.h"
#include "libckpt/size.h"

static const char room_advice[] = ", --in-place needs no second copy";

/* ---- its files ---- */

/* A file that does not exist yet begins with the blocks of the base's file, where the file system
 * can share them. One of an earlier run may have changed tensors, and stays what it is. */
static ckpt_code share_file(apply_job *job, size_t i, ckpt_error *err)
{
    const store_file *f = &job->store->files[i];
    char *path = file_join(job->store->directory, f->name);
    ckpt_code code = CKPT_OK;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(f->name));
    if (!file_exists(path) &&
        (code = file_make_parents_below(job->store->directory, f->name, err)) == CKPT_OK &&
        (code = store_open_file(job->store, i, 1, err)) == CKPT_OK)
        job->shared[i] = (uint8_t)file_clone(job->views.checkpoint->store->files[i].file, f->file);
    job->out->shared_count += job->shared[i];
    free(path);
    return code;
}

static ckpt_code make_store(apply_job *job, ckpt_error *err)
{
    const ckpt_store *from = job->views.checkpoint->store;
    ckpt_code code = CKPT_OK;

    if ((job->store = store_create(output_directory(job->output))) == NULL ||
        (job->shared = calloc(from->file_count + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "a target", from->file_count);
    for (size_t i = 0; i < from->file_count && code == CKPT_OK; i++) {
        const store_file *f = &from->files[i];
        store_file *to;
        uint32_t number;

        if ((code = store_add_file(job->store, f->name, &number, err)) != CKPT_OK)
            return code;
        to = &job->store->files[number];
        to->size_bytes = f->size_bytes;
        if ((to->header = malloc(f->header_bytes + 1)) == NULL)
            return ckpt_fail_memory(err, f->name, f->header_bytes);
        to->header_bytes = f->header_bytes;
        if ((code = file_read_at(f->file, 0, to->header, f->header_bytes, err)) == CKPT_OK)
            code = share_file(job, i, err);
    }
    return code == CKPT_OK ? output_make_files(job->store, err) : code;
}

/* List the target's other files: those of the base, as replaced or removed by the deltas. */
static ckpt_code list_names(apply_job *job, ckpt_error *err)
{
    const ckpt_checkpoint *base = job->views.checkpoint;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < base->store->file_count && code == CKPT_OK; i++)
        code = file_list_add(&job->names, base->store->files[i].name, err);
    for (size_t i = 0; i < base->extras.count && code == CKPT_OK; i++)
        code = file_list_add(&job->names, base->extras.names[i], err);
    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++)
            code = file_list_add(&job->names, job->chain.deltas[d]->files[i].name, err);
    return code;
}

static hash128 fingerprint(const apply_job *job)
{
    hash128 sum = { 0, 0 };

    hash128_mix(&sum, "delta apply " CKPT_VERSION, sizeof "delta apply " CKPT_VERSION);
    store_mix_files(delta_views_base(&job->views)->store, &sum);
    checkpoint_mix_beside(delta_views_base(&job->views), &sum);
    for (size_t i = 0; i < job->chain.count; i++) {
        delta_mix(job->chain.deltas[i], &sum);
        hash128_mix(&sum, job->chain.deltas[i]->version, strlen(job->chain.deltas[i]->version));
    }
    return sum;
}

ckpt_code delta_apply_check_target(apply_job *job, ckpt_error *err)
{
    const delta_apply_options *o = job->options;
    ckpt_code code;

    if ((code = output_check(o->target, "hf", OUTPUT_NEVER_REPLACES, err)) != CKPT_OK ||
        (code = output_check_apart(o->target, job->chain.base, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < job->chain.count; i++)
        if ((code = output_check_apart(o->target, job->chain.deltas[i]->path, err)) != CKPT_OK)
            return code;
    return list_names(job, err);
}

/* ---- what it shares with the base ---- */

static int is_changed(const apply_job *job, const char *name)
{
    for (size_t d = 0; d < job->chain.count; d++)
        if (delta_find(job->chain.deltas[d], name) != NULL)
            return 1;
    return 0;
}

/* Which tensors need not be written. *rewritten_bytes: of those that must be, in shared files. */
static ckpt_code find_there(apply_job *job, uint64_t *rewritten_bytes, ckpt_error *err)
{
    const ckpt_layout *layout = job->views.model.layout;
    const size_t count = ckpt_catalog_count(layout->logical);

    *rewritten_bytes = 0;
    if ((job->there = malloc(count + 1)) == NULL)
        return ckpt_fail_memory(err, "a list of tensors", count);
    memset(job->there, 1, count);
    for (size_t i = 0; i < layout->count; i++) {
        const layout_extent *e = &layout->extents[i];
        const ckpt_tensor *t = ckpt_catalog_at(layout->stored, e->stored);

        if (!job->shared[t->file] || is_changed(job, t->name))
            job->there[e->logical] = 0;
    }
    for (size_t i = 0; i < layout->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(layout->stored, layout->extents[i].stored);

        if (job->shared[t->file] && !job->there[layout->extents[i].logical])
            *rewritten_bytes += ckpt_part_bytes(t, CKPT_DATA);
    }
    return CKPT_OK;
}

/* ---- its space ---- */

/* Of the files beside the weights. */
static uint64_t beside_bytes(const apply_job *job)
{
    const ckpt_checkpoint *base = job->views.checkpoint;
    uint64_t total = 0;

    for (size_t i = 0; i < base->extras.count; i++) {
        ckpt_file *file = NULL;

        if (folder_open_file(base->place.folder, base->extras.names[i], &file, NULL) == CKPT_OK)
            total += file_size(file);
        file_close(file, NULL);
    }
    return total;
}

/* The files of the job are borrowed. */
static output_options target_options(const apply_job *job)
{
    return (output_options){
        .path = job->options->target,
        .fingerprint = fingerprint(job),
        .tensor_count = ckpt_catalog_count(job->views.result->catalog),
        .restart = job->options->restart,
        .overwrite = OUTPUT_NEVER_REPLACES,
        .files = &job->names,
    };
}

ckpt_code delta_apply_check_begin(apply_job *job, ckpt_error *err)
{
    const output_options options = target_options(job);
    const char *base = folder_path(job->views.checkpoint->place.folder);
    convert_room *room = &job->out->room;
    ckpt_code code;

    if ((code = delta_apply_check_target(job, err)) != CKPT_OK ||
        (code = output_check_begin(&options, err)) != CKPT_OK ||
        (code = convert_target_room(job->views.checkpoint->store, beside_bytes(job),
                                    job->options->target, room, err)) != CKPT_OK)
        return code;
    /* Where the result may share blocks with the base, only the run knows what it needs. */
    if (job->options->no_space_check || (base != NULL && file_may_clone(base)))
        return CKPT_OK;
    return convert_require_room(room, job->options->target, room_advice, err);
}

static ckpt_code check_room(apply_job *job, uint64_t rewritten_bytes, ckpt_error *err)
{
    convert_room room;
    const ckpt_code code = convert_store_room(job->store, rewritten_bytes + beside_bytes(job),
                                              job->store->directory, &room, err);

    if (code != CKPT_OK || room.free_bytes >= room.need_bytes)
        return code;
    job->is_refused = 1;
    return convert_require_room(&room, job->options->target, room_advice, err);
}

ckpt_code delta_apply_begin(apply_job *job, ckpt_error *err)
{
    const output_options options = target_options(job);
    uint64_t rewritten_bytes;
    ckpt_code code;

    if ((code = delta_apply_check_target(job, err)) != CKPT_OK ||
        (code = output_begin(&options, &job->output, err)) != CKPT_OK ||
        (code = make_store(job, err)) != CKPT_OK ||
        (code = find_there(job, &rewritten_bytes, err)) != CKPT_OK || job->options->no_space_check)
        return code;
    return check_room(job, rewritten_bytes, err);
}
