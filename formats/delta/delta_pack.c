/* Packs checkpoints, and unpacks them. */
#include "delta_pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "delta_model.h"
#include "formats/convert/convert_plan.h"
#include "formats/notes.h"
#include "libckpt/array.h"
#include "libckpt/digest.h"
#include "libckpt/options.h"
#include "libckpt/output.h"
#include "libckpt/packed.h"
#include "libckpt/size.h"

/* A run of another kind that is smaller goes with the bytes before it. */
enum { RUN_BYTES_MIN = 1 << 15 };

/* ---- the bytes of one file, by kind ---- */

typedef struct {
    packed_run *runs;
    size_t count;
} run_list;

typedef struct {
    uint64_t offset;
    packed_run run;
} span;

/* Tables of numbers repeat themselves; weights do not. */
static zblock_content content_of(const ckpt_tensor *t)
{
    switch (t->dtype) {
    case CKPT_I16:
    case CKPT_I32:
    case CKPT_I64:
    case CKPT_F64:
    case CKPT_BOOL: return ZBLOCK_ANY;
    default:        return ZBLOCK_WEIGHTS;
    }
}

static planes_kind kind_of(const ckpt_tensor *t)
{
    if (t->stored_form != CKPT_FORM_APART)
        return PLANES_NONE;
    switch (t->dtype) {
    case CKPT_BF16: return PLANES_BF16;
    case CKPT_F32:  return PLANES_F32;
    case CKPT_F16:
    case CKPT_I16:  return PLANES_2;
    case CKPT_I32:  return PLANES_4;
    case CKPT_F64:
    case CKPT_I64:  return PLANES_8;
    default:        return PLANES_NONE;
    }
}

/* A run ends where its planes would not line up with the elements behind it. */
static ckpt_code add_run(run_list *list, packed_run run, ckpt_error *err)
{
    enum { WIDTH_MAX = 8 };
    packed_run *last = list->count == 0 ? NULL : &list->runs[list->count - 1];
    packed_run *more;

    if (run.bytes == 0)
        return CKPT_OK;
    if (last != NULL && (run.bytes < RUN_BYTES_MIN ||
                         (last->kind == run.kind && last->content == run.content &&
                          last->bytes % WIDTH_MAX == 0))) {
        last->bytes += run.bytes;
        return CKPT_OK;
    }
    if ((more = array_room(list->runs, list->count, sizeof *more, "a list of bytes", err)) == NULL)
        return CKPT_E_MEMORY;
    list->runs = more;
    more[list->count++] = run;
    return CKPT_OK;
}

static int compare_spans(const void *left, const void *right)
{
    const span *a = left;
    const span *b = right;

    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Runs of a file of `size` bytes with these tensors; what is between them is of no kind. */
static ckpt_code make_runs(span *spans, size_t count, uint64_t size, run_list *out, ckpt_error *err)
{
    uint64_t at = 0;
    ckpt_code code = CKPT_OK;

    if (count > 0)
        qsort(spans, count, sizeof *spans, compare_spans);
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        const packed_run gap = { spans[i].offset - at, PLANES_NONE, ZBLOCK_ANY };

        if (spans[i].offset < at || spans[i].run.bytes > size - spans[i].offset)
            continue;                       /* bytes that two tensors share: already in a run */
        if ((code = add_run(out, gap, err)) == CKPT_OK)
            code = add_run(out, spans[i].run, err);
        at = spans[i].offset + spans[i].run.bytes;
    }
    return code == CKPT_OK
               ? add_run(out, (packed_run){ size - at, PLANES_NONE, ZBLOCK_ANY }, err) : code;
}

/* ---- packing ---- */

typedef struct {
    const pack_options *options;
    pack_outcome *out;
    ckpt_checkpoint *checkpoint;
    file_list names;
    span *spans;                    /* of all tensors, by file */
    size_t *first;                  /* by file of the store, and the end */
    ckpt_file *to;                  /* PACKED.partial */
    int lock;                       /* of it; -1: not open */
    packed_writer *writer;
} pack_job;

