/* A folder in memory with the files of a shape, and the checkpoint in it. */
#include "delta_shape.h"

#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"
#include "formats/safetensors.h"
#include "libckpt/array.h"
#include "libckpt/file_ops.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"

typedef struct {
    ckpt_folder base;
    const delta_shape *shape;
    const ckpt_folder *real;        /* that of the base */
    char path[];
} shape_folder;

typedef struct {
    ckpt_file base;
    const shape_file *file;
    char path[];
} open_file;

/* ---- files ---- */

/* The first run that ends behind `offset`. */
static size_t run_at(const shape_file *f, uint64_t offset)
{
    size_t low = 0;
    size_t high = f->run_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (f->runs[middle].offset + f->runs[middle].bytes <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Read from the header, the base, or nothing, which is zeros. */
static ckpt_code read_bytes(const shape_file *f, uint64_t offset, char *out, uint64_t size,
                            ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (offset < f->header_bytes) {
        const uint64_t take = size_min(size, f->header_bytes - offset);

        memcpy(out, f->header + offset, take);
        out += take;
        offset += take;
        size -= take;
    }
    for (size_t i = run_at(f, offset); size > 0 && code == CKPT_OK;) {
        const shape_run *run = i < f->run_count ? &f->runs[i] : NULL;
        const int is_inside = run != NULL && run->offset <= offset;
        const uint64_t left = run == NULL ? size
                              : is_inside ? run->offset + run->bytes - offset
                                          : run->offset - offset;
        const uint64_t take = size_min(size, left);

        if (is_inside)
            code = file_read_at(run->from, run->from_offset + (offset - run->offset), out, take,
                                err);
        else
            memset(out, 0, take);
        out += take;
        offset += take;
        size -= take;
        i += is_inside && take == left;
    }
    return code;
}

static ckpt_code read_runs(const ckpt_file *self, file_runs *runs, ckpt_error *err)
{
    const shape_file *f = ((const open_file *)self)->file;
    uint64_t offset = runs->offset;
    ckpt_code code = CKPT_OK;

    if (offset > self->size || runs->size_bytes > self->size - offset)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends %llu bytes early", self->path,
                         (unsigned long long)(offset + runs->size_bytes - self->size));
    for (int i = 0; i < runs->count && code == CKPT_OK; i++) {
        code = read_bytes(f, offset, runs->memory[i].iov_base, runs->memory[i].iov_len, err);
        offset += runs->memory[i].iov_len;
    }
    return code;
}

/* The files of the base are checked by whoever opened it. */
static ckpt_code check_file(const ckpt_file *self, int *is_touched, ckpt_error *err)
{
    (void)self;
    (void)err;
    if (is_touched != NULL)
        *is_touched = 0;
    return CKPT_OK;
}

static ckpt_code close_file(ckpt_file *self, ckpt_error *err)
{
    (void)err;
    free(self);
    return CKPT_OK;
}

/* ---- the folder ---- */

static const shape_file *find_file(const delta_shape *s, const char *name)
{
    for (size_t i = 0; i < s->file_count; i++)
        if (strcmp(s->files[i].name, name) == 0)
            return &s->files[i];
    return NULL;
}

static shape_other *find_other(const delta_shape *s, const char *name)
{
    for (size_t i = 0; i < s->other_count; i++)
        if (strcmp(s->others[i].name, name) == 0)
            return &s->others[i];
    return NULL;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void sort_names(file_list *names)
{
    if (names->count > 0)
        qsort(names->names, names->count, sizeof *names->names, compare_names);
}

static ckpt_code list_tree(const ckpt_folder *self, file_list *out, ckpt_error *err)
{
    const delta_shape *s = ((const shape_folder *)self)->shape;
    ckpt_code code = CKPT_OK;

    *out = (file_list){ NULL, 0 };
    for (size_t i = 0; i < s->file_count && code == CKPT_OK; i++)
        code = file_list_add(out, s->files[i].name, err);
    for (size_t i = 0; i < s->other_count && code == CKPT_OK; i++)
        code = file_list_add(out, s->others[i].name, err);
    if (code == CKPT_OK)
        sort_names(out);
    return code;
}

/* Names in the folder itself; those of one sub-folder follow each other once they are sorted. */
static ckpt_code list(const ckpt_folder *self, folder_visit_fn *visit, void *context,
                      ckpt_error *err)
{
    file_list names = { NULL, 0 };
    char *last = NULL;
    ckpt_code code = list_tree(self, &names, err);

    for (size_t i = 0; i < names.count && code == CKPT_OK; i++) {
        char *part = strndup(names.names[i], strcspn(names.names[i], "/"));
        int is_over = 0;

        if (part == NULL)
            code = ckpt_fail_memory(err, names.names[i], strlen(names.names[i]));
        else if (last == NULL || strcmp(last, part) != 0)
            is_over = visit(context, part);
        free(last);
        last = part;
        if (is_over)
            break;
    }
    free(last);
    file_list_free(&names);
    return code;
}

static int has(const ckpt_folder *self, const char *name)
{
    const delta_shape *s = ((const shape_folder *)self)->shape;
    const size_t size = strlen(name);

    if (find_file(s, name) != NULL || find_other(s, name) != NULL)
        return 1;
    for (size_t i = 0; i < s->other_count; i++)
        if (strncmp(s->others[i].name, name, size) == 0 && s->others[i].name[size] == '/')
            return 1;
    return 0;
}

static ckpt_code open_weights(const ckpt_folder *self, const shape_file *file, ckpt_file **out,
                              ckpt_error *err)
{
    static const file_ops ops = { read_runs, check_file, close_file };
    const size_t path_bytes = strlen(self->path) + 1 + strlen(file->name) + 1;
    open_file *f = malloc(sizeof *f + path_bytes);

    if (f == NULL)
        return ckpt_fail_memory(err, file->name, sizeof *f + path_bytes);
    memcpy(f->path, self->path, strlen(self->path));
    f->path[strlen(self->path)] = '/';
    memcpy(f->path + strlen(self->path) + 1, file->name, strlen(file->name) + 1);
    f->file = file;
    f->base = (ckpt_file){ .ops = &ops, .path = f->path, .size = file->bytes };
    *out = &f->base;
    return CKPT_OK;
}

static ckpt_code fail_absent(const ckpt_folder *self, const char *name, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': '%s' in the shape of the delta has no such "
                     "file", name, self->path);
}

static ckpt_code open_named(const ckpt_folder *self, const char *name, ckpt_file **out,
                            ckpt_error *err)
{
    const delta_shape *s = ((const shape_folder *)self)->shape;
    const shape_file *file = find_file(s, name);
    const shape_other *other = find_other(s, name);

    if (file != NULL)
        return open_weights(self, file, out, err);
    return other == NULL ? fail_absent(self, name, err)
                         : folder_open_file(other->folder, other->as, out, err);
}

static ckpt_code read_named(const ckpt_folder *self, const char *name, uint64_t max_bytes,
                            char **out, size_t *size, ckpt_error *err)
{
    const shape_other *other = find_other(((const shape_folder *)self)->shape, name);

    *out = NULL;
    *size = 0;
    return other == NULL ? fail_absent(self, name, err)
                         : other->folder->ops->read_all(other->folder, other->as, max_bytes, out,
                                                        size, err);
}

static ckpt_code copy_named(const ckpt_folder *self, const char *name, const char *to,
                            ckpt_error *err)
{
    const shape_other *other = find_other(((const shape_folder *)self)->shape, name);

    return other == NULL ? fail_absent(self, name, err)
                         : folder_copy(other->folder, other->as, to, err);
}

static ckpt_code enter(const ckpt_folder *self, const char *name, ckpt_folder **out,
                       ckpt_error *err)
{
    return folder_enter(((const shape_folder *)self)->real, name, out, err);
}

static void close_folder(ckpt_folder *self)
{
    free(self);
}

static ckpt_code make_folder(const delta_shape *shape, const ckpt_checkpoint *base,
                             ckpt_folder **out, ckpt_error *err)
{
    static const folder_ops ops = { .list = list, .list_tree = list_tree, .has = has,
                                    .open = open_named, .read_all = read_named,
                                    .copy = copy_named, .enter = enter, .close = close_folder };
    const char *path = folder_path(base->place.folder);
    shape_folder *f = malloc(sizeof *f + strlen(path) + 1);

    if (f == NULL)
        return ckpt_fail_memory(err, "a folder", sizeof *f + strlen(path));
    memcpy(f->path, path, strlen(path) + 1);
    f->shape = shape;
    f->real = base->place.folder;
    f->base = (ckpt_folder){ .ops = &ops, .path = f->path };
    *out = &f->base;
    return CKPT_OK;
}

/* ---- making a shape ---- */

ckpt_code delta_shape_add(delta_shape *s, const char *name, shape_file *file, ckpt_error *err)
{
    shape_file *more = array_room(s->files, s->file_count, sizeof *more, "a list of files", err);

    if (more == NULL) {
        free(file->header);
        return CKPT_E_MEMORY;
    }
    s->files = more;
    if ((file->name = strdup(name)) == NULL) {
        free(file->header);
        return ckpt_fail_memory(err, name, strlen(name));
    }
    s->held_bytes += file->header_bytes;
    more[s->file_count++] = *file;
    return CKPT_OK;
}

ckpt_code delta_shape_put(delta_shape *s, const char *name, const ckpt_folder *folder,
                          const char *as, ckpt_error *err)
{
    shape_other *o = find_other(s, name);
    shape_other *more;

    if (o != NULL) {
        free(o->name);
        free(o->as);
        *o = s->others[--s->other_count];
    }
    if (folder == NULL)
        return CKPT_OK;
    if ((more = array_room(s->others, s->other_count, sizeof *more, "a list of files", err)) ==
        NULL)
        return CKPT_E_MEMORY;
    s->others = more;
    o = &more[s->other_count];
    *o = (shape_other){ strdup(name), folder, strdup(as) };
    if (o->name == NULL || o->as == NULL) {
        free(o->name);
        free(o->as);
        return ckpt_fail_memory(err, name, strlen(name));
    }
    s->other_count++;
    return CKPT_OK;
}

ckpt_code delta_shape_header(const ckpt_checkpoint *c, size_t i, char **out, ckpt_error *err)
{
    const store_file *f = &c->store->files[i];
    ckpt_code code;

    *out = NULL;
    if (!memory_has(f->header_bytes) || (*out = malloc(f->header_bytes + 1)) == NULL)
        return ckpt_fail_memory(err, f->name, f->header_bytes);
    if ((code = file_read_at(f->file, 0, *out, f->header_bytes, err)) != CKPT_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}

ckpt_code delta_shape_take(delta_shape *s, const ckpt_checkpoint *c, ckpt_error *err)
{
    static const char *const always[] = { "config.json", HF_INDEX_FILE };
    const ckpt_folder *folder = c->place.folder;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < c->store->file_count && code == CKPT_OK; i++) {
        shape_file file = { .header_bytes = c->store->files[i].header_bytes,
                            .bytes = c->store->files[i].size_bytes };

        if ((code = delta_shape_header(c, i, &file.header, err)) == CKPT_OK)
            code = delta_shape_add(s, c->store->files[i].name, &file, err);
    }
    for (size_t i = 0; i < 2 && code == CKPT_OK; i++)
        if (folder_has(folder, always[i]))
            code = delta_shape_put(s, always[i], folder, always[i], err);
    for (size_t i = 0; i < c->extras.count && code == CKPT_OK; i++)
        code = delta_shape_put(s, c->extras.names[i], folder, c->extras.names[i], err);
    return code;
}

/* ---- opening it ---- */

/* Read the headers, as those of any files. */
static ckpt_code read_headers(const delta_shape *s, ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < s->file_count && code == CKPT_OK; i++) {
        uint32_t number;

        if ((code = store_add_file(store, s->files[i].name, &number, err)) == CKPT_OK)
            code = safetensors_read(store, number, err);
        if (code == CKPT_OK && store->files[number].header_bytes != s->files[i].header_bytes)
            code = ckpt_fail(err, CKPT_E_FORMAT, "the header of '%s' has %zu bytes, expected %zu",
                             s->files[i].name, s->files[i].header_bytes,
                             store->files[number].header_bytes);
    }
    return code;
}