/* The tensors of each file, in one list. */
static ckpt_code list_spans(pack_job *job, ckpt_error *err)
{
    const ckpt_store *store = job->checkpoint->store;
    const size_t count = ckpt_catalog_count(store->catalog);

    job->spans = calloc(count + 1, sizeof *job->spans);
    job->first = calloc(store->file_count + 2, sizeof *job->first);
    if (job->spans == NULL || job->first == NULL)
        return ckpt_fail_memory(err, "a list of tensors", count);
    for (size_t i = 0; i < count; i++)
        job->first[ckpt_catalog_at(store->catalog, i)->file + 2]++;
    for (size_t f = 2; f < store->file_count + 2; f++)
        job->first[f] += job->first[f - 1];
    for (size_t i = 0; i < count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(store->catalog, i);

        job->spans[job->first[t->file + 1]++] = (span){
            t->offset, { ckpt_tensor_bytes(t), kind_of(t), content_of(t) } };
    }
    return CKPT_OK;
}

/* The file of the store that has this name in the checkpoint's folder; file_count: none. */
static size_t find_file(const ckpt_checkpoint *c, const char *name)
{
    const char *root = folder_path(c->place.folder);
    const char *data = folder_path(c->store->folder);
    const size_t root_bytes = strlen(root);
    const char *prefix = strncmp(root, data, root_bytes) == 0 ? data + root_bytes : "";
    size_t i;

    prefix += prefix[0] == '/';
    if (prefix[0] != '\0' && strncmp(name, prefix, strlen(prefix)) == 0)
        name += strlen(prefix) + (name[strlen(prefix)] == '/');
    for (i = 0; i < c->store->file_count; i++)
        if (strcmp(c->store->files[i].name, name) == 0)
            break;
    return i;
}

static ckpt_code add_file(pack_job *job, const char *name, ckpt_error *err)
{
    const ckpt_checkpoint *c = job->checkpoint;
    const size_t f = find_file(c, name);
    const int has_tensors = f < c->store->file_count;
    const size_t begin = has_tensors ? job->first[f] : 0;
    run_list runs = { NULL, 0 };
    ckpt_file *file = NULL;
    ckpt_code code;

    if ((code = folder_open_file(c->place.folder, name, &file, err)) == CKPT_OK) {
        job->out->bytes += file_size(file);
        job->out->file_count++;
        code = make_runs(job->spans + begin, has_tensors ? job->first[f + 1] - begin : 0,
                         file_size(file), &runs, err);
    }
    file_close(file, NULL);
    if (code == CKPT_OK && !job->options->dry_run)
        code = packed_writer_add(job->writer, c->place.folder, name, runs.runs, runs.count, err);
    free(runs.runs);
    return code;
}

/* All files of the folder, or the one that was named. */
static ckpt_code list_names(pack_job *job, ckpt_error *err)
{
    const folder_place *place = &job->checkpoint->place;

    return place->name != NULL ? file_list_add(&job->names, place->name, err)
                               : folder_list_tree(place->folder, &job->names, err);
}

/* 1 for a name that file_list_tree leaves out. */
static int is_hidden(const char *name)
{
    const char *last = strrchr(name, '/');

    last = last == NULL ? name : last + 1;
    for (const char *at = name; at < last; at = strchr(at, '/') + 1)
        if (at[0] == '.')
            return 1;
    return last[0] == '.' && strcmp(last, ".metadata") != 0;
}

/* As in every copy of a checkpoint, hidden files are left out; but a packed file may be all that
 * is kept, so it is told. */
static ckpt_code note_left_out(pack_job *job, ckpt_error *err)
{
    const folder_place *place = &job->checkpoint->place;
    const char *first = NULL;
    file_list all = { NULL, 0 };
    size_t count = 0;
    ckpt_code code;

    if (place->name != NULL || !file_is_directory(place->path))
        return CKPT_OK;
    code = file_list_everything(place->path, &all, err);
    for (size_t i = 0; i < all.count && code == CKPT_OK; i++)
        if (is_hidden(all.names[i])) {
            first = first == NULL ? all.names[i] : first;
            count++;
        }
    if (count > 0)
        code = note_add(&job->out->notes, err, "hidden files are left out: %zu, the first is '%s'",
                        count, first);
    file_list_free(&all);
    return code;
}

/* The packed file holds what it is made of: damage can be found in it as before. */
static ckpt_code note_other_root(pack_job *job, ckpt_error *err)
{
    const char *stored = checkpoint_stored_root(job->checkpoint);
    const char *root = job->out->roots.all;

    if (stored == NULL || strcmp(stored, root) == 0)
        return CKPT_OK;
    if (root[0] == '\0')
        return checkpoint_note_root(job->checkpoint, "the values have no digest",
                                    &job->out->notes, err);
    return note_add(&job->out->notes, err, "the key %s of '%s' says %s: the values changed since "
                    "it was written, and are packed as they are",
                    checkpoint_root_key(job->checkpoint), job->options->source, stored);
}

/* Read all of the packed file, as any reader will: chunks are compared with their hashes. */
static ckpt_code read_back(pack_job *job, ckpt_error *err)
{
    ckpt_run_options run = job->options->run;
    ckpt_checkpoint *packed = NULL;
    ckpt_digest *digest = NULL;
    ckpt_code code = ckpt_open(file_path(job->to), &job->options->open, &packed, err);

    if (code == CKPT_OK) {
        const delta_model model = { .in = delta_input_of(packed) };

        run.fixed_bytes += ckpt_checkpoint_bytes(job->checkpoint) + ckpt_checkpoint_bytes(packed);
        run_begin_phase(&run, "verifying", 0);
        if (delta_model_has_digest(&model) &&
            (code = ckpt_digest_source(packed->logical, &run, &digest, err)) == CKPT_OK)
            code = delta_digest_roots(digest, &job->out->roots, err);
    }
    ckpt_digest_free(digest);
    ckpt_close(packed);
    return code;
}

static ckpt_code write_packed(pack_job *job, ckpt_error *err)
{
    ckpt_run_options run = job->options->run;
    /* Another root is of names or values that only these options make. */
    const int is_plain = checkpoint_is_plain(&job->options->open);
    const delta_roots *roots = &job->out->roots;
    int is_touched = 0;
    ckpt_code code;

    run.fixed_bytes += ckpt_checkpoint_bytes(job->checkpoint);
    if ((code = packed_writer_run(job->writer, &run, err)) != CKPT_OK ||
        (code = packed_writer_seal(job->writer, "", "", &job->out->packed_bytes, err)) !=
            CKPT_OK ||
        (code = read_back(job, err)) != CKPT_OK ||
        (code = note_other_root(job, err)) != CKPT_OK ||
        (code = packed_writer_seal(job->writer, is_plain ? roots->all : "",
                                   is_plain ? roots->main : "", &job->out->packed_bytes,
                                   err)) != CKPT_OK)
        return code;
    return store_check_unchanged(job->checkpoint->store, &is_touched, err);
}

static ckpt_code check_target(const pack_options *o, ckpt_error *err)
{
    ckpt_code code;

    if (file_exists(o->target))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists: move it away or choose another "
                         "name", o->target);
    if ((code = file_check_name(o->target, strlen(".partial"), err)) != CKPT_OK ||
        (code = file_check_place(o->target, err)) != CKPT_OK ||
        (code = output_check_ending(o->target, "a packed checkpoint", err)) != CKPT_OK)
        return code;
    return output_check_apart(o->target, o->source, err);
}

/* What a run that was killed has left at `path`: a packed file, or one whose head was not written
 * yet. */
static ckpt_code check_leftover(const char *path, const ckpt_file *file, ckpt_error *err)
{
    uint64_t head = 0;
    ckpt_code code = CKPT_OK;

    if (file_size(file) >= sizeof head)
        code = file_read_at(file, 0, &head, sizeof head, err);
    if (code != CKPT_OK || packed_detect(path) ||
        (head == 0 && (file_size(file) == 0 || file_size(file) >= sizeof head)))
        return code;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' is in the way: expected what a killed run leaves; "
                     "move it away", path);
}