static int compare_runs(const void *left, const void *right)
{
    const uint64_t a = ((const shape_run *)left)->offset;
    const uint64_t b = ((const shape_run *)right)->offset;

    return (a > b) - (a < b);
}

static ckpt_code add_run(shape_file *f, const ckpt_tensor *t, const ckpt_tensor *from,
                         const ckpt_store *base, ckpt_error *err)
{
    shape_run *more;

    if (ckpt_part_bytes(t, CKPT_DATA) == 0)
        return CKPT_OK;
    if ((more = array_room(f->runs, f->run_count, sizeof *more, "a list of tensors", err)) == NULL)
        return CKPT_E_MEMORY;
    f->runs = more;
    more[f->run_count++] = (shape_run){ t->offset, ckpt_part_bytes(t, CKPT_DATA),
                                        base->files[from->file].file, from->offset };
    return CKPT_OK;
}

static ckpt_code place_tensors(delta_shape *s, const ckpt_store *store, const ckpt_store *base,
                               ckpt_error *err)
{
    const ckpt_catalog *shaped = store->catalog;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(shaped) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(shaped, i);
        const int64_t from = catalog_find_same(base->catalog, t);

        code = from < 0 ? file_list_add(&s->added, t->name, err)
                        : add_run(&s->files[t->file], t,
                                  ckpt_catalog_at(base->catalog, (size_t)from), base, err);
    }
    for (size_t i = 0; i < ckpt_catalog_count(base->catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(base->catalog, i);

        if (catalog_find_same(shaped, t) < 0)
            code = file_list_add(&s->removed, t->name, err);
    }
    for (size_t i = 0; i < s->file_count; i++)
        if (s->files[i].run_count > 0)
            qsort(s->files[i].runs, s->files[i].run_count, sizeof(shape_run), compare_runs);
    if (code == CKPT_OK) {
        sort_names(&s->added);
        sort_names(&s->removed);
    }
    return code;
}