/* Open PACKED.partial, which a killed run may have left; the lock tells it from one that runs. */
static ckpt_code open_partial(pack_job *job, char *partial, ckpt_error *err)
{
    char *slash = strrchr(partial, '/');
    const size_t folder_bytes = slash == NULL ? 0 : size_max(1, (size_t)(slash - partial));
    char *folder = slash == NULL ? strdup(".") : strndup(partial, folder_bytes);
    const char *name = slash == NULL ? partial : slash + 1;
    ckpt_code code;

    if (folder == NULL)
        return ckpt_fail_memory(err, "a path", strlen(partial));
    if ((code = file_open_below(folder, name, O_RDWR | O_CREAT, &job->lock, err)) == CKPT_OK &&
        file_lock(job->lock, LOCK_EX | LOCK_NB) != FILE_LOCKED)
        code = ckpt_fail(err, CKPT_E_IO, "cannot write '%s': another process is writing it",
                         partial);
    if (code == CKPT_OK && (code = file_open_rw(folder, name, &job->to, err)) == CKPT_OK) {
        if ((code = check_leftover(partial, job->to, err)) == CKPT_OK) {
            code = file_set_size(job->to, 0, err);
        } else {
            file_close(job->to, NULL);              /* not ours: it stays */
            job->to = NULL;
        }
    }
    free(folder);
    return code;
}

static ckpt_code begin_packed(pack_job *job, ckpt_error *err)
{
    char *partial = output_partial(job->options->target);
    ckpt_code code;

    if (partial == NULL)
        return ckpt_fail_memory(err, "a path", strlen(job->options->target));
    /* Another run may have ended since the target was looked for. */
    if ((code = open_partial(job, partial, err)) == CKPT_OK &&
        (code = check_target(job->options, err)) == CKPT_OK)
        code = packed_writer_create(job->to, job->options->level, &job->writer, err);
    free(partial);
    return code;
}

/* What open_partial would refuse of a PACKED.partial. */
static ckpt_code check_partial(const pack_options *o, ckpt_error *err)
{
    char *partial = output_partial(o->target);
    ckpt_file *file = NULL;
    ckpt_code code = CKPT_OK;

    if (partial == NULL)
        return ckpt_fail_memory(err, "a path", strlen(o->target));
    if (file_exists(partial) && (code = file_open(partial, &file, err)) == CKPT_OK)
        code = check_leftover(partial, file, err);
    file_close(file, NULL);
    free(partial);
    return code;
}

static ckpt_code pack(pack_job *job, ckpt_error *err)
{
    const pack_options *o = job->options;
    ckpt_code code;

    if ((code = check_target(o, err)) != CKPT_OK ||
        (code = ckpt_open(o->source, &o->open, &job->checkpoint, err)) != CKPT_OK ||
        (code = note_left_out(job, err)) != CKPT_OK ||
        (code = list_names(job, err)) != CKPT_OK || (code = list_spans(job, err)) != CKPT_OK)
        return code;
    code = o->dry_run ? check_partial(o, err) : begin_packed(job, err);
    for (size_t i = 0; i < job->names.count && code == CKPT_OK; i++)
        code = add_file(job, job->names.names[i], err);
    return code != CKPT_OK || o->dry_run ? code : write_packed(job, err);
}

ckpt_code delta_pack(const pack_options *options, pack_outcome *out, ckpt_error *err)
{
    pack_job job = { .options = options, .out = out, .lock = -1 };
    ckpt_code code;

    *out = (pack_outcome){ .file_count = 0 };
    code = pack(&job, err);
    packed_writer_free(job.writer);
    if (code == CKPT_OK && job.to != NULL)
        code = file_commit_replacing(job.to, options->target, err);
    else
        file_abort_replacing(job.to);
    if (job.lock >= 0)
        close(job.lock);
    ckpt_close(job.checkpoint);
    file_list_free(&job.names);
    free(job.spans);
    free(job.first);
    return code;
}

/* ---- unpacking ---- */