/* Opens one place. */
typedef struct {
    struct ckpt_places base;
    const delta_shape *shape;
    const ckpt_checkpoint *real;
} shape_places;

static int knows_all(const char *path)
{
    (void)path;
    return 1;
}

static ckpt_code open_place(const struct ckpt_places *self, const char *path, folder_place *out,
                            ckpt_error *err)
{
    const shape_places *places = (const shape_places *)self;

    *out = (folder_place){ .path = strdup(path) };
    return out->path == NULL ? ckpt_fail_memory(err, "a path", strlen(path))
                             : make_folder(places->shape, places->real, &out->folder, err);
}

ckpt_code delta_shape_open(delta_shape *s, const ckpt_checkpoint *base,
                           const ckpt_open_options *open, ckpt_checkpoint **out, ckpt_error *err)
{
    const shape_places places = { { knows_all, open_place }, s, base };
    ckpt_open_options with = *open;
    ckpt_folder *folder = NULL;
    ckpt_store *store = NULL;
    ckpt_code code = make_folder(s, base, &folder, err);

    if (code == CKPT_OK && (store = store_create_in(folder)) == NULL)
        code = ckpt_fail_memory(err, "a checkpoint", sizeof *store);
    if (code == CKPT_OK && (code = read_headers(s, store, err)) == CKPT_OK)
        code = place_tensors(s, store, base->store, err);
    store_free(store);
    folder_close(folder);
    with.places = &places.base;
    return code == CKPT_OK ? ckpt_open(base->place.path, &with, out, err) : code;
}

void delta_shape_release(delta_shape *s)
{
    for (size_t i = 0; i < s->file_count; i++) {
        free(s->files[i].name);
        free(s->files[i].header);
        free(s->files[i].runs);
    }
    for (size_t i = 0; i < s->other_count; i++) {
        free(s->others[i].name);
        free(s->others[i].as);
    }
    free(s->files);
    free(s->others);
    file_list_free(&s->added);
    file_list_free(&s->removed);
    *s = (delta_shape){ .file_count = 0 };
}