static ckpt_code copy_files(const folder_place *place, const file_list *names,
                            const char *directory, const pack_options *o, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < names->count && code == CKPT_OK; i++) {
        char *to = file_join(directory, names->names[i]);

        if (to == NULL)
            return ckpt_fail_memory(err, "a path", strlen(directory));
        if (o->run.cancel != NULL && o->run.cancel(o->run.context))
            code = ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted");
        else if ((code = file_make_parents_below(directory, names->names[i], err)) == CKPT_OK)
            code = folder_copy(place->folder, names->names[i], to, err);
        free(to);
    }
    return code;
}

/* Space for the files, less what an earlier run has written. */
static ckpt_code check_room(const folder_place *place, const file_list *names,
                            const pack_options *o, ckpt_error *err)
{
    ckpt_store *store = store_create(o->target);
    convert_room room;
    ckpt_code code = CKPT_OK;

    if (store == NULL)
        return ckpt_fail_memory(err, "a list of files", names->count);
    for (size_t i = 0; i < names->count && code == CKPT_OK; i++) {
        ckpt_file *file = NULL;
        uint32_t number;

        if ((code = folder_open_file(place->folder, names->names[i], &file, err)) == CKPT_OK &&
            (code = store_add_file(store, names->names[i], &number, err)) == CKPT_OK)
            store->files[number].size_bytes = file_size(file);
        file_close(file, NULL);
    }
    if (code == CKPT_OK && (code = convert_target_room(store, 0, o->target, &room, err)) == CKPT_OK)
        code = convert_require_room(&room, o->target, "", err);
    store_free(store);
    return code;
}

static ckpt_code count_files(const folder_place *place, file_list *names, pack_outcome *out,
                             ckpt_error *err)
{
    ckpt_code code = folder_list_tree(place->folder, names, err);

    out->file_count = names->count;
    for (size_t i = 0; i < names->count && code == CKPT_OK; i++) {
        ckpt_file *file = NULL;

        if ((code = folder_open_file(place->folder, names->names[i], &file, err)) == CKPT_OK)
            out->bytes += file_size(file);
        file_close(file, NULL);
    }
    return code;
}

static ckpt_code unpack(const pack_options *o, const folder_place *place, file_list *names,
                        pack_outcome *out, ckpt_error *err)
{
    output_options target = { .path = o->target, .restart = o->restart, .files = names,
                              .overwrite = OUTPUT_NEVER_REPLACES };
    const hash128 content = packed_hash(place->folder);
    ckpt_output *output = NULL;
    ckpt_code code;

    hash128_mix(&target.fingerprint, "unpack " CKPT_VERSION, sizeof "unpack " CKPT_VERSION);
    hash128_mix(&target.fingerprint, &content, sizeof content);
    if ((code = output_check(o->target, NULL, OUTPUT_NEVER_REPLACES, err)) != CKPT_OK ||
        (code = output_check_apart(o->target, o->source, err)) != CKPT_OK ||
        (code = count_files(place, names, out, err)) != CKPT_OK)
        return code;
    code = o->dry_run ? output_check_begin(&target, err) : output_begin(&target, &output, err);
    if (code != CKPT_OK)
        return code;
    if (!o->no_space_check)
        code = check_room(place, names, o, err);
    if (o->dry_run)
        return code;
    if (code == CKPT_OK &&
        (code = copy_files(place, names, output_directory(output), o, err)) == CKPT_OK)
        return output_commit(output, err);
    if (code == CKPT_E_INTERRUPTED)
        output_close(output);
    else
        output_discard(output, NULL);
    return code;
}

ckpt_code delta_unpack(const pack_options *options, pack_outcome *out, ckpt_error *err)
{
    folder_place place = { NULL, NULL, NULL };
    file_list names = { NULL, 0 };
    ckpt_code code;

    *out = (pack_outcome){ .file_count = 0 };
    if (!packed_detect(options->source))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is not a packed checkpoint (ckpt-delta diff "
                         "--base none makes one)", options->source);
    if ((code = folder_open_place(options->source, &place, err)) == CKPT_OK)
        code = unpack(options, &place, &names, out, err);
    file_list_free(&names);
    folder_place_release(&place);
    return code;
}
